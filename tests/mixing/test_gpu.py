"""The draws of a GPU are those of the CPU, row by row; skipped where there is no GPU.

Run on one by `JAX_PLATFORMS=cuda,cpu python -m pytest tests/mixing/test_gpu.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix

ROWS = 4096
BUFFERS = [np.arange(1000 * k, 1000 * k + n) for k, n in enumerate((300, 411, 97))]
PLAN = jaxmix.MixPlan([0.5, 0.3, 0.2], batch_size=ROWS)


def planned(key, step):
    return jaxmix.PlannedPool(PLAN, *BUFFERS, num_steps=8).take(step).rows


def drawn(key, step):
    return jaxmix.draw_rows(key, step, jnp.array([0.5, 0.3, 0.2]), jaxmix.RowPool(*BUFFERS), ROWS)


DRAWS = {
    "bernoulli, K = 2": lambda key, step: jaxmix.bernoulli_sources(key, step, 0.3, ROWS),
    "bernoulli, K = 5": lambda key, step: jaxmix.bernoulli_sources(
        key, step, jnp.array([0.1, 0.4, 1e-6, 0.3, 0.2 - 1e-6]), ROWS
    ),
    "systematic, K = 2": lambda key, step: jaxmix.systematic_sources(key, step, 0.3, ROWS),
    "counted, K = 3": lambda key, step: jaxmix.counted_sources(
        key, step, jnp.array([96, 1000, 3000]), ROWS
    ),
    "draw_rows": drawn,
    "PlannedPool": planned,
    "shuffle_index": lambda key, step: jaxmix.shuffle_index(
        jnp.arange(ROWS) + step * ROWS, 100_003, 7
    ),
    "BlockShuffle": lambda key, step: jaxmix.shuffle_index(
        jnp.arange(ROWS) + step * ROWS, 100_003, 7, block=jaxmix.BlockShuffle(64, 16)
    ),
}


@pytest.fixture(params=["cpu", "gpu"])
def other(request):
    """A device to compare with the first CPU; another CPU shows that the comparison works."""
    try:
        return jax.devices(request.param)[-1]
    except RuntimeError:
        pytest.skip(f"JAX has no {request.param} here, only {jax.default_backend()}")


@pytest.mark.parametrize("name", DRAWS)
def test_a_gpu_draws_the_rows_that_the_cpu_draws(name, other):
    found = []
    for device in (jax.devices("cpu")[0], other):
        with jax.default_device(device):
            one = jax.jit(DRAWS[name])(jax.random.key(11), jnp.int32(5))
        assert {d for leaf in jax.tree.leaves(one) for d in leaf.devices()} == {device}
        found.append(jax.tree.map(np.asarray, one))
    jax.tree.map(np.testing.assert_array_equal, *found)
