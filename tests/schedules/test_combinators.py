"""Schedules made of schedules: complements, clips, stacks, nests, other units, token shares."""

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from schedule_cases import CASES, bits, on_simplex, ulps_off

from jaxmix import (
    MixPlan,
    clip_schedule,
    complement_schedule,
    cosine_schedule,
    cyclical_schedule,
    make_schedule,
    nest_schedules,
    rescale_schedule,
    stack_schedules,
    staged_schedule,
    table_schedule,
    tabulate,
    token_share_schedule,
    weights_at,
)


@pytest.mark.parametrize("per_epoch", [3, 41, 61, 390, 1000, 4097])
def test_a_whole_epoch_falls_on_its_exact_step(per_epoch):
    epochs = np.unique(np.linspace(1, 2**23 / per_epoch, 3000).astype(np.int64))
    starts = epochs * per_epoch
    units = rescale_schedule(lambda unit: unit, per_epoch)
    np.testing.assert_array_less(units(starts - 1), epochs)
    assert (np.asarray(units(starts)) >= epochs).all()


@pytest.mark.parametrize("tokens", [1000, 4096, 12_345, 999_999, 4_000_000])
def test_tokens_are_counted_exactly_while_a_float_can(tokens):
    steps = np.arange(1, 2**24 // tokens + 1)
    units = rescale_schedule(lambda unit: unit, 1 / tokens)(steps)
    assert units.tolist() == (steps * tokens).tolist()


GAMMAS = [CASES[name].schedule for name in ("cosine", "exponential", "staged_ramp", "token_share")]
ETAS = [complement_schedule(gamma) for gamma in GAMMAS]
CLIPPED = [clip_schedule(gamma, 0.25, 0.5) for gamma in GAMMAS]


@hypothesis.given(step=st.integers(0, 3000))
def test_complement_sums_to_one_and_clip_keeps_its_bounds(step):
    for gamma, eta, clipped in zip(GAMMAS, ETAS, CLIPPED, strict=True):
        value = np.float32(gamma(step))
        assert bits(eta(step)) == bits(np.float32(1) - value)
        assert abs(float(eta(step)) + float(value) - 1) <= 2.0**-24
        assert bits(clipped(step)) == bits(np.clip(value, np.float32(0.25), np.float32(0.5)))


def test_complement_and_clip_refuse_weights():
    weights = CASES["table_weights"].schedule
    for made in (
        complement_schedule(weights),
        clip_schedule(weights, 0.1, 0.9),
        stack_schedules(weights),
    ):
        with pytest.raises(ValueError, match="a schedule's value must be a scalar"):
            made(0)


simplex = st.lists(st.floats(0.01, 1), min_size=1, max_size=6).map(
    lambda raw: (np.array(raw) / sum(raw)).tolist()
)


@hypothesis.settings(max_examples=20)
@hypothesis.given(outer=simplex, data=st.data())
def test_nested_weights_sum_to_one_and_each_group_to_its_share(outer, data):
    inner = [data.draw(simplex) for _ in outer]
    weights = np.asarray(nest_schedules(outer, *inner)(0), np.float64)
    np.testing.assert_allclose(weights.sum(), 1, atol=1e-6)
    ends = np.cumsum([len(w) for w in inner])
    groups = [part.sum() for part in np.split(weights, ends[:-1])]
    np.testing.assert_allclose(groups, outer, atol=1e-6)
    np.testing.assert_allclose(weights[: ends[0]], outer[0] * np.array(inner[0]), atol=1e-6)


def test_nesting_takes_gammas_single_sources_and_more_nests():
    inside = nest_schedules(0.5, cosine_schedule(0.0, 1.0, 10), [1.0])
    assert inside(10).tolist() == [0.5, 0.0, 0.5]
    assert nest_schedules([0.5, 0.25, 0.25], inside, 1.0, [1.0])(0).tolist() == (
        [0.0, 0.25, 0.5 - 0.25 + 0.0, 0.25, 0.0, 0.25]
    )
    with pytest.raises(ValueError, match="must be 2"):
        nest_schedules([0.5, 0.3, 0.2], [1.0], [1.0])(0)


@hypothesis.settings(max_examples=20)
@hypothesis.given(weights=simplex, data=st.data())
def test_rows_of_token_shares_hold_the_tokens_asked_for(weights, data):
    size = len(weights)
    means = data.draw(st.lists(st.floats(1, 1e6), min_size=size, max_size=size))
    rows = np.asarray(token_share_schedule(weights, means)(0), np.float64)
    np.testing.assert_allclose(on_simplex(rows * means), weights, rtol=2e-6)
    np.testing.assert_allclose(rows.sum(), 1, atol=1e-6)


def test_a_token_share_of_nothing_or_everything_stays_so():
    for means in ([300.0, 7.0], [7.0, 333.3], [1.0, 1e6]):
        rows = token_share_schedule(table_schedule([0.0, 1.0]), means)
        assert rows(np.arange(2)).tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="must be 3"):
        token_share_schedule(0.5, [1.0, 2.0, 3.0])(0)


