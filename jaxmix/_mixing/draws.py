"""Which source each row takes: pure functions of (key, step, global row)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import is_concrete, need, whole_number
from jaxmix._mixing.interleave import slots_of_rows
from jaxmix._schedules.evaluate import as_whole_step
from jaxmix._schedules.weights import weights_at
from jaxmix._types import Array, ArrayLike, AxisName, PRNGKey, Weights


def bernoulli_sources(
    key: PRNGKey,
    step: ArrayLike,
    weights: Weights,
    num_rows: int,
    *,
    axis_name: AxisName | None = None,
    group_size: int = 1,
) -> Array:
    """Draw a source for each row, every row on its own.

    For two sources the draw is `jax.random.bernoulli(row_key, gamma, mode="high")` on a key for
    each global row: the step is folded into the root key and the row is added to the second word
    of the result. More sources compare 32 random bits a row with the summed weights. A source of
    weight 0 is never drawn and one of weight 1 always; a weight is right to 2^-32.

    Args:
      key: the root key, typed or old-style, of any implementation. It is not consumed: pass the
        same key at every step. It is always hashed with threefry.
      step: the optimizer step, a scalar int of any dtype; may be traced.
      weights: gamma, the share of source 0 of two; an array [K]; or a schedule returning either.
      num_rows: the rows to draw (static); inside `pmap` or `shard_map` those of one shard.
      axis_name: the axis, or axes in the order in which they split the rows, of which this call is
        one shard (static). The shards' draws together are the draw of the global batch.
      group_size: neighbouring rows that share a draw (static); must divide `num_rows`.

    Returns:
      int32 [num_rows], the source of each row in [0, K).

    Raises:
      ValueError, TypeError: a key that is none; a step that is no integer; weights off the simplex;
        `num_rows` or `group_size` below 1, or not divisible.

    Example:
      >>> import jax, jaxmix
      >>> jaxmix.bernoulli_sources(jax.random.key(0), 3, 0.5, 8).shape
      (8,)
      >>> jaxmix.bernoulli_sources(jax.random.key(0), 3, 1.0, 4).tolist()
      [0, 0, 0, 0]
    """
    simplex = weights_at(step, weights)
    rows, _ = _global_rows(num_rows, axis_name, group_size)
    step_key = _step_key(key, step)
    if simplex.shape[0] == 2:
        words = jax.random.key_data(step_key)
        row_words = jnp.stack([jnp.broadcast_to(words[0], rows.shape), words[1] + rows], axis=1)
        row_keys = jax.random.wrap_key_data(row_words, impl="threefry2x32")
        draw = functools.partial(jax.random.bernoulli, p=simplex[0], mode="high")
        source = (~jax.vmap(draw)(row_keys)).astype(jnp.int32)
    else:
        below, whole = _cuts(simplex)
        cuts = jnp.where(whole, jnp.uint32(2**32 - 1), below)
        last = jnp.sum(~whole, dtype=jnp.int32)
        source = jnp.minimum(count_cuts(_row_bits(step_key, rows), cuts), last)
    return repeat_groups(source, group_size)


def systematic_sources(
    key: PRNGKey,
    step: ArrayLike,
    weights: Weights,
    num_rows: int,
    *,
    axis_name: AxisName | None = None,
    group_size: int = 1,
) -> Array:
    """Draw a source for each row so that each gets floor or ceil of its share of the global batch.

    Systematic sampling: with B rows in all (or groups of rows), one random offset u a step and
    C_k = B (w_0 + ... + w_{k-1}), source k holds the slots i of 0 .. B - 1 with
    C_k <= i + u < C_{k+1}. Its number of rows has expectation exactly B w_k. Row i of the batch
    takes slot (a i + r) mod B, with a fixed `a` near B / golden ratio and a random r, which spreads
    the rows of a source evenly over the batch and its shards. No random number a row.

    Args:
      key, step, weights, num_rows, axis_name, group_size: as for `bernoulli_sources`.

    Returns:
      int32 [num_rows], the source of each row in [0, K).

    Raises:
      ValueError, TypeError: as `bernoulli_sources`.

    Example:
      >>> import jax, jaxmix
      >>> source = jaxmix.systematic_sources(jax.random.key(0), 3, 0.25, 8)
      >>> int((source == 0).sum())
      2

    Source: Madow (1949), On the theory of systematic sampling, II.
    """
    simplex = weights_at(step, weights)
    rows, total = _global_rows(num_rows, axis_name, group_size)
    words = jax.random.key_data(_step_key(key, step))
    below, whole = _cuts(simplex)
    high, low = _wide_product(below, total)
    cuts = jnp.where(whole, jnp.uint32(total), high + (words[0] < low).astype(jnp.uint32))
    slots = slots_of_rows(rows, total, words[1])
    return repeat_groups(count_cuts(slots, cuts), group_size)


def counted_sources(
    key: PRNGKey,
    step: ArrayLike,
    counts: ArrayLike,
    num_rows: int,
    *,
    axis_name: AxisName | None = None,
) -> Array:
    """Give each source exactly its count of the rows of the global batch.

    The slots 0 .. B - 1 are dealt to the sources in order, and row i takes slot (a i + r) mod B as
    in `systematic_sources`. For the key `jax.random.key(seed)` these are the sources of
    `MixPlan(..., seed=seed).rows(step)`.

    Args:
      key, step, num_rows, axis_name: as for `bernoulli_sources`.
      counts: int [K], `>= 0`, with the sum B, the rows of the global batch. Traced counts can't be
        checked: rows beyond their sum get the source -1, where `select_rows` takes the last one.

    Returns:
      int32 [num_rows], the source of each row in [0, K).

    Raises:
      ValueError, TypeError: as `bernoulli_sources`; counts that are known and negative, or of
        another sum than B.

    Example:
      >>> import jax, jaxmix, numpy as np
      >>> source = jaxmix.counted_sources(jax.random.key(0), 3, np.array([5, 0, 3]), 8)
      >>> np.bincount(source, minlength=3).tolist()
      [5, 0, 3]
    """
    rows, total = _global_rows(num_rows, axis_name)
    array = counts if isinstance(counts, jax.Array) else np.asarray(counts)
    need(jnp.issubdtype(array.dtype, jnp.integer), "counts", "integers", array.dtype, TypeError)
    need(array.ndim == 1 and array.size > 0, "counts", "an array [K]", array.shape)
    if is_concrete(array):
        known = np.asarray(array).tolist()
        need(min(known) >= 0 and sum(known) == total, "counts", f">= 0 with the sum {total}", known)
    words = jax.random.key_data(_step_key(key, step))
    ends = jnp.cumsum(jnp.asarray(array).astype(jnp.uint32), dtype=jnp.uint32)
    slots = slots_of_rows(rows, total, words[1])
    return jnp.where(slots < ends[-1], count_cuts(slots, ends[:-1]), -1)


def uniform_rows(
    key: PRNGKey,
    step: ArrayLike,
    lengths: Array,
    *,
    axis_name: AxisName | None = None,
) -> Array:
    """Draw a row of a buffer for each row of the batch, uniformly in [0, lengths[row]).

    Args:
      key, step, axis_name: as for `bernoulli_sources`; the draw is independent of every source
        drawn with the same key and step.
      lengths: int32 [num_rows], the length of the buffer that each row is taken from, at least 1.

    Returns:
      int32 [num_rows]. Each row of a buffer of n rows has the probability 1/n, right to 2^-32.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmix
      >>> index = jaxmix.uniform_rows(jax.random.key(0), 3, jnp.array([1, 1, 100]))
      >>> index[:2].tolist(), bool(index[2] < 100)
      ([0, 0], True)
    """
    rows, _ = _global_rows(lengths.shape[0], axis_name)
    index_key = jax.random.fold_in(_step_key(key, step), 1)
    high, _ = _wide_product(_row_bits(index_key, rows), lengths.astype(jnp.uint32))
    return high.astype(jnp.int32)


Draw = Literal["bernoulli", "systematic"] | Callable[..., Array]
"""A draw by name, or a function of the signature of `bernoulli_sources`."""


def draw_function(draw: Draw) -> Callable[..., Array]:
    """The function of a draw that is given by name or as a function."""
    if callable(draw):
        return draw
    named = {"bernoulli": bernoulli_sources, "systematic": systematic_sources}
    need(draw in named, "draw", f"one of {', '.join(named)} or a function", draw)
    return named[draw]


def _global_rows(
    num_rows: int, axis_name: AxisName | None, group_size: int = 1
) -> tuple[Array, int]:
    """The global numbers of this shard's rows, or groups of rows, uint32, and how many all have."""
    num_rows = whole_number("num_rows", num_rows, 1)
    group_size = whole_number("group_size", group_size, 1)
    even = num_rows % group_size == 0
    need(even, "group_size", f"a divisor of num_rows = {num_rows}", group_size)
    groups = num_rows // group_size
    total = groups * (1 if axis_name is None else jax.lax.axis_size(axis_name))
    need(total < 2**31, "the global batch", "below 2^31 rows", total)
    rows = jnp.arange(groups, dtype=jnp.uint32)
    if axis_name is not None:
        rows += jax.lax.axis_index(axis_name).astype(jnp.uint32) * jnp.uint32(groups)
    return rows, total


