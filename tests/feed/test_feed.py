"""Feeding a plan: the rows it names, from any kind of source, read once and by its own process."""

import os
import signal
import subprocess
import sys
import textwrap

import cloudpickle
import grain
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmix
from jaxmix import MixPlan, PlanSelectionMap, PlanSource

LENGTHS = (30, 11, 50)
WEIGHTS = jaxmix.staged_schedule({0: [0.6, 0.4, 0.0], 20: [0.2, 0.3, 0.5]})


def value(source, index):
    """What row `index` of a source holds: constants as data, so that a row says what it is."""
    return 1000 * source + index % LENGTHS[source]


def arrays():
    return [np.arange(length) + 1000 * k for k, length in enumerate(LENGTHS)]


class Rows:
    """An object that has only `len` and `[i]`."""

    def __init__(self, rows):
        self._rows = rows

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, index):
        assert isinstance(index, int)
        return self._rows[index]


def memory_mapped(tmp_path, rows):
    np.save(tmp_path / "rows.npy", rows)
    return np.load(tmp_path / "rows.npy", mmap_mode="r")


SOURCES = {
    "numpy": lambda tmp_path, rows: rows,
    "memmap": memory_mapped,
    "list": lambda tmp_path, rows: rows.tolist(),
    "list of arrays": lambda tmp_path, rows: list(rows),
    "objects": lambda tmp_path, rows: Rows(rows.tolist()),
    "grain": lambda tmp_path, rows: grain.MapDataset.source(rows.tolist()),
    "grain repeated": lambda tmp_path, rows: grain.MapDataset.source(rows).repeat(),
}


@pytest.mark.parametrize("parts", [1, 2, 3, 12])
@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_source_gives_the_rows_of_the_plan(kind, parts, tmp_path):
    plan = MixPlan(WEIGHTS, 12, seed=1)
    sources = arrays()
    sources[1] = SOURCES[kind](tmp_path, sources[1])
    feeds = [
        PlanSource(plan, sources, 40, shard_index=part, shard_count=parts) for part in range(parts)
    ]
    for step in (0, 1, 19, 20, 39):
        batches = [feed[step] for feed in feeds]
        planned = plan.rows(step)
        for field in ("source", "position"):
            joined = np.concatenate([batch[field] for batch in batches])
            assert (joined == getattr(planned, field)).all()
        index = np.concatenate([batch["index"] for batch in batches])
        lengths = np.array([len(source) for source in sources])
        assert (index == planned.position % lengths.take(planned.source)).all()
        rows = np.concatenate([batch["rows"] for batch in batches])
        assert rows.tolist() == list(map(value, *map(np.ndarray.tolist, planned)))
        assert {batch["step"] for batch in batches} == {step}
        assert rows.dtype == np.int64 and batches[0]["step"].dtype == np.int32


def test_trees_keep_their_leaves():
    x = {"a": np.arange(20.0, dtype=np.float32).reshape(10, 2), "b": (np.arange(10) % 2 == 0,)}
    examples = [{"a": np.full(2, i, np.float32), "b": (bool(i % 2),)} for i in range(7)]
    batch = PlanSource(MixPlan(0.5, 8), [x, examples], 3)[2]
    rows, source, index = batch["rows"], batch["source"], batch["index"]
    assert rows["a"].shape == (8, 2) and rows["a"].dtype == np.float32
    assert rows["b"][0].dtype == bool
    for i in range(8):
        x_row, y_row = x["a"][index[i] % 10], np.full(2, index[i] % 7)
        assert (rows["a"][i] == (y_row if source[i] else x_row)).all()


def test_texts_of_unequal_width_are_not_cut():
    batch = PlanSource(MixPlan(0.5, 4), [np.array(["a", "b"]), ["longer", "texts", "c"]], 2)[0]
    assert sorted(batch["rows"].tolist()) == ["a", "b", "longer", "texts"]


class Counted:
    """An array that notes what it is asked for."""

    def __init__(self, rows):
        self.rows, self.asked = rows, []
        self.dtype, self.shape = rows.dtype, rows.shape

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, rows):
        self.asked.append(rows)
        return self.rows[rows]


class CountedList(list):
    def __getitem__(self, rows):
        self.asked.append(rows)
        return super().__getitem__(rows)


def test_a_source_is_asked_for_one_slice_a_step():
    plan, sources = MixPlan(WEIGHTS, 12), [Counted(a) for a in arrays()]
    sources[1] = CountedList(arrays()[1].tolist())
    sources[1].asked = []
    feed = PlanSource(plan, sources, 40)
    assert sources[1].asked.pop() == slice(0, 1) and not sources[0].asked  # what is a row?
    for step in range(40):
        counts, cursors = plan.counts(step), plan.cursors(step)
        feed[step]
        for k, source in enumerate(sources):
            first = int(cursors[k]) % LENGTHS[k]
            over = first + int(counts[k]) - LENGTHS[k]
            wanted = [slice(first, min(first + int(counts[k]), LENGTHS[k]))] if counts[k] else []
            assert source.asked == wanted + ([slice(0, over)] if over > 0 else [])
            source.asked.clear()


