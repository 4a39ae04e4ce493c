"""The keys of jaxmix: one for each use and step, on the device and on the host."""

from __future__ import annotations

import functools
import hashlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import need
from jaxmix._schedules.evaluate import as_whole_step
from jaxmix._types import Array, ArrayLike, PRNGKey

Use = Literal["bernoulli", "systematic", "counted", "rows"]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def step_key(key: PRNGKey, step: ArrayLike, use: Use) -> Array:
    """The threefry key of a step for one use, from a root key of any implementation.

    The words of the root are changed before the step is folded in. So no key that a user derives
    from the root, by `fold_in` or `split`, is one of these.
    """
    check_key(key)
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    data: Any = jax.random.key_data(key) if typed else jnp.asarray(key)
    ok = data.dtype == jnp.uint32 and data.shape in ((2,), (4,))
    need(ok, "key", "one JAX key of 2 or 4 words", f"{data.dtype} {data.shape}", TypeError)
    words = data[:2]
    if data.shape == (4,):  # rbg: two halves, the same in a key made from a seed
        words = words + (data[2:] ^ words) * jnp.uint32(0x9E3779B9)
    words ^= jnp.asarray(np.array(use_words(use), np.uint32))
    root = jax.random.wrap_key_data(words, impl="threefry2x32")
    return jax.random.fold_in(root, as_whole_step(step))


def check_key(key: Any) -> None:
    """Raise TypeError for what can't be a key, such as the step where the key was forgotten."""
    need(isinstance(key, jax.Array | np.ndarray), "key", "a JAX key", key, TypeError)


def slot_word(key: PRNGKey, step: ArrayLike) -> Array:
    """The word r by which the slots of a planned or counted batch are rotated at a step, uint32."""
    return jax.random.key_data(step_key(key, step, "counted"))[1]


def row_bits(key: Array, rows: Array) -> Array:
    """32 random bits for each row, uint32."""
    return jax.vmap(lambda row: jax.random.key_data(jax.random.fold_in(key, row))[0])(rows)


def host_word(seed: int, steps: np.ndarray, use: Use) -> np.ndarray:
    """The second word of `step_key(jax.random.key(seed), step, use)` for uint32 steps.

    Source: Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3.
    """
    high, low = use_words(use)
    keys = tuple(map(np.uint32, (high, seed ^ low, high ^ seed ^ low ^ 0x1BD11BDA)))
    left, right = np.zeros_like(steps) + keys[0], steps + keys[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            left = left + right
            right = ((right << rotation) | (right >> (32 - rotation))) ^ left
        left = left + keys[(group + 1) % 3]
        right = right + keys[(group + 2) % 3] + np.uint32(group + 1)
    return right


@functools.cache
def use_words(use: Use) -> tuple[int, int]:
    """Two 32-bit constants for each use.

    The first is not 0. So no root changed by it is the key of another seed below 2^32.
    """
    digest = hashlib.sha256(f"jaxmix {use}".encode()).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")
