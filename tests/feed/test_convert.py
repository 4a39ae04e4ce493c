"""Data of other libraries: read by rows where rows are clear, or refused with how to convert it."""

import contextlib
import pathlib
import sys
import types

import datasets
import grain
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse

from jaxmix import MixPlan, PlanSource

LENGTH = 10
X = np.arange(2 * LENGTH).reshape(LENGTH, 2)
IDS = X[:, 0]
COLUMNS = {
    "id": IDS.tolist(),
    "text": [f"{i}\0" for i in IDS],
    "words": X.tolist(),
    "score": (IDS / 4).tolist(),
}


def h5py_file(tmp_path):
    file = pytest.importorskip("h5py").File(tmp_path / "file.h5", "w")
    file["x"], file["group/id"], file["group/x"] = X, IDS, X
    return file


def zarr_array(tmp_path):
    store = pytest.importorskip("zarr").create_array(
        tmp_path / "store", shape=X.shape, dtype=X.dtype, chunks=(4, 2)
    )
    store[:] = X
    return store


def tensorstore_array(tmp_path):
    tensorstore = pytest.importorskip("tensorstore")
    kvstore = {"driver": "file", "path": f"{tmp_path}/store/"}
    spec = {"driver": "zarr3", "kvstore": kvstore}
    store = tensorstore.open(
        spec, create=True, dtype=tensorstore.int64, shape=(LENGTH + 5, 2)
    ).result()
    store[5:] = X
    return store[5:]  # whose first row is row 5 of the domain


def npz_file(tmp_path):
    np.savez(tmp_path / "file.npz", x=X, id=IDS)
    return np.load(tmp_path / "file.npz")


def polars_frame(tmp_path):
    return pytest.importorskip("polars").DataFrame(COLUMNS)


def torch_tensor(tmp_path):
    return pytest.importorskip("torch").arange(2 * LENGTH).reshape(LENGTH, 2).requires_grad_(False)


def torch_dataset(tmp_path):
    torch = pytest.importorskip("torch")
    return torch.utils.data.TensorDataset(torch.arange(0, 20, 2), torch.arange(20).reshape(10, 2))


AN_ARRAY, BOTH = X, {"x": X, "id": IDS}
SOURCES = {
    "pandas Series": (lambda tmp_path: pd.Series(IDS, index=IDS[::-1]), IDS),
    "pandas DataFrame": (lambda tmp_path: pd.DataFrame(COLUMNS, index=IDS[::-1]), COLUMNS),
    "pandas of pyarrow": (
        lambda tmp_path: pd.DataFrame(COLUMNS).convert_dtypes(dtype_backend="pyarrow"),
        COLUMNS,
    ),
    "pyarrow Table": (lambda tmp_path: pa.table(COLUMNS), COLUMNS),
    "pyarrow Array": (lambda tmp_path: pa.array(IDS), IDS),
    "polars DataFrame": (polars_frame, COLUMNS),
    "polars Series": (lambda tmp_path: polars_frame(tmp_path)["id"], IDS),
    "h5py Dataset": (lambda tmp_path: h5py_file(tmp_path)["x"], X),
    "h5py Group": (lambda tmp_path: h5py_file(tmp_path)["group"], BOTH),
    "tree of h5py": (lambda tmp_path: {"x": h5py_file(tmp_path)["x"], "id": IDS}, BOTH),
    "zarr": (zarr_array, X),
    "tensorstore": (tensorstore_array, X),
    "npz": (npz_file, BOTH),
    "jax": (
        lambda tmp_path: {"x": jnp.asarray(X), "id": IDS},
        {"x": X.astype(np.int32), "id": IDS},
    ),
    "torch Tensor": (torch_tensor, X),
    "torch TensorDataset": (torch_dataset, (IDS, X)),
}


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("kind", SOURCES)
def test_rows_of_other_libraries(kind, parts, tmp_path):
    build, wanted = SOURCES[kind]
    if wanted is COLUMNS:
        types = {"text": object}
        wanted = {name: np.array(v, types.get(name)) for name, v in COLUMNS.items()}
    plan, source = MixPlan([1.0], 6), build(tmp_path)
    feeds = [PlanSource(plan, [source], 9, shard_index=p, shard_count=parts) for p in range(parts)]
    for step in (0, 1, 8):  # step 1 begins the next epoch
        batches = [feed[step] for feed in feeds]
        index = np.concatenate([batch["index"] for batch in batches])
        rows = jax.tree.map(lambda *leaves: np.concatenate(leaves), *[b["rows"] for b in batches])

        def same(found, array, index=index):
            assert found.tolist() == array[index].tolist()
            assert found.dtype == array.dtype

        jax.tree.map(same, rows, wanted)


def fake(module, name, **members):
    """An object of a class by that name in a package that is not installed here."""
    return type(name, (), {"__module__": module, **members})()


def frame(**columns):
    return pd.DataFrame({name: pd.array(values) for name, values in columns.items()})