def test_a_process_reads_only_its_own_rows():
    plan, read = MixPlan(WEIGHTS, 12), []
    for part in range(4):
        sources = [Counted(a) for a in arrays()]
        feed = PlanSource(plan, sources, 40, shard_index=part, shard_count=4)
        for step in range(30, 40):
            feed[step]
        read.append([np.concatenate([s.rows[r] for r in s.asked]) for s in sources])
        assert sum(map(len, read[-1])) == 10 * 3
    for k in range(3):
        joined = sorted(np.concatenate([rows[k] for rows in read]).tolist())
        used = range(int(plan.cursors(30)[k]), int(plan.cursors(40)[k]))
        assert joined == sorted(value(k, i) for i in used)


def test_where_a_source_ends():
    plan = MixPlan([0.5, 0.25, 0.25], 8)
    sources = [np.arange(100), np.arange(7), np.arange(50)]
    assert plan.runs_out_at(20, [100, 7, 50]) == [None, 3, None]
    cycle = list(PlanSource(plan, sources, 20))
    assert len(cycle) == 20 and cycle[3]["rows"].shape == (8,)
    stop = PlanSource(plan, sources, 20, on_end="stop")
    assert len(stop) == 3 and (stop[2]["rows"] == cycle[2]["rows"]).all()
    assert len(list(PlanSource(plan, sources, 20, on_end="stop"))) == 3
    with pytest.raises(
        ValueError,
        match=r"source 1 must have rows for 20 steps, got 7 rows, too few at step 3: on_end",
    ):
        PlanSource(plan, sources, 20, on_end="error")
    assert len(PlanSource(plan, sources, 3, on_end="error")) == 3
    later = MixPlan([0.5, 0.25, 0.25], 8, state=plan.state(5))
    assert len(PlanSource(later, sources, 20, on_end="stop")) == 5


