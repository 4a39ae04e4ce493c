"""Metrics of the mix that really happened, kept on the device until they are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import is_concrete, need, source_lengths, source_names, whole_number
from jaxmix._tally import LOW, add_floats, carry, count_as_float, sum_by_source
from jaxmix._types import Array, ArrayLike, AxisName


@flax.struct.dataclass
class MixMetrics:
    """Counts of the rows of each source, in the run and in a window of it, and their weights.

    They are a pytree for jit, scan, pmap and shard_map. The host reads nothing before `compute`.
    Rows are counted exactly up to 2^48 without x64. The window begins at the last `new_window`, or
    at `empty`. A NaN weight stays visible. All attributes are arrays [K].

    Attributes:
      rows_low, rows_high: uint32; the rows of the run are ``rows_low + 2^16 rows_high``.
      window_low, window_high: the same for the window.
      planned, planned_rest: float32, the sum over the steps of the window of B times the weights,
        and its rounding error.
      weights: float32, the weights of the last update, 0 before the first.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmix
      >>> metrics = jaxmix.MixMetrics.empty(num_sources=2)
      >>> x, y = jnp.zeros((8, 3)), jnp.ones((8, 3))
      >>> for step in range(3):
      ...     metrics = metrics.new_window() if step == 2 else metrics
      ...     mixed = jaxmix.mix_rows(jax.random.key(0), step, 1.0, x, y)
      ...     metrics = metrics.update(mixed.source, mixed.weights)
      >>> report = metrics.compute(names=["web", "code"], lengths=[48, 100])
      >>> {name: float(value) for name, value in report.items() if "web" in name}
      ... # doctest: +NORMALIZE_WHITESPACE
      {'mix/weight/web': 1.0, 'mix/planned/web': 1.0, 'mix/share/web': 1.0,
       'mix/rows/web': 24.0, 'mix/epochs/web': 0.5}
    """

    rows_low: Array
    rows_high: Array
    window_low: Array
    window_high: Array
    planned: Array
    planned_rest: Array
    weights: Array

    @classmethod
    def empty(cls, num_sources: int) -> MixMetrics:
        """Return metrics of K sources (static) without any rows; their buffers may be donated."""
        shape = (whole_number("num_sources", num_sources, 1),)
        words = [jnp.zeros(shape, jnp.uint32) for _ in range(4)]
        floats = [jnp.zeros(shape, jnp.float32) for _ in range(3)]
        return cls(*words, *floats)

    def new_window(self) -> MixMetrics:
        """Return the same run with an empty window; call it after each report."""
        none = MixMetrics.empty(self.weights.shape[0])
        kept = {"rows_low": self.rows_low, "rows_high": self.rows_high, "weights": self.weights}
        return dataclasses.replace(none, **kept)

    def update(
        self, source: Array, weights: Array, *, axis_name: AxisName | None = None
    ) -> MixMetrics:
        """Return the metrics with one more batch, in the run and in the window.

        Args:
          source: int [B], the source of each row, from `mix_rows`, `draw_rows` or a plan's batch.
            If one is not in [0, K), for example after only the plan was edited, all weights become
            NaN and stay NaN.
          weights: float [K], the weights of the step, such as `weights_at(step, weights)`.
          axis_name: inside `pmap` or `shard_map`, the axis or axes that split the rows (static).
            The rows of all shards are counted, and the result is the same on each.

        Raises:
          ValueError, TypeError: a number of weights other than K; stacked batches (scan over
            them); a `source` that is not of integers.
        """
        shape = self.weights.shape
        source, weights = jnp.asarray(source), jnp.asarray(weights, jnp.float32)
        need(weights.shape == shape, "weights", f"of shape {shape}", weights.shape)
        need(source.ndim == 1, "source", "of shape [B]", source.shape)
        rows = sum_by_source(jnp.ones(source.shape, jnp.uint32), source, shape[0])
        size = jnp.uint32(source.shape[0])
        if axis_name is not None:
            rows, size = jax.lax.psum((rows, size), axis_name)
        known = jnp.sum(rows, dtype=jnp.uint32) == size
        weights = jnp.where(known, weights, jnp.nan)
        counts, planned = carry(rows, jnp.zeros_like(rows)), size.astype(jnp.float32) * weights
        step = MixMetrics(*counts, *counts, planned, jnp.zeros_like(planned), weights)
        return self.merge(step)

    def merge(self, other: MixMetrics) -> MixMetrics:
        """Return the sum of both; the weights are taken from `other` unless it is empty.

        A weight that is NaN in either stays NaN, so that a bad step can be seen later.
        """
        rows = self.rows_low + other.rows_low, self.rows_high + other.rows_high
        window = self.window_low + other.window_low, self.window_high + other.window_high
        ours, theirs = (self.planned, self.planned_rest), (other.planned, other.planned_rest)
        is_used = jnp.any(other.weights != 0)
        weights = jnp.where(is_used, other.weights, self.weights)
        weights = jnp.where(jnp.isnan(self.weights), jnp.nan, weights)
        return MixMetrics(*carry(*rows), *carry(*window), *add_floats(ours, theirs), weights)

    def compute(
        self, names: Sequence[str] | None = None, lengths: Sequence[int] | None = None
    ) -> dict[str, ArrayLike]:
        """Return a flat dict of scalars for any metric writer.

        Args:
          names: the names of the K sources; by default "0", "1", ...
          lengths: the rows in one epoch of each source.

        Returns:
          A dict. Outside jit its values are NumPy float64 with exact rows, inside jit float32.

          - Of the last update: `mix/weight/<name>` and, for two sources, `mix/gamma`.
          - Of the window, as means over its rows (0 without rows): `mix/planned/<name>`, the
            weight, and `mix/share/<name>`, what really happened.
          - Of the run: `mix/rows/<name>` and, with `lengths`, `mix/epochs/<name>`.

        Raises:
          ValueError, TypeError: not K names or lengths, names that repeat, a length below 1;
            metrics with a leading device axis (pass those of one device).
        """
        need(self.weights.ndim == 1, "the metrics", "of rank 1", self.weights.shape)
        num_sources = self.weights.shape[0]
        labels = source_names(names, num_sources)
        weights, planned, window, rows = self._numbers()
        size = window.sum().clip(1)
        columns: dict[str, Any] = {"weight": weights, "planned": planned / size}
        columns |= {"share": window / size, "rows": rows}
        if lengths is not None:
            sizes = source_lengths(lengths, num_sources)
            columns["epochs"] = rows / np.asarray(sizes, rows.dtype)
        report: dict[str, ArrayLike] = {"mix/gamma": weights[0]} if num_sources == 2 else {}
        for column, values in columns.items():
            report |= {f"mix/{column}/{name}": values[k] for k, name in enumerate(labels)}
        return report

    def _numbers(self) -> tuple[Any, Any, Any, Any]:
        """Weights, planned rows, rows of the window and of the run, as floats."""
        if is_concrete(self.rows_low):
            at = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.device_get(self))
            window, rows = at.window_low + LOW * at.window_high, at.rows_low + LOW * at.rows_high
            return at.weights, at.planned + at.planned_rest, window, rows
        window = count_as_float(self.window_low, self.window_high)
        rows = count_as_float(self.rows_low, self.rows_high)
        return self.weights, self.planned + self.planned_rest, window, rows
