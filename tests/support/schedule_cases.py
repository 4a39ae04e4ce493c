"""Every schedule with its float64 closed form, its bounds and its ends, written from the papers."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optax

from jaxmix import (
    clip_schedule,
    competence_schedule,
    complement_schedule,
    cosine_schedule,
    cyclical_schedule,
    dann_schedule,
    exponential_schedule,
    inverse_sigmoid_schedule,
    make_schedule,
    nest_schedules,
    rescale_schedule,
    sigmoid_schedule,
    stack_schedules,
    staged_schedule,
    table_schedule,
    temperature_schedule,
    token_share_schedule,
)

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
        complement_schedule(cosine_schedule(0.25, 1.0, 1000)),
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
        rescale_schedule(cosine_schedule(0.0, 1.0, 4_000_000_000), 1 / 4_000_000),
        lambda t: np.sin(np.pi / 2 * share(t, 0, 1000)) ** 2,
        5,
        way=1,
        ends=((0, 0.0), (1000, 1.0)),
    ),
    "rescaled_to_epochs": Case(
        rescale_schedule(staged_schedule({0: 1.0, 3: 0.5, 7: 0.25}), 49),
        lambda t: staged(t, {0: 1.0, 147: 0.5, 343: 0.25}, 0),
        0,
        ends=((146, 1.0), (147, 0.5), (342, 0.5), (343, 0.25)),
    ),
}


def ulps_off(got, expected):
    """How far float32 values are from float64 ones, in units in the last place of the latter."""
    unit = np.spacing(np.maximum(np.abs(expected), np.finfo(np.float32).tiny).astype(np.float32))
    return np.abs(np.asarray(got, np.float64) - expected) / unit


def bits(values):
    return np.asarray(values, np.float32).tobytes()
