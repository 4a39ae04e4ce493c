"""Batch sizes by step: one plan across all borders, exact sums of rows, any order of sizes."""

import json

import numpy as np
import optax
import pytest

import jaxmix
from jaxmix import MixPlan, PlanSelectionMap, PlanSource, preview, rows_schedule
from jaxmix.testing import assert_conserves, assert_resumes

STAGES = {0: 24, 100: 8, 101: 40, 730: 16, 1024: 48, 1500: 24}
BORDERS = [0, 1, 99, 100, 101, 102, 729, 730, 731, 1023, 1024, 1025, 1499, 1500, 1501]
GAMMA = optax.cosine_decay_schedule(0.9, 1400, alpha=0.1)
WEIGHTS = {
    "number": 0.3,
    "gamma": GAMMA,
    "array": [0.5, 0.3, 0.15, 0.05],
    "temperature": jaxmix.temperature_schedule(
        [1e6, 1e5, 1e4], jaxmix.cosine_schedule(1.0, 5.0, 900)
    ),
    "staged": jaxmix.staged_schedule({0: [1.0, 0.0, 0.0], 300: [0.0, 0.5, 0.5]}),
}


def brute_size(step, stages):
    return stages[max(start for start in stages if start <= step)]


def again(plan, step):
    state = json.loads(json.dumps(plan.state(step)))
    return MixPlan(plan.weights, plan.batch_size, state=state, group_size=plan.group_size)


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_step_has_its_size_and_conservation_crosses_all_borders(name):
    plan = MixPlan(WEIGHTS[name], STAGES)
    table = plan.counts_table(0, 1600)
    sizes = [brute_size(step, STAGES) for step in range(1600)]
    assert table.sum(axis=1).tolist() == sizes
    assert [plan.batch_size_at(step) for step in range(1600)] == sizes
    assert_conserves(plan, 1600)
    assert_conserves(again(plan, 730), 1100)


@pytest.mark.parametrize("name", WEIGHTS)
def test_it_continues_at_every_border_with_the_same_rows(name):
    plan = MixPlan(WEIGHTS[name], STAGES, seed=5)
    for step in BORDERS:
        other = again(plan, step)
        assert (plan.counts_table(step, 1600) == other.counts_table(step, 1600)).all()
        assert other.state(1550) == plan.state(1550)
        assert other.rows_before(1550) == plan.rows_before(1550)
        for at in (step, 1550):
            pairs = zip(plan.rows(at), other.rows(at), strict=True)
            assert all((a == b).all() for a, b in pairs)


def test_any_order_of_steps_gives_the_same_rows():
    wanted = {step: MixPlan(GAMMA, STAGES).rows(step) for step in BORDERS}
    plan = MixPlan(GAMMA, STAGES)
    for step in reversed(BORDERS * 2):
        assert all((a == b).all() for a, b in zip(plan.rows(step), wanted[step], strict=True))
    assert_resumes(MixPlan(GAMMA, STAGES), 110)


def test_an_edit_at_every_border_skips_and_repeats_no_row():
    plan = MixPlan([0.5, 0.3, 0.2], STAGES)
    for step in BORDERS:
        stages = {start: size + 4 for start, size in STAGES.items()}
        state = plan.state(step)
        edited = MixPlan([0.1, 0.2, 0.7], stages, state=state)
        assert edited.cursors(step).tolist() == plan.cursors(step).tolist()
        assert edited.counts(step).sum() == brute_size(step, stages)
        assert_conserves(edited, step + 20)
        late = {start: size for start, size in stages.items() if start >= step} or {step: 9}
        if min(late) == step:  # what is before the edit need not be given
            cut = MixPlan([0.1, 0.2, 0.7], late, state=state)
            assert cut.digest(1600) == MixPlan([0.1, 0.2, 0.7], stages, state=state).digest(
                1600
            ) or (late == {step: 9})


