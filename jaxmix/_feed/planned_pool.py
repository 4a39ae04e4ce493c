"""The rows of a plan, taken from buffers on the device without the host."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import is_concrete, need, whole_number
from jaxmix._feed.row_order import RowOrder, row_order
from jaxmix._mixing.block_shuffle import BlockShuffle
from jaxmix._mixing.cuts import count_cuts
from jaxmix._mixing.global_rows import global_rows
from jaxmix._mixing.interleave import slots_of_rows
from jaxmix._mixing.keys import slot_word
from jaxmix._mixing.pool import RowPool
from jaxmix._mixing.rows import MixedBatch
from jaxmix._plan.plan import MixPlan
from jaxmix._schedules.evaluate import as_whole_step
from jaxmix._types import Array, ArrayLike, AxisName, Microbatch, PyTree


class PooledRows(collections.namedtuple("PooledRows", ["source", "index", "epoch", "place"])):
    """The places of the rows of a step: `source` int32, `index` int32, `epoch`, `place` uint32 [b].

    `index` is the row of the buffer. In a source of n rows the position of a row is
    ``epoch * n + place``, with `place` in [0, n).
    """

    __slots__ = ()


class Static(NamedTuple):
    """The parts of a pool that are fixed at trace time."""

    first_step: int
    sizes: tuple[int, ...]
    group_size: int
    seed: int
    order: RowOrder


@jax.tree_util.register_pytree_node_class
class PlannedPool:
    """Buffers on the device, from which a step takes the rows of a plan without the host.

    ``take(step)`` returns the same rows as `PlanSource(plan, buffers, shuffle=shuffle)`, bit for
    bit, on any mesh: exact counts, and each row of a buffer once per epoch. The plan is stored as a
    table of 12 bytes per source and step. So a step needs no host, no schedule and no transfer.

    A pool is a pytree: pass it to a jitted step as an argument, not as a constant. On a mesh
    replicate it.

    Args:
      plan: a `MixPlan`.
      *buffers: K trees of equal structure and dtypes, as for `RowPool`; or one dict of them by the
        names of the plan.
      num_steps: the end of the table, counted from step 0 even if `first_step` is later.
      first_step: the first step of the table, by default the plan's. In a very long run make a new
        pool from time to time, with a later first step.
      shuffle: True for a random order in each epoch, False for the order of the buffer, or a
        `BlockShuffle`.

    Raises:
      ValueError, TypeError: buffers that differ, or do not match the sources of the plan; no steps;
        a first step before the plan's.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmix
      >>> plan = jaxmix.MixPlan(0.75, batch_size=8)
      >>> pool = jaxmix.PlannedPool(plan, jnp.arange(6), jnp.arange(100, 110), num_steps=50)
      >>> take = jax.jit(lambda step, pool: pool.take(step).rows)
      >>> sorted(int(row) for step in range(4) for row in take(step, pool))[-8:]
      [100, 102, 103, 104, 106, 107, 108, 109]
    """

    def __init__(
        self,
        plan: MixPlan,
        *buffers: PyTree,
        num_steps: int,
        first_step: int | None = None,
        shuffle: bool | BlockShuffle = True,
    ):
        need(isinstance(plan, MixPlan), "plan", "a MixPlan", plan, TypeError)
        begin = plan.first_step if first_step is None else first_step
        begin = whole_number("first_step", begin, plan.first_step)
        num_steps = whole_number("num_steps", num_steps, begin + 1)
        given = buffers[0] if len(buffers) == 1 and plan.num_sources > 1 else buffers
        by_name = isinstance(given, Mapping)
        self.pool = RowPool(*plan._matched("buffers", given if by_name else buffers))
        order = row_order(shuffle, plan.seed, plan.names)
        sizes = {plan.batch_size_at(step) for step in _stages(plan, begin, num_steps)}
        self.static = Static(begin, tuple(sorted(sizes)), plan.group_size, plan.seed, order)
        counts = plan.counts_table(begin, num_steps)
        cursors = plan.cursors(begin) + counts.cumsum(axis=0, dtype=np.int64) - counts
        lengths = np.asarray(self.pool.lengths)
        self.ends = jnp.asarray(counts.cumsum(axis=1).astype(np.uint32))
        self.epochs = jnp.asarray((cursors // lengths).astype(np.uint32))
        self.places = jnp.asarray((cursors % lengths).astype(np.uint32))

    def take(
        self,
        step: ArrayLike,
        num_rows: int | None = None,
        *,
        axis_name: AxisName | None = None,
        microbatch: Microbatch | None = None,
    ) -> MixedBatch:
        """Take the rows of a step, or of one shard and microbatch of it.

        Args:
          step: the optimizer update, a scalar int of any dtype; may be traced.
          num_rows: the rows of this call (static), by default ``B / shards / microbatches``. A plan
            of several batch sizes needs it: a step then compiles once for each size.
          axis_name, microbatch: as for `mix_rows`.

        Returns:
          `MixedBatch(rows, source, weights)`. The weights are the counts of the step divided by B.
          If a traced step is outside the table, or has another batch size, the weights and the
          floats in the rows are NaN, the integers the smallest of their dtype, and the sources -1.

        Raises:
          ValueError, TypeError: a known step outside the table, or of another batch size; a number
            of rows that no batch of the plan has; a pool that was split over devices.
        """
        found, weights, is_known = self._find(step, num_rows, axis_name, microbatch)
        taken = self.pool.take(found.source, found.index)
        rows = jax.tree.map(lambda leaf: jnp.where(is_known, leaf, _nothing(leaf.dtype)), taken)
        return MixedBatch(rows, found.source, weights)

    def locate(
        self,
        step: ArrayLike,
        num_rows: int | None = None,
        *,
        axis_name: AxisName | None = None,
        microbatch: Microbatch | None = None,
    ) -> PooledRows:
        """Return the places of the rows of `take`, without the rows.

        Args:
          step, num_rows, axis_name, microbatch: as for `take`.

        Returns:
          A named tuple of arrays [b]: `source` and `index`, int32, the buffer and its row; `epoch`
          and `place`, uint32. In a buffer of n rows the position is ``epoch * n + place``.
        """
        return self._find(step, num_rows, axis_name, microbatch)[0]

    def _find(
        self,
        step: ArrayLike,
        num_rows: int | None,
        axis_name: AxisName | None,
        microbatch: Microbatch | None,
    ) -> tuple[PooledRows, Array, Array]:
        """The places of the rows, the weights, and whether the table has the batch of the step."""
        fixed = self.static
        rows, total = self._global_rows(num_rows, axis_name, microbatch)
        step = as_whole_step(step)
        stop = fixed.first_step + self.ends.shape[0]
        if is_concrete(step):
            inside = fixed.first_step <= int(step) < stop
            need(inside, "step", f"in [{fixed.first_step}, {stop}), the pool's table", int(step))
        line = jnp.clip(step - fixed.first_step, 0, self.ends.shape[0] - 1)
        ends = self.ends[line]
        known = (step >= fixed.first_step) & (step < stop) & (ends[-1] == total)
        if is_concrete(known):
            wanted = f"{ends[-1]}, the batch of step {step}"
            need(bool(known), "num_rows over all shards and microbatches", wanted, total)

        group = jnp.uint32(fixed.group_size)
        word = slot_word(jax.random.key(fixed.seed), step)
        slots = slots_of_rows(rows // group, total // fixed.group_size, word)
        slots = slots * group + rows % group if fixed.group_size > 1 else slots
        source = count_cuts(slots, ends[:-1])
        begins = jnp.concatenate([jnp.zeros(1, jnp.uint32), ends[:-1]])
        lengths = np.asarray(self.pool.lengths, np.uint32)
        seeds = np.asarray(fixed.order.seeds or np.zeros_like(lengths), np.uint32)
        # One gather of all columns: a gather costs as much as the whole shuffle.
        columns = (self.places[line] - begins, self.epochs[line], lengths, seeds)
        found = jnp.stack(columns, axis=1)[source]
        place, epoch, length, seed = slots + found[:, 0], found[:, 1], found[:, 2], found[:, 3]
        index = fixed.order.rows_at(place, length, seed, epoch).astype(jnp.int32)
        passed = place // length
        shares = (ends - begins).astype(jnp.float32) / np.float32(total)
        weights = jnp.where(known, shares, jnp.nan)
        source = jnp.where(known, source, -1)
        return PooledRows(source, index, epoch + passed, place - passed * length), weights, known

    def _global_rows(
        self, num_rows: int | None, axis_name: AxisName | None, microbatch: Microbatch | None
    ) -> tuple[Array, int]:
        """The numbers of this call's rows in the global batch, and B."""
        sizes = self.static.sizes
        if num_rows is None:
            need(len(sizes) == 1, "num_rows", f"given for batches of {list(sizes)} rows", None)
            _, parts, _ = global_rows(1, axis_name, microbatch)
            even = sizes[0] % parts == 0
            need(even, "shards times microbatches", f"a divisor of B = {sizes[0]}", parts)
            num_rows = sizes[0] // parts
        rows, total, _ = global_rows(num_rows, axis_name, microbatch)
        fits = total in sizes
        need(fits, "num_rows over all shards and microbatches", f"one of {list(sizes)}", total)
        return rows, total

    def tree_flatten(self) -> tuple[tuple[Any, ...], Static]:
        return (self.pool, self.ends, self.epochs, self.places), self.static

    @classmethod
    def tree_unflatten(cls, static: Static, children: tuple[Any, ...]) -> PlannedPool:
        pool = object.__new__(cls)
        pool.static = static
        pool.pool, pool.ends, pool.epochs, pool.places = children
        return pool


def _nothing(dtype: Any) -> Any:
    """What stands for a missing number: NaN, the smallest integer, False."""
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.asarray(jnp.iinfo(dtype).min, dtype)
    return jnp.asarray(jnp.nan if jnp.issubdtype(dtype, jnp.inexact) else False, dtype)


def _stages(plan: MixPlan, first: int, stop: int) -> list[int]:
    """One step of each stage of batch sizes between `first` and `stop`."""
    starts = plan.batch_size if isinstance(plan.batch_size, Mapping) else {}
    return [first, *(start for start in starts if first < start < stop)]