def _step_key(key: PRNGKey, step: ArrayLike) -> Array:
    """The root key with the step folded in, as a threefry key whatever the key's implementation."""
    need(isinstance(key, jax.Array | np.ndarray), "key", "a JAX key", key, TypeError)
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    data: Any = jax.random.key_data(key) if typed else jnp.asarray(key)
    ok = data.dtype == jnp.uint32 and data.shape in ((2,), (4,))
    need(ok, "key", "one JAX key of 2 or 4 words", f"{data.dtype} {data.shape}", TypeError)
    words = data[:2]
    if data.shape == (4,):  # rbg: two halves, the same in a key made from a seed
        words = words + (data[2:] ^ words) * jnp.uint32(0x9E3779B9)
    root = jax.random.wrap_key_data(words, impl="threefry2x32")
    return jax.random.fold_in(root, as_whole_step(step))


def _row_bits(key: Array, rows: Array) -> Array:
    """32 random bits for each row, uint32."""
    return jax.vmap(lambda row: jax.random.key_data(jax.random.fold_in(key, row))[0])(rows)


def _cuts(simplex: Array) -> tuple[Array, Array]:
    """The summed weights below sources 1 .. K - 1 in units of 2^-32, and which of them are 1.

    In integers, so that no sum rounds: a weight of 0 has no unit, any other at least one, and the
    largest takes what the others leave of 2^32. A sum of 2^32 would wrap to 0, hence the flags.
    """
    inner = jnp.arange(simplex.shape[0] - 1)
    largest = jnp.argmax(simplex)
    known = jnp.where(jnp.isnan(simplex), 0.0, simplex)
    units = jnp.round(jnp.minimum(known, 0.5) * 2.0**32).astype(jnp.uint32)
    units = jnp.maximum(units, (known > 0.0).astype(jnp.uint32))
    units = jnp.where(jnp.arange(simplex.shape[0]) == largest, jnp.uint32(0), units)
    sums = jnp.cumsum(units, dtype=jnp.uint32)
    below, above = sums[:-1], sums[-1] - sums[:-1]
    after = inner >= largest
    return jnp.where(after, jnp.uint32(0) - above, below), after & (above == 0)


