"""The spec that all rows of a feed share: their structure, and the type and shape of each leaf."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmix._checks import leaf_name, need

RAGGED = "of one shape (ragged rows: pad or pack them before the mix)"


class LeafSpec(NamedTuple):
    """A leaf of a row: its name in messages, its type and its shape.

    The type is a NumPy dtype, `str` or `bytes`. Text and bytes are kept as objects, since NumPy's
    "U" and "S" cut NULs at the end and make all values as wide as the longest.
    """

    name: str
    type: np.dtype | type[str] | type[bytes]
    shape: tuple[int, ...]


class RowSpec(NamedTuple):
    """The structure of a row and its leaves, and what a message about its types adds."""

    tree: Any
    leaves: tuple[LeafSpec, ...]
    hint: str = ""


def row_leaves(example: Any) -> tuple[list[Any], Any]:
    """The leaves of an example and its structure; a list is one value, such as tokens."""
    return jax.tree.flatten(example, is_leaf=_is_list)


def example_spec(example: Any, name: str) -> RowSpec:
    """The spec of an example, the first row of a source."""
    need_example(example, name)
    paths, tree = jax.tree.flatten_with_path(example, is_leaf=_is_list)
    need(len(paths) > 0, f"a row of {name}", "an example with at least one value", example)
    leaves = []
    for path, value in paths:
        leaf = leaf_name(path)
        leaves.append(LeafSpec(leaf, *value_type(value, f"{leaf} of {name}")))
    return RowSpec(tree, tuple(leaves))


def need_example(example: Any, name: str) -> None:
    """Raise if a row is None."""
    full = example is not None
    needed = "an example (grain's `filter` leaves None: filter the data before)"
    need(full, f"a row of {name}", needed, example)


def value_type(value: Any, name: str) -> tuple[np.dtype | type[str] | type[bytes], tuple[int, ...]]:
    """The type and shape of one value of a row."""
    array = value_array(value, name)
    if array.dtype != object:
        return array.dtype.newbyteorder("="), array.shape
    return (str if isinstance(next(iter(array.flat), None), str) else bytes), array.shape


def value_array(value: Any, name: str) -> np.ndarray:
    """One value of a row as an array of numbers, or of objects, all `str` or all `bytes`."""
    first = value
    while isinstance(first, list) and first:
        first = first[0]
    try:
        array = np.asarray(value, object if isinstance(first, str | bytes) else None)
    except ValueError as error:  # NumPy's message says "inhomogeneous shape"
        raise ValueError(f"{name} must be {RAGGED}, got lists of several lengths") from error
    if array.dtype.kind in "SUT" and not isinstance(value, list):
        array = array.astype(object)
    kinds = {type(item) for item in array.flat} if array.dtype == object else set()
    one = all(issubclass(kind, str) for kind in kinds)
    one = one or all(issubclass(kind, bytes) for kind in kinds)
    need(one and array.dtype.kind not in "SU", name, "numbers or text", value, TypeError)
    return array


def check_row_spec(spec: RowSpec, model: RowSpec, name: str, model_name: str) -> None:
    """Raise unless rows of both sources fit in one batch."""
    structure = f"of the structure of {model_name}, {model.tree}"
    need(spec.tree == model.tree, name, structure, spec.tree)
    for leaf, other in zip(spec.leaves, model.leaves, strict=True):
        full_name = f"{leaf.name} of {name}"
        same = leaf.type == other.type
        wanted = f"{type_name(other)} as in {model_name}{spec.hint or model.hint}"
        need(same, full_name, wanted, type_name(leaf), TypeError)
        wanted = f"of row shape {other.shape} as in {model_name}"
        need(leaf.shape == other.shape, full_name, wanted, leaf.shape)


def type_name(leaf: LeafSpec) -> str:
    """A leaf's type in messages: `int32`, `str`, `bytes`."""
    return str(leaf.type) if isinstance(leaf.type, np.dtype) else leaf.type.__name__


def _is_list(value: Any) -> bool:
    return isinstance(value, list)
