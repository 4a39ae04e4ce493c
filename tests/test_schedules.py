"""Every schedule under every promise: closed forms, exact ends, any kind of step, the same bits."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmix import (
    clip_schedule,
    competence_schedule,
    complement,
    cosine_schedule,
    cyclical_schedule,
    dann_schedule,
    exponential_schedule,
    inverse_sigmoid_schedule,
    make_schedule,
    nest_schedules,
    rescale_steps,
    sigmoid_schedule,
    stack_schedules,
    staged_schedule,
    table_schedule,
    tabulate,
    temperature_schedule,
    token_share_schedule,
    unimax_weights,
)
from jaxmix._exact import glide, straight
from jaxmix._step import MAX_STEP, call_schedule

# The references: float64 closed forms, written from the papers and not from the code.


def share(t, begin, steps):
    return np.clip((np.asarray(t, np.float64) - begin) / steps, 0, 1)


def between(init, end, part):
    return init + (end - init) * part


def cosine(p):
    return (1 - np.cos(np.pi * p)) / 2


def logistic(x):
    return 1 / (1 + np.exp(-x))


def sigmoid(p, k):
    low, high = logistic(-k / 2), logistic(k / 2)
    return (logistic(k * (p - 0.5)) - low) / (high - low)


def cyclical(t, init, end, cycle, fraction, count):
    part = np.minimum(1, (t % cycle) / cycle / fraction)
    return between(init, end, np.where(t >= count * cycle, 1.0, part))


def staged(t, stages, ramp):
    value = np.full(t.shape + np.shape(stages[0]), np.nan)
    old = np.asarray(stages[0], np.float64)
    for start in sorted(stages):
        new = np.asarray(stages[start], np.float64)
        part = share(t, start, ramp) if ramp else np.ones(t.shape)
        part = part.reshape(t.shape + (1,) * new.ndim)
        on = (t >= start).reshape(part.shape)
        value, old = np.where(on, between(old, new, part), value), new
    return value


def on_simplex(raw):
    return raw / raw.sum(-1, keepdims=True)


def temperature(t, sizes, heat):
    return on_simplex(np.exp(np.log(np.asarray(sizes, np.float64)) / heat(t)[:, None]))


STAGES = {0: 0.9, 40: 0.1, 900: 0.4}
WEIGHT_STAGES = {0: [0.7, 0.2, 0.1], 500: [0.1, 0.2, 0.7]}
FIVE_STAGES = {0: [0.1, 0.2, 0.3, 0.17, 0.23], 300: [0.3, 0.13, 0.05, 0.12, 0.4]}
TABLE = np.random.default_rng(0).dirichlet(np.ones(3), 600)
EIGHT = np.random.default_rng(8).lognormal(10, 4, 8)
SIZES = [1e12, 3e10, 5e6, 7e6, 10.0]


@dataclasses.dataclass(frozen=True)
class Case:
    """A schedule, its float64 reference over steps [T], its bounds and its way.

    `ulps`: how many units in the last place of the reference a value may be off. `ends`: pairs of
    step and value that are met to the bit. `way`: +1 never falls, -1 never rises, 0 neither is
    promised.
    """

    schedule: Callable[[Any], Any]
    reference: Callable[[np.ndarray], np.ndarray]
    ulps: float
    low: float = 0.0
    high: float = 1.0
    way: int = 0
    ends: tuple[tuple[int, float], ...] = ()


CASES = {
    "cosine": Case(
        cosine_schedule(0.0, 1.0, 1000),
        lambda t: np.sin(np.pi / 2 * share(t, 0, 1000)) ** 2,
        5,
        way=1,
        ends=((0, 0.0), (1000, 1.0)),
    ),
    "cosine_falling": Case(
        cosine_schedule(0.9, 0.1, 733, 7),
        lambda t: between(0.9, 0.1, cosine(share(t, 7, 733))),
        4,
        low=0.1,
        high=0.9,
        way=-1,
        ends=((0, 0.9), (7, 0.9), (740, 0.1)),
    ),
    "sigmoid": Case(
        sigmoid_schedule(0.0, 0.7, 1000, 3),
        lambda t: 0.7 * sigmoid(share(t, 3, 1000), 12),
        12,
        high=0.7,
        way=1,
        ends=((3, 0.0), (1003, 0.7)),
    ),
    "sigmoid_steep": Case(
        sigmoid_schedule(1.0, 0.0, 1000, steepness=40.0),
        lambda t: np.where(t >= 1000, 0.0, sigmoid(1 - share(t, 0, 1000), 40)),
        32,
        way=-1,
        ends=((0, 1.0), (1000, 0.0)),
    ),
    "exponential": Case(
        exponential_schedule(1e-6, 1.0, 1000, 5),
        lambda t: 1e-6 ** (1 - share(t, 5, 1000)),
        10,
        low=1e-6,
        way=1,
        ends=((5, 1e-6), (1005, 1.0)),
    ),
    "inverse_sigmoid": Case(
        inverse_sigmoid_schedule(70.0),
        lambda t: 70 / (70 + np.exp(np.minimum(t / 70, 600))),
        26,
        high=70 / 71,
        way=-1,
        ends=((0, 70 / 71),),
    ),
    "dann": Case(
        dann_schedule(1000),
        lambda t: np.tanh(5 * share(t, 0, 1000)),
        4,
        high=math.tanh(5),
        way=1,
        ends=((0, 0.0), (1000, 2 / (1 + math.exp(-10)) - 1)),
    ),
    "competence": Case(
        competence_schedule(0.01, 1000),
        lambda t: np.sqrt(1e-4 + (1 - 1e-4) * share(t, 0, 1000)),
        2,
        low=0.01,
        way=1,
        ends=((0, 0.01), (1000, 1.0)),
    ),
    "competence_cubic": Case(
        competence_schedule(0.0, 1000, power=3.0),
        lambda t: np.cbrt(share(t, 0, 1000)),
        2,
        way=1,
        ends=((0, 0.0), (1000, 1.0)),
    ),
    "cyclical": Case(
        cyclical_schedule(0.2, 0.8, 150, 0.3, num_cycles=4),
        lambda t: cyclical(t, 0.2, 0.8, 150, 0.3, 4),
        2,
        low=0.2,
        high=0.8,
        ends=((0, 0.2), (45, 0.8), (149, 0.8), (150, 0.2), (600, 0.8)),
    ),
    "cyclical_endless": Case(
        cyclical_schedule(1.0, 0.0, 150, 1.0),
        lambda t: cyclical(t, 1.0, 0.0, 150, 1.0, math.inf),
        1,
        ends=((0, 1.0), (150, 1.0), (150 * 10**7, 1.0)),
    ),
    "staged": Case(
        staged_schedule(STAGES),
        lambda t: staged(t, STAGES, 0),
        0.5,
        low=0.1,
        high=0.9,
        ends=((0, 0.9), (39, 0.9), (40, 0.1), (899, 0.1), (900, 0.4)),
    ),
    "staged_ramp": Case(
        staged_schedule(STAGES, ramp_steps=860),
        lambda t: staged(t, STAGES, 860),
        3,
        low=0.1,
        high=0.9,
        ends=((0, 0.9), (40, 0.9), (900, 0.1), (1760, 0.4)),
    ),
    "staged_weights": Case(
        staged_schedule(WEIGHT_STAGES, ramp_steps=100), lambda t: staged(t, WEIGHT_STAGES, 100), 2
    ),
    "table": Case(
        table_schedule(TABLE[:, 0]),
        lambda t: TABLE[np.minimum(t, 599), 0],
        0.5,
        ends=((0, TABLE[0, 0]), (599, TABLE[599, 0]), (600, TABLE[599, 0])),
    ),
    "table_weights": Case(table_schedule(TABLE), lambda t: TABLE[np.minimum(t, 599)], 0.5),
    "temperature": Case(
        temperature_schedule(SIZES, 3.3),
        lambda t: temperature(t, SIZES, lambda t: np.full(t.shape, 3.3)),
        4,
    ),
    "temperature_moving": Case(
        temperature_schedule(SIZES, optax.linear_schedule(1.0, 5.0, 1000), max_size=1e11),
        lambda t: temperature(t, np.minimum(SIZES, 1e11), lambda t: 1 + 4 * share(t, 0, 1000)),
        70,
    ),
    "make_linear": Case(
        make_schedule(1001, 0.1, 0.9),
        lambda t: between(0.1, 0.9, share(t, 0, 1000)),
        3,
        low=0.1,
        high=0.9,
        way=1,
        ends=((0, 0.1), (1000, 0.9)),
    ),
    "complement": Case(
        complement(cosine_schedule(0.25, 1.0, 1000)),
        lambda t: 1 - np.asarray(cosine_schedule(0.25, 1.0, 1000)(t), np.float64),
        0.5,
        high=0.75,
        way=-1,
        ends=((0, 0.75), (1000, 0.0)),
    ),
    "clip": Case(
        clip_schedule(optax.linear_schedule(0.0, 1.0, 1000), 0.05, 0.9),
        lambda t: np.clip(share(t, 0, 1000), 0.05, 0.9),
        10,
        low=0.05,
        high=0.9,
        way=1,
        ends=((0, 0.05), (1000, 0.9)),
    ),
    "stack": Case(
        stack_schedules(cosine_schedule(0.0, 2.0, 1000), 0.5, optax.constant_schedule(1.5)),
        lambda t: on_simplex(
            np.stack([2 * cosine(share(t, 0, 1000)), 0.5 + 0 * t, 1.5 + 0 * t], axis=-1)
        ),
        6,
    ),
    "nest": Case(
        nest_schedules(
            cosine_schedule(0.2, 0.8, 1000), [0.5, 0.3, 0.2], sigmoid_schedule(0.1, 0.9, 800)
        ),
        lambda t: np.stack(
            [(0.2 + 0.6 * cosine(share(t, 0, 1000))) * w for w in (0.5, 0.3, 0.2)]
            + [
                (0.8 - 0.6 * cosine(share(t, 0, 1000))) * w
                for g in [0.1 + 0.8 * sigmoid(share(t, 0, 800), 12)]
                for w in (g, 1 - g)
            ],
            axis=-1,
        ),
        12,
    ),
    "nest_temperature": Case(
        nest_schedules(
            cosine_schedule(0.1, 0.7, 1000),
            temperature_schedule(EIGHT, cosine_schedule(1.0, 3.0, 800)),
            [1.0],
        ),
        lambda t: (lambda g, inner: np.concatenate([g * inner, 1 - g], axis=1))(
            0.1 + 0.6 * cosine(share(t, 0, 1000))[:, None],
            temperature(t, EIGHT, lambda t: 1 + 2 * cosine(share(t, 0, 800))),
        ),
        28,
    ),
    "token_share": Case(
        token_share_schedule(cosine_schedule(0.9, 0.0, 1000), [300.0, 70.0]),
        lambda t: (lambda g: (g / 300) / (g / 300 + (1 - g) / 70))(
            0.9 * np.cos(np.pi / 2 * share(t, 0, 1000)) ** 2 * (t < 1000)
        ),
        8,
        way=-1,
        ends=((1000, 0.0),),
    ),
    "token_share_weights": Case(
        token_share_schedule(staged_schedule(FIVE_STAGES, ramp_steps=100), [300, 70, 1e4, 50, 9]),
        lambda t: on_simplex(staged(t, FIVE_STAGES, 100) / np.array([300, 70, 1e4, 50, 9])),
        6,
    ),
    "rescaled_to_tokens": Case(
        rescale_steps(cosine_schedule(0.0, 1.0, 4_000_000_000), 1 / 4_000_000),
        lambda t: np.sin(np.pi / 2 * share(t, 0, 1000)) ** 2,
        5,
        way=1,
        ends=((0, 0.0), (1000, 1.0)),
    ),
    "rescaled_to_epochs": Case(
        rescale_steps(staged_schedule({0: 1.0, 3: 0.5, 7: 0.25}), 49),
        lambda t: staged(t, {0: 1.0, 147: 0.5, 343: 0.25}, 0),
        0,
        ends=((146, 1.0), (147, 0.5), (342, 0.5), (343, 0.25)),
    ),
}
EVERY = pytest.mark.parametrize("name", CASES)
STEPS = np.arange(2000, dtype=np.int32)
PROBES = np.array([0, 1, 5, 7, 39, 40, 146, 147, 333, 500, 599, 740, 999, 1000, 1999, MAX_STEP])


def ulps_off(got, expected):
    """How far float32 values are from float64 ones, in units in the last place of the latter."""
    unit = np.spacing(np.maximum(np.abs(expected), np.finfo(np.float32).tiny).astype(np.float32))
    return np.abs(np.asarray(got, np.float64) - expected) / unit


def bits(values):
    return np.asarray(values, np.float32).tobytes()


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


@pytest.mark.parametrize("begin", [0, 17, 2**31 - 3000, 10**13])
@pytest.mark.parametrize("steps", [1, 2**24 + 1, 2**31 - 1, 10**13])
def test_steps_are_counted_exactly_up_to_the_last_int32_step(begin, steps):
    schedule = cosine_schedule(0.0, 1.0, steps, begin)
    edges = np.array([0, begin, begin + 7, begin + steps // 2, begin + steps - 7, begin + steps])
    near = (edges[:, None] + np.arange(-3, 4)).ravel()
    near = np.unique(np.clip(near, 0, MAX_STEP))
    passed = np.array([min(max(int(t) - begin, 0), steps) / steps for t in near])
    remaining = np.array([min(max(begin + steps - int(t), 0), steps) / steps for t in near])
    expected = np.where(
        passed < 0.5, np.sin(np.pi / 2 * passed) ** 2, 1 - np.sin(np.pi / 2 * remaining) ** 2
    )
    got = schedule(near)
    assert ulps_off(got, expected).max() <= 5
    assert (np.diff(got) >= 0).all()
    units = np.array([begin, begin + steps], np.float32)
    assert np.isfinite(schedule(units)).all()
    if units[0] < units[1]:  # a float cannot tell all apart
        assert bits(schedule(units)) == bits([0.0, 1.0])


def test_the_two_halves_meet_without_a_step_back():
    init, end = np.random.default_rng(2).uniform(0.01, 1, (2, 100_000)).astype(np.float32)
    one, more = jnp.float32(1.0), jnp.float32(1.0 + 2.0**-23)  # a share of 1/2 as well
    before = glide(init, end, one, one, straight)
    after = glide(init, end, more, one, straight)
    assert ((np.asarray(after) - before) * (end - init) >= 0).all()
    middle = np.arange(MAX_STEP // 2 - 700, MAX_STEP // 2 + 700)  # far finer than float32
    for start in np.linspace(0.01, 0.3, 8):
        values = exponential_schedule(start, 1 - 2 * start, MAX_STEP)(middle)
        assert (np.diff(values) >= 0).all(), start


def test_a_million_steps_never_turn_back():
    for kind in ("linear", "cosine", "sigmoid", "exponential"):
        for start, end in ((0.001, 0.999), (0.9, 0.3)):
            table = np.asarray(tabulate(make_schedule(10**6, start, end, kind), 10**6))
            assert (np.diff(table) * (end - start) >= 0).all(), (kind, start)
    for schedule in (dann_schedule(10**6), competence_schedule(0.01, 10**6)):
        assert (np.diff(tabulate(schedule, 10**6)) >= 0).all()
    assert (np.diff(tabulate(inverse_sigmoid_schedule(1e5), 10**6)) <= 0).all()


# Promises of one schedule.


@hypothesis.settings(max_examples=20)
@hypothesis.given(
    n_steps=st.integers(2, 300), start=st.floats(0, 1), end=st.floats(0, 1), t=st.floats(0, 1)
)
def test_make_schedule_gives_the_numbers_of_the_plain_formula(n_steps, start, end, t):
    t = round(t * (n_steps - 1))
    plain = {
        "linear": start + (end - start) * (t / (n_steps - 1)),
        "cosine": start + (end - start) * (1 - math.cos(math.pi * t / (n_steps - 1))) / 2,
    }
    for kind, expected in plain.items():
        got = float(make_schedule(n_steps, start, end, kind)(t))
        assert abs(got - expected) <= 4 * np.spacing(np.float32(max(start, end, 1e-30))), kind


def test_make_schedule_of_one_step_is_its_start():
    for kind in ("linear", "cosine", "sigmoid", "exponential"):
        assert make_schedule(1, 0.3, 0.9, kind)(np.arange(3)).tolist() == [np.float32(0.3)] * 3


def test_make_schedule_names_the_kinds_it_knows():
    with pytest.raises(
        ValueError, match="kind must be one of linear, cosine, sigmoid, exponential"
    ):
        make_schedule(10, kind="cubic")


def test_a_stage_at_100_leaves_step_99_alone():
    swap = staged_schedule({0: [0.2, 0.8], 100: [0.9, 0.1]})
    ramp = staged_schedule({100: 0.9, 0: 0.2}, ramp_steps=8)
    for kind in (int, np.uint32, jnp.uint32, jnp.int32, float):
        assert bits(swap(kind(99))) == bits([0.2, 0.8])
        assert bits(swap(kind(100))) == bits([0.9, 0.1])
        assert bits(ramp(kind(100))) == bits(0.2)
        assert 0.2 < float(ramp(kind(101))) < 0.9
        assert bits(ramp(kind(108))) == bits(0.9)


def test_a_stage_beyond_int32_is_reached_in_float_units_only():
    tokens = staged_schedule({0: 1.0, 10**12: 0.5}, ramp_steps=10**12)
    assert [float(tokens(t)) for t in (0, MAX_STEP, 1e12, 1.5e12, 2e12)] == [1, 1, 1, 0.75, 0.5]


@pytest.mark.parametrize("per_epoch", [3, 41, 61, 390, 1000, 4097])
def test_a_whole_epoch_falls_on_its_exact_step(per_epoch):
    epochs = np.unique(np.linspace(1, 2**23 / per_epoch, 3000).astype(np.int64))
    starts = epochs * per_epoch
    units = rescale_steps(lambda unit: unit, per_epoch)
    np.testing.assert_array_less(units(starts - 1), epochs)
    assert (np.asarray(units(starts)) >= epochs).all()


@pytest.mark.parametrize("tokens", [1000, 4096, 12_345, 999_999, 4_000_000])
def test_tokens_are_counted_exactly_while_a_float_can(tokens):
    steps = np.arange(1, 2**24 // tokens + 1)
    units = rescale_steps(lambda unit: unit, 1 / tokens)(steps)
    assert units.tolist() == (steps * tokens).tolist()


def test_an_infinite_temperature_is_uniform_and_a_small_one_takes_the_largest():
    rising = temperature_schedule(SIZES, table_schedule([0.0, 1e-6, 1.0, 1e30]))
    assert rising(0).tolist() == rising(1).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert bits(rising(3)) == bits([0.2] * 5)
    assert bits(temperature_schedule(SIZES, math.inf)(0)) == bits([0.2] * 5)
    assert temperature_schedule(SIZES, 1e-3)(9).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert np.isnan(temperature_schedule(SIZES, lambda step: jnp.float32(jnp.nan))(0)).all()
    slopes = jax.jacfwd(temperature_schedule(SIZES, lambda step: step))(jnp.float32(0.0))
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize(
    ("sizes", "budget", "epochs", "taken"),
    [
        ([100, 100], 100, 1, [50, 50]),
        ([1000, 10, 100], 600, 4, [280, 40, 280]),  # 40 is the cap of the second, the rest is even
        ([5, 50, 500], 300, 2, [10, 100, 190]),
        ([7, 7, 7], 1e9, 2, [14, 14, 14]),  # more budget than rows
        ([1e12, 1e3], 1e13, 3, [3e12, 3e3]),
    ],
)
def test_unimax_splits_evenly_below_the_caps(sizes, budget, epochs, taken):
    weights = unimax_weights(sizes, budget, epochs)
    assert weights.dtype == np.float64
    np.testing.assert_allclose(weights, np.array(taken) / sum(taken), rtol=1e-15)


@hypothesis.given(
    sizes=st.lists(st.floats(1, 1e12), min_size=1, max_size=9),
    budget=st.floats(1, 1e12),
    epochs=st.floats(0.5, 8),
)
def test_unimax_caps_are_kept_and_the_others_are_even(sizes, budget, epochs):
    taken = unimax_weights(sizes, budget, epochs) * min(budget, epochs * sum(sizes))
    caps = epochs * np.array(sizes)
    assert (taken <= caps * (1 + 1e-9)).all()
    free = taken < caps * (1 - 1e-9)
    if free.any():  # those below their cap share alike, and no capped one has more
        np.testing.assert_allclose(taken[free], taken.max(), rtol=1e-9)


GAMMAS = [CASES[name].schedule for name in ("cosine", "exponential", "staged_ramp", "token_share")]
ETAS = [complement(gamma) for gamma in GAMMAS]
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
    for made in (complement(weights), clip_schedule(weights, 0.1, 0.9), stack_schedules(weights)):
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


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cosine_schedule(0, 1, 0), ValueError, "transition_steps must be in"),
        (lambda: cosine_schedule(0, 1, math.nan), ValueError, "transition_steps must be in"),
        (lambda: cosine_schedule(0, 1, "10"), TypeError, "transition_steps must be a number"),
        (lambda: cosine_schedule(0, 1, True), TypeError, "transition_steps must be a number"),
        (lambda: cosine_schedule(0, 1, 10, -1), ValueError, "transition_begin must be in"),
        (lambda: cosine_schedule(math.nan, 1, 10), ValueError, "init_value must be finite"),
        (lambda: cosine_schedule(0, math.inf, 10), ValueError, "end_value must be finite"),
        (lambda: cosine_schedule([0.0], 1, 10), TypeError, "init_value must be a number"),
        (lambda: sigmoid_schedule(0, 1, 10, steepness=0), ValueError, "steepness must be"),
        (lambda: exponential_schedule(0, 1, 10), ValueError, "of one sign, not 0"),
        (lambda: exponential_schedule(-0.1, 1, 10), ValueError, "of one sign, not 0"),
        (lambda: make_schedule(9, kind="exponential"), ValueError, "of one sign, not 0"),
        (lambda: make_schedule(0), ValueError, "n_steps must be >= 1"),
        (lambda: make_schedule(2.5), TypeError, "n_steps must be an integer"),
        (lambda: inverse_sigmoid_schedule(0.5), ValueError, "k must be in"),
        (lambda: dann_schedule(0), ValueError, "transition_steps must be in"),
        (lambda: dann_schedule(10, rate=0), ValueError, "rate must be in"),
        (lambda: competence_schedule(1.5, 10), ValueError, "init_value must be in"),
        (lambda: competence_schedule(0.1, 0), ValueError, "transition_steps must be in"),
        (lambda: competence_schedule(0.1, 10, power=0), ValueError, "power must be in"),
        (lambda: cyclical_schedule(0, 1, 0), ValueError, "cycle_steps must be in"),
        (lambda: cyclical_schedule(0, 1, 9, 0.0), ValueError, "ramp_fraction must be in"),
        (lambda: cyclical_schedule(0, 1, 9, 1.5), ValueError, "ramp_fraction must be in"),
        (lambda: cyclical_schedule(0, 1, 9, num_cycles=0), ValueError, "num_cycles must be >= 1"),
        (lambda: staged_schedule([0.1]), TypeError, "stages must be a dict"),
        (lambda: staged_schedule({}), ValueError, "stages must be given a stage at step 0"),
        (lambda: staged_schedule({5: 0.1}), ValueError, "stages must be given a stage at step 0"),
        (lambda: staged_schedule({0: 0.1, -5: 0.2}), ValueError, "a first step of stages must"),
        (lambda: staged_schedule({0: 0.1, 0.5: 0.2}), TypeError, "a first step of stages must"),
        (
            lambda: staged_schedule({0: 0.1, 5: [0.2, 0.8]}),
            ValueError,
            "stages must be of one shape",
        ),
        (lambda: staged_schedule({0: 0.1, 5: math.nan}), ValueError, "stages must be finite"),
        (lambda: staged_schedule({0: 0.1}, ramp_steps=-1), ValueError, "ramp_steps must be in"),
        (
            lambda: staged_schedule({0: 0.1, 5: 0.2, 9: 0.3}, ramp_steps=5),
            ValueError,
            "ramp_steps must be at most 4",
        ),
        (lambda: table_schedule([]), ValueError, "values must be"),
        (lambda: table_schedule(0.5), ValueError, "values must be"),
        (lambda: table_schedule([0.5, math.inf]), ValueError, "values must be finite"),
        (lambda: tabulate(cosine_schedule(0, 1, 9), 0), ValueError, "num_steps must be >= 1"),
        (lambda: tabulate(0.5, 9), TypeError, "schedule must be callable"),
        (lambda: temperature_schedule([3, 0], 1.0), ValueError, "sizes must be > 0"),
        (lambda: temperature_schedule([[3]], 1.0), ValueError, "sizes must be"),
        (lambda: temperature_schedule([3, 4], 0.0), ValueError, "temperature must be in"),
        (lambda: temperature_schedule([3, 4], "hot"), TypeError, "temperature must be a number"),
        (lambda: temperature_schedule([3, 4], 1.0, -1), ValueError, "max_size must be in"),
        (lambda: unimax_weights([3, 4], 0, 1), ValueError, "budget must be in"),
        (lambda: unimax_weights([3, 4], 1, 0), ValueError, "max_epochs must be in"),
        (lambda: complement(0.5), TypeError, "schedule must be callable"),
        (lambda: clip_schedule(0.5, 0, 1), TypeError, "schedule must be callable"),
        (lambda: clip_schedule(dann_schedule(9), 0.9, 0.1), ValueError, "low must be in"),
        (lambda: stack_schedules(), ValueError, "schedules must be at least one"),
        (lambda: stack_schedules(-1.0), ValueError, "schedules must be in"),
        (lambda: nest_schedules(0.5), ValueError, "inner must be"),
        (lambda: nest_schedules(1.5, [1.0], [1.0]), ValueError, "outer must be in"),
        (lambda: nest_schedules(0.5, [0.5, 0.4], [1.0]), ValueError, "inner must be of sum 1"),
        (lambda: token_share_schedule(0.5, [1.0, 0.0]), ValueError, "mean_tokens must be > 0"),
        (lambda: token_share_schedule(1.5, [1.0, 2.0]), ValueError, "schedule must be in"),
        (lambda: rescale_steps(0.5, 10), TypeError, "schedule must be callable"),
        (lambda: rescale_steps(dann_schedule(9), 0), ValueError, "steps_per_unit must be in"),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_call(call, error, message):
    with pytest.raises(error, match=message):
        call()