REFUSED = {
    "name of a file": (lambda: "rows.npy", "opened data, such as `np.load"),
    "path": (lambda: pathlib.Path("rows.npy"), "opened data, such as `np.load"),
    "bytes": (lambda: b"rows", "opened data, such as `np.load"),
    "generator": (lambda: (i for i in range(3)), "`len` and .*`PlanStream` reads streams"),
    "only to iterate": (lambda: fake("a", "A", __iter__=iter), "arrays, .*`PlanStream` reads"),
    "lists in a dict": (lambda: {"a": [1, 2]}, "arrays, a dict of arrays .not of lists"),
    "scipy matrix": (lambda: scipy.sparse.csr_matrix(X), r"dense array \(use `matrix.toarray\(\)`"),
    "scipy array": (lambda: scipy.sparse.coo_array(X), r"dense array \(use `matrix.toarray\(\)`"),
    "masked": (lambda: np.ma.masked_equal(IDS, 4), r"without a mask \(use `array.filled\(value\)`"),
    "keys": (lambda: jax.random.split(jax.random.key(0), 9), r"numbers \(use `jax.random.key_data"),
    "splits": (lambda: datasets.DatasetDict({"train": None}), r"one split .*dataset\[\"train\"\]"),
    "streamed": (lambda: datasets.Dataset.from_dict(COLUMNS).to_iterable_dataset(), "PlanStream"),
    "grain stream": (lambda: grain.MapDataset.range(9).to_iter_dataset(), "PlanStream"),
    "tf stream": (lambda: fake("tensorflow.python.data", "DatasetV2"), "PlanStream"),
    "tf ragged": (lambda: fake("tensorflow.python", "RaggedTensor"), r"`tensor.to_tensor\(\)`"),
    "torch loader": (
        lambda: fake("torch.utils.data", "DataLoader"),
        "the dataset that the loader",
    ),
    "torch stream": (lambda: fake("torch.utils.data", "IterableDataset"), "PlanStream"),
    "lazy frame": (lambda: fake("polars.lazyframe", "LazyFrame"), r"`frame.collect\(\)`"),
    "columns of one name": (lambda: pd.DataFrame(X, columns=["a", "a"]), "different names"),
    "missing ints": (lambda: frame(a=[1, None]), "column 'a' of source 0 .* missing values"),
    "missing text": (lambda: frame(a=["x", None]), "column 'a' of source 0 .* missing values"),
    "missing in arrow": (lambda: pa.table({"a": [1, None]}), "column 'a' .* missing values"),
    "type unknown to NumPy": (
        lambda: types.SimpleNamespace(dtype="no type", shape=(3,)),
        "source 0 must be of a NumPy dtype",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_clear_rows_is_refused_with_what_to_do(kind):
    build, message = REFUSED[kind]
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        PlanSource(MixPlan([1.0], 4), [build()], 2)
    assert len(str(caught.value)) < 1500


def test_tensors_are_known_by_the_name_of_their_class():
    seen = []

    class Tensor:
        __module__ = "tensorflow.python.framework.tensor"

        def numpy(self):
            seen.append(self)
            return X

    feed = PlanSource(MixPlan([1.0], 5), [Tensor()], 4)
    assert (feed[1]["rows"] == X[feed[1]["index"]]).all() and len(seen) == 1
    assert "tensorflow" not in sys.modules


def test_a_tensor_that_numpy_can_not_hold_says_so():
    def numpy(tensor):
        raise TypeError("Got unsupported ScalarType BFloat16")

    itself = {name: lambda tensor: tensor for name in ("detach", "cpu")}
    tensor = fake("torch", "Tensor", numpy=numpy, dtype="torch.bfloat16", **itself)
    with pytest.raises(TypeError, match=r"source 0 must be .*`tensor.float\(\)`\), got torch.bfl"):
        PlanSource(MixPlan([1.0], 5), [tensor], 4)


def test_missing_floats_stay_nan():
    rows = PlanSource(MixPlan([1.0], 2), [pd.DataFrame({"a": [1.0, np.nan]})], 1)[0]["rows"]["a"]
    assert np.isnan(rows).sum() == 1


def test_formats_of_datasets_are_those_of_numpy():
    dataset = datasets.Dataset.from_dict({k: v for k, v in COLUMNS.items() if k != "text"})
    for form in ("numpy", "jax", "torch"):
        with contextlib.suppress(ValueError):  # torch need not be installed
            view = dataset.with_format(form)
            rows = PlanSource(MixPlan([1.0], 5), [view], 2)[1]["rows"]
            kinds = {name: leaf.dtype.name for name, leaf in rows.items()}
            assert kinds == {"id": "int64", "words": "int64", "score": "float32"}
    chosen = dataset.with_format("numpy", columns=["id"], dtype=np.int16)
    rows = PlanSource(MixPlan([1.0], 5), [chosen], 2)[1]["rows"]
    assert {name: leaf.dtype.name for name, leaf in rows.items()} == {"id": "int16"}
    asked = dataset.with_transform(lambda batch: {"twice": [2 * i for i in batch["id"]]})
    batch = PlanSource(MixPlan([1.0], 5), [asked], 2)[1]
    assert (batch["rows"]["twice"] == 4 * batch["index"]).all()


def test_nested_columns_of_datasets_are_trees():
    lines = [{"a": {"id": i, "text": f"{i}\0"}, "words": [i, i]} for i in range(6)]
    for form in (None, "numpy"):
        feed = PlanSource(
            MixPlan([1.0], 6), [datasets.Dataset.from_list(lines).with_format(form)], 1
        )
        rows, index = feed[0]["rows"], feed[0]["index"].tolist()
        assert rows["a"]["text"].tolist() == [f"{i}\0" for i in index]
        assert rows["a"]["id"].tolist() == index
        assert rows["words"].tolist() == [[i, i] for i in index]
