"""Staged schedules: a change touches no step before it."""

import jax
import jax.numpy as jnp
import numpy as np
from schedule_cases import bits

from jaxmix import (
    cyclical_schedule,
    staged_schedule,
)
from jaxmix._schedules.evaluate import MAX_STEP


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


def test_cycles_about_the_largest_int32_are_whole():
    last = jnp.int32(MAX_STEP)
    for cycle in (MAX_STEP - 1, MAX_STEP, MAX_STEP + 1, MAX_STEP + 2, 2**32 + 5):
        saw = cyclical_schedule(0.0, 1.0, cycle, ramp_fraction=1.0)
        for step in (0, 1000, MAX_STEP - 1):
            want = step % cycle / cycle
            for got in (saw(step), jax.jit(saw)(step)):
                assert abs(float(got) - want) < 1e-6, (cycle, step)
        assert abs(float(saw(last)) - MAX_STEP % cycle / cycle) < 1e-6, cycle
