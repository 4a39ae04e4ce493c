"""Schedules made of schedules: complements, clips, stacks, nests, other units, token shares."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from schedule_cases import CASES, bits, on_simplex

from jaxmix import (
    clip_schedule,
    complement_schedule,
    cosine_schedule,
    make_schedule,
    nest_schedules,
    rescale_schedule,
    stack_schedules,
    table_schedule,
    token_share_schedule,
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
