"""The steps of a plan: the block that holds each, and the rows of a step or of a shard of it."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxmix._checks import need, whole_number
from jaxmix._mixing.interleave import SlotOrder
from jaxmix._plan.counts import MAX_STEPS
from jaxmix._plan.known_counts import KnownCounts
from jaxmix._plan.ledger import Ledger
from jaxmix._schedules.evaluate import MAX_STEP

KEPT_BLOCKS = 3

MANY_SHARDS = 64
"""With this many shards, a search for each row costs less than the sources of the whole batch."""


class PlannedRows(collections.namedtuple("PlannedRows", ["source", "position"])):
    """The rows of a step, or of one shard of it, in the order of the batch.

    `MixPlan.rows` returns it.

    Attributes:
      source: int32 [b], the source of each row.
      position: int64 [b], the place of the row in the endless stream of its source, counted through
        all epochs. In a source of n rows, position p lies in epoch ``p // n``.
    """

    __slots__ = ()


StepRows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(counts, base, slots): the rows of one shard in one step, in the form that readers need.

The slots 0 .. B - 1 of a step are given to the sources in order, `counts` [K] of them. Row i of the
shard takes slot `slots[i]`. The position of a row is its slot plus `base[source]`. A plain tuple: a
named one makes the rows of a step 5 % slower.
"""


class Block(NamedTuple):
    """The T steps from `first` to the end of a block of MAX_STEPS steps.

    `counts`: [T, K]. `base`: [T, K], as in `StepRows`. Lists of T: `sizes`, the batch sizes;
    `orders` and `turns`, how the slots of a step are spread over its batch.
    """

    first: int
    counts: np.ndarray
    base: np.ndarray
    sizes: list[int]
    orders: list[SlotOrder]
    turns: list[int]


class Outline(NamedTuple):
    """A block without counts: its first step, its weights [T, K] and the cursors before it."""

    first: int
    weights: np.ndarray
    cursors: np.ndarray


NO_COUNTS = np.zeros((0, 0), np.int64)
NO_BLOCK = Block(0, NO_COUNTS, NO_COUNTS, [], [], [])


