"""The comparison of trees of rows, bit for bit, for assertions."""

from __future__ import annotations

import jax
import numpy as np

from jaxmix._types import PyTree


def compare(name: str, step: int, want: PyTree, got: PyTree, other: str = "eager") -> None:
    """Raise an AssertionError that names the first row that differs in a bit."""
    leaves, structure = jax.tree.flatten_with_path(want)
    if jax.tree.structure(got) != structure:
        raise AssertionError(f"{name}, step {step}: {jax.tree.structure(got)}, {other} {structure}")
    for (path, a), b in zip(leaves, jax.tree.leaves(got), strict=True):
        where = f"{name}, step {step}, leaf {jax.tree_util.keystr(path) or '.'}"
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape or a.dtype != b.dtype:
            raise AssertionError(f"{where}: {b.dtype}{b.shape}, {other} {a.dtype}{a.shape}")
        pairs = zip(a, b, strict=True)
        if a.dtype == object:
            off = np.argwhere([not np.array_equal(x, y) for x, y in pairs])
        else:
            off = np.argwhere([x.tobytes() != y.tobytes() for x, y in pairs])
        if off.size:
            row = int(off[0, 0])
            raise AssertionError(f"{where}: row {row} is {b[row]}, {other} {a[row]}")
