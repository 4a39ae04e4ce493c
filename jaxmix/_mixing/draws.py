"""Which source each row takes: pure functions of (key, step, global row)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import is_concrete, need
from jaxmix._mixing.cuts import LAST_WORD, count_cuts, weight_cuts, wide_product
from jaxmix._mixing.global_rows import global_rows
from jaxmix._mixing.interleave import slots_of_rows
from jaxmix._mixing.keys import row_bits, slot_word, step_key
from jaxmix._schedules.weights import weights_at
from jaxmix._types import Array, ArrayLike, AxisName, Microbatch, PRNGKey, Weights

# If the weight of source 1 of two is below RARE, source 1 is drawn, else source 0. RARE is not 1/2:
# schedules rest at or pass 1/2, and there a rounding of gamma would exchange all rows.
RARE = 0.00713


def bernoulli_sources(
    key: PRNGKey,
    step: ArrayLike,
    weights: Weights,
    num_rows: int,
    *,
    axis_name: AxisName | None = None,
    microbatch: Microbatch | None = None,
    group_size: int = 1,
) -> Array:
    """Draw a source for each row, independently of the other rows.

    For two sources the draw is ``jax.random.bernoulli(row_key, weight, mode="high")`` with a key
    for each global row and the weight of source 0, or of source 1 if that is below 0.7 %. For more
    sources 32 random bits per row are compared with the summed weights. Each weight is exact to
    2^-32, for up to 2^24 sources. Weight 0 is never drawn, weight 1 always.

    Args:
      key: the root key, typed or old-style, of any implementation. It is not consumed: pass the
        same key at every step. Other code may use it too, since jaxmix hashes it with constants of
        its own: no key made by `fold_in`, `split` or `nnx.Rngs` gives a part of this draw.
      step: the optimizer update, a scalar int of any dtype; may be traced. Under gradient
        accumulation it is the same for all microbatches of the update.
      weights: gamma, the weight of source 0 of two; an array [K]; or a schedule returning either.
      num_rows: the rows to draw in this call (static), ``B / shards / microbatches``.
      axis_name: inside `pmap` or `shard_map`, the axis that splits the rows, or several in the
        order in which they split them (static). The shards then draw parts of one global batch.
        With `()` every device has the same draw.
      microbatch: `(index, count)` if an update takes `count` calls (static): this call draws part
        `index` of B, a scalar int that may be traced, modulo `count`. Shards split the microbatch.
      group_size: the number of neighbouring rows that share a draw (static). It divides the global
        batch B. A group may span shards and microbatches.

    Returns:
      int32 [num_rows], the source of each row in [0, K).

    Raises:
      ValueError, TypeError: not a key; a step that is not an integer; weights off the simplex;
        `num_rows` or `group_size` below 1; a `group_size` that does not divide B; no `axis_name`
        inside `pmap` or `shard_map`; a `microbatch` that is not such a pair.

    Example:
      >>> import jax, jaxmix
      >>> jaxmix.bernoulli_sources(jax.random.key(0), 3, 0.5, 8).shape
      (8,)
      >>> jaxmix.bernoulli_sources(jax.random.key(0), 3, 1.0, 4).tolist()
      [0, 0, 0, 0]
      >>> [jaxmix.bernoulli_sources(jax.random.key(0), 3, 0.5, 4, microbatch=(i, 2)).shape
      ...  for i in range(2)]
      [(4,), (4,)]
    """
    simplex = weights_at(step, weights)
    rows, _, repeat = global_rows(num_rows, axis_name, microbatch, group_size)
    key = step_key(key, step, "bernoulli")
    if simplex.shape[0] == 2:
        source = _one_of_two(key, simplex, rows)
    else:
        below, whole = weight_cuts(simplex)
        cuts = jnp.where(whole, LAST_WORD, below)
        last = jnp.sum(~whole, dtype=jnp.int32)
        source = jnp.minimum(count_cuts(row_bits(key, rows), cuts), last)
    return _repeat(source, repeat)


def _one_of_two(key: Array, simplex: Array, rows: Array) -> Array:
    """The Bernoulli draw of each global row, int32."""
    words = jax.random.key_data(key)
    # The row is added to a word of the key, where `fold_in` would cost one more hash per row:
    # threefry mixes its key as well as its counter.
    row_words = jnp.stack([jnp.broadcast_to(words[0], rows.shape), words[1] + rows], axis=1)
    row_keys = jax.random.wrap_key_data(row_words, impl="threefry2x32")
    is_rare = simplex[1] < RARE
    drawn = jnp.where(is_rare, simplex[1], simplex[0])
    hit = jax.vmap(functools.partial(jax.random.bernoulli, p=drawn, mode="high"))(row_keys)
    return (hit == is_rare).astype(jnp.int32)


def systematic_sources(
    key: PRNGKey,
    step: ArrayLike,
    weights: Weights,
    num_rows: int,
    *,
    axis_name: AxisName | None = None,
    microbatch: Microbatch | None = None,
    group_size: int = 1,
) -> Array:
    """Draw a source for each row, with counts of floor or ceil of ``B w_k`` in the global batch.

    This is systematic sampling. With one random offset u per step and
    ``C_k = B (w_0 + ... + w_{k-1})``, source k holds the slots i of 0 .. B - 1 for which
    ``C_k <= i + u < C_{k+1}``. Its expected number of rows is exactly ``B w_k``. Row i of the batch
    takes slot ``(a i + r) mod B``, with a fixed a near B / golden ratio and a random r. This
    spreads the rows of a source evenly over the batch, its shards and its microbatches. With
    `group_size` the same holds for groups instead of rows.

    Args:
      key, step, weights, num_rows, axis_name, microbatch, group_size: as for `bernoulli_sources`.
        The counts hold for all shards and microbatches of the update together.

    Returns:
      int32 [num_rows], the source of each row in [0, K).

    Raises:
      ValueError, TypeError: as for `bernoulli_sources`.

    Example:
      >>> import jax, jaxmix
      >>> source = jaxmix.systematic_sources(jax.random.key(0), 3, 0.25, 8)
      >>> int((source == 0).sum())
      2

    Source: Madow (1949), On the theory of systematic sampling, II.
    """
    simplex = weights_at(step, weights)
    rows, total, repeat = global_rows(num_rows, axis_name, microbatch, group_size)
    words = jax.random.key_data(step_key(key, step, "systematic"))
    below, whole = weight_cuts(simplex)
    high, low = wide_product(below, total)
    cuts = jnp.where(whole, jnp.uint32(total), high + (words[0] < low).astype(jnp.uint32))
    slots = slots_of_rows(rows, total, words[1])
    return _repeat(count_cuts(slots, cuts), repeat)


def counted_sources(
    key: PRNGKey,
    step: ArrayLike,
    counts: ArrayLike,
    num_rows: int,
    *,
    axis_name: AxisName | None = None,
    microbatch: Microbatch | None = None,
    group_size: int = 1,
) -> Array:
    """Assign a source to each row so that each source has exactly its count in the global batch.

    The slots 0 .. B - 1 are given to the sources in order, and row i takes slot
    ``(a i + r) mod B``, as in `systematic_sources`. With the key `jax.random.key(seed)` these are
    the sources of `MixPlan(..., seed=seed).rows(step)`.

    Args:
      key, step, num_rows, axis_name, microbatch, group_size: as for `bernoulli_sources`.
      counts: int [K], `>= 0`, multiples of `group_size` with the sum B. Traced counts can't be
        checked: if their sum is below B, the rows that are left get the source -1, for which
        `select_rows` takes the last batch.

    Returns:
      int32 [num_rows], the source of each row in [0, K).

    Raises:
      ValueError, TypeError: as for `bernoulli_sources`; known counts that are negative, that are
        not multiples of `group_size`, or whose sum is not B.

    Example:
      >>> import jax, jaxmix, numpy as np
      >>> source = jaxmix.counted_sources(jax.random.key(0), 3, np.array([5, 0, 3]), 8)
      >>> np.bincount(source, minlength=3).tolist()
      [5, 0, 3]
    """
    rows, total, repeat = global_rows(num_rows, axis_name, microbatch, group_size)
    array = counts if isinstance(counts, jax.Array) else np.asarray(counts)
    need(jnp.issubdtype(array.dtype, jnp.integer), "counts", "integers", array.dtype, TypeError)
    need(array.ndim == 1 and array.size > 0, "counts", "an array [K]", array.shape)
    if is_concrete(array):
        known, size = np.asarray(array).tolist(), total * group_size
        need(min(known) >= 0 and sum(known) == size, "counts", f">= 0 with the sum {size}", known)
        in_groups = all(count % group_size == 0 for count in known)
        need(in_groups, "counts", f"multiples of group_size = {group_size}", known)
    ends = jnp.cumsum(jnp.asarray(array).astype(jnp.uint32), dtype=jnp.uint32)
    if group_size > 1:
        ends //= jnp.uint32(group_size)
    slots = slots_of_rows(rows, total, slot_word(key, step))
    source = jnp.where(slots < ends[-1], count_cuts(slots, ends[:-1]), -1)
    return _repeat(source, repeat)


def uniform_rows(
    key: PRNGKey,
    step: ArrayLike,
    lengths: ArrayLike,
    *,
    axis_name: AxisName | None = None,
    microbatch: Microbatch | None = None,
) -> Array:
    """Draw an index for each row of the batch, uniformly in ``[0, lengths[row])``.

    Args:
      key, step, axis_name, microbatch: as for `bernoulli_sources`. The draw is independent of the
        sources drawn with the same key and step.
      lengths: int [num_rows], the length of the buffer from which each row is taken, in [1, 2^31).
        Traced lengths can't be checked; one outside the range counts as the nearest bound.

    Returns:
      int32 [num_rows]. Each index below a length n has the probability 1/n, exact to 2^-32.

    Raises:
      ValueError, TypeError: lengths that are not integers [num_rows], known lengths out of range;
        and as for `bernoulli_sources`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmix
      >>> index = jaxmix.uniform_rows(jax.random.key(0), 3, jnp.array([1, 1, 100]))
      >>> index[:2].tolist(), bool(index[2] < 100)
      ([0, 0], True)
    """
    array = lengths if isinstance(lengths, jax.Array) else np.asarray(lengths)
    need(jnp.issubdtype(array.dtype, jnp.integer), "lengths", "integers", array.dtype, TypeError)
    need(array.ndim == 1 and array.size > 0, "lengths", "an array [num_rows]", array.shape)
    if is_concrete(array):
        known = np.asarray(array)  # np.min of a JAX array would be traced inside jit
        low, high = int(known.min()), int(known.max())
        need(1 <= low and high < 2**31, "lengths", "in [1, 2^31)", f"{low} to {high}")
    rows, _, _ = global_rows(array.shape[0], axis_name, microbatch)
    most = min(2**31 - 1, jnp.iinfo(array.dtype).max)
    size = jnp.asarray(array.clip(1, most)).astype(jnp.uint32)
    high, _ = wide_product(row_bits(step_key(key, step, "rows"), rows), size)
    return high.astype(jnp.int32)


Draw = Literal["bernoulli", "systematic"] | Callable[..., Array]
"""A draw by name, or a function with the arguments of `bernoulli_sources`.

It gets `axis_name` and `group_size` at every call, and `microbatch` if there is one.
"""


def draw_sources(
    draw: Draw,
    key: PRNGKey,
    step: ArrayLike,
    simplex: Array,
    num_rows: int,
    *,
    axis_name: AxisName | None,
    microbatch: Microbatch | None,
    group_size: int,
) -> Array:
    """The sources from a draw, which is given by name or as a function."""
    named = {"bernoulli": bernoulli_sources, "systematic": systematic_sources}
    known = callable(draw) or (isinstance(draw, str) and draw in named)
    hint = "(for exact counts: a MixPlan, or counted_sources with select_rows)"
    need(known, "draw", f"'bernoulli', 'systematic' or a function {hint}", draw)
    function = draw if callable(draw) else named[draw]
    part = {} if microbatch is None else {"microbatch": microbatch}
    return function(
        key, step, simplex, num_rows, axis_name=axis_name, group_size=group_size, **part
    )


def _repeat(source: Array, repeat: int) -> Array:
    """Each source for `repeat` neighbouring rows."""
    return jnp.broadcast_to(source[:, None], (source.shape[0], repeat)).reshape(-1)
