"""Rows of a HuggingFace dataset, read by slice or by list, without a change of any value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxmix._feed.row_spec import RowSpec, example_spec
from jaxmix._feed.stacking import Rows, check_rows, count_rows, stack_examples

FORMATS = (
    ' (of a HuggingFace dataset, `.with_format("numpy")` reads floats as float32 and integers as '
    "int64)"
)


def open_columns(data: Any, name: str) -> tuple[RowSpec, Callable[[Rows], list[np.ndarray]]]:
    """Read the first row; return the spec of the rows, and a function that reads some.

    The formats "jax", "torch" and "tensorflow" are read as "numpy", and formats of tables without a
    format, to avoid copies. Columns of text and bytes are read without a format, because "numpy"
    cuts NULs at their end.
    """
    kind, views = data.format["type"], [data]
    if kind in ("jax", "torch", "tensorflow"):
        data = data.with_format("numpy", columns=data.format["columns"])
    elif kind not in (None, "numpy", "custom"):
        views = [data.with_format(None, columns=data.format["columns"])]
    if data.format["type"] == "numpy":
        views = _split(data)
    first = _read(views, slice(0, 1))
    spec = example_spec({key: values[0] for key, values in first.items()}, name)
    if kind != "custom":
        spec = spec._replace(hint=FORMATS)
    nested = spec.tree != jax.tree.structure(dict.fromkeys(first, 0))

    def read(rows: Rows) -> list[np.ndarray]:
        found = _read(views, rows if isinstance(rows, slice) else rows.tolist())
        count = count_rows(rows)
        if nested:
            lines = zip(*found.values(), strict=True)
            examples = [dict(zip(found, line, strict=True)) for line in lines]
            return stack_examples(examples, count, spec, name)
        columns = zip(sorted(found), spec.leaves, strict=True)
        return [check_rows(found[key], count, leaf, name) for key, leaf in columns]

    return spec, read


def _split(data: Any) -> list[Any]:
    """Two views of a dataset in the format "numpy": its numbers, and the rest without a format."""
    options, first = data.format["format_kwargs"], data[:1]
    rest = [
        key
        for key, values in first.items()
        if any(np.asarray(leaf).dtype.kind in "OSUT" for leaf in jax.tree.leaves(values))
    ]
    numbers = [key for key in first if key not in rest]
    views = [data.with_format("numpy", columns=numbers, **options)] if numbers else []
    return [*views, data.with_format(None, columns=rest)] if rest else views


def _read(views: list[Any], rows: slice | list[int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for view in views:
        found |= view[rows]
    return found
