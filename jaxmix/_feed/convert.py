"""Data of other libraries as NumPy arrays, or an error that says how to convert it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import need

STREAM = "a source with `len` and `[i]` (`PlanStream` reads streams)"


def host_source(source: Any, name: str) -> Any:
    """Convert a source of another library to NumPy; return any other source as it is.

    A table (pandas, polars, pyarrow) becomes a dict of its columns, and a group of arrays (h5py,
    npz) a dict. JAX, torch and TensorFlow tensors become NumPy arrays, without a copy if their
    library allows it.

    Raises:
      TypeError: not a source of rows; the message says how to make one.
    """
    is_name = isinstance(source, str | bytes | os.PathLike)
    need(not is_name, name, "opened data, such as `np.load(path)`, not a name", source, TypeError)
    is_stream = isinstance(source, Iterator) and not hasattr(source, "__getitem__")
    need(not is_stream, name, STREAM, type(source).__name__, TypeError)
    if isinstance(source, list):
        first = jax.tree.leaves(next(iter(source), None))
        on_device = any(isinstance(leaf, jax.Array) for leaf in first)
        return jax.device_get(source) if on_device else source
    return jax.tree.map(lambda leaf: _host(leaf, name), source)


def _host(leaf: Any, name: str) -> Any:
    if type(leaf) is np.ndarray:
        return leaf
    if isinstance(leaf, jax.Array):
        return _jax(leaf, name)
    kinds = {(base.__module__.partition(".")[0], base.__name__) for base in type(leaf).__mro__}
    for kind, advice in REFUSED.items():
        need(kind not in kinds, name, advice, type(leaf).__name__, TypeError)
    for kind, convert in CONVERTED.items():
        if kind in kinds:
            try:
                return convert(leaf, name)
            except Exception as error:
                error.add_note(f"where {name}, a {type(leaf).__name__}, was converted to NumPy")
                raise
    if hasattr(leaf, "iloc"):  # pandas and libraries like it: `[i]` looks for a label
        return _pandas(leaf, name)
    return leaf


def _jax(array: jax.Array, name: str) -> np.ndarray:
    here = array.is_fully_addressable
    need(here, name, "an array on this process alone (pass its own rows)", array.sharding)
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    need(not is_key, name, "numbers (use `jax.random.key_data(keys)`)", array.dtype, TypeError)
    return np.asarray(array)


def _torch(tensor: Any, name: str) -> np.ndarray:
    try:
        return tensor.detach().cpu().numpy()
    except TypeError as error:  # such as bfloat16
        wanted = f"{name} must be of a dtype that NumPy has (use `tensor.float()`)"
        raise TypeError(f"{wanted}, got {tensor.dtype}") from error


def _tensorflow(tensor: Any, name: str) -> np.ndarray:
    return tensor.numpy()


def _tensorstore(store: Any, name: str) -> Any:
    return store.translate_to[0]  # row 0 is the first row, wherever the domain begins


def _group(group: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: _host(group[key], name) for key in group}


def _pandas(table: Any, name: str) -> Any:
    if hasattr(table, "columns"):
        return _columns({key: table[key] for key in _unique(table.columns, name)}, name)
    missing = not isinstance(table.dtype, np.dtype) or table.dtype == object
    _need_no_missing(missing and bool(table.isna().any()), name)
    return table.to_numpy()


def _polars(series: Any, name: str) -> np.ndarray:
    _need_no_missing(series.null_count() > 0, name)
    return series.to_numpy()


def _polars_table(table: Any, name: str) -> dict[str, Any]:
    return _columns({key: table[key] for key in table.columns}, name)


def _arrow(array: Any, name: str) -> np.ndarray:
    _need_no_missing(array.null_count > 0, name)
    chunked = hasattr(array, "chunks")
    return array.to_numpy() if chunked else array.to_numpy(zero_copy_only=False)


def _arrow_table(table: Any, name: str) -> dict[str, Any]:
    return _columns({key: table.column(key) for key in _unique(table.column_names, name)}, name)


def _columns(columns: dict[Any, Any], name: str) -> dict[Any, Any]:
    return {key: _host(column, f"column {key!r} of {name}") for key, column in columns.items()}


def _unique(names: Any, name: str) -> list[Any]:
    known = list(names)
    need(len(set(known)) == len(known), name, "a table of columns with different names", known)
    return known


def _need_no_missing(missing: bool, name: str) -> None:
    need(not missing, name, "without missing values (fill or drop them)", "some")


Convert = Callable[[Any, str], Any]

CONVERTED: dict[tuple[str, str], Convert] = {
    ("torch", "Tensor"): _torch,
    ("tensorflow", "Tensor"): _tensorflow,
    ("tensorflow", "Variable"): _tensorflow,
    ("tensorstore", "TensorStore"): _tensorstore,
    ("h5py", "Group"): _group,
    ("numpy", "NpzFile"): _group,
    ("polars", "DataFrame"): _polars_table,
    ("polars", "Series"): _polars,
    ("pyarrow", "Table"): _arrow_table,
    ("pyarrow", "RecordBatch"): _arrow_table,
    ("pyarrow", "ChunkedArray"): _arrow,
    ("pyarrow", "Array"): _arrow,
}
"""How to convert a class, by package and name: the package itself need not be installed."""

REFUSED = {
    ("numpy", "MaskedArray"): "an array without a mask (use `array.filled(value)`)",
    ("scipy", "_spbase"): "a dense array (use `matrix.toarray()`)",
    ("scipy", "spmatrix"): "a dense array (use `matrix.toarray()`)",
    ("polars", "LazyFrame"): "a frame in memory (use `frame.collect()`)",
    ("tensorflow", "RaggedTensor"): "rows of one length (use `tensor.to_tensor()`)",
    ("tensorflow", "DatasetV2"): STREAM,
    ("datasets", "DatasetDict"): 'one split (use `dataset["train"]`)',
    ("datasets", "IterableDatasetDict"): 'one split (use `dataset["train"]`)',
    ("datasets", "IterableDataset"): STREAM,
    ("grain", "IterDataset"): STREAM,
    ("torch", "IterableDataset"): STREAM,
    ("torch", "DataLoader"): "the dataset that the loader reads",
}
"""What the user should pass instead of a class, by package and name."""
