"""Losses summed by the source of their row, right under accumulation and across devices."""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
from jax import lax

from jaxmix._checks import need, whole_number
from jaxmix._losses.interpolate import wide_dtype
from jaxmix._types import Array, AxisName


@flax.struct.dataclass
class SourceSums:
    """Sums by source that add up over microbatches, steps and devices: `total` [K], `count` [K].

    `a + b` adds both; divide last, by `mean()`.
    """

    total: Array
    count: Array

    def __add__(self, other: SourceSums) -> SourceSums:
        return SourceSums(self.total + other.total, self.count + other.count)

    def mean(self) -> Array:
        """The mean value of each source [K], 0 where the count is 0."""
        return self.total / jnp.maximum(self.count, 1).astype(self.total.dtype)


def source_sums(
    values: Array,
    source: Array,
    num_sources: int,
    *,
    where: Array | None = None,
    axis_name: AxisName | None = None,
) -> SourceSums:
    """Sum values, such as token losses, by the source of their row.

    Args:
      values: float [B, ...], one or more values a row.
      source: int [B], the source of each row; a row of another number than 0 .. K - 1 counts
        nowhere.
      num_sources: K (static).
      where: bool, of the shape of `values`; values where it is False don't count, NaN included.
      axis_name: inside `pmap` or `shard_map`, the axis or axes to sum over (static).

    Returns:
      SourceSums(total, count): total [K] in float32 or wider, count int32 [K]. NaN of one source
      stays in its own sum.

    Raises:
      ValueError, TypeError: at trace time, for shapes or dtypes other than these.

    Example:
      >>> import jax.numpy as jnp, jaxmix
      >>> losses, source = jnp.array([1.0, 2.0, 6.0]), jnp.array([0, 1, 1])
      >>> sums = jaxmix.source_sums(losses, source, num_sources=3)
      >>> sums.mean().tolist(), (sums + sums).count.tolist()
      ([1.0, 4.0, 0.0], [2, 4, 0])
    """
    num_sources = whole_number("num_sources", num_sources, 1)
    values, source = jnp.asarray(values), jnp.asarray(source)
    is_float = jnp.issubdtype(values.dtype, jnp.floating)
    need(is_float, "values", "of a float dtype", values.dtype, TypeError)
    is_int = jnp.issubdtype(source.dtype, jnp.integer)
    need(is_int, "source", "of an integer dtype", source.dtype, TypeError)
    need(source.shape == values.shape[:1], "source", f"of shape {values.shape[:1]}", source.shape)
    kept = jnp.ones_like(values, dtype=bool) if where is None else jnp.asarray(where)
    need(kept.dtype == bool, "where", "of dtype bool", kept.dtype, TypeError)
    need(kept.shape == values.shape, "where", f"of shape {values.shape}", kept.shape)
    wide = jnp.where(kept, values.astype(wide_dtype(values.dtype)), 0)
    trailing = tuple(range(1, values.ndim))
    row_totals, row_counts = wide.sum(trailing), kept.sum(trailing, dtype=jnp.int32)
    mine = source[:, None] == jnp.arange(num_sources, dtype=source.dtype)[None, :]
    total = jnp.where(mine, row_totals[:, None], 0).sum(0)
    count = jnp.where(mine, row_counts[:, None], 0).sum(0)
    sums = SourceSums(total, count)
    return sums if axis_name is None else lax.psum(sums, axis_name)
