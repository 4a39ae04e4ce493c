"""What a feed says: unlike sources at once, and of a row that can't be read which one it is."""

import re
import traceback

import absl.flags
import grain
import jax
import numpy as np
import pytest

import jaxmix
from jaxmix import MixPlan, PlanSource

absl.flags.FLAGS.mark_as_parsed()  # else grain 0.2.18 fails to start worker processes

NEVER_TOGETHER = jaxmix.staged_schedule({0: [1.0, 0.0, 0.0], 300: [0.0, 0.0, 1.0]})
TOKENS = {"ids": np.zeros((40, 16), np.int32)}
UNLIKE = {
    "type": ({"ids": np.zeros((40, 16), np.int64)}, "int32 as in source 0, got 'int64'"),
    "shape": ({"ids": np.zeros((40, 32), np.int32)}, r"row shape \(16,\) as in source 0"),
    "rank": ({"ids": np.zeros(40, np.int32)}, r"row shape \(16,\) as in source 0"),
    "column": ({**TOKENS, "mask": np.ones(40)}, "structure of source 0"),
    "name": ({"tokens": TOKENS["ids"]}, "structure of source 0"),
    "list": ([{"ids": [0] * 16}] * 40, "int32 as in source 0, got 'int64'"),
    "text": ([{"ids": "0" * 16}] * 40, "int32 as in source 0, got 'str'"),
}


@pytest.mark.parametrize("kind", UNLIKE)
def test_unlike_sources_are_refused_at_once_in_every_process(kind):
    other, message = UNLIKE[kind]
    plan, messages = MixPlan(NEVER_TOGETHER, 8), set()
    for part in range(8):
        with pytest.raises((ValueError, TypeError), match=f"source 2 must be .*{message}") as told:
            PlanSource(plan, [TOKENS, TOKENS, other], 400, shard_index=part, shard_count=8)
        messages.add(str(told.value))
    assert len(messages) == 1


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"x": np.arange(9), "y": np.arange(9)}, "sources must be a sequence, as the sources of"),
        ("ab", "sources must be a list of 2 .*got 'str'"),
        (np.zeros((2, 9)), "sources must be a list of 2 .*got 'ndarray'"),
        (["a.npy", "b.npy"], "source 0 must be opened data.*got 'a.npy'"),
        ([np.arange(9)], "sources must be a list of 2 .*got 1"),
        ([np.arange(9), "b.npy"], "source 1 must be opened data"),
        ([np.arange(9), {"x": "b.npy"}], "source 1 must be arrays, a dict of arrays"),
    ],
)
def test_sources_that_are_no_list_of_data_are_refused(sources, message):
    with pytest.raises((ValueError, TypeError), match=message):
        PlanSource(MixPlan(0.5, 4), sources, 2)


class Broken:
    """Rows of which one can't be read."""

    def __init__(self, bad, error=OSError, length=100):
        self._bad, self._error, self._length = bad, error, length

    def __len__(self):
        return self._length

    def __getitem__(self, row):
        if row == self._bad:
            raise self._error("disk is gone")
        return row


class BrokenItems(Broken):
    def __getitems__(self, rows):
        return [self[row] for row in rows]


def forty(bad, source=23):
    sources = [np.arange(100) for _ in range(40)]
    return [*sources[:source], bad, *sources[source + 1 :]]


def at_row(source, row, plan, steps):
    """The first step that reads a row of a source."""
    for step in range(steps):
        found = plan.rows(step)
        if ((found.source == source) & (found.position % 100 == row)).any():
            return step


PLAN = MixPlan(np.full(40, 1 / 40), 80)
STEP = at_row(23, 57, PLAN, 100)


def note_of(error):
    return " ".join(getattr(error, "__notes__", []))


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("kind", [Broken, BrokenItems])
def test_a_row_that_can_not_be_read_is_named(kind, parts):
    told = []
    for part in range(parts):
        feed = PlanSource(PLAN, forty(kind(57)), 100, shard_index=part, shard_count=parts)
        assert feed[STEP - 1] and feed[STEP + 1]
        try:
            feed[STEP]
        except OSError as error:
            assert str(error) == "disk is gone"
            told.append(note_of(error))
    assert told == [f"where step {STEP} read row 57 of source 23"]


def test_a_value_that_does_not_fit_names_its_row():
    rows = list(range(100))
    rows[57] = 0.5
    with pytest.raises(TypeError, match="source 23 must be int64") as caught:
        PlanSource(PLAN, forty(rows), 100)[STEP]
    assert note_of(caught.value) == f"where step {STEP} read row 57 of source 23"


