"""Opening a plan far away: the same progress as by all the blocks on the way, and quickly."""

import sys

import numpy as np
import pytest

import jaxmix
from jaxmix import MixPlan
from jaxmix._plan.counts import (
    MAX_STEPS,
    Progress,
    block_counts,
    end_progress,
    progress_after,
    to_units,
)
from jaxmix._plan.far_steps import progress_by_block, span_totals, two_progress


def carried(progress):
    return [part.tolist() for part in progress]


def begin(num_sources, rng):
    carry = rng.integers(-(2**50), 2**50, num_sources)
    carry[0] -= carry.sum()
    return Progress(np.zeros(num_sources, np.int64), carry)


@pytest.mark.parametrize("num_sources", [3, 8, 35, 60, 200])
@pytest.mark.parametrize("batch_size", [1, 7, 256, 2**20])
def test_fixed_weights_skip_to_the_progress_of_all_blocks(num_sources, batch_size):
    rng = np.random.default_rng([num_sources, batch_size])
    weights = rng.dirichlet(np.full(num_sources, 0.5))
    weights[1] = 0.0
    units = to_units(weights[None] / weights.sum())
    start = progress = begin(num_sources, rng)
    block = np.broadcast_to(units, (MAX_STEPS, num_sources))
    for got in progress_by_block(start, span_totals(block), batch_size, 6):
        progress = end_progress(progress, block, batch_size)
        assert carried(got) == carried(progress)


def test_moving_weights_skip_to_the_progress_of_all_blocks():
    """Small sources get no row in most spans: what one is given depends on all before it."""
    for num_sources, batch_size in [(2, 7), (3, 1), (8, 1), (35, 3), (60, 256), (300, 16)]:
        rng = np.random.default_rng(num_sources)
        weights = rng.dirichlet(np.full(num_sources, 0.05), size=6 * MAX_STEPS) + 1e-12
        units = to_units(weights / weights.sum(axis=1, keepdims=True))
        start = progress = begin(num_sources, rng)
        got = list(progress_by_block(start, span_totals(units), batch_size, 6))
        for number, block in enumerate(np.split(units, 6)):
            progress = end_progress(progress, block, batch_size)
            assert carried(got[number]) == carried(progress)


@pytest.mark.parametrize("change", [3072, 5000])
def test_a_source_that_comes_far_along_the_way_changes_no_row_before_or_after(change):
    """The blocks on the way are dealt out many at a time, up to where a weight leaves 0."""
    stages = {0: [0.5, 0.2, 0.3, 0.0], change: [0.25, 0.25, 0.25, 0.25], 8000: [0.5, 0.5, 0.0, 0.0]}
    weights = jaxmix.staged_schedule(stages)
    walked = MixPlan(weights, 30)
    for step in range(0, 10_000, 1024):
        walked.cursors(step)
    far = MixPlan(weights, 30)
    for step in (9999, change + 1, change):
        assert far.state(step) == walked.state(step) == MixPlan(weights, 30).state(step)


@pytest.mark.parametrize("gamma", [0.3, 1e-9, 0.5, 1.0, 0.0, 1 / 3])
@pytest.mark.parametrize("carry", [2**50, -(2**51), 2**51 - 1])
@pytest.mark.parametrize("batch_size", [1, 7, 2**24])
def test_two_fixed_weights_have_a_closed_form(gamma, batch_size, carry):
    units = to_units(np.array([[gamma, 1.0 - gamma]]))
    progress = start = Progress(np.zeros(2, np.int64), np.array([carry, -carry]))
    block = np.broadcast_to(units, (MAX_STEPS, 2))
    for blocks in range(1, 9):
        progress = end_progress(progress, block, batch_size)
        rows = blocks * MAX_STEPS * batch_size
        got = two_progress(start, int(units[0, 0]) * rows, rows)
        assert carried(got) == carried(progress)


@pytest.mark.parametrize("num_sources", [1, 2, 3, 40, 300])
def test_a_line_inside_a_block_is_where_its_counts_lead(num_sources):
    rng = np.random.default_rng(num_sources)
    weights = rng.dirichlet(np.full(num_sources, 0.7), size=MAX_STEPS)
    weights[300:, num_sources // 2] *= num_sources < 3
    units = to_units(weights / weights.sum(axis=1, keepdims=True))
    start = begin(num_sources, rng) if num_sources > 1 else Progress(*np.zeros((2, 1), np.int64))
    given = block_counts(start, units, 30)[0].cumsum(axis=0)
    for line in (1, 2, 3, 255, 256, 299, 300, 301, 511, 512, 513, 777, 1023, 1024):
        got = progress_after(start, units, 30, line)
        assert got.cursors.tolist() == given[line - 1].tolist()
        owed = (
            30 * units[:line].astype(object).sum(axis=0)
            + start.carry
            - 2**52 * got.cursors.astype(object)
        )
        assert got.carry.tolist() == owed.tolist()


def test_far_steps_agree_with_a_plan_that_was_there_before():
    for weights in ([0.7, 0.3], [0.5, 0.3, 0.2], np.full(9, 1 / 9)):
        for sizes in (24, {0: 8, 5000: 24, 60_001: 16}):
            walked = MixPlan(weights, sizes)
            for step in range(0, 90_000, 1024):
                walked.cursors(step)
            assert (
                MixPlan(weights, sizes).cursors(90_000).tolist() == walked.cursors(90_000).tolist()
            )
            assert walked.state(90_000) == MixPlan(weights, sizes).state(90_000)


def _calls(run):
    """How many functions are called: work that a busy machine does not change."""
    count = 0

    def see(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    run()  # what is imported and cached at the first time
    sys.setprofile(see)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def test_two_fixed_weights_open_anywhere_with_the_work_of_the_start():
    near, far = (_calls(lambda s=step: MixPlan(0.3, 256).rows(s)) for step in (5, 2**31 - 1))
    assert far <= near + 50


def test_many_fixed_weights_open_at_step_4_million_with_a_few_calls_per_block():
    weights = np.arange(1.0, 9.0) / 36.0
    near, far = (_calls(lambda s=step: MixPlan(weights, 256).rows(s)) for step in (5, 4_000_000))
    assert (
        far - near <= 6 * 4_000_000 / MAX_STEPS
    )  # 4 here; hundreds if each block is planned alone
