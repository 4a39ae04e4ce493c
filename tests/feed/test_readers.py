"""How sources are asked for rows: in few calls, never past an end, in the order stores want."""

import grain
import numpy as np
import pytest

from jaxmix import MixPlan, PlanSource


class Strict:
    """An array [n, ...] that refuses what clips, and notes what it is asked for."""

    def __init__(self, rows):
        self.rows, self.asked = rows, []
        self.dtype, self.shape = rows.dtype, rows.shape

    def __getitem__(self, rows):
        if isinstance(rows, slice):
            assert rows.step is None and 0 <= rows.start < rows.stop <= len(self.rows), rows
        else:
            assert rows.dtype == np.int64 and 0 <= rows.min() <= rows.max() < len(self.rows), rows
        self.asked.append(rows)
        return self.rows[rows]


@pytest.mark.parametrize("length", range(1, 14))
def test_reads_end_where_the_epoch_ends(length):
    store, size = Strict(np.arange(length) * 10), 4
    feed = PlanSource(MixPlan([1.0], size), [store], 40)
    for step in range(30):
        batch = feed[step]
        assert sorted(batch["position"].tolist()) == list(range(step * size, step * size + size))
        assert (batch["rows"] == batch["position"] % length * 10).all()
        assert (batch["index"] == batch["position"] % length).all()
        start = step * size % length
        if start + size <= length:
            assert store.asked == [slice(start, start + size)]
        elif start + size <= 2 * length:
            assert store.asked == [slice(start, length), slice(0, start + size - length)]
        else:  # a source of few rows: all its epochs at once, each row read once
            assert [rows.tolist() for rows in store.asked] == [list(range(length))]
        store.asked.clear()


class Rising(Strict):
    """As HDF5 has it: index arrays must rise, without repeats."""

    def __getitem__(self, rows):
        assert isinstance(rows, slice) or (np.diff(rows) > 0).all(), rows
        return super().__getitem__(rows)


@pytest.mark.parametrize("length", [3, 7, 50])
def test_a_store_is_asked_for_rising_rows_once_a_step(length):
    plan, rows = MixPlan(0.5, 24), np.arange(length * 2).reshape(length, 2)
    for part in range(4):
        store = Rising(rows)
        feed = PlanSource(plan, [store, rows], 20, shard_index=part, shard_count=4)
        for step in range(20):
            batch = feed[step]
            assert (batch["rows"] == rows[batch["position"] % length]).all()
            assert len(store.asked) <= 2
            store.asked.clear()


class Items:
    """Rows by `[i]` and, many at once, by `__getitems__`; it notes what it is asked for."""

    def __init__(self, rows):
        self.rows, self.asked = rows, []

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        self.asked.append(row)
        return self.rows[row]

    def __getitems__(self, rows):
        assert isinstance(rows, list) and {type(row) for row in rows} == {int}
        self.asked.append(rows)
        return [self.rows[row] for row in rows]


@pytest.mark.parametrize("parts", [1, 3])
def test_many_rows_are_one_call_of_getitems(parts):
    plan, source = MixPlan(0.5, 12), Items([10 * i for i in range(40)])
    feed = PlanSource(plan, [source, np.arange(30)], 6, shard_count=parts)
    assert source.asked == [[0]]
    for step in range(6):
        source.asked.clear()
        batch = feed[step]
        own = batch["source"] == 0
        assert (batch["rows"][own] == 10 * batch["index"][own]).all() and own.any()
        assert len(source.asked) == 1 and len(source.asked[0]) == own.sum()


def test_a_subclass_or_wrapper_that_changes_a_row_is_not_passed_by():
    class Parsed(Items):
        def __getitem__(self, row):
            return -super().__getitem__(row)

    class Wrapper:
        column_names = ("a",)  # as of a data set within

        def __init__(self, inner):
            self._inner = inner

        def __len__(self):
            return len(self._inner)

        def __getitem__(self, row):
            return -self._inner[row]

        def __getattr__(self, name):
            return getattr(self._inner, name)

    for source in (Parsed(range(1, 9)), Wrapper(Items(range(1, 9)))):
        batch = PlanSource(MixPlan([1.0], 4), [source], 2)[1]
        assert (batch["rows"] == -1 - batch["index"]).all()


def test_an_array_class_keeps_its_own_reading():
    class Doubled(np.ndarray):
        def __getitem__(self, rows):
            return 2 * np.asarray(self)[rows]

    batch = PlanSource(MixPlan([1.0], 4), [np.arange(8).view(Doubled)], 2)[1]
    assert (batch["rows"] == 2 * batch["index"]).all()


def test_an_object_that_reads_positions_has_an_order_of_its_own_in_each_epoch():
    class Turned(Items):
        reads_positions = True

        def __getitem__(self, position):
            epoch, row = divmod(position, len(self))
            return self.rows[(row + epoch) % len(self)]

    feed = PlanSource(MixPlan([1.0], 6), [Turned(range(6))], 3)
    for epoch in range(3):
        batch = feed[epoch]
        assert (batch["rows"] == (batch["index"] + epoch) % 6).all()
        assert batch["position"].min() == 6 * epoch


def test_rows_that_are_too_few_or_of_another_kind_are_refused():
    class Short(Items):
        def __getitems__(self, rows):
            return super().__getitems__(rows)[:3]

    with pytest.raises(ValueError, match="source 0 must be a source that gives the 4 rows"):
        PlanSource(MixPlan([1.0], 4), [Short(range(9))], 2)[0]

    class Cut(Strict):
        def __getitem__(self, rows):
            return super().__getitem__(rows)[:3]

    with pytest.raises(ValueError, match="source 0 must be a source that gives the 4 rows"):
        PlanSource(MixPlan([1.0], 4), [Cut(np.arange(9))], 2)[0]

    class Changing(Strict):
        def __getitem__(self, rows):
            found = super().__getitem__(rows)
            return found[:, None] if rows.start else found.astype(np.float32)

    feed = PlanSource(MixPlan([1.0], 4), [Changing(np.arange(9))], 2)
    with pytest.raises(TypeError, match=r"source 0 must be int64 as in its first row.*'float32'"):
        feed[0]
    with pytest.raises(ValueError, match=r"source 0 must be of one shape.*got \[\(1,\)\]"):
        feed[1]


def test_array_records_come_whole_and_by_one_call(tmp_path, monkeypatch):
    from array_record.python.array_record_module import ArrayRecordWriter

    random, path = np.random.default_rng(0), str(tmp_path / "records")
    records = [
        random.bytes(int(n)) + bytes(i % 3) for i, n in enumerate(random.integers(9, 99, 640))
    ]
    writer = ArrayRecordWriter(path, "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    with grain.sources.ArrayRecordDataSource(path) as source:
        feed = PlanSource(MixPlan([1.0], 32), [source], 40)
        monkeypatch.setattr(type(source), "__getitem__", None)
        seen = {}
        for batch in feed.batches(0):
            assert batch["rows"].dtype == object
            seen |= dict(zip(batch["index"].tolist(), batch["rows"].tolist(), strict=True))
    assert [seen[row] for row in range(640)] == records
