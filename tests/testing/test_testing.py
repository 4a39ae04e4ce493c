"""The assertions about plans and feeds: each one fails on what it is there to find."""

import numpy as np
import pytest

import jaxmix
from jaxmix import MixPlan, PlannedRows
from jaxmix.testing import assert_conserves, assert_resumes


class Rounded(MixPlan):
    """Every step rounded by itself, so that errors add up."""

    def counts(self, step):
        first = round(self.batch_size * self.weights_at(step)[0])
        return np.array([first, self.batch_size - first])

    def counts_table(self, start, stop):
        return np.stack([self.counts(step) for step in range(start, stop)])

    def cursors(self, step):
        return step * self.counts(0)

    def rows(self, step, *, shard_index=0, shard_count=1):
        starts, counts = self.cursors(step), self.counts(step)
        index = np.concatenate([s + np.arange(n) for s, n in zip(starts, counts, strict=True)])
        return PlannedRows(np.repeat([0, 1], counts), index)


class Short(MixPlan):
    def counts(self, step):
        return super().counts(step) - (np.arange(self.num_sources) == 0)


class Negative(MixPlan):
    def counts(self, step):
        counts = super().counts(step)
        change = (step == 3) * (counts[1] + 1)
        return counts + np.array([change, -change])


class PicksZero(MixPlan):
    def weights_at(self, step):
        return np.array([1.0, 0.0])


class Extra(MixPlan):
    """Rows of sources that there are not."""

    def rows(self, step, *, shard_index=0, shard_count=1):
        return PlannedRows(*(np.append(field, [7, -1]) for field in super().rows(step)))


class OtherTable(MixPlan):
    def counts_table(self, start, stop):
        return super().counts_table(start, stop)[::-1]


class Behind(MixPlan):
    def cursors(self, step):
        return super().cursors(step) - (step == 5)


class Repeats(MixPlan):
    def rows(self, step, *, shard_index=0, shard_count=1):
        rows = super().rows(step, shard_index=shard_index, shard_count=shard_count)
        return PlannedRows(rows.source, np.where(rows.position == 9, 8, rows.position))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Rounded, r"step 2: source 0: 1\.0 rows off the ideal, allowed 0\.5"),
        (Short, r"step 0: counts \[\d+, \d+\], not >= 0 with the sum 7"),
        (Negative, r"step 3: counts \[\d+, -1\], not >= 0 with the sum 7"),
        (PicksZero, r"step 0: source 1: \d+ rows, weight 0"),
        (Extra, r"step 0: rows of shapes \(\(9,\), \(9,\)\), not 7 each"),
        (OtherTable, r"step 0: counts \[\d, \d\], but \[\d, \d\] in the table"),
        (Behind, r"step 5: cursors \[\d+, \d+\], but \[\d+, \d+\] rows used"),
        (Repeats, r"step 2: source 0: rows .*8, 8.*, due are .*8, 9"),
    ],
)
def test_counts_that_are_not_exact_are_found(broken, message):
    assert_conserves(MixPlan(0.5, 7), 20)
    with pytest.raises(AssertionError, match=message):
        assert_conserves(broken(0.5, 7), 20)


def test_a_tighter_bound_can_be_asked_for():
    plan = MixPlan([0.5, 0.3, 0.2], 7)
    assert_conserves(plan, 50, max_error=1.0)
    with pytest.raises(AssertionError, match=r"rows off the ideal, allowed 0\.1"):
        assert_conserves(plan, 50, max_error=0.1)


class ByCall(MixPlan):
    """Spread over the batch by a generator that is in no checkpoint."""

    def rows(self, step, *, shard_index=0, shard_count=1):
        self.rng = getattr(self, "rng", np.random.default_rng(0))
        rows = super().rows(step, shard_index=shard_index, shard_count=shard_count)
        order = self.rng.permutation(len(rows.source))
        return PlannedRows(rows.source[order], rows.position[order])


class Strided(MixPlan):
    def rows(self, step, *, shard_index=0, shard_count=1):
        return PlannedRows(*(field[shard_index::shard_count] for field in super().rows(step)))


class Forgets(MixPlan):
    """A state without what each source is owed."""

    def state(self, step):
        state = super().state(step)
        none = [0] * self.num_sources
        return {**state, "carry": none, "block_step": step, "block_cursors": state["cursors"]}


class Skips(MixPlan):
    def state(self, step):
        state = super().state(step)
        state["cursors"] = [cursor + 1 for cursor in state["cursors"]]
        return state


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (ByCall, r"at step 0 in 2 processes, step 0, leaf \['\w+'\]: row \d is \d+, unbroken \d+"),
        (Strided, r"step 0 in 2 processes, step 0, leaf .*: row \d is"),
        (Forgets, r"restarted at step \d+ in 1 processes, step \d+, leaf"),
        (Skips, r"at step 0 in 1 processes, step 0, leaf \['position'\]: row 0 is \d, unbroken \d"),
    ],
)
def test_a_plan_that_does_not_resume_is_found(broken, message):
    assert_resumes(MixPlan(0.3, 8), 30)
    with pytest.raises(AssertionError, match=message):
        assert_resumes(broken(0.3, 8), 30)


