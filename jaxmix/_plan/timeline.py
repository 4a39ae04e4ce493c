"""A plan's steps in blocks: the progress before each, and the rows of those that are in use."""

from __future__ import annotations

import collections
import copy
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxmix._checks import need, whole_number
from jaxmix._mixing.interleave import SlotOrder
from jaxmix._plan.counts import MAX_STEPS, ONE, Progress, block_counts, end_progress, owed
from jaxmix._plan.exact_weights import PlannedSchedule, raise_bad_weights, schedule_units
from jaxmix._plan.state import PlanState, padded
from jaxmix._schedules.evaluate import MAX_STEP

KEPT_BLOCKS = 3


class PlannedRows(collections.namedtuple("PlannedRows", ["source", "position"])):
    """The rows of a step, or of one shard of it, in the order of the batch.

    `source`: int32 [b], the source of each row. `position`: int64 [b], its place in the endless
    stream of that source, counted through all epochs: in a source of n rows it lies in epoch
    `position // n`.
    """

    __slots__ = ()


class StepRows(NamedTuple):
    """The rows of one shard in one step: what a reader and the batch's order are made of.

    The slots 0 .. B - 1 of a step are dealt to the sources in order, `counts` [K] to each; row i of
    the shard takes slot `slots[i]`. The position of a row is its slot plus `base[source]`.
    """

    counts: np.ndarray
    base: np.ndarray
    slots: np.ndarray


class Block(NamedTuple):
    """The steps from `first` on, T in all, to the end of a block of MAX_STEPS steps.

    `progress`: before them. `counts`: [T, K]. `base`: [T, K], as in `StepRows`. `turns`: T numbers
    for `SlotOrder`.
    """

    first: int
    progress: Progress
    counts: np.ndarray
    base: np.ndarray
    turns: list[int]


class Outline(NamedTuple):
    """A block without its counts: its first step, its weights [T, K], the cursors before it."""

    first: int
    weights: np.ndarray
    cursors: np.ndarray


NO_COUNTS = np.zeros((0, 0), np.int64)
NO_UNITS = (-1, NO_COUNTS)
NO_BLOCK = Block(0, Progress(NO_COUNTS, NO_COUNTS), NO_COUNTS, NO_COUNTS, [])


