"""Weights that tests of plans share, and the rows that a plan gives."""

import jax
import jax.numpy as jnp
import optax

import jaxmix


def three_waves(step):
    phase = jnp.asarray(step, jnp.float32) / 50.0 + jnp.array([0.0, 1.0, 2.0])
    return jax.nn.softmax(2.0 * jnp.sin(phase))


WEIGHTS = {
    "number": 0.3,
    "array": [0.5, 0.3, 0.15, 0.05],
    "cosine": optax.cosine_decay_schedule(1.0, 2000),
    "linear": optax.linear_schedule(0.1, 0.9, 1500, transition_begin=100),
    "waves": three_waves,
    "staged": jaxmix.staged_schedule(
        {0: [1.0, 0.0, 0.0], 100: [0.2, 0.5, 0.3], 1500: [0.0, 0.5, 0.5]}
    ),
}


def ids(plan, start, stop):
    """Every (source, index) of some steps, in order."""
    rows = [plan.rows(step) for step in range(start, stop)]
    return [pair for r in rows for pair in zip(r.source.tolist(), r.position.tolist(), strict=True)]


def assert_each_row_once(pairs, num_sources):
    for k in range(num_sources):
        index = [i for source, i in pairs if source == k]
        assert sorted(index) == list(range(len(index)))
