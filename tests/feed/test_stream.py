"""PlanStream: exact counts from streams, and the same batches after a restart at any step."""

import itertools
import json

import datasets
import grain
import numpy as np
import pytest

import jaxmix
from jaxmix import MixPlan, PlanSource, PlanStream
from jaxmix.testing import assert_resumes

GAMMA = jaxmix.cosine_schedule(0.9, 0.1, 40)
STEPS = 40


def numbers(first):
    return lambda: ({"id": i} for i in itertools.count(first))


def grain_stream(first, threads):
    dataset = grain.MapDataset.source(range(first, first + 10_000)).map(lambda i: {"id": i})
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return dataset.to_iter_dataset(options)


def huggingface(first):
    ids = {"id": list(range(first, first + 10_000))}
    return datasets.Dataset.from_dict(ids).to_iterable_dataset(num_shards=3)


KINDS = {
    "functions": numbers,
    "lists": lambda first: [{"id": i} for i in range(first, first + 1000)],
    "grain, 0 threads": lambda first: grain_stream(first, 0),
    "grain, 1 thread": lambda first: grain_stream(first, 1),
    "grain, 3 threads": lambda first: grain_stream(first, 3),
    "huggingface": huggingface,
}


def make(kind, plan=None, **options):
    plan = MixPlan(GAMMA, 8, names=["a", "b"]) if plan is None else plan
    streams = {"b": KINDS[kind](50_000), "a": KINDS[kind](0)}
    return PlanStream(plan, streams, STEPS, **options)


