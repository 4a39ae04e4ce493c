"""Long sums by source without x64: counts above 2^32, float totals without drift.

Both are pairs of arrays. Up to 2^16 pairs, of several devices or steps, may be added array by array
(`psum`, `jax.tree.map(jnp.add, ...)`).
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxmix._checks import need
from jaxmix._types import Array

LOW = 2**16
"""A count is `low + LOW * high`, in uint32; `low` has 16 spare bits for plain sums."""


def sum_by_source(values: Array, source: Array, num_sources: int) -> Array:
    """The sums [K] of `values` [B] over the rows of each source; rows of no source are left out."""
    is_int = jnp.issubdtype(source.dtype, jnp.integer)
    need(is_int, "source", "of an integer dtype", source.dtype, TypeError)
    if source.dtype.itemsize < 4:  # int8 can't hold source 128
        source = source.astype(jnp.int32)
    mine = source[:, None] == jnp.arange(num_sources, dtype=source.dtype)[None, :]
    return jnp.where(mine, values[:, None], jnp.zeros((), values.dtype)).sum(0, dtype=values.dtype)


def carry(low: Array, high: Array) -> tuple[Array, Array]:
    """The same counts with each low word below `LOW`."""
    return low % LOW, high + low // LOW


def count_as_float(low: Array, high: Array) -> Array:
    """Counts in float32, exact except for two roundings."""
    return high.astype(jnp.float32) * LOW + low.astype(jnp.float32)


def add_floats(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    """The sum of two pairs `(total, rest)`, with twice the bits of a float (Knuth's two-sum).

    `total` is the rounded number and `rest` its rounding error, 0 where `total` is not finite.
    """
    total = a[0] + b[0]
    gain = total - a[0]
    lost = (a[0] - (total - gain)) + (b[0] - gain)
    rest = jnp.where(jnp.isfinite(total), a[1] + b[1] + lost, 0)
    whole = total + rest
    return whole, jnp.where(jnp.isfinite(whole), rest - (whole - total), 0)