class Timeline:
    """The blocks of a plan from its first step on; those used last are kept.

    There is no lock, as in `Ledger`: `_last` and `_blocks` are replaced by one assignment.
    """

    def __init__(self, ledger: Ledger | KnownCounts, seed: int):
        self.ledger, self._seed = ledger, seed
        self.first_step, self.num_sources = ledger.first_step, ledger.num_sources
        self._sizes, self._group_size = ledger.sizes, ledger.group_size
        self._ids = np.arange(self.num_sources, dtype=np.int32)
        self._in_group = np.arange(self._group_size)
        self._blocks: tuple[tuple[int, Block], ...] = ()
        self._last = NO_BLOCK
        self._orders: dict[int, SlotOrder] = {}

    def find(self, step: int) -> tuple[Block, int]:
        """The block that holds a step, and its line there."""
        if type(step) is not int:
            step = whole_number("step", step, 0)
        block = self._last  # read once: threads may share a plan
        line = step - block.first
        if step < self.first_step or not 0 <= line < len(block.turns):
            self.check(step)
            self._last = block = self.block(step // MAX_STEPS)
            line = step - block.first
            if line >= len(block.turns):
                self.ledger.raise_bad(block.first + len(block.turns))
        return block, line

    def rows(self, step: int, shard_index: int = 0, shard_count: int = 1) -> StepRows:
        """The rows of one shard of the batch of a step; `shard_count` must divide every B."""
        block, line = self.find(step)
        order, group = block.orders[line], self._group_size
        first, size = 0, block.sizes[line]
        if shard_count != 1 or shard_index != 0:
            shard_count = whole_number("shard_count", shard_count, 1)
            shard_index = whole_number("shard_index", shard_index, 0)
            self._sizes.need_divisor("shard_count", shard_count)
            below = f"below shard_count = {shard_count}"
            need(shard_index < shard_count, "shard_index", below, shard_index)
            size //= shard_count
            first = shard_index * size
        if group == 1:
            slots = order.slots(block.turns[line], first, size)
        else:  # whole groups take the slots; a shard may begin and end inside one
            begin = first // group
            groups = order.slots(block.turns[line], begin, -(-(first + size) // group) - begin)
            slots = (groups[:, None] * group + self._in_group).ravel()
            slots = slots[first - begin * group :][:size]
        return block.counts[line], block.base[line], slots

    def planned(self, rows: StepRows, shard_count: int = 1) -> PlannedRows:
        """The source and position of each row of a shard, one of `shard_count`."""
        counts, base, slots = rows
        if shard_count < MANY_SHARDS:
            source = self._ids.repeat(counts).take(slots)
        else:  # without a pass over all rows of the batch
            source = counts.cumsum().searchsorted(slots, side="right").astype(np.int32)
        position = base.take(source)
        position += slots
        return PlannedRows(source, position)

    def block(self, number: int) -> Block:
        """The block of the steps from MAX_STEPS * number on."""
        kept = self._blocks
        block = next((block for at, block in kept if at == number), None)
        if block is None:
            block = self._new_block(number)
        others = tuple(pair for pair in kept if pair[0] != number)
        self._blocks = (*others[1 - KEPT_BLOCKS :], (number, block))  # the last used comes last
        return block

    def cursors(self, step: int) -> np.ndarray:
        """The rows used of each source before a step; only the weights before it are needed."""
        step = whole_number("step", step, 0)
        self.check(step)
        if step == self.first_step:
            return self.ledger.first_cursors.copy()
        if step % MAX_STEPS == 0:
            return self.ledger.cursors(step // MAX_STEPS).copy()
        block, line = self.find(step - 1)
        return block.base[line] + block.counts[line].cumsum()

    def outline(self, num_steps: int) -> Iterator[Outline]:
        """Each block of steps below `num_steps` without its counts."""
        for number in range(self.first_step // MAX_STEPS, -(-num_steps // MAX_STEPS)):
            first = max(number * MAX_STEPS, self.first_step)
            yield Outline(first, self.weights(first, num_steps), self.cursors(first))

    def weights(self, step: int, stop: int) -> np.ndarray:
        """The weights [T, K] from a step to `stop` or the end of its block."""
        step = whole_number("step", step, 0)
        self.check(step)
        return self.ledger.weights_from(step, stop)

    def tables(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """The counts of the steps start .. stop - 1 in int32, one block at a time."""
        while start < stop:
            block, line = self.find(start)
            counts = block.counts[line : line + stop - start].astype(np.int32)
            start += len(counts)
            yield counts

    def runs_out_at(self, num_steps: int, limits: np.ndarray) -> list[int | None]:
        """For each source the first step below `num_steps` that needs a position >= its limit."""
        beyond: list[int | None] = [None] * self.num_sources
        for number in range(self.first_step // MAX_STEPS, -(-num_steps // MAX_STEPS)):
            unmet = [k for k, step in enumerate(beyond) if step is None]
            if (number + 1) * MAX_STEPS <= num_steps:
                end = self.ledger.cursors(number + 1)
                if (end[unmet] <= limits[unmet]).all():
                    continue
            block = self.block(number)
            after = block.base + block.counts.cumsum(axis=1)
            over = ((after > limits) & (block.counts > 0))[: num_steps - block.first]
            for k in unmet:
                if over[:, k].any():
                    beyond[k] = block.first + int(over[:, k].argmax())
        return beyond

    def check(self, step: int) -> None:
        """Raise unless the plan has this step."""
        ok = self.first_step <= step <= MAX_STEP
        need(ok, "step", f"in [{self.first_step}, {MAX_STEP}]", step)

    def _new_block(self, number: int) -> Block:
        first, cursors, counts = self.ledger.block(number)
        base = counts.cumsum(axis=0)
        base += cursors
        base -= counts.cumsum(axis=1)
        sizes: list[int] = []
        orders: list[SlotOrder] = []
        turns: list[int] = []
        for start, stop, size in self._sizes.stretches(first, first + len(counts)):
            order = self._order(size // self._group_size)
            sizes += [size] * (stop - start)
            orders += [order] * (stop - start)
            turns += order.turns(start, stop - start)
        return Block(first, counts, base, sizes, orders, turns)

    def _order(self, num_groups: int) -> SlotOrder:
        order = self._orders.get(num_groups)
        if order is None:
            self._orders[num_groups] = order = SlotOrder(self._seed, num_groups)
        return order

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_blocks": (), "_last": NO_BLOCK, "_orders": {}}
