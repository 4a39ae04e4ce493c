"""A run of 1,000 steps traces and compiles once and asks the host for nothing."""

import jax
import jax.numpy as jnp
import pytest
from compiles import counted_compiles
from flax import nnx

import jaxmix

KEY = jax.random.key(7)
GAMMA = jaxmix.cosine_schedule(0.0, 1.0, transition_steps=1000)


def _mixes():
    pool = jaxmix.RowPool(jnp.zeros((50, 3)), jnp.ones((80, 3)))
    x, y = jnp.zeros((32, 3)), jnp.ones((32, 3))
    counts = jnp.array([12, 20])
    return {
        "bernoulli": lambda step: jaxmix.mix_rows(KEY, step, GAMMA, x, y),
        "systematic": lambda step: jaxmix.mix_rows(
            KEY, step, GAMMA, x, y, draw=jaxmix.systematic_sources
        ),
        "counted": lambda step: jaxmix.counted_sources(KEY, step, counts, 32),
        "pool": lambda step: jaxmix.draw_rows(KEY, step, GAMMA, pool, 32),
    }


@pytest.mark.parametrize("name", _mixes())
def test_one_trace_one_compile_and_no_transfer_over_1000_steps(name):
    mix, traces = _mixes()[name], []

    @jax.jit
    def train_step(step, total):
        traces.append(step)
        leaf = jax.tree.leaves(mix(step))[0]
        return step + 1, total + jnp.sum(leaf)

    step, total = jnp.int32(0), jnp.zeros_like(jax.tree.leaves(mix(0))[0][0].sum())
    step, total = train_step(step, total)
    with counted_compiles() as count, jax.transfer_guard("disallow"):
        for _ in range(999):
            step, total = train_step(step, total)
    assert len(traces) == 1 and count["compiles"] == 0
    assert int(step) == 1000


@pytest.mark.parametrize("name", _mixes())
def test_the_compiled_step_calls_no_host(name):
    text = jax.jit(_mixes()[name]).lower(jnp.int32(0)).compile().as_text()
    assert "callback" not in text and "outfeed" not in text and "infeed" not in text


def test_the_step_of_an_nnx_optimizer_drives_the_schedule():
    import optax

    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.0), wrt=nnx.Param)
    late = optax.linear_schedule(0.0, 1.0, 4, transition_begin=2)  # wrong for a bare uint32

    @nnx.jit
    def train_step(model, optimizer):
        x, y = jnp.zeros((8, 2)), jnp.ones((8, 2))
        mixed = jaxmix.mix_rows(KEY, optimizer.step[...], late, x, y)
        grads = nnx.grad(lambda m: jnp.mean(m(mixed.rows)))(model)
        optimizer.update(model, grads)
        return mixed.weights[0]

    gammas = [float(train_step(model, optimizer)) for _ in range(8)]
    assert gammas == [0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert optimizer.step[...].dtype == jnp.uint32
