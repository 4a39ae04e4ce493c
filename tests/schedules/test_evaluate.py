"""A step of any kind is made safe; a schedule gives the same bits in every compilation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxmix
from jaxmix._schedules.evaluate import MAX_STEP, as_step, as_whole_step, call_schedule

STEPS = np.arange(1000, dtype=np.int32)
INT_KINDS = [int, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint32, np.uint64]
INT_KINDS += [jnp.int8, jnp.int16, jnp.int32, jnp.uint8, jnp.uint16, jnp.uint32]
FLOAT_KINDS = [float, np.float16, np.float32, np.float64, jnp.float16, jnp.bfloat16, jnp.float32]

CYCLES = [{"init_value": 0.1, "peak_value": 0.9, "decay_steps": 300, "warmup_steps": 50}] * 3

OPTAX = {
    "constant": optax.constant_schedule(0.3),
    "linear": optax.linear_schedule(0.1, 0.9, 700, 30),
    "polynomial": optax.polynomial_schedule(1.0, 0.1, 3.0, 700, 30),
    "cosine": optax.cosine_decay_schedule(0.9, 700, alpha=0.1),
    "exponential": optax.exponential_decay(0.9, 100, 0.7, transition_begin=20),
    "staircase": optax.exponential_decay(0.9, 100, 0.7, staircase=True),
    "warmup_cosine": optax.warmup_cosine_decay_schedule(0.0, 0.9, 100, 800, 0.1),
    "warmup_exponential": optax.warmup_exponential_decay_schedule(0.0, 0.9, 100, 200, 0.5, 20),
    "piecewise": optax.piecewise_constant_schedule(0.9, {100: 0.5, 500: 0.3}),
    "piecewise_cosine": optax.piecewise_interpolate_schedule("cosine", 0.9, {100: 0.5, 500: 0.3}),
    "cosine_onecycle": optax.cosine_onecycle_schedule(800, 0.9),
    "sgdr": optax.sgdr_schedule(CYCLES),
    "joined": optax.join_schedules(
        [optax.linear_schedule(0.0, 0.5, 100), optax.cosine_decay_schedule(0.5, 500)], [100]
    ),
}
# Their sums of intervals are fused with the products in them, as each compilation has it.
OPTAX_TO_ROUNDING = {
    "piecewise_linear": optax.piecewise_interpolate_schedule("linear", 0.9, {100: 0.5, 500: 0.3}),
    "linear_onecycle": optax.linear_onecycle_schedule(800, 0.9),
}


def contexts(schedule):
    """The values over STEPS, each from another compilation; the first called step by step."""

    def one(step):
        return call_schedule(schedule, step)

    def counted(step, _):
        return step + 1, (one(step), 2.0 * one(step) + 1.0)

    compiled = jax.jit(one)
    yield np.array([float(one(step)) for step in STEPS], np.float32)
    yield np.array([float(compiled(step)) for step in STEPS], np.float32)
    yield np.asarray(jax.jit(jax.vmap(one))(STEPS))
    yield np.asarray(jax.lax.scan(lambda _, step: (None, one(step)), None, STEPS)[1])
    yield np.asarray(jax.lax.scan(counted, jnp.int32(0), length=len(STEPS))[1][0])
    yield np.asarray(jax.jit(jax.vmap(lambda s: (one(3 * s - 2 * s), 2.0 * one(s))))(STEPS)[0])


@pytest.mark.parametrize("name", OPTAX)
def test_an_optax_schedule_has_the_same_bits_eager_jit_vmap_and_scan(name):
    first, *others = contexts(OPTAX[name])
    for values in others:
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, first)


@pytest.mark.parametrize("name", OPTAX_TO_ROUNDING)
def test_two_optax_schedules_are_the_same_to_float32_rounding(name):
    first, *others = contexts(OPTAX_TO_ROUNDING[name])
    for values in others:
        np.testing.assert_allclose(values, first, rtol=0, atol=2.0**-23)


@pytest.mark.parametrize("kind", INT_KINDS)
def test_an_integer_step_of_any_kind_becomes_int32(kind):
    for value in (0, 1, 100):
        step = as_step(kind(value))
        assert step.dtype == jnp.int32 and step.shape == () and int(step) == value
        traced = jax.jit(as_step)(kind(value))
        assert traced.dtype == jnp.int32 and int(traced) == value
    array = as_step(np.array([0, 7, 100]).astype(np.dtype(kind)))
    assert array.dtype == jnp.int32 and array.tolist() == [0, 7, 100]


@pytest.mark.parametrize("kind", FLOAT_KINDS)
def test_a_float_step_of_any_kind_becomes_float32(kind):
    for function in (as_step, jax.jit(as_step)):
        step = function(kind(2.5))
        assert step.dtype == jnp.float32 and float(step) == 2.5
    assert float(as_step(1e13)) == np.float32(1e13)


def test_the_last_step_passes_and_wider_ones_saturate():
    for kind in (int, np.int32, np.int64, np.uint32, np.uint64, jnp.int32, jnp.uint32):
        assert int(as_step(kind(MAX_STEP))) == MAX_STEP
    for step in (2**31, 2**32 - 1):
        assert int(as_step(jnp.uint32(step))) == MAX_STEP
        assert int(jax.jit(as_step)(jnp.uint32(step))) == MAX_STEP
        assert as_step(jnp.array([step, 3], jnp.uint32)).tolist() == [MAX_STEP, 3]
    for function in (as_step, jax.jit(as_step)):
        assert function(jnp.array([-5, 3], jnp.int32)).tolist() == [0, 3]
        assert int(function(jnp.int8(-128))) == 0


@pytest.mark.parametrize("function", [as_step, lambda step: call_schedule(lambda s: 0.5, step)])
def test_a_known_step_that_is_none_is_refused(function):
    for step in (-1, 2**31, 2**40, np.int64(-1), np.uint32(2**31), np.array([3, -1])):
        with pytest.raises(ValueError, match=r"^step must be in \[0, 2147483647\], got"):
            function(step)
    for step in (True, "7", None, 1j, jnp.array(True)):
        with pytest.raises(TypeError, match=r"^step must be an integer or a float, got"):
            function(step)


class Index:
    def __index__(self):
        return 3


class Holder:
    def __init__(self, value):
        self.value = value

    def __jax_array__(self):
        return self.value


@pytest.mark.parametrize("step", [Index(), Holder(jnp.uint32(3)), nnx.Variable(jnp.uint32(3))])
def test_what_holds_a_step_is_one_everywhere(step):
    plan = jaxmix.MixPlan(optax.linear_schedule(0.0, 1.0, 4), 8)
    assert plan.counts(step).tolist() == plan.counts(3).tolist() == [6, 2]
    assert plan.state(step) == plan.state(3)
    assert jaxmix.cosine_schedule(0.0, 1.0, 4)(step) == jaxmix.cosine_schedule(0.0, 1.0, 4)(3)
    assert jaxmix.weights_at(step, optax.linear_schedule(0.0, 1.0, 4)).tolist() == [0.75, 0.25]
    assert as_whole_step(step).tolist() == 3
    assert jaxmix.tabulate(lambda t: 0.5, step).shape == (3,)
    traced = jax.jit(lambda t: jaxmix.weights_at(Holder(t), optax.linear_schedule(0.0, 1.0, 4)))
    assert traced(3).tolist() == [0.75, 0.25]
    for truth in (True, np.bool_(True), jnp.array(True), Holder(jnp.array(True))):
        for call in (plan.counts, as_step):
            with pytest.raises(TypeError, match="step must be an integer"):
                call(truth)
    with pytest.raises(TypeError, match="step must be an integer >= 0 known at trace time"):
        jax.jit(lambda t: plan.counts(t))(3)


def test_wide_traced_steps_saturate_and_do_not_wrap():
    with jax.enable_x64(True):
        for step in (2**32 + 5, 2**31, 2**62):
            assert int(jax.jit(as_step)(jnp.int64(step))) == MAX_STEP
            assert int(jax.jit(as_step)(jnp.uint64(step))) == MAX_STEP
        assert int(jax.jit(as_step)(jnp.int64(-(2**32) + 5))) == 0


def test_a_whole_step_is_an_integer_scalar():
    assert as_whole_step(jnp.uint32(7)).dtype == jnp.int32
    with pytest.raises(TypeError, match=r"step must be an integer, got 2\.0"):
        as_whole_step(2.0)
    with pytest.raises(ValueError, match="step must be a scalar"):
        as_whole_step(np.arange(3))


@pytest.mark.parametrize("kind", [int, np.uint32, jnp.uint32, jnp.int32])
def test_unsigned_steps_do_not_wrap_inside_optax(kind):
    late = optax.linear_schedule(0.0, 1.0, 10, transition_begin=5)
    stages = optax.piecewise_constant_schedule(1.0, {3: 0.5})
    decay = optax.exponential_decay(1.0, 10, 0.5, transition_begin=5)
    for function in (call_schedule, lambda s, t: jax.jit(lambda t: call_schedule(s, t))(t)):
        assert [float(function(late, kind(t))) for t in (0, 4, 5)] == [0.0, 0.0, 0.0]
        assert [float(function(stages, kind(t))) for t in (2, 3, 4, 9)] == [1.0, 0.5, 0.5, 0.5]
        assert [float(function(decay, kind(t))) for t in (0, 4, 15)] == [1.0, 1.0, 0.5]


def test_a_value_of_any_dtype_becomes_float32():
    for value in (1, 0.5, True + 0, np.float64(0.5), jnp.bfloat16(0.5), jnp.int8(1), [0.5, 0.25]):
        got = call_schedule(lambda step, value=value: value, 3)
        assert got.dtype == jnp.float32 and not got.weak_type
        assert got.tolist() == np.asarray(value, np.float32).tolist()
    assert math.isnan(call_schedule(lambda step: jnp.nan, 3))


def test_what_is_no_schedule_is_refused():
    with pytest.raises(TypeError, match=r"schedule must be callable, got 0\.5"):
        call_schedule(0.5, 3)
    for value in (True, 1j):
        with pytest.raises(TypeError, match="a schedule's value must be a real number"):
            call_schedule(lambda step, value=value: value, 3)
    with pytest.raises(ValueError, match="step must be in"):
        call_schedule(optax.linear_schedule(0.0, 1.0, 10), -1)


def test_the_derivative_in_a_float_step_goes_through():
    slope = jax.grad(lambda step: call_schedule(lambda s: s**2, step))
    assert float(slope(3.0)) == 6.0
    assert jax.vmap(slope)(jnp.array([1.0, 2.0])).tolist() == [2.0, 4.0]
