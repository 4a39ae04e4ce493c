"""Rows of one source, whatever holds them: arrays, lists, grain or HuggingFace datasets."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmix._checks import leaf_name, need

RowNumbers = range | np.ndarray
"""Rising rows of a source counted through all epochs, a range where they are neighbours."""


class RowSpec(NamedTuple):
    """What the rows of two sources must share: the structure, and the type and shape of each leaf.

    A text has the type "U" or "S", whatever its width.
    """

    tree: Any
    leaves: tuple[tuple[Any, tuple[int, ...]], ...]


Reader = Callable[[RowNumbers], tuple[list[np.ndarray], RowSpec]]
"""From n places to the leaves [n, ...] and their row_spec."""


def make_reader(source: Any, name: str) -> tuple[int, Reader]:
    """The length of a source and how to read it.

    An array or a tree of arrays of one length is read by slice or index array, a HuggingFace
    dataset too, and a list by slice. Any other object with `len` and `[i]` is read row by row: a
    grain MapDataset at the place itself, so that each epoch has its own shuffle, others modulo the
    length.
    """
    leaves, tree = ([], None) if isinstance(source, list) else jax.tree.flatten(source)
    if leaves and all(hasattr(leaf, "dtype") and len(leaf.shape) > 0 for leaf in leaves):
        lengths = {leaf.shape[0] for leaf in leaves}
        need(len(lengths) == 1, name, "a tree of arrays of one length", sorted(lengths))
        return lengths.pop(), functools.partial(_read_arrays, leaves, _row_spec(leaves, tree))
    ok = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    need(ok and not isinstance(source, dict), name, "arrays or rows by `[i]`", source, TypeError)
    if hasattr(source, "column_names"):
        read = _read_columns
    elif isinstance(source, list | tuple | range):
        read = _read_list
    else:
        read = _read_rows
    return len(source), functools.partial(read, source, name)


def _read_arrays(
    leaves: list[Any], row_spec: RowSpec, places: RowNumbers
) -> tuple[list[np.ndarray], RowSpec]:
    length = leaves[0].shape[0]
    parts = _by_epoch(places, length)
    if len(parts) == 1:
        return [np.asarray(leaf[parts[0]]) for leaf in leaves], row_spec
    return [np.concatenate([leaf[rows] for rows in parts]) for leaf in leaves], row_spec


def _read_columns(source: Any, name: str, places: RowNumbers) -> tuple[list[np.ndarray], RowSpec]:
    columns: dict[str, list[np.ndarray]] = {}
    for rows in _by_epoch(places, len(source)):
        found = source[rows if isinstance(rows, slice) else rows.tolist()]
        for key, values in found.items():
            columns.setdefault(key, []).append(_array(values, f"column {key!r} of {name}"))
    leaves, tree = jax.tree.flatten({key: np.concatenate(parts) for key, parts in columns.items()})
    return leaves, _row_spec(leaves, tree)


def _read_list(source: Any, name: str, places: RowNumbers) -> tuple[list[np.ndarray], RowSpec]:
    examples: list[Any] = []
    for rows in _by_epoch(places, len(source)):
        examples.extend(source[rows] if isinstance(rows, slice) else [source[i] for i in rows])
    return _stacked(examples, name)


def _read_rows(source: Any, name: str, places: RowNumbers) -> tuple[list[np.ndarray], RowSpec]:
    length = sys.maxsize if _is_map_dataset(source) else len(source)
    return _stacked([source[int(place) % length] for place in places], name)


def _is_map_dataset(source: Any) -> bool:
    """True for a grain MapDataset, whose index goes on through the epochs."""
    bases = ((base.__name__, base.__module__.split(".")[0]) for base in type(source).__mro__)
    return ("MapDataset", "grain") in bases


def _by_epoch(places: RowNumbers, length: int) -> list[Any]:
    """The rows of the source at these places: a slice or an array for each epoch they touch."""
    if isinstance(places, range):
        row, count = places.start % length, len(places)
        parts = [slice(row, min(row + count, length))]
        for start in range(length, row + count, length):
            parts.append(slice(0, min(row + count - start, length)))
        return parts
    epochs, rows = np.divmod(places, length)
    return np.split(rows, np.flatnonzero(np.diff(epochs)) + 1)


def _stacked(examples: list[Any], name: str) -> tuple[list[np.ndarray], RowSpec]:
    """Examples, trees of one structure, as arrays [n, ...]."""
    paths, tree = jax.tree.flatten_with_path(examples[0])
    columns: list[list[Any]] = [[] for _ in paths]
    for example in examples:
        full = example is not None
        need(full, f"a row of {name}", "an example (`filter` leaves None: filter before)", example)
        leaves, other = jax.tree.flatten(example)
        need(other == tree, f"a row of {name}", f"of the structure of another, {tree}", other)
        for column, leaf in zip(columns, leaves, strict=True):
            column.append(leaf)
    names = (f"{leaf_name(path)} of {name}" for path, _ in paths)
    stacked = list(map(_array, columns, names))
    return stacked, _row_spec(stacked, tree)


def _array(values: Any, name: str) -> np.ndarray:
    """A column of equally shaped values as an array."""
    if not isinstance(values, np.ndarray):
        shapes = {np.shape(value) for value in values}
        need(len(shapes) == 1, name, "of one shape in all rows", sorted(shapes))
        values = np.asarray(values)
    need(values.dtype != object, name, "numbers or text", "objects", TypeError)
    return values


def _row_spec(leaves: list[Any], tree: Any) -> RowSpec:
    kinds = (leaf.dtype.kind if leaf.dtype.kind in "US" else leaf.dtype for leaf in leaves)
    shapes = (tuple(leaf.shape[1:]) for leaf in leaves)
    return _shared(tree, tuple(zip(kinds, shapes, strict=True)))


# One object for equal ones, so that comparing them costs nothing.
_shared = functools.lru_cache(maxsize=1024)(RowSpec)


def check_row_spec(row_spec: RowSpec, model: RowSpec, name: str, model_name: str) -> None:
    """Raise unless the rows of two sources can stand in one batch."""
    need(
        row_spec.tree == model.tree,
        name,
        f"of the structure of {model_name}, {model.tree}",
        row_spec.tree,
    )
    paths = jax.tree.flatten_with_path(model.tree.unflatten(range(len(model.leaves))))[0]
    for path, at in paths:
        leaf = f"{leaf_name(path)} of {name}"
        (kind, shape), (model_kind, model_shape) = row_spec.leaves[at], model.leaves[at]
        need(kind == model_kind, leaf, f"{model_kind} as in {model_name}", str(kind), TypeError)
        need(shape == model_shape, leaf, f"of row shape {model_shape} as in {model_name}", shape)