class Timeline:
    """The blocks of a plan from a state on, each worked out when a step of it is needed.

    The progress before every block that was passed is kept; counts only of the blocks used last.
    """

    def __init__(
        self, weights: PlannedSchedule | np.ndarray, batch_size: int, seed: int, state: PlanState
    ):
        self._weights, self._batch_size = weights, batch_size
        self._known_units, self._known_counts = NO_UNITS, NO_COUNTS
        self._blocks: dict[int, Block] = {}
        self._lock = threading.RLock()
        self._order = SlotOrder(seed, batch_size)
        self.first_step = self._origin = state.step
        self.num_sources = self._units(state.step).shape[1]
        self._ids = np.arange(self.num_sources, dtype=np.int32)
        least = len(state.progress.cursors)
        more = self.num_sources >= least
        need(more, "weights", f"for the {least} sources of `state` or more", self.num_sources)
        self._progress = [padded(state.progress, self.num_sources)]
        self._join(state.block_step, padded(state.block_progress, self.num_sources))
        self._last = NO_BLOCK
        self.find(self.first_step)

    def find(self, step: int) -> tuple[Block, int]:
        """The block that holds a step, and its line there."""
        if type(step) is not int:
            step = whole_number("step", step, 0)
        block = self._last  # read once: threads may share a plan
        line = step - block.first
        if step < self.first_step or not 0 <= line < len(block.turns):
            self._check(step)
            self._last = block = self.block(step // MAX_STEPS)
            line = step - block.first
            if line >= len(block.turns):
                self._raise(block.first + len(block.turns))
        return block, line

    def rows(self, step: int, shard_index: int = 0, shard_count: int = 1) -> StepRows:
        """The rows of one shard of the batch of a step; `shard_count` must divide B."""
        block, line = self.find(step)
        size = self._batch_size
        if shard_count != 1 or shard_index != 0:
            shard_count = whole_number("shard_count", shard_count, 1)
            shard_index = whole_number("shard_index", shard_index, 0)
            need(size % shard_count == 0, "shard_count", f"a divisor of B = {size}", shard_count)
            below = f"below shard_count = {shard_count}"
            need(shard_index < shard_count, "shard_index", below, shard_index)
            size //= shard_count
        slots = self._order.slots(block.turns[line], shard_index * size, size)
        return StepRows(block.counts[line], block.base[line], slots)

    def planned(self, rows: StepRows) -> PlannedRows:
        """The source and position of each row of a shard."""
        source = self._ids.repeat(rows.counts).take(rows.slots)
        position = rows.base.take(source)
        position += rows.slots
        return PlannedRows(source, position)

    def block(self, number: int) -> Block:
        """The block of the steps from MAX_STEPS * number on."""
        with self._lock:
            block = self._blocks.pop(number, None)
            if block is None:
                block = self._new_block(number)
            self._blocks[number] = block  # the last used comes last
            if len(self._blocks) > KEPT_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            return block

    def progress(self, number: int) -> Progress:
        """The progress before a block."""
        with self._lock:
            start = self._origin // MAX_STEPS
            for done in range(start + len(self._progress) - 1, number):
                first = max(done * MAX_STEPS, self._origin)
                units = self._units(first)
                if first + len(units) < (done + 1) * MAX_STEPS:
                    self._raise(first + len(units))
                self._progress.append(end_progress(self._progress[-1], units, self._batch_size))
            return self._progress[number - start]

    def progress_at(self, step: int) -> tuple[Block, Progress]:
        """The block that holds a step, and the progress before that step."""
        block, line = self.find(step)
        given = block.counts[:line].sum(axis=0)
        units = self._units(block.first)[:line]
        return block, self._progress_after(block.progress, units, given)

    def weights(self, step: int, stop: int) -> np.ndarray:
        """The weights [T, K] from a step to `stop` or the end of its block."""
        step = whole_number("step", step, 0)
        self._check(step)
        first = max(step - step % MAX_STEPS, self._origin)
        units = self._units(first)
        last = min(stop, step - step % MAX_STEPS + MAX_STEPS)
        if last - first > len(units):
            self._raise(first + len(units))
        return units[step - first : last - first] / ONE

    def outline(self, num_steps: int) -> Iterator[Outline]:
        """Each block of steps below `num_steps` without its counts."""
        for number in range(self.first_step // MAX_STEPS, -(-num_steps // MAX_STEPS)):
            first = max(number * MAX_STEPS, self.first_step)
            begins = first == self.first_step
            progress = self.progress_at(first)[1] if begins else self.progress(number)
            yield Outline(first, self.weights(first, num_steps), progress.cursors)

    def tables(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """The counts of the steps start .. stop - 1 in int32, a block at a time."""
        while start < stop:
            block, line = self.find(start)
            counts = block.counts[line : line + stop - start].astype(np.int32)
            start += len(counts)
            yield counts

    def runs_out_at(self, num_steps: int, limits: np.ndarray) -> list[int | None]:
        """Per source the first step below `num_steps` that needs a position >= its limit."""
        beyond: list[int | None] = [None] * self.num_sources
        for number in range(self.first_step // MAX_STEPS, -(-num_steps // MAX_STEPS)):
            unmet = [k for k, step in enumerate(beyond) if step is None]
            if (number + 1) * MAX_STEPS <= num_steps:
                end = self.progress(number + 1).cursors
                if (end[unmet] <= limits[unmet]).all():
                    continue
            block = self.block(number)
            after = block.base + block.counts.cumsum(axis=1)
            over = ((after > limits) & (block.counts > 0))[: num_steps - block.first]
            for k in unmet:
                if over[:, k].any():
                    beyond[k] = block.first + int(over[:, k].argmax())
        return beyond

    def with_known_counts(self, num_steps: int) -> Timeline:
        """The same timeline with the counts of all steps below `num_steps` in a table.

        For worker processes: its pickled copy calls no schedule for those steps, so it needs no JAX
        device. The table has 1, 2 or 4 bytes per source and step.
        """
        known = self._origin + len(self._known_counts)
        if not callable(self._weights) or num_steps <= known:
            return self
        numbers = range(self._origin // MAX_STEPS, -(-num_steps // MAX_STEPS))
        small = np.min_scalar_type(self._batch_size)
        table = np.concatenate([self.block(number).counts.astype(small) for number in numbers])
        timeline = copy.copy(self)
        timeline._known_counts, timeline._progress = table, list(self._progress)
        return timeline

    def __getstate__(self) -> dict[str, Any]:
        none = {"_lock": None, "_blocks": {}, "_last": NO_BLOCK, "_known_units": NO_UNITS}
        return {**self.__dict__, **none}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def _check(self, step: int) -> None:
        ok = self.first_step <= step <= MAX_STEP
        need(ok, "step", f"in [{self.first_step}, {MAX_STEP}]", step)

    def _raise(self, step: int) -> None:
        """Raise the error of a step at which the schedule's value is no weights."""
        if callable(self._weights):
            raise_bad_weights(self._weights, step)

    def _units(self, first: int) -> np.ndarray:
        """The units [T, K] from a step to the end of its block, or to the first bad weights."""
        if not callable(self._weights):
            rest = MAX_STEPS - first % MAX_STEPS
            return np.broadcast_to(self._weights, (rest, self._weights.shape[1]))
        known = self._known_units
        if known[0] != first:
            self._known_units = known = (first, schedule_units(self._weights, first))
        return known[1]

    def _new_block(self, number: int) -> Block:
        first, progress = max(number * MAX_STEPS, self._origin), self.progress(number)
        known = self._known_counts[first - self._origin :][: (number + 1) * MAX_STEPS - first]
        if len(known):
            counts = known.astype(np.int64)
        else:
            units = self._units(first)
            if len(units) == 0:
                self._raise(first)
            counts = block_counts(progress, units, self._batch_size)
        base = progress.cursors + counts.cumsum(axis=0) - counts.cumsum(axis=1)
        return Block(first, progress, counts, base, self._order.turns(first, len(counts)))

    def _progress_after(self, progress: Progress, units: np.ndarray, given: np.ndarray) -> Progress:
        whole, part = owed(progress, units.sum(axis=0), self._batch_size)
        return Progress(progress.cursors + given, (whole - given) * ONE + part)

    def _join(self, block_step: int, progress: Progress) -> None:
        """Plan from the start of the block of `state` if that leads to the very same progress.

        It does where nothing was edited; then these are the blocks of the plan `state` came from.
        """
        lines = self._origin - block_step
        units = self._units(block_step)
        if 0 < lines <= len(units):
            given = block_counts(progress, units, self._batch_size)[:lines].sum(axis=0)
            reached = self._progress_after(progress, units[:lines], given)
            if all(map(np.array_equal, reached, self._progress[0])):
                self._origin, self._progress = block_step, [progress]
