"""Weights from the sizes of the sources: temperature and UniMax."""

import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schedule_cases import SIZES, bits

from jaxmix import (
    table_schedule,
    temperature_schedule,
    unimax_weights,
)


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
