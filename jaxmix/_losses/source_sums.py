"""Losses summed by the source of their row, right under accumulation and across devices."""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
from jax import lax

from jaxmix._checks import need, whole_number
from jaxmix._losses.interpolate import wide_dtype
from jaxmix._tally import add_floats, carry, count_as_float, sum_by_source
from jaxmix._types import Array, AxisName


@flax.struct.dataclass
class SourceSums:
    """Sums by source that add up over microbatches, steps and devices, for long runs without x64.

    `a + b` adds both; divide last, by `mean()`. `psum` and other sums leaf by leaf add up too, over
    2^16 parts at most. The counts are whole up to 2^48, and totals lose no more over a million
    additions than over one.

    Fields: `total`, float32 [K] or wider, the sum, and `rest`, what rounding took from it;
    `count_low` and `count_high`, uint32 [K], for the count `count_low + 2^16 * count_high`.
    """

    total: Array
    rest: Array
    count_low: Array
    count_high: Array

    @classmethod
    def empty(cls, num_sources: int) -> SourceSums:
        """Return sums of nothing, of K sources (static), such as a scan starts with."""
        shape = (whole_number("num_sources", num_sources, 1),)
        floats, words = (lambda: jnp.zeros(shape)), (lambda: jnp.zeros(shape, jnp.uint32))
        return cls(floats(), floats(), words(), words())

    @property
    def count(self) -> Array:
        """Return the number of values of each source, float32 [K]: exact to 2^24, then rounded."""
        return count_as_float(self.count_low, self.count_high)

    def __add__(self, other: SourceSums) -> SourceSums:
        """Return both together; raise ValueError if they are of another number of sources."""
        shape = self.total.shape
        need(other.total.shape == shape, "the other sums", f"of shape {shape}", other.total.shape)
        total, rest = add_floats((self.total, self.rest), (other.total, other.rest))
        low, high = self.count_low + other.count_low, self.count_high + other.count_high
        return SourceSums(total, rest, *carry(low, high))

    def mean(self) -> Array:
        """Return the mean value of each source [K], 0 where the count is 0."""
        return (self.total + self.rest) / jnp.maximum(self.count, 1).astype(self.total.dtype)


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
      SourceSums, with `total` [K] in float32 or wider and `count` [K]. NaN of one source stays in
      its own sum.

    Raises:
      ValueError, TypeError: at trace time, for shapes or dtypes other than these.

    Example:
      >>> import jax.numpy as jnp, jaxmix
      >>> losses, source = jnp.array([1.0, 2.0, 6.0]), jnp.array([0, 1, 1])
      >>> sums = jaxmix.source_sums(losses, source, num_sources=3)
      >>> sums.mean().tolist(), (sums + sums).count.tolist()
      ([1.0, 4.0, 0.0], [2.0, 4.0, 0.0])
    """
    num_sources = whole_number("num_sources", num_sources, 1)
    values, source = jnp.asarray(values), jnp.asarray(source)
    is_float = jnp.issubdtype(values.dtype, jnp.floating)
    need(is_float, "values", "of a float dtype", values.dtype, TypeError)
    need(source.shape == values.shape[:1], "source", f"of shape {values.shape[:1]}", source.shape)
    kept = jnp.ones_like(values, dtype=bool) if where is None else jnp.asarray(where)
    need(kept.dtype == bool, "where", "of dtype bool", kept.dtype, TypeError)
    need(kept.shape == values.shape, "where", f"of shape {values.shape}", kept.shape)
    wide = jnp.where(kept, values.astype(wide_dtype(values.dtype)), 0)
    trailing = tuple(range(1, values.ndim))
    total = sum_by_source(wide.sum(trailing), source, num_sources)
    count = sum_by_source(kept.sum(trailing, dtype=jnp.uint32), source, num_sources)
    sums = SourceSums(total, jnp.zeros_like(total), *carry(count, jnp.zeros_like(count)))
    if axis_name is None:
        return sums
    sums = lax.psum(sums, axis_name)
    low, high = carry(sums.count_low, sums.count_high)
    return SourceSums(sums.total, sums.rest, low, high)