def test_an_error_that_only_many_rows_give_names_them():
    class Together(Broken):
        def __getitems__(self, rows):
            if len(rows) > 1:
                raise OSError("too many")
            return rows

    plan = MixPlan([1.0], 4)
    with pytest.raises(OSError, match="too many") as caught:
        PlanSource(plan, [Together(None)], 9)[2]
    assert note_of(caught.value) == "where step 2 read one of the rows 8 to 11 of source 0"


def test_a_row_of_a_later_epoch_is_named_by_its_place_in_the_source():
    class ByPosition(Broken):
        reads_positions = True

    with pytest.raises(OSError, match="disk is gone") as caught:
        PlanSource(MixPlan([1.0], 4), [ByPosition(13, length=10)], 9)[3]
    assert note_of(caught.value) == "where step 3 read row 3 of source 0"


def test_a_first_row_that_can_not_be_read_is_named():
    with pytest.raises(OSError, match="disk is gone") as caught:
        PlanSource(PLAN, forty(Broken(0)), 9)
    assert "row 0 of source 23" in note_of(caught.value)


def test_a_stream_that_ends_is_no_end_of_the_batches():
    feed = PlanSource(PLAN, forty(Broken(57, StopIteration)), 100)
    with pytest.raises(RuntimeError, match=r"source 23 must have .* got StopIteration") as caught:
        list(feed)
    assert f"step {STEP} read row 57" in note_of(caught.value)
    assert isinstance(caught.value.__cause__, StopIteration)


def test_the_cause_of_an_error_is_kept():
    class Chained(Broken):
        def __getitem__(self, row):
            try:
                return super().__getitem__(row)
            except OSError as error:
                raise KeyError("no such record") from error

    with pytest.raises(KeyError, match="no such record") as caught:
        PlanSource(PLAN, forty(Chained(57)), 100)[STEP]
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("threads", "workers", "error"),
    [
        (0, 0, StopIteration),
        (0, 0, IndexError),
        (4, 0, IndexError),
        (4, 0, OSError),
        (1, 1, OSError),
    ],
)
def test_the_note_comes_through_grain(threads, workers, error):
    feed = PlanSource(PLAN, forty(Broken(57, error)), 100)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * (threads > 0))
    dataset = grain.MapDataset.source(feed)[STEP - 2 :].to_iter_dataset(options)
    if workers:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    batches = iter(dataset)
    steps = [int(next(batches)["step"]) for _ in range(2)]
    assert steps == [STEP - 2, STEP - 1]
    with pytest.raises(Exception, match=r"disk is gone|StopIteration") as caught:
        next(batches)
    batches.close()
    text = "".join(traceback.format_exception(caught.value))
    assert re.search(f"step {STEP} read row 57 of source 23", text)


def test_a_later_first_step_is_told_to_loaders_that_begin_at_0():
    plan = MixPlan(0.5, 4, state=MixPlan(0.5, 4).state(30))
    feed = PlanSource(plan, [np.arange(9), np.arange(9)], 40)
    message = (
        r"step must be in \[30, 40\) \(grain: `dataset\[30:\]`; torch: `sampler=range\(30, 40\)`"
    )
    with pytest.raises(IndexError, match=message):
        feed[0]
    dataset = grain.MapDataset.source(feed)
    for options in (grain.ReadOptions(0, 0), grain.ReadOptions(1, 2)):
        batches = iter(dataset.to_iter_dataset(options))
        with pytest.raises(IndexError, match=message):
            next(batches)
        batches.close()
        batches = iter(dataset[30:].to_iter_dataset(options))
        assert [int(batch["step"]) for batch in batches] == list(range(30, 40))
        batches.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_of_torch_gives_the_steps(workers):
    data = pytest.importorskip("torch.utils.data")
    plan = MixPlan(0.5, 4, state=MixPlan(0.5, 4).state(30))
    feed = PlanSource(plan, [np.arange(9), np.arange(10, 19)], 40)
    with pytest.raises(IndexError, match=r"torch: `sampler=range\(30, 40\)`"):
        next(iter(data.DataLoader(feed, batch_size=None)))
    how = {"num_workers": workers}
    if workers:
        how["multiprocessing_context"] = "spawn"  # JAX's threads don't survive a fork
    loader = data.DataLoader(feed, batch_size=None, sampler=range(30, 40), **how)
    for step, batch in zip(range(30, 40), loader, strict=True):
        wanted = jax.tree.map(np.asarray, feed[step])
        assert int(batch["step"]) == step
        assert batch["rows"].tolist() == wanted["rows"].tolist()