def test_a_hundred_stages_in_any_order():
    rng = np.random.default_rng(0)
    starts = [0, *sorted(rng.choice(np.arange(1, 3000), 99, replace=False).tolist())]
    stages = dict(
        rng.permutation(list(zip(starts, rng.integers(1, 70, 100).tolist(), strict=True))).tolist()
    )
    for weights in (GAMMA, [0.5, 0.3, 0.2]):
        plan = MixPlan(weights, stages)
        rows = [brute_size(step, stages) for step in range(3100)]
        assert plan.counts_table(0, 3100).sum(axis=1).tolist() == rows
        before = np.concatenate([[0], np.cumsum(rows)])
        assert (plan.rows_before(np.arange(3101)) == before).all()
        assert [plan.rows_before(step) for step in range(3101)] == before.tolist()
        assert_conserves(plan, 400)
        worst = 0.0
        owed = np.zeros(plan.num_sources)
        for step in range(3100):
            worst = max(worst, float(np.abs(plan.cursors(step) - owed).max()))
            owed += rows[step] * plan.weights_at(step)
        assert worst <= (0.5 if plan.num_sources == 2 else 1.5) + 1e-6
    assert MixPlan(0.5, dict(sorted(stages.items()))).digest(3100) == MixPlan(0.5, stages).digest(
        3100
    )


def test_stages_of_one_size_are_no_stages():
    plan = MixPlan([0.5, 0.3, 0.2], {0: 8, 500: 8, 900: 8})
    assert plan.batch_size == 8 and plan.digest(1100) == MixPlan([0.5, 0.3, 0.2], 8).digest(1100)
    assert MixPlan(0.5, {0: 8, 10: 16}).batch_size == {0: 8, 10: 16}
    assert MixPlan(0.5, {0: 8, 10: 16}).digest(10) == MixPlan(0.5, 8).digest(10)
    assert MixPlan(0.5, {0: 8, 10: 16}).digest(11) != MixPlan(0.5, 8).digest(11)


def test_rows_and_steps_are_exact_to_2_to_the_40_rows():
    stages = {0: 3, 7: 2**24, 1000: 2**24 - 1, 40_000: 700}
    plan = MixPlan(0.5, stages)
    first = 7 * 3 + 993 * 2**24
    wanted = {6: 18, 7: 21, 8: 21 + 2**24, 1000: first, 1001: first + 2**24 - 1}
    last = first + 39_000 * (2**24 - 1)
    wanted |= {40_000: last, 2**31: last + 700 * (2**31 - 40_000)}
    for step, rows in wanted.items():
        assert plan.rows_before(step) == rows == plan.rows_before(np.array([step]))[0]
        assert plan.rows_before(np.int64(step)) == rows
        if step < 2**31:
            assert plan.step_of_row(rows) == step and plan.step_of_row(rows - 1) == step - 1
    assert 2**39 < last < 2**40
    rng = np.random.default_rng(0)
    for row in rng.integers(0, 2**40, 300).tolist():
        step = plan.step_of_row(row)
        assert plan.rows_before(step) <= row < plan.rows_before(step + 1)
    assert plan.step_of_row(0) == 0
    assert type(plan.rows_before(7)) is int and plan.rows_before(np.arange(3)).dtype == np.int64
    assert plan.rows_before(np.zeros((0,), np.int32)).tolist() == []


