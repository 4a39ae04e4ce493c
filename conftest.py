"""The strict set-up: eight CPU devices, strict promotion, rank errors, few hypothesis runs."""

import os

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile(
    "jaxmix",
    deadline=None,
    max_examples=50,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("jaxmix")


@pytest.fixture
def key():
    return jax.random.key(7)


@pytest.fixture(autouse=True, scope="module")
def free_what_was_compiled():
    """The compiled functions of all tests together would take 12 GB."""
    yield
    jax.clear_caches()
