"""The values of a batch are those of the sources: text whole, tokens as rows, types that stay."""

import pickle
import tracemalloc

import datasets
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmix import MixPlan, PlanSource

BYTES = [b"a\0", b"\0\0", b"", b"ab\0\0", b"a\0b", b"long" * 9]
TEXTS = ["a\0", "\0\0", "", "é\0", "a\0b", "long" * 9]


def read(source, size=6, step=0, **options):
    """A step's rows in the order of the source, from a plan of this source alone."""
    batch = PlanSource(MixPlan([1.0], size), [source], 9, **options)[step]
    return jax.tree.map(lambda leaf: leaf[batch["position"].argsort()], batch["rows"])


class Rows:
    def __init__(self, rows):
        self._rows = rows

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, row):
        return self._rows[row]


HOLDERS = {
    "list": lambda values: values,
    "rows": Rows,
    "rows of NumPy objects": lambda values: Rows([np.array(v, object) for v in values]),
    "array of objects": lambda values: np.array(values, object),
}


@pytest.mark.parametrize("values", [BYTES, TEXTS], ids=["bytes", "text"])
@pytest.mark.parametrize("holder", HOLDERS)
def test_nuls_at_the_end_are_kept(holder, values):
    rows = read(HOLDERS[holder](values))
    assert rows.dtype == object and rows.tolist() == values
    assert {type(value) for value in rows} == {type(values[0])}


@pytest.mark.parametrize("form", [None, "numpy", "jax", "pandas", "arrow"])
def test_nuls_at_the_end_of_columns_are_kept(form):
    columns = {"b": BYTES, "s": TEXTS, "id": list(range(6)), "words": [["x\0", "y"]] * 6}
    rows = read(datasets.Dataset.from_dict(columns).with_format(form))
    assert jax.tree.map(np.ndarray.tolist, rows) == columns


def test_text_in_trees_and_lists_is_kept():
    rows = read([{"a": (text, [text, "x"])} for text in TEXTS])
    assert rows["a"][0].tolist() == TEXTS
    assert rows["a"][1].tolist() == [[text, "x"] for text in TEXTS]


def test_fixed_width_arrays_come_as_objects_too():
    for values, kind in ((["a", "bcd"], str), ([b"a", b"bcd"], bytes)):
        for array in (np.array(values * 3), np.array([values] * 6)):
            rows = read(array)
            assert rows.dtype == object and (rows == array.astype(object)).all()
            assert {type(value) for value in rows.flat} == {kind}
    rows = read(np.array(TEXTS, np.dtypes.StringDType()))
    assert rows.dtype == object and rows.tolist() == TEXTS


def test_one_long_text_costs_what_it_holds():
    texts = ["x"] * 2_000 + ["y" * 1_000_000]
    feed = PlanSource(MixPlan([1.0], 2_001), [texts], 1)
    words = PlanSource(MixPlan([1.0], 1), [[texts]], 1)  # a row that is a list of them
    feed[0], words[0]
    tracemalloc.start()
    assert sorted(map(len, feed[0]["rows"]))[-2:] == [1, 1_000_000]
    assert words[0]["rows"].shape == (1, 2_001)
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()


def test_text_and_bytes_are_not_mixed():
    with pytest.raises(TypeError, match="source 1 must be str as in source 0, got 'bytes'"):
        PlanSource(MixPlan(0.5, 4), [["a"], [b"a"]], 2)
    with pytest.raises(TypeError, match=r"source 0 must be str as in its first row.*'bytes'"):
        read(["a", b"b", "c"])
    digits = datasets.Dataset.from_dict({"id": list(range(9))}).with_transform(
        lambda batch: {"a": ["x"] if batch["id"] == [0] else np.array(batch["id"])}
    )
    with pytest.raises(TypeError, match=r"source 0 must be str as in its first row.*'int64'"):
        read(digits)
    for row in ([1, "a"], ["a", 1], [["a"], [b"b"]], np.array([1, "a"], object)):
        with pytest.raises(TypeError, match="source 0 must be numbers or text"):
            read([row] * 6)