def test_a_stack_without_any_weight_shows_nan():
    weights = stack_schedules(make_schedule(3), make_schedule(3, 0.0, -1.0))
    assert np.isnan(weights(0)).all()
    assert weights(2).tolist() == [1.0, 0.0]  # below 0 counts as 0


def rows_before(step):
    """Rows before a step of a run whose batch grows at steps 100 and 1,000."""
    assert type(step) is int
    sizes = {0: 3_000_000, 100: 12_000_001, 1000: 2**30}
    ends = [100, 1000, 2**31]
    stages = zip(sizes.items(), ends, strict=True)
    return sum(max(0, min(step, end) - begin) * size for (begin, size), end in stages)


@pytest.mark.parametrize("change", [99, 100, 101, 1000, 1500, 2048, 3000])
def test_a_schedule_of_rows_changes_on_the_exact_step_of_a_growing_batch(change):
    for late in (0, 1):  # one row later is one step later
        by_row = staged_schedule({0: 1.0, rows_before(change) + late: 0.25})
        gamma = rescale_schedule(by_row, rows_before)
        steps = np.array([0, change - 1, change, change + 1])
        want = [1.0, 1.0, 1.0 if late else 0.25, 0.25]
        assert gamma(steps).tolist() == want
        plan = MixPlan(gamma, 8)
        assert [plan.weights_at(step)[0] for step in steps] == want
        assert float(weights_at(change, gamma)[0]) == want[2]
    assert rows_before(3000) > 2**40


def test_rows_are_exact_in_every_shape_up_to_2_to_the_62():
    total = rows_before(3000)
    steps = np.array([0, 1, 99, 100, 999, 1000, 1777, 2999, 3000, 3001])
    rows = np.array([rows_before(step) for step in steps.tolist()], np.float64)
    gamma = rescale_schedule(cosine_schedule(0.0, 1.0, total), rows_before)
    share = np.minimum(rows / total, 1)
    assert ulps_off(gamma(steps), np.sin(np.pi / 2 * share) ** 2).max() <= 5
    cycle = rows_before(1001) // 7
    saw = rescale_schedule(cyclical_schedule(0.0, 1.0, cycle, 1.0), rows_before)
    want = [rows_before(step) % cycle / cycle for step in steps.tolist()]
    np.testing.assert_allclose(saw(steps), want, atol=1e-6)
    nested = stack_schedules(gamma, 1.0)
    np.testing.assert_allclose(MixPlan(nested, 8).weights_at(3000), [0.5, 0.5], atol=1e-7)
    far = rescale_schedule(
        staged_schedule({0: 0.25, 2**62 - 1: 0.5}), lambda step: 2**62 - 2 + step
    )
    assert far(np.arange(3)).tolist() == [0.25, 0.5, 0.5]
    near = cosine_schedule(0.0, 1.0, 2**30)  # the same bits whether a block is wide or not
    units = np.array([0, 5, 2**29 - 1, 2**29 + 7, 2**31])
    wide = rescale_schedule(near, lambda step: int(units[step]))(np.arange(5))
    assert bits(wide[:4]) == bits(near(units[:4]))


def test_units_by_a_function_are_for_the_host_and_checked():
    gamma = rescale_schedule(cosine_schedule(0.0, 1.0, 100), lambda step: step / 2)
    assert bits(gamma(np.arange(9))) == bits(cosine_schedule(0.0, 1.0, 100)(np.arange(9) / 2))
    table = table_schedule(tabulate(gamma, 50))
    assert bits(jax.jit(table)(7)) == bits(gamma(7))
    with pytest.raises(TypeError, match="steps_per_unit must be a number inside jit, got a func"):
        jax.jit(gamma)(7)
    for units, error in ((lambda t: "a", TypeError), (lambda t: -1, ValueError)):
        with pytest.raises(error, match=r"steps_per_unit\(step\) must be"):
            rescale_schedule(cosine_schedule(0.0, 1.0, 100), units)(3)
    with pytest.raises(ZeroDivisionError):
        MixPlan(rescale_schedule(cosine_schedule(0.0, 1.0, 100), lambda step: 1 // 0), 8)
    first = MixPlan(0.5, 8).state(40)
    known = {step: 2 * step for step in range(40, 1024)}  # as of a plan that begins at step 40
    later = rescale_schedule(cosine_schedule(0.0, 1.0, 100), known.__getitem__)
    assert MixPlan(later, 8, state=first).weights_at(45)[0] == gamma(180)
    with pytest.raises(KeyError):
        MixPlan(later, 8, state=first).weights_at(1024)


def test_means_of_any_size_give_token_shares():
    for scale in (1e40, 1e-40):  # as far from 1 as no float32 is
        rows = token_share_schedule([0.5, 0.5], [1 * scale, 3 * scale])
        np.testing.assert_allclose(rows(0), [0.75, 0.25], rtol=1e-6)
