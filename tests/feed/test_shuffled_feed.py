"""A shuffled feed: each row once per epoch, in an order of its own, from every kind of source."""

import json

import grain
import numpy as np
import pytest

import jaxmix
from jaxmix import BlockShuffle, MixPlan, PlanSelectionMap, PlanSource

LENGTHS = (30, 11, 50)
WEIGHTS = jaxmix.staged_schedule({0: [0.6, 0.4, 0.0], 20: [0.2, 0.3, 0.5]})
NAMES = ("web", "code", "math")
SHUFFLES = (True, BlockShuffle(block_rows=4, window_blocks=3))


def plan(**options):
    return MixPlan(WEIGHTS, 12, names=NAMES, seed=3, **options)


def arrays():
    return [1000 * k + np.arange(length) for k, length in enumerate(LENGTHS)]


class Rows:
    """An object of the user's own, with only `len` and `[i]`."""

    def __init__(self, rows):
        self._rows = rows

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, index):
        return self._rows[index]


class Positions(Rows):
    """One that asks for positions, to seed an augmentation by epoch, say."""

    reads_positions = True

    def __getitem__(self, index):
        self.asked = max(getattr(self, "asked", 0), index)
        return self._rows[index % len(self._rows)]


KINDS = {
    "arrays": lambda rows: rows,
    "lists": lambda rows: rows.tolist(),
    "objects": lambda rows: Rows(rows.tolist()),
    "positions": lambda rows: Positions(rows.tolist()),
    "grain": lambda rows: grain.MapDataset.source(rows.tolist()),
}


@pytest.mark.parametrize("shuffle", SHUFFLES, ids=["rows", "blocks"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_row_comes_once_per_epoch_and_each_epoch_has_its_own_order(kind, shuffle):
    feed = PlanSource(plan(), list(map(KINDS[kind], arrays())), 60, shuffle=shuffle)
    seen = {k: {} for k in range(3)}
    for batch in feed:
        for row, k, position, index in zip(
            *(batch[name].tolist() for name in ("rows", "source", "position", "index")), strict=True
        ):
            assert row == 1000 * k + index
            assert position not in seen[k]
            seen[k][position] = index
    for k, length in enumerate(LENGTHS):
        order = [seen[k][position] for position in sorted(seen[k])]
        epochs = [order[i : i + length] for i in range(0, len(order) - length + 1, length)]
        assert len(epochs) >= 2
        assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
        assert len(set(map(tuple, epochs))) == len(epochs)


@pytest.mark.parametrize("kind", KINDS)
def test_shards_read_the_rows_of_the_whole_batch(kind):
    whole = PlanSource(plan(), arrays(), 40, shuffle=True)
    for count in (2, 3, 12):
        shards = [
            PlanSource(
                plan(),
                list(map(KINDS[kind], arrays())),
                40,
                shuffle=True,
                shard_index=index,
                shard_count=count,
            )
            for index in range(count)
        ]
        for step in (0, 19, 39):
            rows = np.concatenate([shard[step]["rows"] for shard in shards])
            assert (rows == whole[step]["rows"]).all()


def test_the_same_data_has_another_order_in_another_source_and_under_another_seed():
    def order(seed, name):
        one = MixPlan([1.0], 1000, names=[name], seed=seed)
        return tuple(PlanSource(one, [np.arange(1000)], 1, shuffle=True)[0]["index"].tolist())

    orders = {order(seed, name) for seed in (0, 1) for name in ("web", "code")}
    assert len(orders) == 4


def test_an_edit_keeps_the_order_of_a_source_wherever_it_stands():
    before, seen = plan(), []
    for batch in PlanSource(before, arrays(), 25, shuffle=True):
        parts = (batch[name].tolist() for name in ("source", "position", "rows"))
        seen += zip(*parts, strict=True)
    state = json.loads(json.dumps(before.state(25)))
    names = ["math", "web", "chat", "code"]
    after = MixPlan([0.4, 0.3, 0.1, 0.2], 24, names=names, state=state)
    data = dict(zip(NAMES, arrays(), strict=True)) | {"chat": 3000 + np.arange(9)}
    back = {name: k for k, name in enumerate((*NAMES, "chat"))}
    for batch in PlanSource(after, data, 50, shuffle=True):
        source = [back[names[k]] for k in batch["source"].tolist()]
        parts = (batch[name].tolist() for name in ("position", "rows"))
        seen += zip(source, *parts, strict=True)
    for k, length in enumerate((*LENGTHS, 9)):
        rows = dict((position, row) for source, position, row in seen if source == k)
        mine = [item for item in seen if item[0] == k]
        assert len(rows) == len(mine)  # no position twice
        for epoch in range(len(rows) // length):
            places = range(epoch * length, (epoch + 1) * length)
            assert sorted(rows[p] for p in places) == [1000 * k + i for i in range(length)]


def test_the_map_of_single_rows_gives_the_rows_of_the_feed():
    feed = PlanSource(plan(), arrays(), 40, shuffle=True)
    chosen = PlanSelectionMap(plan(), 40, shuffle=True, lengths=LENGTHS)
    datasets = [grain.MapDataset.source(rows) for rows in arrays()]
    rows = grain.MapDataset.select_from_datasets(datasets, chosen).batch(12)
    for step in (0, 1, 20, 39):
        assert (rows[step] == feed[step]["rows"]).all()
    with pytest.raises(ValueError, match="lengths must be the rows of each source, to shuffle"):
        PlanSelectionMap(plan(), 40, shuffle=True)


def test_grain_s_threads_and_slices_change_no_row():
    feed = PlanSource(plan(), arrays(), 40, shuffle=True)
    wanted = [batch["rows"].tolist() for batch in feed]
    for threads, start in ((0, 0), (3, 7)):
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        batches = grain.MapDataset.source(feed)[start:].to_iter_dataset(options)
        assert [batch["rows"].tolist() for batch in batches] == wanted[start:]


def test_where_a_source_ends_is_as_before():
    small = MixPlan(0.5, 8)
    sources = [np.arange(100), np.arange(7)]
    assert len(PlanSource(small, sources, 20, shuffle=True, on_end="stop")) == 1
    with pytest.raises(ValueError, match="too few at step 1"):
        PlanSource(small, sources, 20, shuffle=True, on_end="error")


def test_what_cannot_be_shuffled_is_refused():
    endless = grain.MapDataset.source([1, 2, 3]).repeat()
    with pytest.raises(ValueError, match=r"source 1 must be of at most \d+ rows to be shuffled"):
        PlanSource(MixPlan(0.5, 4), [np.arange(9), endless], 5, shuffle=True)
    with pytest.raises((ValueError, TypeError), match="shuffle must be a bool or a BlockShuffle"):
        PlanSource(MixPlan(0.5, 4), [np.arange(9), np.arange(9)], 5, shuffle=42)