def test_rows_before_counts_the_rows_of_the_whole_run():
    plan = MixPlan({"a": 0.5, "b": 0.5}, 32)
    edited = MixPlan({"b": 1.0}, {0: 64, 200: 16}, state=plan.state(100))
    assert edited.rows_before(100) == 3200 and edited.rows_before(201) == 3200 + 6400 + 16
    assert edited.step_of_row(3200) == 100 and edited.step_of_row(9600) == 200
    with pytest.raises(ValueError, match=r"step must be in \[100, "):
        edited.rows_before(99)
    with pytest.raises(ValueError, match=r"step must be in \[100, "):
        edited.rows_before(np.arange(99, 120))
    with pytest.raises(ValueError, match="row must be >= 3200"):
        edited.step_of_row(3199)
    with pytest.raises(ValueError, match=r"step must be in \[100, "):
        edited.batch_size_at(99)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MixPlan(0.5, {}), "batch_size must be an integer or {step"),
        (
            lambda: MixPlan(0.5, {5: 8}),
            "of batch_size must be <= 0, so that each step has a size, got 5",
        ),
        (lambda: MixPlan(0.5, {0: 8, 9: 0}), "batch_size at step 9 must be >= 1, got 0"),
        (lambda: MixPlan(0.5, {0: 8, 9: 2**25}), r"batch_size at step 9 must be at most 2\^24"),
        (lambda: MixPlan(0.5, {0: 8, 9: 8.0}), "batch_size at step 9 must be an integer"),
        (lambda: MixPlan(0.5, {0: 8, 9.0: 8}), "a step of batch_size must be an integer"),
        (lambda: MixPlan(0.5, {0: 8, 2**31: 9}), "a step of batch_size must be at most"),
        (lambda: MixPlan(0.5, {0: 8, -1: 9}), "a step of batch_size must be >= 0"),
        (
            lambda: MixPlan(0.5, [(0, 8), (5, 9)]),
            "batch_size must be an integer or {step: integer}",
        ),
        (lambda: MixPlan(0.5, lambda step: 8), "batch_size must be an integer or {step: integer}"),
        (
            lambda: MixPlan(0.5, {0: 8, 90: 12}).rows(0, shard_count=8),
            "shard_count must be a divisor of B = 12, the batch size from step 90 on, got 8",
        ),
        (
            lambda: PlanSource(MixPlan(0.5, {0: 8, 90: 12}), [[1], [2]], 99, shard_count=8),
            "a divisor of B = 12, the batch size from step 90 on, got 8",
        ),
        (
            lambda: MixPlan(0.5, {0: 8, 90: 12}, group_size=8),
            "group_size must be a divisor of B = 12, the batch size from step 90 on, got 8",
        ),
        (lambda: MixPlan(0.5, 8).rows_before(1.0), "step must be an integer"),
        (lambda: MixPlan(0.5, 8).rows_before(np.array([1.0])), "step must be integers"),
        (lambda: MixPlan(0.5, 8).step_of_row(-1), "row must be >= 0"),
        (lambda: MixPlan(0.5, 8).step_of_row(2**34), "row must be in a step up to"),
        (lambda: rows_schedule({3: 8}), "the first step of batch_size must be <= 0"),
    ],
)
def test_bad_sizes_are_refused_with_their_stage(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


@pytest.mark.parametrize("shard_count", [1, 2, 8])
def test_feeds_follow_the_stages(shard_count):
    plan = MixPlan([0.5, 0.3, 0.2], STAGES)
    sources = [1000 * k + np.arange(300) for k in range(3)]
    feeds = [
        PlanSource(plan, sources, 120, shard_index=shard, shard_count=shard_count)
        for shard in range(shard_count)
    ]
    chosen = PlanSelectionMap(plan, 120)
    assert len(chosen) == plan.rows_before(120) and len(list(chosen)) == len(chosen)
    for step in (0, 99, 100, 101, 119):
        rows = np.concatenate([feed[step]["rows"] for feed in feeds])
        planned = plan.rows(step)
        assert (rows == 1000 * planned.source + planned.position % 300).all()
        begin = plan.rows_before(step)
        got = [chosen[begin + i] for i in range(plan.batch_size_at(step))]
        assert got == list(zip(planned.source.tolist(), planned.position.tolist(), strict=True))
    with pytest.raises(IndexError, match=r"element must be in \[0, "):
        chosen[len(chosen)]
    later = PlanSelectionMap(again(plan, 100), 120)
    assert later[plan.rows_before(101)] == chosen[plan.rows_before(101)]
    with pytest.raises(IndexError, match=r"element must be in \[2400, "):
        later[2399]


def test_the_preview_shows_the_stages():
    plan = MixPlan([0.75, 0.25], {0: 8, 10: 1600}, names=["x", "y"])
    seen = preview(plan, 20)
    assert seen.rows == [12_060, 4020] and seen.batch_size == {0: 8, 10: 1600}
    title = repr(seen).splitlines()[0]
    assert title == "Steps 0 to 19, 8 from step 0 on, 1,600 from step 10 on: 16,080 rows"
    assert repr(preview(plan, 10)).splitlines()[0] == "Steps 0 to 9, 8 from step 0 on: 80 rows"
    assert "... 6 stages" in repr(preview(MixPlan(0.5, STAGES), 1600))


@pytest.mark.parametrize("group_size", [1, 2, 4, 24])
@pytest.mark.parametrize("name", ["number", "gamma", "array", "staged"])
def test_groups_are_whole_and_conserved(group_size, name):
    plan = MixPlan(WEIGHTS[name], {0: 24, 77: 48}, group_size=group_size)
    assert (plan.counts_table(0, 1100) % group_size == 0).all()
    assert_conserves(plan, 120)
    assert_resumes(plan, 80, shard_counts=(1, 8))
    groups = MixPlan(WEIGHTS[name], {0: 24 // group_size, 77: 48 // group_size})
    assert (plan.counts_table(0, 500) == group_size * groups.counts_table(0, 500)).all()
    assert (plan.rows(80).source[::group_size] == groups.rows(80).source).all()


def test_a_whole_batch_of_one_source_over_shards_that_cut_the_group():
    plan = MixPlan([0.5, 0.3, 0.2], 64, group_size=64)
    for step in range(30):
        whole = plan.rows(step)
        assert whole.source.shape == (64,) and len(set(whole.source.tolist())) == 1
        parts = [plan.rows(step, shard_index=i, shard_count=16) for i in range(16)]
        assert (np.concatenate([part.position for part in parts]) == whole.position).all()
        assert (np.diff(whole.position) == 1).all()
    assert repr(plan) == "MixPlan(3 sources, batch_size=64, group_size=64, seed=0, first_step=0)"
    assert plan.digest(9) != MixPlan([0.5, 0.3, 0.2], 64).digest(9)


def test_another_group_size_continues_and_forgets_no_more_than_a_group():
    plan = MixPlan([0.5, 0.3, 0.2], 64, group_size=64)
    for step in (1, 2, 3, 50):
        for group_size in (1, 4, 64):
            edited = MixPlan([0.2, 0.3, 0.5], 64, group_size=group_size, state=plan.state(step))
            assert edited.cursors(step).tolist() == plan.cursors(step).tolist()
            carry = edited.state(step)["carry"]
            assert sum(carry) == 0 and max(map(abs, carry)) <= 2**52
            assert_conserves(edited, step + 30, max_error=2.0 * group_size)
    owed = MixPlan([0.5, 0.3, 0.2], 8, group_size=2).state(7)["carry"]
    halved = MixPlan(
        [0.5, 0.3, 0.2], 8, group_size=4, state=MixPlan([0.5, 0.3, 0.2], 8, group_size=2).state(7)
    )
    assert np.abs(np.array(halved.state(7)["carry"]) - np.array(owed) / 2).max() <= 2 and any(owed)
    two = MixPlan(0.4, 8, group_size=8)
    for step in (1, 2, 3):
        edited = MixPlan(0.4, 8, state=two.state(step))
        assert_conserves(edited, step + 30)
    with pytest.raises(ValueError, match="group_size must be a divisor of B = 64, got 5"):
        MixPlan(0.5, 64, group_size=5)
    with pytest.raises(ValueError, match="group_size must be >= 1"):
        MixPlan(0.5, 64, group_size=0)


@pytest.mark.parametrize("weights", [0.3, [0.5, 0.0, 0.3, 0.2]])
@pytest.mark.parametrize("group_size", [1, 4])
def test_many_small_shards_are_the_batch(weights, group_size):
    plan = MixPlan(weights, 256, group_size=group_size)
    for step in (0, 7, 1025):
        parts = [plan.rows(step, shard_index=i, shard_count=128) for i in range(128)]
        for name in ("source", "position"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            whole = getattr(plan.rows(step), name)
            assert (joined == whole).all() and joined.dtype == whole.dtype


def test_cursors_set_by_hand_at_step_0_leave_out_rows_and_count_no_batch():
    far = 3_000_000_000
    state = MixPlan([0.5, 0.5], 8).state(0) | {"cursors": [far, 5], "block_cursors": [far, 5]}
    plan = MixPlan([0.5, 0.5], 8, state=state)
    assert plan.rows_before(0) == 0 and plan.step_of_row(8) == 1
    rows = plan.rows(0)
    assert sorted(rows.position[rows.source == 0].tolist()) == [far + i for i in range(4)]
    chosen = jaxmix.PlanSelectionMap(plan, 10)
    assert {chosen[i] for i in range(8)} == {(0, far + i) for i in range(4)} | {
        (1, 5 + i) for i in range(4)
    }
