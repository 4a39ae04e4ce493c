"""Keys: no draw depends on a key that a user derives, or on a draw of another use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmix

KEY = jax.random.key(7)
NUM_STEPS = 1024
STEPS = jnp.arange(NUM_STEPS)
SIGMAS = 6.0  # of 2e5 pairs of bits, wrong for one set of keys in 2,000; the keys are fixed


def _bits(words):
    """The bits of uint32 words [T, n] as -1 and 1, [T, 32 n]."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1)
    return 2.0 * bits - 1.0


def _draws(step, key=KEY):
    """Two-valued draws of every kind and use, int [18]."""
    four = np.full(4, 0.25)
    ones = jnp.ones(2, jnp.int32)
    return jnp.concatenate(
        [
            jaxmix.bernoulli_sources(key, step, 0.5, 4),
            jaxmix.bernoulli_sources(key, step, 0.5, 8, group_size=8)[:1],
            jaxmix.bernoulli_sources(key, step, four, 4) // 2,
            jaxmix.bernoulli_sources(key, step, four, 2) % 2,
            jaxmix.systematic_sources(key, step, 0.5, 1),  # the offset of the sources
            jaxmix.systematic_sources(key, step, 0.5, 2)[:1],  # the turn of the slots
            jaxmix.counted_sources(key, step, ones, 2)[:1],
            jaxmix.uniform_rows(key, step, jnp.full(4, 2)),
        ]
    )


draws = jax.jit(jax.vmap(_draws))


def _nnx_keys():
    rngs = nnx.Rngs(params=KEY, dropout=KEY)
    return jnp.stack([rngs.dropout() for _ in range(NUM_STEPS)])


fold = jax.vmap(jax.random.fold_in, (None, 0))
DERIVED = {
    "fold_in of root and step": lambda: fold(KEY, STEPS),
    "fold_in of step and root": lambda: jax.vmap(
        lambda step: jax.random.fold_in(jax.random.key(step), 7)
    )(STEPS),
    "fold_in of step, then a number": lambda: jax.vmap(jax.random.fold_in, (0, None))(
        fold(KEY, STEPS), 1
    ),
    "fold_in of a number, then step": lambda: fold(jax.random.fold_in(KEY, 1), STEPS),
    "split of the root": lambda: jax.random.split(KEY, NUM_STEPS),
    "split of each step's key": lambda: jax.vmap(jax.random.split)(fold(KEY, STEPS))[:, 1],
    "split in turn": lambda: jax.lax.scan(
        lambda key, _: tuple(jax.random.split(key)), KEY, None, NUM_STEPS
    )[1],
    "nnx.Rngs": _nnx_keys,
    "the key of each seed": lambda: jax.vmap(jax.random.key)(STEPS),
}


@jax.jit
def _words_of_user(keys):
    """What a user makes of each key: random words, a mask by row key, the words of the key."""
    masks = jax.vmap(lambda key: jax.random.bits(key, (4,)))(keys)
    rows = jax.vmap(lambda key: jax.random.bits(jax.random.fold_in(key, 1)))(keys)
    return jnp.concatenate([masks, rows[:, None], jax.random.key_data(keys)], axis=1)


def _largest_sum(a, b):
    """The largest sum over the steps of a column of `a` times one of `b`, in sigmas."""
    return np.abs(a.T @ b).max() / np.sqrt(len(a))


@pytest.mark.parametrize("name", DERIVED)
def test_no_draw_depends_on_a_key_that_is_derived_from_the_root(name):
    ours = 2.0 * np.asarray(draws(STEPS), np.float64) - 1.0
    users = _bits(np.asarray(_words_of_user(DERIVED[name]())))
    assert _largest_sum(ours, users) <= SIGMAS
    assert _largest_sum(users, users) >= np.sqrt(NUM_STEPS)  # equal bits would be seen


def test_no_draw_depends_on_a_draw_of_another_use_or_row():
    ours = 2.0 * np.asarray(draws(STEPS), np.float64) - 1.0
    sums = np.abs(ours.T @ ours) / np.sqrt(NUM_STEPS)
    np.fill_diagonal(sums, 0.0)
    sums[0, 4] = sums[4, 0] = 0.0  # the draw of the first group is that of row 0
    assert sums.max() <= SIGMAS