def test_steps_are_absolute_and_bounded():
    plan = MixPlan(WEIGHTS, 12)
    later = MixPlan(WEIGHTS, 12, state=plan.state(30))
    feed = PlanSource(later, arrays(), 40)
    assert len(feed) == 40
    assert (feed[35]["rows"] == PlanSource(plan, arrays(), 40)[35]["rows"]).all()
    for step in (29, 40, -1):
        with pytest.raises(IndexError, match=r"step must be in \[30, 40\)"):
            feed[step]
    assert [b["step"] for b in PlanSource(later, arrays(), 33)] == [30, 31, 32]
    assert [b["step"] for b in PlanSource(plan, arrays(), 33).batches(31)] == [31, 32]
    assert [b["step"] for b in feed.batches(39)] == [39] and list(feed.batches(40)) == []
    with pytest.raises(ValueError, match="first_step must be at most 40, the end of the run"):
        feed.batches(41)
    with pytest.raises(
        ValueError, match=r"num_steps must be >= 30, where the plan begins .*, got 10"
    ):
        PlanSource(later, arrays(), 10)  # what remains, where the whole run is meant
    with pytest.raises(TypeError, match=r"step must be an integer, got a slice: use `batches"):
        feed[31:]
    chosen = PlanSelectionMap(later, 40)
    assert list(chosen) == [chosen[i] for i in range(30 * 12, 40 * 12)]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda p: PlanSource(p, arrays()[:2], 9), "sources must be a list of 3 sources"),
        (lambda p: PlanSource(p, arrays(), 9, on_end="skip"), "on_end must be one of"),
        (
            lambda p: PlanSource(p, arrays(), 9, shuffle=42),
            "shuffle must be .* .the seed is `MixPlan",
        ),
        (lambda p: PlanSource(p, arrays(), 9, shard_count=5), "shard_count must be a divisor"),
        (lambda p: PlanSource(p, arrays(), -1), "num_steps must be >= 0"),
        (lambda p: PlanSource(None, arrays(), 9), "plan must be a MixPlan"),
        (lambda p: PlanSource(p, [[], *arrays()[1:]], 9), "source 0 must be of at least one row"),
        (
            lambda p: PlanSource(p, [3, *arrays()[1:]], 9),
            "source 0 must be arrays, a dict .* or an object with `len`",
        ),
        (
            lambda p: PlanSource(p, [{"a": [1]}, *arrays()[1:]], 9),
            "source 0 must be arrays, a dict of arrays .not of lists",
        ),
        (
            lambda p: PlanSource(p, [(np.ones(3), np.ones(4)), *arrays()[1:]], 9),
            "source 0 must be a tree of arrays of one length",
        ),
        (
            lambda p: PlanSource(p, [{"a": arrays()[0]}, *arrays()[1:]], 9),
            "source 1 must be of the structure of source 0",
        ),
        (
            lambda p: PlanSource(p, [arrays()[0].astype(np.int32), *arrays()[1:]], 9),
            "the array of source 1 must be int32 as in source 0",
        ),
        (
            lambda p: PlanSource(p, [np.zeros((9, 2), int), *arrays()[1:]], 9),
            r"source 1 must be of row shape \(2,\) as in source 0",
        ),
        (
            lambda p: PlanSource(p, [[1, 2, None] * 9, *arrays()[1:]], 9)[0],
            "a row of source 0 must be an example .*filter",
        ),
        (
            lambda p: PlanSource(p, [[{"a": 1}, {"b": 1}]] * 3, 9)[0],
            "a row of source 0 must be of the structure of the first",
        ),
        (
            lambda p: PlanSource(p, [[np.ones(2), np.ones(3)]] * 3, 9)[0],
            "of source 0 must be of one shape .ragged rows: pad or pack them",
        ),
        (
            lambda p: PlanSource(p, [[object(), object()], *arrays()[1:]], 9),
            "of source 0 must be numbers or text",
        ),
        (lambda p: PlanSelectionMap(None, 9), "plan must be a MixPlan"),
        (lambda p: PlanSource(p, arrays(), 9).batches(-2), "first_step must be >= 0"),
    ],
)
def test_bad_input_is_refused_with_its_name(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build(MixPlan(WEIGHTS, 12))


KILLED = """
    import sys
    import numpy as np
    import jaxmix
    from jaxmix import MixPlan, PlanSource

    first, part, parts = map(int, sys.argv[1:])
    plan = MixPlan(jaxmix.staged_schedule({0: [0.7, 0.3], 25: [0.4, 0.6]}), 12, seed=3)
    sources = [np.load(f"{k}.npy", mmap_mode="r") for k in range(2)]
    steps = 10**9 if parts == 1 else 60
    feed = PlanSource(plan, sources, steps, shard_index=part, shard_count=parts)
    for batch in feed.batches(first):
        print(int(batch["step"]), *batch["rows"].tolist(), flush=True)
"""


def test_killed_in_mid_epoch_it_goes_on_with_the_next_row_on_other_parts(tmp_path):
    (tmp_path / "run.py").write_text(textwrap.dedent(KILLED))
    for k in range(2):
        np.save(tmp_path / f"{k}.npy", np.arange(5000) + 10_000 * k)

    def start(*arguments):
        command = [sys.executable, "run.py", *map(str, arguments)]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)

    process, seen = start(0, 0, 1), []
    while len(seen) < 33:
        seen.append([int(word) for word in process.stdout.readline().split()])
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    outputs = [p.communicate()[0] for p in [start(33, part, 3) for part in range(3)]]
    for lines in zip(*(output.splitlines() for output in outputs), strict=True):
        numbers = [[int(word) for word in line.split()] for line in lines]
        assert len({step for step, *_ in numbers}) == 1
        seen.append([numbers[0][0], *(row for _, *rows in numbers for row in rows)])
    assert [step for step, *_ in seen] == list(range(60))
    plan = MixPlan(jaxmix.staged_schedule({0: [0.7, 0.3], 25: [0.4, 0.6]}), 12, seed=3)
    for step, *rows in seen:
        planned = plan.rows(step)
        assert rows == (10_000 * planned.source + planned.position).tolist()
    every = [row for _, *rows in seen for row in rows]
    assert len(set(every)) == len(every) == 720
    for k in range(2):
        index = [row - 10_000 * k for row in every if row // 10_000 == k]
        assert sorted(index) == list(range(len(index)))


def test_it_travels_by_cloudpickle_and_calls_no_schedule_then(monkeypatch):
    def schedule(step):
        assert "NO_SCHEDULES" not in os.environ
        return jnp.asarray(optax.cosine_decay_schedule(1.0, 1500)(step))

    plan = MixPlan(schedule, 12, state=MixPlan(schedule, 12).state(300))
    feed = PlanSource(plan, arrays()[:2], 2000)
    rows = PlanSelectionMap(plan, 2000)
    sent = cloudpickle.dumps((feed, rows, plan))
    monkeypatch.setenv("NO_SCHEDULES", "1")
    feed_there, rows_there, plan_there = cloudpickle.loads(sent)
    for step in (1999, 300, 700):
        assert (feed_there[step]["rows"] == feed[step]["rows"]).all()
        assert rows_there[12 * step + 5] == rows[12 * step + 5]
    with pytest.raises(AssertionError):
        plan_there.rows(700)  # the plan by itself has no table
    assert "PlanSource(MixPlan(2 sources" in repr(feed_there)
