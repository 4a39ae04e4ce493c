"""The assertions for users' tests: each one fails on what it is there to find."""

import jax
import jax.numpy as jnp
import pytest

import jaxmix
from jaxmix.testing import assert_same_everywhere

KEY = jax.random.key(7)


def test_a_shard_that_draws_the_first_rows_again_is_found():
    def local_rows(step, x, axis_name=None):
        return jaxmix.bernoulli_sources(KEY, step, 0.5, x.shape[0])

    assert_same_everywhere(local_rows, jnp.zeros(16), max_devices=1)
    with pytest.raises(AssertionError, match=r"on 2 devices.*, step 0, leaf .*row \d+ is"):
        assert_same_everywhere(local_rows, jnp.zeros(16), max_devices=2)


def test_a_function_that_looks_at_the_step_as_python_is_found():
    def by_python(step, x, axis_name=None):
        return x + (step if isinstance(step, int) else 0)

    with pytest.raises(AssertionError, match=r"jit, step 3, leaf .*row 0 is 0, eager 3"):
        assert_same_everywhere(by_python, jnp.zeros(4, jnp.int32), steps=[3], max_devices=1)


def test_another_structure_shape_or_dtype_is_found():
    def ragged(step, x, axis_name=None):
        return x if isinstance(step, int) else x.astype(jnp.float16)

    with pytest.raises(AssertionError, match=r"jit, step 0, leaf .: float16\(4,\), eager float32"):
        assert_same_everywhere(ragged, jnp.zeros(4), max_devices=1)


def test_no_batches_and_no_steps_are_refused():
    with pytest.raises(ValueError, match="the number of batches must be >= 1"):
        assert_same_everywhere(lambda step: step)
    with pytest.raises(ValueError, match="the number of steps must be >= 1"):
        assert_same_everywhere(lambda step, x: x, jnp.zeros(4), steps=[])
