"""Flax both ways: scheduled sampling in Linen and NNX cells, resumed bit for bit; steps of both."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx, serialization
from flax.training.train_state import TrainState

from jaxmix import bernoulli_sources, mix_loss_fns

BATCH, TIME, FEATURES = 4, 6, 3
KEY = jax.random.key(7)
TRUTH = jax.random.normal(jax.random.key(1), (BATCH, TIME, FEATURES))
GAMMA = optax.linear_schedule(1.0, 0.0, transition_steps=4, transition_begin=2)
GAMMAS = [1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


def teacher_mask(step):
    """Which inputs are the truth, bool [batch, time]: one draw a position, outside the cell."""
    return bernoulli_sources(KEY, step, GAMMA, BATCH * TIME).reshape(BATCH, TIME) == 0


def error(outputs):
    return ((outputs[:, :-1] - TRUTH[:, 1:]) ** 2).mean()


class LinenCell(linen.Module):
    @linen.compact
    def __call__(self, carry, inputs):
        memory, previous = carry
        truth, use_truth = inputs
        seen = jnp.where(use_truth[:, None], truth, previous)
        memory, hidden = linen.GRUCell(features=8)(memory, seen)
        output = linen.Dense(FEATURES)(hidden)
        return (memory, output), output


class LinenModel(linen.Module):
    @linen.compact
    def __call__(self, truth, mask):
        cell = linen.scan(
            LinenCell,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
        )()
        start = jnp.zeros((BATCH, 8)), jnp.zeros((BATCH, FEATURES))
        return cell(start, (truth, mask))[1]


class NnxModel(nnx.Module):
    def __init__(self, rngs):
        self.cell = nnx.GRUCell(FEATURES, 8, rngs=rngs)
        self.head = nnx.Linear(8, FEATURES, rngs=rngs)

    def __call__(self, truth, mask):
        def body(carry, inputs):
            memory, previous = carry
            truth, use_truth = inputs
            seen = jnp.where(use_truth[:, None], truth, previous)
            memory, hidden = self.cell(memory, seen)
            output = self.head(hidden)
            return (memory, output), output

        start = jnp.zeros((BATCH, 8)), jnp.zeros((BATCH, FEATURES))
        inputs = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), (truth, mask))
        return jnp.swapaxes(jax.lax.scan(body, start, inputs)[1], 0, 1)


class LinenRun:
    """Trains; all its state is that of the TrainState."""

    model, tx = LinenModel(), optax.sgd(0.5, 0.9)

    def __init__(self):
        params = self.model.init(jax.random.key(0), TRUTH, teacher_mask(0))
        self.state = TrainState.create(apply_fn=self.model.apply, params=params, tx=self.tx)

    @staticmethod
    @jax.jit
    def train_step(state):
        mask = teacher_mask(state.step)
        grads = jax.grad(lambda p: error(state.apply_fn(p, TRUTH, mask)))(state.params)
        return state.apply_gradients(grads=grads), (weights_of(state.step)[0], mask)

    def step(self):
        self.state, seen = self.train_step(self.state)
        return seen

    def save(self):
        return serialization.to_bytes(self.state)

    def load(self, data):
        self.state = serialization.from_bytes(self.state, data)

    def outputs(self, truth, mask):
        return self.state.apply_fn(self.state.params, truth, mask)


class NnxRun:
    """Trains; all its state is that of the model and the optimizer, whose step is uint32."""

    def __init__(self):
        self.model = NnxModel(nnx.Rngs(0))
        self.optimizer = nnx.Optimizer(self.model, optax.sgd(0.5, 0.9), wrt=nnx.Param)

    @staticmethod
    @nnx.jit
    def train_step(model, optimizer):
        step = optimizer.step[...]
        mask = teacher_mask(step)
        grads = nnx.grad(lambda model: error(model(TRUTH, mask)))(model)
        optimizer.update(model, grads)
        return weights_of(step)[0], mask

    def step(self):
        return self.train_step(self.model, self.optimizer)

    def save(self):
        state = nnx.to_pure_dict(nnx.state((self.model, self.optimizer)))
        return serialization.msgpack_serialize(serialization.to_state_dict(jax.device_get(state)))

    def load(self, data):
        state = nnx.state((self.model, self.optimizer))
        pure = serialization.from_state_dict(
            nnx.to_pure_dict(state), serialization.msgpack_restore(data)
        )
        nnx.replace_by_pure_dict(state, pure)
        nnx.update((self.model, self.optimizer), state)

    def outputs(self, truth, mask):
        return self.model(truth, mask)


def weights_of(step):
    """The two weights as a loss has them: the derivatives of the mixture of two values."""
    loss = mix_loss_fns(GAMMA, lambda pair: pair[0], lambda pair: pair[1])
    return jax.grad(loss, argnums=1)(step, jnp.ones(2))


RUNS = [LinenRun, NnxRun]


@pytest.mark.parametrize("kind", RUNS)
def test_the_cell_sees_the_truth_where_the_mask_says_and_its_own_output_elsewhere(kind):
    run, mask = kind(), teacher_mask(4)
    assert mask.any() and not mask.all()
    outputs = run.outputs(TRUTH, mask)
    own = jnp.pad(outputs[:, :-1], ((0, 0), (1, 0), (0, 0)))
    seen = jnp.where(mask[:, :, None], TRUTH, own)
    np.testing.assert_array_equal(run.outputs(seen, jnp.ones_like(mask)), outputs)


@pytest.mark.parametrize("kind", RUNS)
def test_the_optimizers_own_step_drives_gamma_and_the_mask(kind):
    run = kind()
    for step, gamma in enumerate(GAMMAS):
        seen_gamma, mask = run.step()
        assert float(seen_gamma) == gamma
        np.testing.assert_array_equal(mask, teacher_mask(step))
        assert mask.all() == (gamma == 1.0) and mask.any() == (gamma > 0.0)


@pytest.mark.parametrize("kind", RUNS)
def test_a_resumed_run_is_bit_equal_to_one_that_never_stopped(kind):
    straight, first, resumed = kind(), kind(), kind()
    for _ in range(7):
        straight.step()
    for _ in range(4):
        first.step()
    resumed.load(first.save())
    for _ in range(3):
        resumed.step()
    assert resumed.save() == straight.save() != first.save()
