"""Every schedule under every promise: closed forms, exact ends, any kind of step, the same bits."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from schedule_cases import CASES, bits, ulps_off

from jaxmix import (
    tabulate,
)
from jaxmix._schedules.evaluate import MAX_STEP, call_schedule

EVERY = pytest.mark.parametrize("name", CASES)
STEPS = np.arange(2000, dtype=np.int32)
PROBES = np.array([0, 1, 5, 7, 39, 40, 146, 147, 333, 500, 599, 740, 999, 1000, 1999, MAX_STEP])


@EVERY
def test_values_follow_the_closed_form_within_bounds(name):
    case = CASES[name]
    steps = np.concatenate([STEPS, np.random.default_rng(1).integers(2000, MAX_STEP, 50)])
    got = case.schedule(steps)
    assert got.dtype == jnp.float32 and not got.weak_type
    expected = case.reference(steps)
    assert got.shape == expected.shape
    got = np.asarray(got)
    off = ulps_off(got, expected)[expected > 1e-12]
    assert off.max() <= case.ulps
    assert got.min() >= np.float32(case.low) and got.max() <= np.float32(case.high)
    if got.ndim == 2:
        np.testing.assert_array_less(np.abs(got.astype(np.float64).sum(-1) - 1), 3e-7)
    if case.way:
        assert (case.way * np.diff(got[:2000]) >= 0).all()


@EVERY
def test_the_ends_are_met_to_the_bit(name):
    case = CASES[name]
    compiled = jax.jit(case.schedule)
    for step, value in case.ends:
        for got in (case.schedule(step), compiled(step), case.schedule(np.array([step, step]))[1]):
            assert bits(got) == bits(value), (step, float(got), value)


@EVERY
def test_eager_jit_vmap_and_scan_give_the_same_bits(name):
    schedule = CASES[name].schedule
    table = np.asarray(tabulate(schedule, len(STEPS)))
    _, scanned = jax.lax.scan(lambda _, s: (None, schedule(s)), None, STEPS)
    _, counted = jax.lax.scan(lambda t, _: (t + 1, schedule(t)), jnp.int32(0), length=len(STEPS))
    fused = jax.jit(lambda s: (schedule(3 * s - 2 * s), 2.0 * schedule(s) + 1.0))(STEPS)[0]
    short = [schedule(chunk) for chunk in np.split(STEPS[:49], 7)]
    for values in (schedule(STEPS), scanned, counted, fused):
        assert bits(values) == bits(table)
    assert bits(np.concatenate(short)) == bits(table[:49])
    compiled = jax.jit(schedule)
    for step in (s for s in PROBES if s < len(STEPS)):
        for value in (schedule(step), compiled(step), call_schedule(schedule, step)):
            assert bits(value) == bits(table[step]), step


@EVERY
def test_any_kind_of_step_gives_the_same_value(name):
    schedule = CASES[name].schedule
    kinds = [
        int,
        np.int8,
        np.int32,
        np.int64,
        np.uint8,
        np.uint32,
        np.uint64,
        jnp.int32,
        jnp.uint32,
    ]
    kinds += [jnp.uint8, float, np.float32, np.float64, jnp.float32, jnp.bfloat16]
    for step in (0, 5, 40, 96):
        expected = schedule(jnp.int32(step))
        for kind in kinds:
            assert bits(schedule(kind(step))) == bits(expected), (step, kind)
    grid = np.array([[0, 5, 40], [96, 700, 2000]])
    flat = schedule(grid.ravel())
    assert bits(schedule(grid)) == bits(flat)
    assert schedule(grid).shape == (2, 3, *flat.shape[1:])


@EVERY
def test_steps_out_of_range_saturate(name):
    schedule = CASES[name].schedule
    first, last = schedule(0), schedule(MAX_STEP)
    for step in (-1, np.int64(-7), jnp.int32(-7), -0.5, -math.inf):
        assert bits(schedule(step)) == bits(first), step
    for step in (jnp.uint32(2**31), jnp.uint32(2**32 - 1)):
        assert bits(schedule(step)) == bits(last), step
        assert bits(jax.jit(schedule)(step)) == bits(last), step
    assert np.isfinite(schedule(1e13)).all()
    with pytest.raises(ValueError, match="step must be in"):
        schedule(2**31)
    with pytest.raises(TypeError, match="step must be"):
        schedule("7")


@EVERY
def test_the_derivative_in_the_step_is_finite_and_the_slope(name):
    schedule = CASES[name].schedule
    steps = np.array([-3.0, 0.0, *PROBES, *(PROBES + 0.5), 333.25, 1e13], np.float32)
    slopes = jax.jit(jax.vmap(jax.jacrev(schedule)))(steps)
    assert np.isfinite(slopes).all()
    # At 333.25 every one is smooth; values half a step apart are rounded to 1e-7 of the range.
    ahead, behind = np.asarray(schedule(np.array([333.5, 333.0], np.float32)), np.float64)
    np.testing.assert_allclose(slopes[-2], (ahead - behind) / 0.5, rtol=2e-3, atol=5e-7)


@EVERY
def test_optax_takes_it_bare(name):
    schedule = CASES[name].schedule
    shape = schedule(0).shape
    joined = optax.join_schedules([optax.constant_schedule(jnp.full(shape, 0.5)), schedule], [10])
    for step in (0, 9, 10, 50, jnp.int32(50)):
        expected = schedule(step - 10) if step >= 10 else np.full(shape, 0.5)
        assert bits(joined(step)) == bits(expected), step
        assert bits(jax.jit(joined)(step)) == bits(expected), step
    if not shape:
        optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=schedule)
        state, update_fn = optimizer.init(jnp.zeros(2)), jax.jit(optimizer.update)
        for step in range(2):
            update, state = update_fn(jnp.ones(2), state)
            assert (
                bits(-update[0]) == bits(schedule(step)) == bits(state.hyperparams["learning_rate"])
            )


# Sizes near and beyond what an int32 or a float32 holds.
