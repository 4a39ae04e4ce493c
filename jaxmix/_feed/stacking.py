"""Examples of one source stacked to arrays [n, ...], with the types of its first row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxmix._checks import need
from jaxmix._feed.row_spec import (
    RAGGED,
    LeafSpec,
    RowSpec,
    need_example,
    row_leaves,
    type_name,
    value_array,
)

Rows = slice | np.ndarray
"""Rows of a source: neighbours as `slice(start, stop)`, others as int64 in any order."""

SCALARS = {
    bool: np.dtype(np.bool_),
    int: np.dtype(np.int64),
    float: np.dtype(np.float64),
    complex: np.dtype(np.complex128),
}
PLAIN = {*SCALARS, str, bytes, np.ndarray}
LEAF = jax.tree.structure(0)


def count_rows(rows: Rows) -> int:
    """The number of these rows."""
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)


def stack_examples(
    examples: Sequence[Any], count: int, spec: RowSpec, name: str
) -> list[np.ndarray]:
    """Stack `count` examples, trees of one structure, leaf by leaf."""
    _check_count(len(examples), count, name)
    if spec.tree == LEAF and set(map(type, examples)) <= PLAIN:  # no trees to flatten
        return [stack_values(examples, spec.leaves[0], name)]
    columns: list[list[Any]] = [[] for _ in spec.leaves]
    for example in examples:
        leaves, tree = row_leaves(example)
        if tree != spec.tree:
            need_example(example, name)
            need(False, f"a row of {name}", f"of the structure of the first, {spec.tree}", tree)
        for column, value in zip(columns, leaves, strict=True):
            column.append(value)
    return [
        stack_values(column, leaf, name) for column, leaf in zip(columns, spec.leaves, strict=True)
    ]


def stack_values(values: Sequence[Any], leaf: LeafSpec, name: str) -> np.ndarray:
    """Stack the values of one leaf: text as objects, numbers in the leaf's dtype."""
    full_name = f"{leaf.name} of {name}"
    kinds = set(map(type, values))
    if kinds <= SCALARS.keys() and isinstance(leaf.type, np.dtype):
        _check_shapes({()}, leaf, full_name)
        _check_types({SCALARS[kind] for kind in kinds}, leaf, full_name)
        try:
            return np.array(values, leaf.type)
        except OverflowError as error:
            raise ValueError(f"{full_name} must be numbers of {leaf.type}, got larger") from error
    if leaf.shape == () and kinds <= {leaf.type}:
        texts = np.empty(len(values), object)
        texts[:] = values
        return texts
    arrays = [value_array(value, full_name) for value in values]
    _check_shapes({array.shape for array in arrays}, leaf, full_name)
    if isinstance(leaf.type, np.dtype):
        _check_types({array.dtype for array in arrays}, leaf, full_name)
        return np.stack(arrays, dtype=leaf.type)
    stacked = np.stack(arrays)
    strange = {type(item) for item in stacked.flat if not isinstance(item, leaf.type)}
    wanted = f"{type_name(leaf)} as in its first row"
    need(not strange, full_name, wanted, sorted(kind.__name__ for kind in strange), TypeError)
    return stacked.astype(object, copy=False)


def check_rows(found: Any, count: int, leaf: LeafSpec, name: str) -> np.ndarray:
    """The rows of one leaf, which were read at once, as an array of the leaf's type; checked."""
    _check_count(len(found), count, name)
    if isinstance(found, np.ndarray) and found.dtype.kind not in "OSUT":
        _check_shapes({found.shape[1:]}, leaf, f"{leaf.name} of {name}")
        _check_types({found.dtype}, leaf, f"{leaf.name} of {name}")
        return found.astype(leaf.type, copy=False)
    values = found.tolist() if isinstance(found, np.ndarray) else list(found)
    return stack_values(values, leaf, name)


def _check_count(found: int, count: int, name: str) -> None:
    need(found == count, name, f"a source that gives the {count} rows asked for", found)


def _check_types(types: set[np.dtype], leaf: LeafSpec, full_name: str) -> None:
    """Raise unless the leaf's dtype holds values of these types exactly."""
    for found in types - {leaf.type}:
        number = isinstance(leaf.type, np.dtype) and found.kind != "b"
        safe = number and np.can_cast(found, leaf.type, "safe")
        wanted = f"{type_name(leaf)} as in its first row (convert all rows to one type)"
        need(safe, full_name, wanted, str(found), TypeError)


def _check_shapes(shapes: set[tuple[int, ...]], leaf: LeafSpec, full_name: str) -> None:
    others = sorted(shapes - {leaf.shape})
    need(not others, full_name, f"{RAGGED}, {leaf.shape} as in its first row", others)
