"""Sums of losses by the source of their row, exact under accumulation and across devices."""

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
    """Sums by source that can be added over microbatches, steps and devices, without x64.

    `source_sums` returns it. ``a + b`` adds two of them; take `mean()` last. They may also be added
    leaf by leaf, as by `psum`, up to 2^16 at a time. Counts are exact up to 2^48. The error of a
    total does not grow with the number of additions, up to a million.

    Attributes:
      total, rest: float32 [K] or wider, the sum of the values and its rounding error.
      count_low, count_high: uint32 [K]; the count is ``count_low + 2^16 count_high``.
    """

    total: Array
    rest: Array
    count_low: Array
    count_high: Array

    @classmethod
    def empty(cls, num_sources: int) -> SourceSums:
        """Return sums without any values, of K sources (static), for example to start a scan."""
        shape = (whole_number("num_sources", num_sources, 1),)
        floats, words = (lambda: jnp.zeros(shape)), (lambda: jnp.zeros(shape, jnp.uint32))
        return cls(floats(), floats(), words(), words())

    @property
    def count(self) -> Array:
        """The number of values of each source, float32 [K]; exact up to 2^24, then rounded."""
        return count_as_float(self.count_low, self.count_high)

    def __add__(self, other: SourceSums) -> SourceSums:
        """Return the sum of both; ValueError if their numbers of sources differ."""
        shape = self.total.shape
        need(other.total.shape == shape, "the other sums", f"of shape {shape}", other.total.shape)
        total, rest = add_floats((self.total, self.rest), (other.total, other.rest))
        low, high = self.count_low + other.count_low, self.count_high + other.count_high
        return SourceSums(total, rest, *carry(low, high))

    def mean(self) -> Array:
        """Return the mean value of each source, float32 [K] or wider; 0 where the count is 0."""
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
      values: float [B, ...], one or more values per row.
      source: int [B], the source of each row. A row whose source is not in 0 .. K - 1 is left out.
      num_sources: K (static).
      where: bool, of the shape of `values`. Values where it is False are left out, even NaN.
      axis_name: inside `pmap` or `shard_map`, the axis or axes to sum over (static).

    Returns:
      A `SourceSums`, with `total` [K] in float32 or wider and `count` [K]. A NaN affects the sum of
      its own source only.

    Raises:
      ValueError, TypeError: at trace time, for other shapes or dtypes.

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
