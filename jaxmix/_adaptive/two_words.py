"""Sums in two float32 words, so that a million small steps add up without drift or loss."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmix._types import Array


class Pair(NamedTuple):
    """The number `high + low`, with about 48 bits; `high` is the float32 nearest to it."""

    high: Array
    low: Array


def pair_of(high: Array) -> Pair:
    """A float32 array as a pair. It is copied, since donated buffers must not be shared."""
    return Pair(jnp.array(high, jnp.float32), jnp.zeros_like(high))


def add(number: Pair, term: Array) -> Pair:
    """`number + term`; the rounding error (Knuth's two-sum) is kept in `low`."""
    total = number.high + term
    part = total - number.high
    low = number.low + ((number.high - (total - part)) + (term - part))
    high = total + low
    return Pair(high, low - (high - total))


def select(condition: Array, one: Pair, other: Pair) -> Pair:
    """`one` where the condition holds, else `other`."""
    high = jnp.where(condition, one.high, other.high)
    return Pair(high, jnp.where(condition, one.low, other.low))


def approach(number: Pair, target: Array, share: Array) -> Pair:
    """`number` moved towards `target` by `share`, in [0, 1], of the distance; share 1 is exact.

    `high` stays between the two, so a bound that holds for both holds for it.
    """
    left = target - number.high - number.low
    moved = add(number, share * left)
    low, high = jnp.minimum(number.high, target), jnp.maximum(number.high, target)
    held = jnp.clip(moved.high, low, high)
    kept = Pair(held, jnp.where(held == moved.high, moved.low, 0.0))
    return select(share >= 1.0, pair_of(target), kept)
