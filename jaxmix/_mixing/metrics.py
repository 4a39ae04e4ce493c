"""The mix that really happened, as scalars that stay on the device until they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import is_concrete, need, source_lengths, source_names, whole_number
from jaxmix._types import Array, ArrayLike, AxisName


@flax.struct.dataclass
class MixMetrics:
    """Rows of each source since `empty`, and the weights of the last update.

    A pytree for jit, scan, pmap and shard_map; nothing is read by the host before `compute`. Rows
    are counted in two uint32 words, so no row is lost past 2^32 without x64.

    Fields: `rows_low` and `rows_high`, uint32 [K], for the count `rows_high * 2^32 + rows_low`;
    `weights`, float32 [K], 0 before the first update, where a NaN stays visible.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmix
      >>> metrics = jaxmix.MixMetrics.empty(num_sources=2)
      >>> x, y = jnp.zeros((8, 3)), jnp.ones((8, 3))
      >>> for step in range(3):
      ...     mixed = jaxmix.mix_rows(jax.random.key(0), step, 1.0, x, y)
      ...     metrics = metrics.update(mixed.source, mixed.weights)
      >>> report = metrics.compute(names=["web", "code"], lengths=[48, 100])
      >>> {name: float(value) for name, value in report.items() if "web" in name}
      {'mix/weight/web': 1.0, 'mix/share/web': 1.0, 'mix/rows/web': 24.0, 'mix/epochs/web': 0.5}
    """

    rows_low: Array
    rows_high: Array
    weights: Array

    @classmethod
    def empty(cls, num_sources: int) -> MixMetrics:
        """No rows yet, of K sources (static)."""
        num_sources = whole_number("num_sources", num_sources, 1)
        none = jnp.zeros(num_sources, jnp.uint32)
        return cls(none, none, jnp.zeros(num_sources, jnp.float32))

    def update(
        self, source: Array, weights: Array, *, axis_name: AxisName | None = None
    ) -> MixMetrics:
        """Add one more batch.

        Args:
          source: int [B], the source of each row, of `mix_rows`, `draw_rows` or a plan's batch. A
            row of a source that is none of the K, as after an edit of the plan alone, makes all
            weights NaN for good.
          weights: float [K], those of the step, such as `weights_at(step, weights)`.
          axis_name: inside `pmap` or `shard_map`, the axis or axes that split the rows (static);
            the rows of all shards are counted and the result is the same on each.

        Raises:
          ValueError: weights of another number of sources, or several batches stacked (scan over
            them).
        """
        shape = self.weights.shape
        source, weights = jnp.asarray(source), jnp.asarray(weights, jnp.float32)
        need(weights.shape == shape, "weights", f"of shape {shape}", weights.shape)
        need(source.ndim == 1, "source", "of shape [B]", source.shape)
        mine = source[:, None] == jnp.arange(shape[0], dtype=source.dtype)[None, :]
        rows = jnp.sum(mine, axis=0, dtype=jnp.uint32)
        size = jnp.uint32(source.shape[0])
        if axis_name is not None:
            rows, size = jax.lax.psum((rows, size), axis_name)
        known = jnp.sum(rows, dtype=jnp.uint32) == size
        weights = jnp.where(known, weights, jnp.nan)
        return self.merge(MixMetrics(rows, jnp.zeros_like(rows), weights))

    def merge(self, other: MixMetrics) -> MixMetrics:
        """Both together: rows add up, the weights are those of `other` unless it is empty.

        A weight that is NaN in either stays NaN, so that one bad step shows later.
        """
        low = self.rows_low + other.rows_low
        carry = (low < other.rows_low).astype(jnp.uint32)
        is_used = jnp.any(other.weights != 0)
        weights = jnp.where(is_used, other.weights, self.weights)
        weights = jnp.where(jnp.isnan(self.weights), jnp.nan, weights)
        return MixMetrics(low, self.rows_high + other.rows_high + carry, weights)

    def compute(
        self, names: Sequence[str] | None = None, lengths: Sequence[int] | None = None
    ) -> dict[str, ArrayLike]:
        """A flat dict of scalars for any metric writer.

        Args:
          names: the names of the K sources; "0", "1", ... if not given.
          lengths: rows in one epoch of each source, of any size.

        Returns:
          `mix/weight/<name>` and, for two sources, `mix/gamma`: of the last update.
          `mix/share/<name>`: what really happened, 0 before any row. `mix/rows/<name>`, and with
          `lengths` `mix/epochs/<name>`: since `empty`. Outside jit they are NumPy float64, rows
          exact to 2^53; inside jit float32.

        Raises:
          ValueError, TypeError: names or lengths that are not K, names that repeat, a length below
            1; metrics with a device axis in front (take one device's).
        """
        need(self.weights.ndim == 1, "the metrics", "of rank 1", self.weights.shape)
        num_sources = self.weights.shape[0]
        labels = source_names(names, num_sources)
        weights, rows = self._weights_and_rows()
        shares = rows / rows.sum().clip(1)
        columns: dict[str, Any] = {"weight": weights, "share": shares, "rows": rows}
        if lengths is not None:
            sizes = source_lengths(lengths, num_sources)
            columns["epochs"] = rows / np.asarray(sizes, shares.dtype)
        report: dict[str, ArrayLike] = {"mix/gamma": weights[0]} if num_sources == 2 else {}
        for column, values in columns.items():
            report |= {f"mix/{column}/{name}": values[k] for k, name in enumerate(labels)}
        return report

    def _weights_and_rows(self) -> tuple[Any, Any]:
        if is_concrete(self.rows_low):
            low, high, weights = jax.device_get((self.rows_low, self.rows_high, self.weights))
            return weights.astype(np.float64), high * 2.0**32 + low
        rows = self.rows_high.astype(jnp.float32) * 2.0**32 + self.rows_low.astype(jnp.float32)
        return self.weights, rows
