"""Checks of what a user passes, all with one form of message: name, what is needed, what came."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer


def need(ok: bool, name: str, needed: str, got: Any, error: type[Exception] = ValueError) -> None:
    """Raise `error("<name> must be <needed>, got <got>")` unless `ok`."""
    if not ok:
        raise error(f"{name} must be {needed}, got {got!r}")


def is_concrete(value: Any) -> bool:
    """True if the numbers in `value` can be read now, False for an array that is being traced."""
    return not isinstance(value, Tracer)


def whole_number(name: str, value: Any, minimum: int) -> int:
    """`value` as an int, at least `minimum`; bools, floats and arrays that are no scalar raise."""
    ok = isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_)
    need(ok, name, f"an integer >= {minimum}", value, TypeError)
    need(int(value) >= minimum, name, f">= {minimum}", value)
    return int(value)


def real_number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False
) -> float:
    """`value` as a finite float in [low, high], or in (low, high] with `open_low`."""
    ok = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    if not ok and is_concrete(value) and getattr(value, "shape", None) == ():
        ok = np.issubdtype(np.asarray(value).dtype, np.number)
    need(ok, name, "a number", value, TypeError)
    number = float(value)
    inside = (low < number if open_low else low <= number) and number <= high
    if math.isinf(low) and math.isinf(high):
        needed = "finite"
    else:
        needed = f"in {'(' if open_low else '['}{low:g}, {high:g}{')' if math.isinf(high) else ']'}"
    need(inside and math.isfinite(number), name, needed, number)
    return number


def source_names(names: Sequence[str] | None, num_sources: int) -> list[str]:
    """The names of the sources; "0", "1", ... if not given."""
    is_list = names is None or (isinstance(names, Sequence) and not isinstance(names, str))
    need(is_list, "names", "a sequence of names", names, TypeError)
    labels = list(map(str, range(num_sources) if names is None else names))
    fine = len(set(labels)) == len(labels) == num_sources
    need(fine, "names", f"{num_sources} different names", labels)
    return labels


def source_lengths(lengths: Sequence[int], num_sources: int, minimum: int = 1) -> list[int]:
    """The rows in one epoch of each source, as ints."""
    is_list = isinstance(lengths, Sequence | np.ndarray) and np.ndim(lengths) == 1
    need(is_list, "lengths", "a sequence of numbers", lengths, TypeError)
    sizes = [whole_number("a length", size, minimum) for size in lengths]
    need(len(sizes) == num_sources, "lengths", f"{num_sources} numbers, one a source", sizes)
    return sizes


def leaf_name(path: tuple[Any, ...]) -> str:
    """What a leaf is called in messages: `leaf ['image']`, `leaf .x[0]` or, alone, `the array`."""
    return f"leaf {jax.tree_util.keystr(path)}" if path else "the array"


def check_alike(trees: tuple[Any, ...], *, skip_axes: int = 0) -> None:
    """Raise unless the trees, one a source, have one structure and leaves of equal shape and dtype.

    The first `skip_axes` axes of a leaf may have any size.
    """
    need(len(trees) > 0, "the number of sources", ">= 1", 0)
    first, structure = jax.tree.flatten_with_path(trees[0])
    need(len(first) > 0, "source 0", "a tree with at least one array", trees[0])
    for k, tree in enumerate(trees):
        leaves, other = jax.tree.flatten(tree)
        need(other == structure, f"source {k}", f"of the structure of source 0, {structure}", other)
        for (path, model), leaf in zip(first, leaves, strict=True):
            name = f"{leaf_name(path)} of source {k}"
            need(hasattr(leaf, "dtype"), name, "an array", leaf, TypeError)
            need(
                leaf.dtype == model.dtype,
                name,
                f"{model.dtype} as in source 0",
                leaf.dtype,
                TypeError,
            )
            need(len(leaf.shape) >= skip_axes, name, f"of rank {skip_axes} or more", leaf.shape)
            same = leaf.shape[skip_axes:] == model.shape[skip_axes:]
            ranks = len(leaf.shape) == len(model.shape)
            need(same and ranks, name, f"of shape {model.shape} as in source 0", leaf.shape)