def shown(batch):
    parts = (batch["rows"]["id"], batch["source"], batch["position"])
    return int(batch["step"]), *(np.asarray(part).tolist() for part in parts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_batches_are_those_of_a_plan_source(kind):
    plan = MixPlan(GAMMA, 8, names=["a", "b"])
    arrays = {"a": {"id": np.arange(10_000)}, "b": {"id": 50_000 + np.arange(10_000)}}
    wanted = list(map(shown, PlanSource(plan, arrays, STEPS)))
    assert list(map(shown, make(kind))) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_it_restarts_at_every_step_with_the_same_tail(kind):
    stream, states, wanted = make(kind), [], []
    for batch in stream:
        wanted.append(shown(batch))
        states.append(json.dumps(stream.get_state()))
    assert len(wanted) == STEPS
    for stop in range(0, STEPS, 1 if "threads" not in kind else 7):
        again = make(kind)
        again.set_state(json.loads(states[stop]))
        assert list(map(shown, again)) == wanted[stop + 1 :], stop


@pytest.mark.parametrize("kind", KINDS)
def test_the_assertion_for_users_takes_a_stream(kind):
    assert_resumes(make(kind), STEPS)


def test_a_stream_that_forgets_is_found():
    class Forgets(PlanStream):
        def get_state(self):
            state = super().get_state()
            state["streams"]["a"]["rows"] = 0
            return state

    streams = {"a": numbers(0), "b": numbers(50_000)}
    with pytest.raises(
        AssertionError, match=r"set to batch 1, step 1, leaf \['rows'\]\['id'\]: row"
    ):
        assert_resumes(Forgets(MixPlan(GAMMA, 8, names=["a", "b"]), streams, STEPS), STEPS)


def test_one_stream_goes_back_and_forth():
    stream = make("functions")
    start = stream.get_state()
    wanted = list(map(shown, stream))
    stream.set_state(start)
    assert list(map(shown, stream)) == wanted


def test_a_generator_goes_forward_only():
    def fresh():
        return PlanStream(MixPlan(0.5, 4), [numbers(0)(), numbers(100)()], STEPS)

    stream = fresh()
    wanted, state = [shown(next(stream)) for _ in range(9)], None
    state = stream.get_state()
    later = shown(next(stream))
    again = fresh()
    again.set_state(state)
    assert shown(next(again)) == later and wanted[0][0] == 0
    with pytest.raises(ValueError, match="must be an iterable, or a function that returns an iter"):
        again.set_state(fresh().get_state())


def test_a_plan_that_begins_later_skips_what_was_used():
    plan = MixPlan(GAMMA, 8, names=["a", "b"])
    wanted = list(map(shown, make("functions", plan)))
    later = MixPlan(GAMMA, 8, state=plan.state(15), names=["a", "b"])
    assert list(map(shown, make("functions", later))) == wanted[15:]


def test_a_shard_takes_its_own_rows_from_its_own_streams():
    plan = MixPlan(GAMMA, 8, names=["a", "b"])
    shard = {"shard_index": 1, "shard_count": 2}
    stream, states = make("functions", plan, **shard), []
    wanted = []
    for batch in stream:
        planned = plan.rows(int(batch["step"]), **shard)
        assert (batch["source"] == planned.source).all()
        wanted.append(shown(batch))
        states.append(stream.get_state())
    ids = [i for _, rows, *_ in wanted for i in rows if i < 50_000]
    assert sorted(ids) == list(range(len(ids)))
    again = make("functions", plan, **shard)
    again.set_state(states[20])
    assert list(map(shown, again)) == wanted[21:]
    with pytest.raises(ValueError, match="state must be of shard"):
        make("functions", plan).set_state(states[20])
    later = MixPlan(GAMMA, 8, state=plan.state(15), names=["a", "b"])
    with pytest.raises(ValueError, match="the stream must be given a state by `set_state`"):
        next(make("functions", later, **shard))


def test_an_edited_plan_continues_the_streams_by_name():
    plan = MixPlan(GAMMA, 8, names=["a", "b"])
    stream = make("functions", plan)
    seen = [shown(next(stream))[1] for _ in range(12)]
    edited = MixPlan({"b": 0.5, "c": 0.25, "a": 0.25}, 8, state=plan.state(12))
    more = {"c": numbers(90_000), "a": numbers(0), "b": numbers(50_000)}
    again = PlanStream(edited, more, STEPS)
    again.set_state(stream.get_state())
    seen += [shown(batch)[1] for batch in again]
    every = sorted(itertools.chain(*seen))
    for first in (0, 50_000, 90_000):
        ids = [i for i in every if first <= i < first + 40_000]
        assert ids == list(range(first, first + len(ids))) and ids


def finite(first, count):
    return [{"id": i} for i in range(first, first + count)]


def test_where_a_stream_ends():
    plan = MixPlan(0.5, 4, names=["a", "b"])
    streams = {"a": finite(0, 7), "b": finite(100, 50)}
    with pytest.raises(
        ValueError, match=r"source 'a' must have rows for 9 steps.*at step 3, after"
    ):
        list(PlanStream(plan, streams, 9))
    stopped = list(map(shown, PlanStream(plan, streams, 9, on_end="stop")))
    assert len(stopped) == 3
    cycled = [shown(batch)[1] for batch in PlanStream(plan, streams, 9, on_end="cycle")]
    ids = sorted(i for rows in cycled for i in rows if i < 100)
    assert ids == sorted([*range(7), *range(7), *range(4)])
    with pytest.raises(ValueError, match="for on_end 'cycle', got 'an iterator, which has ended'"):
        list(PlanStream(plan, {"a": iter(finite(0, 7)), "b": finite(100, 50)}, 9, on_end="cycle"))
    with pytest.raises(ValueError, match="source 'b' must have at least one row"):
        PlanStream(plan, {"a": finite(0, 7), "b": []}, 9)


@pytest.mark.parametrize("kind", ["lists", "huggingface", "grain, 1 thread"])
def test_a_restart_within_a_later_epoch(kind):
    plan = MixPlan(0.5, 8, names=["a", "b"])
    short = {
        "lists": lambda first: finite(first, 11),
        "huggingface": lambda first: datasets.Dataset.from_dict(
            {"id": list(range(first, first + 11))}
        ).to_iterable_dataset(),
        "grain, 1 thread": lambda first: grain.MapDataset.source(finite(first, 11)).to_iter_dataset(
            grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        ),
    }[kind]

    def fresh():
        return PlanStream(plan, [short(0), short(100)], 20, on_end="cycle")

    stream, states, wanted = fresh(), [], []
    for batch in stream:
        wanted.append(shown(batch))
        states.append(json.loads(json.dumps(stream.get_state())))
    assert len(wanted) == 20
    for stop in range(20):
        again = fresh()
        again.set_state(states[stop])
        assert list(map(shown, again)) == wanted[stop + 1 :], stop


def test_a_row_that_fails_names_its_source_and_loses_no_other_row():
    class Flaky:
        """Fails once, at its fifth row, and can be asked again."""

        def __init__(self):
            self.count, self.failed = 0, False

        def __iter__(self):
            return self

        def __next__(self):
            if self.count == 4 and not self.failed:
                self.failed = True
                raise OSError("no network")
            self.count += 1
            return {"id": 100 + self.count - 1}

    plan = MixPlan(0.5, 4)
    wanted = list(map(shown, PlanStream(plan, [numbers(0), numbers(100)], 6)))
    stream, got = PlanStream(plan, [numbers(0), Flaky()], 6), []
    with pytest.raises(OSError, match="no network") as failed:
        got.extend(map(shown, stream))
    assert failed.value.__notes__ == [f"where step {len(got)} read source '1'"]
    got += map(shown, stream)
    assert got[-1] == wanted[-1] and len(got) + 0 == len(wanted)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: PlanStream(0.5, [[1], [2]], 9), "plan must be a MixPlan"),
        (lambda p: PlanStream(p, [[1]], 9), "iterables must be 2"),
        (lambda p: PlanStream(p, [[1], 5], 9), "source '1' must be an iterable"),
        (lambda p: PlanStream(p, [["a"], "letters"], 9), "source '1' must be an iterable"),
        (lambda p: PlanStream(p, [[1], [2.5]], 9), "the array of source '1' must be int64"),
        (lambda p: PlanStream(p, [[1], [2]], 9, on_end="skip"), "on_end must be one of"),
        (lambda p: PlanStream(p, [[1], [2]], 9).set_state({}), "state must be the dict of"),
    ],
)
def test_bad_input_is_refused_with_its_name(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(MixPlan(0.5, 4))


def test_a_huggingface_stream_with_a_shuffle_buffer_restarts_with_the_same_tail():
    def fresh():
        streams = [huggingface(first).shuffle(seed=1, buffer_size=50) for first in (0, 50_000)]
        return PlanStream(MixPlan(GAMMA, 8), streams, STEPS)

    stream, states = fresh(), []
    wanted = []
    for batch in stream:
        wanted.append(shown(batch))
        states.append(json.dumps(stream.get_state()))
    assert wanted[0][1] != sorted(wanted[0][1])
    for stop in (0, 5, 17, 38):
        again = fresh()
        again.set_state(json.loads(states[stop]))
        assert list(map(shown, again)) == wanted[stop + 1 :], stop
