"""What a plan reads of a schedule: the schedule's own bits, however and whenever it is asked."""

import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schedule_cases import CASES, bits

from jaxmix import MixPlan, stack_schedules
from jaxmix._plan.counts import MAX_STEPS
from jaxmix._plan.exact_weights import PlannedSchedule

SPANS = ((0, 1), (5, 1024), (1000, 1024), (1024, 1030), (3071, 3072), (999_000, 999_424))


@pytest.mark.parametrize("name", CASES)
def test_a_plan_reads_the_very_bits_of_a_schedule(name):
    schedule = CASES[name].schedule
    planned = PlannedSchedule(schedule)
    whole = planned.values(0, 2**20)
    assert len(whole) in (1024, 2048, 4096, 8192, 16384)
    steps = np.concatenate([np.arange(*span) for span in SPANS])
    each = np.split(np.asarray(schedule(steps)), np.cumsum([b - a for a, b in SPANS])[:-1])
    for (first, stop), expected in zip(SPANS, each, strict=True):
        for asked in (PlannedSchedule(schedule), planned):
            assert bits(asked.values(first, stop)) == bits(expected), first
        if stop <= len(whole):
            assert bits(whole[first:stop]) == bits(expected)


def test_a_schedule_is_traced_once_for_all_plans_and_steps():
    traced = []

    def schedule(step):
        traced.append(step)
        return jnp.where(step < 5000, 0.25, 0.75)

    planned = PlannedSchedule(schedule)
    for step in (0, 10**6, 2**31 - 1, 70_000):
        assert planned.value(step) == (0.25 if step < 5000 else 0.75)
    assert len(traced) == 1


@pytest.mark.parametrize("num_sources", [3, 8, 9, 35, 200])
@pytest.mark.parametrize("smallest", [0, -25, -29, -32, -60])
def test_weights_are_the_same_bits_fixed_or_scheduled(num_sources, smallest):
    """Tiny weights make sums that are rounded, and then their order counts."""
    rng = np.random.default_rng([num_sources, -smallest])
    table = rng.dirichlet(np.ones(num_sources), size=50)
    if smallest:
        table[:, 1::3] = rng.uniform(1.0, 2.0, table[:, 1::3].shape) * 2.0**smallest
    table[:, 2] = 0.0
    table = (table / table.sum(axis=1, keepdims=True)).astype(np.float32)
    plan = MixPlan(lambda step: jnp.asarray(table)[step % 50], 8)
    for step, weights in enumerate(table):
        assert (plan.weights_at(step) == MixPlan(weights, 8).weights_at(0)).all()


def test_a_walk_of_many_blocks_ends_where_single_blocks_do():
    gamma, dying = CASES["cosine_falling"].schedule, CASES["staged_weights"].schedule
    some = stack_schedules(gamma, lambda step: jnp.where(step % 5000 < 4990, 0.5, 0.0), dying_to_0)
    for weights in (gamma, dying, some):
        for sizes in (24, {0: 8, 5000: 24, 60_001: 16}):
            walked = MixPlan(weights, sizes)
            for step in range(0, 70_000, MAX_STEPS):
                walked.cursors(step)
            assert MixPlan(weights, sizes).state(70_000) == walked.state(70_000)


def dying_to_0(step):
    return jnp.where(step < 40_000, 0.5 - step / 80_000, 0.0)


def test_bad_weights_far_ahead_are_refused_at_their_own_step():
    plan = MixPlan(lambda step: jnp.where(step < 9000, 0.5, 1.5), 8)
    assert plan.counts(8999).sum() == 8
    for step in (9000, 20_000, 10**6):
        with pytest.raises(ValueError, match="at step 9000"):
            plan.counts(step)
    assert plan.state(9000)["step"] == 9000


def test_threads_may_share_a_plan_of_a_schedule_in_plain_python():
    planned = PlannedSchedule(lambda step: 0.25 if step % 2048 < 1024 else 0.75)
    problems = []

    def read(offset):
        try:
            for turn in range(200):
                step = (turn * 7 + offset) % 9 * MAX_STEPS
                expected = 0.25 if step % 2048 < 1024 else 0.75
                assert (planned.values(step, step + 9) == expected).all()
        except BaseException as problem:
            problems.append(problem)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not problems, problems


def test_a_schedule_in_plain_python_is_asked_for_one_block_at_a_time():
    asked = []

    def schedule(step):
        asked.append(step)
        return 0.5 if step < 10 else 0.25

    planned = PlannedSchedule(schedule)
    assert planned.values(2100, 2**20).shape == (2 * MAX_STEPS + MAX_STEPS - 2100,)
    known = sorted(step for step in asked if not isinstance(step, jax.Array))
    assert known == [*range(2 * MAX_STEPS, 3 * MAX_STEPS)]
