"""Weights as cuts that divide the 2^32 values of a random word, in whole numbers."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import need
from jaxmix._types import Array

MAX_SOURCES = 2**24
LAST_WORD = np.uint32(2**32 - 1)


def weight_cuts(simplex: Array) -> tuple[Array, Array]:
    """The summed weights below sources 1 .. K - 1 in units of 2^-32, and which of them are 1.

    Each exact sum is divided by the sum of all weights and rounded to the nearest unit. So the
    units of a source are within one of its weight. A weight of 0 has no unit. Any other weight has
    at least one; neighbours give it if the weight is below a unit. A sum of 2^32 wraps to 0, so
    flags mark it. If weights are NaN, the last source has all units.
    """
    size = simplex.shape[0]
    need(size <= MAX_SOURCES, "the number of weights", f"<= {MAX_SOURCES}", size)
    units, fraction, ranks = _exact_sums(jnp.where(simplex > 0.0, simplex, 0.0))
    moved = fraction + 2**14 - _excess_below(units, fraction)
    cuts = (units << 1) + (moved >> 15).astype(jnp.uint32)  # in units of 2^-32
    is_whole = (units >= 2**30) & (cuts < 2**30)
    # From here on: the last unit below each cut, because 2^32 itself does not fit 32 bits.
    last = jnp.where(is_whole, LAST_WORD, cuts - jnp.minimum(cuts, 1))
    before = ranks - jnp.minimum(ranks, 1)
    last = jnp.clip(last, before, LAST_WORD - (ranks[-1] - ranks))
    last = jax.lax.cummax(last - before) + before
    some = ranks > 0
    below = jnp.where(some, last + 1, 0)
    return below[:-1], (some & (last == LAST_WORD))[:-1]


def _exact_sums(weights: Array) -> tuple[Array, Array, Array]:
    """The summed weights in units of 2^-31, uint32, and their next 16 bits, int32.

    The third array is the number of weights above 0 up to each source, uint32. A weight is split
    into a whole number and a fraction of 32 bits (16 for few sources), in limbs that are so narrow
    that their sums over all sources fit 32 bits.
    """
    size = weights.shape[0]
    width = 16 if size <= 2**16 else 8
    rest, sums = weights * 2.0**31, []
    for _ in range(2 if size <= 2**11 else 1 + 32 // width):
        limb = jnp.floor(rest)
        sums.append(_sums(limb.astype(jnp.uint32)))
        rest = (rest - limb) * 2.0**width
    carry = fraction = jnp.zeros(size, jnp.uint32)
    for place, part in reversed(list(enumerate(sums[1:], 1))):
        part = part + carry
        carry = part >> width
        fraction |= (part & (2**width - 1)) << (32 - place * width)
    ranks = _sums((weights > 0.0).astype(jnp.uint32))
    return sums[0] + carry, (fraction >> 16).astype(jnp.int32), ranks


def _sums(numbers: Array) -> Array:
    """The cumulative sums of the numbers, uint32."""
    return jnp.cumsum(numbers, dtype=jnp.uint32)


def _excess_below(units: Array, fraction: Array) -> Array:
    """What each sum loses when all are divided by the total, in units of 2^-47, int32.

    Weights on the simplex sum to 1 within 2^-18, so the series e - e^2 of e / (1 + e) is enough.
    """
    excess = ((units[-1] - jnp.uint32(2**31)).astype(jnp.int32) << 16) + fraction[-1]
    size = jnp.abs(excess).astype(jnp.uint32)
    square = wide_product(size, size)[0] >> 15
    high, low = wide_product(units, jnp.where(excess < 0, size + square, size - square))
    loss = ((high << 1) | (low >> 31)).astype(jnp.int32)
    return jnp.where(excess < 0, -loss, loss)


def wide_product(factor: Array, other: Array | int) -> tuple[Array, Array]:
    """The 64-bit product of two uint32 as its high and low word."""
    other = jnp.asarray(other, jnp.uint32)
    low_half = (factor & 0xFFFF) * (other & 0xFFFF)
    middle = (factor >> 16) * (other & 0xFFFF) + (low_half >> 16)
    crossed = (factor & 0xFFFF) * (other >> 16) + (middle & 0xFFFF)
    high = (factor >> 16) * (other >> 16) + (middle >> 16) + (crossed >> 16)
    return high, factor * other


def count_cuts(places: Array, cuts: Array) -> Array:
    """The source of each place, int32: how many of the ascending cuts [K - 1] are at most it."""
    if cuts.shape[0] > 64:
        found = jnp.searchsorted(cuts, places, side="right", method="scan_unrolled")
        return found.astype(jnp.int32)
    # Written as K - 1 additions: XLA does not fuse a sum over an axis of about 30 or more.
    reached = [(places >= cut).astype(jnp.int32) for cut in cuts]
    return functools.reduce(jnp.add, reached, jnp.zeros(places.shape, jnp.int32))
