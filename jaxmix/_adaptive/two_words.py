"""Sums kept in two float32 words, so that a million small steps neither drift nor get lost."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmix._types import Array


class Pair(NamedTuple):
    """The number `high + low`, with about 48 bits; `high` is the float32 nearest to it."""

    high: Array
    low: Array


def pair_of(high: Array) -> Pair:
    """A float32 array as a pair. Copied, as donated buffers must not be shared."""
    return Pair(jnp.array(high, jnp.float32), jnp.zeros_like(high))


def add(number: Pair, term: Array) -> Pair:
    """`number + term`; the rounding of the sum is found (Knuth's two-sum) and kept in `low`."""
    total = number.high + term
    part = total - number.high
    low = number.low + ((number.high - (total - part)) + (term - part))
    high = total + low
    return Pair(high, low - (high - total))


def select(condition: Array, one: Pair, other: Pair) -> Pair:
    """`one` where the condition holds, else `other`."""
    high = jnp.where(condition, one.high, other.high)
    return Pair(high, jnp.where(condition, one.low, other.low))