def test_lists_of_tokens_are_rows_of_tokens():
    tokens = [[i, i + 1, i + 2] for i in range(6)]
    for source in (tokens, Rows(tokens), [np.array(row) for row in tokens]):
        assert read(source).tolist() == tokens and read(source).dtype == np.int64
    named = read([{"ids": row, "mask": [[1.0, 0.5]] * 2} for row in tokens])
    assert named["ids"].tolist() == tokens and named["mask"].shape == (6, 2, 2)
    both = PlanSource(MixPlan(0.5, 4), [tokens, np.arange(30).reshape(10, 3)], 2)[0]["rows"]
    assert both.shape == (4, 3)
    columns = read(datasets.Dataset.from_dict({"ids": tokens}))
    assert columns["ids"].tolist() == tokens


@pytest.mark.parametrize("form", [list, Rows])
def test_ragged_rows_name_packing(form):
    message = "ragged rows: pad or pack them before the mix"
    for ragged in ([[1, 2], [1]], [[1.0], [1, 2]], [np.ones(2), np.ones(1)], [["a"], ["a", "b"]]):
        with pytest.raises(ValueError, match=message):
            read(form(ragged * 3))
    with pytest.raises(ValueError, match=f"{message}.*got lists of several lengths"):
        read(form([[[1, 2], [3]]] * 6))
    columns = datasets.Dataset.from_dict({"ids": [[1, 2], [1], [1, 2, 3]] * 2})
    for view in (columns, columns.with_format("numpy")):
        with pytest.raises(ValueError, match=rf"leaf \['ids'\] of source 0 .*{message}"):
            read(view)


def test_types_are_those_of_the_first_row_and_stay():
    for size in (1, 2, 3):  # in 0.1 the second batch of two was float
        feed = PlanSource(MixPlan([1.0], size), [[1, 2, 3, 4.5]], 9)
        assert feed[0]["rows"].dtype == np.int64
        with pytest.raises(TypeError, match=r"must be int64 as in its first row .*'float64'"):
            [feed[step] for step in range(4)]
    assert read([1.5, 2, 3, 4, 5, 6]).dtype == read([1.5, 2], step=3).dtype == np.float64
    widened = read([np.float64(1), np.float32(0.5), 2, np.int32(3), np.uint8(4), 5])
    assert widened.dtype == np.float64 and widened.tolist() == [1, 0.5, 2, 3, 4, 5]
    rows = [np.arange(2.0), np.arange(2), [1, 2]]
    assert read(rows * 2).tolist() == [[0, 1], [0, 1], [1, 2]] * 2


@pytest.mark.parametrize(
    "rows",
    [
        [1, True],
        [True, 1],
        [np.float32(1), 0.1],
        [np.int32(1), np.int64(2)],
        [1.0, 1j],
        [1.0, "a"],
        [[1, 2], [1.5, 2]],
        [np.arange(2), np.arange(2) + 0.5],
        [np.float32(1), 2**24 + 1],
    ],
)
def test_a_value_that_the_type_of_the_first_row_can_not_hold_is_refused(rows):
    with pytest.raises(TypeError, match="of source 0 must be"):
        read(rows * 3)


def test_numbers_too_large_are_refused():
    with pytest.raises(ValueError, match="source 0 must be numbers of int64, got larger"):
        read([1, 2**63] * 3)
    with pytest.raises(TypeError, match="source 0 must be numbers or text"):
        read([2**70] * 6)


def test_arrays_of_other_byte_order_become_native():
    array = np.arange(6, dtype=">i4")
    for source in (array, list(array), Rows(array)):
        rows = read(source)
        assert rows.dtype == np.int32 and rows.dtype.isnative and rows.tolist() == list(range(6))
    assert read([array] * 6).dtype.isnative


def test_device_arrays_are_copied_to_the_host_once(monkeypatch):
    sources = [jnp.arange(9), {"a": jnp.arange(9)}, [jnp.full(2, i) for i in range(9)]]
    feeds = [PlanSource(MixPlan([1.0], 4), [source], 9) for source in sources]
    monkeypatch.setattr(type(jnp.arange(1)), "__array__", None)
    for feed in feeds:
        leaves = jax.tree.leaves(feed[1]["rows"])
        assert all(type(leaf) is np.ndarray and leaf.dtype == np.int32 for leaf in leaves)
        assert pickle.loads(pickle.dumps(feed))[1]["rows"] is not None  # a worker has no device


def test_rows_of_another_structure_are_refused():
    for rows in ([{"a": 1}, 2], [1, {"a": 2}], [{"a": 1}, {"b": 2}], [{"a": 1}, {"a": (2,)}]):
        with pytest.raises(ValueError, match="a row of source 0 must be of the structure of the f"):
            read(rows, size=1, step=1)
