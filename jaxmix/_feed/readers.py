"""Readers for one source of any kind: many rows at once if the source can."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmix._checks import leaf_name, need
from jaxmix._feed.columns import open_columns
from jaxmix._feed.convert import host_source
from jaxmix._feed.row_spec import LeafSpec, RowSpec, example_spec, value_type
from jaxmix._feed.stacking import Rows, check_rows, count_rows, stack_examples


class Source(NamedTuple):
    """An opened source: its data, its length, the spec of its rows, and how to read some.

    `read(rows)` returns the leaves [n, ...] in the order of `rows`, which may repeat and are below
    the length. With `by_position` they are positions instead, counted through all epochs.
    """

    data: Any
    length: int
    spec: RowSpec
    read: Callable[[Rows], Sequence[np.ndarray]]
    by_position: bool


def open_source(source: Any, name: str) -> Source:
    """Open a source and read its first row.

    Arrays, trees of arrays of one length and HuggingFace datasets are read by slice or index array,
    lists by slice, objects with `__getitems__` (ArrayRecord, TFDS, torch) by a list of rows, any
    other object with `len` and `[i]` row by row. A grain MapDataset is read by position, so that it
    can shuffle each epoch differently. So is an object whose `reads_positions` is true.
    """
    data = host_source(source, name)
    leaves, tree = ([], None) if isinstance(data, list) else jax.tree.flatten(data)
    if leaves and all(map(_is_array, leaves)):
        return _open_arrays(data, leaves, tree, name)
    ok = hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, Mapping)
    wanted = (
        "arrays, a dict of arrays (not of lists) or an object with `len` and `[i]` "
        "(`PlanStream` reads streams)"
    )
    need(ok, name, wanted, data, TypeError)
    length = len(data)
    need(length > 0, name, "of at least one row", "none")
    kind = type(data)  # methods of the class only: a wrapper may forward those of its inner object
    if hasattr(kind, "column_names") and hasattr(kind, "with_format"):
        spec, read = open_columns(data, name)
        return Source(data, length, spec, read, False)
    if isinstance(data, list | tuple | range):
        fetch = functools.partial(_from_list, data)
    elif _has_own_items(kind):
        fetch = functools.partial(_from_items, data)
    else:
        fetch = functools.partial(_one_by_one, data)
    try:
        first = fetch(slice(0, 1))[0]
    except Exception as error:
        error.add_note(f"where row 0 of {name} was read, to compare it with the other sources")
        raise
    spec = example_spec(first, name)
    read = functools.partial(_read_examples, fetch, spec, name)
    by_position = bool(getattr(data, "reads_positions", _is_map_dataset(data)))
    return Source(data, length, spec, read, by_position)


def _open_arrays(data: Any, leaves: list[Any], tree: Any, name: str) -> Source:
    lengths = {leaf.shape[0] for leaf in leaves}
    need(len(lengths) == 1, name, "a tree of arrays of one length", sorted(lengths))
    length = lengths.pop()
    need(length > 0, name, "of at least one row", "none")
    paths = jax.tree.flatten_with_path(data)[0]
    specs = [_array_spec(leaf, leaf_name(path), name) for path, leaf in paths]
    takes = [_array_reader(*pair, name) for pair in zip(leaves, specs, strict=True)]
    spec, only = RowSpec(tree, tuple(specs)), takes[0]
    if len(takes) == 1:  # with many sources of one array each, calls take half the time
        return Source(data, length, spec, lambda rows: (only(rows),), False)
    return Source(data, length, spec, lambda rows: [take(rows) for take in takes], False)


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and len(getattr(leaf, "shape", ())) > 0


def _array_spec(leaf: Any, name: str, source_name: str) -> LeafSpec:
    try:
        dtype = np.dtype(getattr(leaf.dtype, "numpy_dtype", leaf.dtype))  # tensorstore has its own
    except TypeError as error:
        wanted = f"{name} of {source_name} must be of a NumPy dtype"
        raise TypeError(f"{wanted} (convert it first), got {leaf.dtype}") from error
    if dtype.kind not in "OSUT":
        return LeafSpec(name, dtype.newbyteorder("="), tuple(leaf.shape[1:]))
    return LeafSpec(name, *value_type(leaf[0], f"{name} of {source_name}"))


def _array_reader(leaf: Any, spec: LeafSpec, name: str) -> Callable[[Rows], np.ndarray]:
    if type(leaf) in (np.ndarray, np.memmap) and leaf.dtype == spec.type:
        return np.asarray(leaf).__getitem__  # slices of a np.memmap cost more
    return functools.partial(_read_array, leaf, spec, name)


def _read_array(leaf: Any, spec: LeafSpec, name: str, rows: Rows) -> np.ndarray:
    """Rows of an array that may be on disk: it is read in ascending order, each row once."""
    if isinstance(rows, slice) or (np.diff(rows) > 0).all():
        found = np.asarray(leaf[rows])
    else:
        once, where = np.unique(rows, return_inverse=True)
        found = np.asarray(leaf[once])[where]
    return check_rows(found, count_rows(rows), spec, name)


def _numbers(rows: Rows) -> range | list[int]:
    return range(rows.start, rows.stop) if isinstance(rows, slice) else rows.tolist()


def _from_list(data: Any, rows: Rows) -> Sequence[Any]:
    return data[rows] if isinstance(rows, slice) else [data[row] for row in rows.tolist()]


def _from_items(data: Any, rows: Rows) -> Sequence[Any]:
    return data.__getitems__(list(_numbers(rows)))


def _one_by_one(data: Any, rows: Rows) -> Sequence[Any]:
    return [data[row] for row in _numbers(rows)]


def _read_examples(
    fetch: Callable[[Rows], Sequence[Any]], spec: RowSpec, name: str, rows: Rows
) -> list[np.ndarray]:
    return stack_examples(fetch(rows), count_rows(rows), spec, name)


def _has_own_items(kind: type) -> bool:
    """True if `__getitems__` returns the same rows as `[i]`: no subclass changed only `[i]`.

    grain's ArrayRecordDataSource defines `[i]` too, but only to call its base class.
    """
    for base in kind.__mro__:
        if "__getitems__" in vars(base):
            return True
        if "__getitem__" in vars(base) and not base.__module__.startswith("grain."):
            return False
    return False


def _is_map_dataset(data: Any) -> bool:
    """True for a grain MapDataset, whose index continues through the epochs."""
    bases = ((base.__name__, base.__module__.split(".")[0]) for base in type(data).__mro__)
    return ("MapDataset", "grain") in bases