def test_a_feed_that_begins_anew_reads_other_parts_or_ends_is_found():
    plan = MixPlan(jaxmix.cosine_schedule(0.9, 0.1, 20), 8)

    def pure(first_step, part, parts):
        return (
            plan.rows(step, shard_index=part, shard_count=parts) for step in range(first_step, 30)
        )

    def iterator(first_step, part, parts):
        rng = np.random.default_rng(0)  # begins anew at every start
        return (rng.random(8 // parts) for _ in range(first_step, 30))

    def whole(first_step, part, parts):
        return pure(first_step, 0, 1)

    def ends(first_step, part, parts):
        return (
            plan.rows(step, shard_index=part, shard_count=parts) for step in range(first_step, 25)
        )

    def by_step(first_step, part, parts):
        return (
            {"rows": r.position, "step": i} for i, r in enumerate(pure(first_step, part, parts))
        )

    def reused(first_step, part, parts):
        """Garbage but for the last batch, in one array."""
        batch = np.zeros(8 // parts)
        for step in range(first_step, 30):
            batch[:] = step if step > first_step else -1
            yield batch

    def of_texts(first_step, part, parts):
        whole = (np.array([f"{s} {i}" for i in range(8)], object) for s in range(first_step, 30))
        return (batch[part * 8 // parts : (part + 1) * 8 // parts] for batch in whole)

    def of_other_texts(first_step, part, parts):
        return (batch + "!" * (first_step > 0) for batch in of_texts(first_step, part, parts))

    def other_structure(first_step, part, parts):
        return (
            {"rows": r.position} if part else {"ids": r.position}
            for r in pure(first_step, part, parts)
        )

    def after(first_step, part, parts):
        assert first_step >= 10
        return pure(first_step, part, parts)

    assert_resumes(pure, 30)
    assert_resumes(of_texts, 30)
    assert_resumes(after, 30, first_step=10)
    for feed, message in {
        iterator: "restarted at step 0 in 2 processes, step 0, leaf .: row 4 is",
        whole: r"restarted at step 0 in 2 processes, step 0.*\(16,\), unbroken int32\(8,\)",
        ends: "step 25: shard 0 of 1 ends after 25 batches",
        reused: "restarted at step 1 in 1 processes, step 1, leaf .: row 0 is -1.0, unbroken 1.0",
        of_other_texts: "restarted at step 1 in 1 processes, step 1, leaf .: row 0 is 1 0!, unb",
        other_structure: "step 0: the 2 shards differ in structure",
        by_step: r"restarted at step 1 .*leaf \['step'\]: row 0 is 0, unbroken 1",
    }.items():
        with pytest.raises(AssertionError, match=message):
            assert_resumes(feed, 30)


def test_parts_that_compare_nothing_and_what_is_no_feed_are_refused():
    plan = MixPlan(0.5, 8)
    for call, error, message in [
        (
            lambda: assert_resumes(plan, 9, shard_counts=(3,)),
            ValueError,
            "shard_counts must be numbers that div",
        ),
        (
            lambda: assert_resumes(plan, 9, shard_counts=()),
            ValueError,
            "shard_counts must be numbers that divide",
        ),
        (
            lambda: assert_resumes(plan, 9, shard_counts=(0,)),
            ValueError,
            "a shard count must be >= 1",
        ),
        (
            lambda: assert_resumes(lambda *_: [{}] * 9, 9),
            ValueError,
            "a batch must be a tree of arr",
        ),
        (
            lambda: assert_resumes(jaxmix.PlanSource(plan, [np.arange(9)] * 2, 9), 9),
            TypeError,
            r"plan must be a MixPlan, an iterator with .*, or a function.*shard_index=index, "
            r"shard_count=count\)\.batches\(step\).*, got PlanSource",
        ),
        (lambda: assert_resumes(iter([1]), 9), TypeError, "an iterator with `get_state` and `set_"),
        (lambda: assert_conserves(5, 9), TypeError, "plan must be a MixPlan or an object"),
    ]:
        with pytest.raises(error, match=message):
            call()


def test_a_plan_that_is_hostile_but_right_passes_with_a_wider_bound():
    # Weights that leave out the source that was just served force errors of about ln K.
    plan, unserved, lines = MixPlan(np.full(12, 1 / 12), 1), np.ones(12, bool), []
    for _ in range(60):
        lines.append(unserved / unserved.sum())
        plan = MixPlan(jaxmix.table_schedule(lines), 1)
        unserved &= plan.counts(len(lines) - 1) == 0
        unserved |= not unserved.any()
    with pytest.raises(AssertionError, match="rows off the ideal"):
        assert_conserves(plan, 60, max_error=1.0)
    assert_conserves(plan, 60, max_error=3.0)
    assert_resumes(plan, 60, max_error=3.0)


def test_no_steps_are_refused():
    for check in (assert_resumes, assert_conserves):
        with pytest.raises(ValueError, match="num_steps must be >= 1, got 0"):
            check(MixPlan(0.5, 2), 0)


class Nothing:
    """A stream of batches without arrays."""

    def __next__(self):
        return {}

    def __iter__(self):
        return self

    def get_state(self):
        return 0

    def set_state(self, state):
        pass


def test_a_stream_of_batches_without_arrays_is_refused():
    with pytest.raises(ValueError, match="a batch must be a tree with at least one array"):
        assert_resumes(Nothing(), 4)
