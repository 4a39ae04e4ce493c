"""mix_loss_fns and add_loss_fns with NNX modules: state changes where a loss is evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import errors, nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmix import add_loss_fns, mix_loss_fns

GAMMA = optax.linear_schedule(1.0, 0.0, 2)  # 1, a half, 0
DATA = jax.random.normal(jax.random.key(1), (8, 3)) * jnp.array([[1.0, 2.0, 3.0]])


class Model(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.norm(self.linear(x)))


def square(model, x):
    return (model(x) ** 2).mean()


def absolute(model, x):
    return jnp.abs(model(x) - 1.0).mean()


mixed = mix_loss_fns(GAMMA, square, absolute)


def plain(step, model, x):
    """The same in the plain way: the losses of non-zero weight one after the other."""
    gamma = 1.0 - step / 2.0
    used = [(w, fn) for w, fn in ((gamma, square), (1.0 - gamma, absolute)) if w]
    return sum(w * fn(model, x) for w, fn in used)


def model_of(seed=0):
    return Model(nnx.Rngs(seed))


def assert_same(got, want):
    """Equal states: keys and counts bit for bit, floats within a few roundings."""
    got, want = (nnx.to_pure_dict(nnx.state(module)) for module in (got, want))

    def compare(a, b):
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        else:
            assert jnp.array_equal(a, b)

    jax.tree.map(compare, got, want)


def draws(model):
    return int(model.dropout.rngs.count[...])


WAYS = {
    "eager": lambda run: run,
    "jit": nnx.jit,
    "remat": lambda run: nnx.jit(nnx.remat(run)),
    "tree mode": lambda run: nnx.jit(run, graph=False),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", [0, 1, 2])
def test_statistics_and_counts_are_those_of_the_losses_that_were_evaluated(way, step):
    ours, theirs = model_of(), model_of()

    def train(model, step, x):
        return nnx.value_and_grad(mixed, argnums=1)(step, model, x)

    value, grads = WAYS[way](train)(ours, jnp.int32(step), DATA)
    want, want_grads = nnx.value_and_grad(plain, argnums=1)(step, theirs, DATA)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    assert_same(grads, want_grads)
    assert_same(ours, theirs)
    assert draws(ours) == (2 if step == 1 else 1)
