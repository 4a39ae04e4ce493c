"""Transitions from one value to another: sizes beyond int32, halves that meet, `make_schedule`."""

import math

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from schedule_cases import bits, ulps_off

from jaxmix import (
    competence_schedule,
    cosine_schedule,
    dann_schedule,
    exponential_schedule,
    inverse_sigmoid_schedule,
    make_schedule,
    tabulate,
)
from jaxmix._schedules.arithmetic import linear, transition
from jaxmix._schedules.evaluate import MAX_STEP


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
    before = transition(init, end, one, one, linear)
    after = transition(init, end, more, one, linear)
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