def _wide_product(factor: Array, other: Array | int) -> tuple[Array, Array]:
    """The 64-bit product of two uint32 as its high and low word."""
    other = jnp.asarray(other, jnp.uint32)
    low_half = (factor & 0xFFFF) * (other & 0xFFFF)
    middle = (factor >> 16) * (other & 0xFFFF) + (low_half >> 16)
    crossed = (factor & 0xFFFF) * (other >> 16) + (middle & 0xFFFF)
    high = (factor >> 16) * (other >> 16) + (middle >> 16) + (crossed >> 16)
    return high, factor * other


def count_cuts(places: Array, cuts: Array) -> Array:
    """How many of the rising cuts [K - 1] each place has reached: its source, int32."""
    if cuts.shape[0] > 64:
        found = jnp.searchsorted(cuts, places, side="right", method="scan_unrolled")
        return found.astype(jnp.int32)
    # Written out, since a sum over an axis of K is not fused from about K = 30 on.
    reached = [(places >= cut).astype(jnp.int32) for cut in cuts]
    return functools.reduce(jnp.add, reached, jnp.zeros(places.shape, jnp.int32))


def repeat_groups(source: Array, group_size: int) -> Array:
    """Each group's source given to all its rows."""
    return jnp.broadcast_to(source[:, None], (source.shape[0], group_size)).reshape(-1)
