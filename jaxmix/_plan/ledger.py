"""The progress of the sources before each block of steps, and the counts of its steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np

from jaxmix._checks import need
from jaxmix._plan.batch_sizes import BatchSizes
from jaxmix._plan.counts import (
    MAX_STEPS,
    ONE,
    Progress,
    block_counts,
    end_progress,
    progress_after,
)
from jaxmix._plan.exact_weights import PlannedSchedule, raise_bad_weights, schedule_units
from jaxmix._plan.far_steps import blocks_at_once, progress_by_block, span_totals, two_progress
from jaxmix._plan.pickling import need_picklable
from jaxmix._plan.state import PlanState

Found = tuple[int, np.ndarray]


class BlockCounts(NamedTuple):
    """The steps from `first` to the end of a block of MAX_STEPS steps, or to the first bad weights.

    `cursors`: int64 [K], in rows, before them. `counts`: int64 [T, K], in rows.
    """

    first: int
    cursors: np.ndarray
    counts: np.ndarray


class Ledger:
    """The exact arithmetic of a plan: from weights to whole groups, one block of steps at a time.

    The progress before every block passed so far is kept. Its `cursors` count groups since the
    first block here, and its `carry` is in units of 1/ONE group. There is no lock: a result is
    stored by one assignment and never changed, so threads, forked children and signal handlers see
    all of it or nothing.
    """

    def __init__(
        self,
        weights: np.ndarray | PlannedSchedule,
        sizes: BatchSizes,
        begin: PlanState,
    ):
        self.weights, self.sizes, self.group_size = weights, sizes, begin.group_size
        self.first_step = self._origin = begin.step
        self.first_cursors = begin.progress.cursors
        self._units_kept: Found = (-1, np.zeros((0, 0), np.int64))
        self.num_sources = len(begin.names)
        self._offset = begin.progress.cursors
        none = np.zeros_like(self._offset)
        self._passed = {begin.step // MAX_STEPS: Progress(none, begin.progress.carry)}
        self._join(begin)

    def cursors(self, number: int) -> np.ndarray:
        """The rows used of each source before a block."""
        return self._offset + self.progress(number).cursors * self.group_size

    def block(self, number: int) -> BlockCounts:
        """The counts of the steps of a block; ValueError if it begins with bad weights."""
        first = self._first(number)
        progress, units = self.progress(number), self.units(first)
        if len(units) == 0:
            self.raise_bad(first)
        parts = []
        for start, stop, size in self._stretches(first, len(units)):
            part, groups = units[start:stop], size // self.group_size
            counts, progress = block_counts(progress, part, groups)
            parts.append(counts)
        if first + len(units) == (number + 1) * MAX_STEPS:
            self._passed[number + 1] = progress
        counts = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if self.group_size > 1:
            counts *= self.group_size
        return BlockCounts(first, self.cursors(number), counts)

    def progress(self, number: int) -> Progress:
        """The progress before a block."""
        passed, weights = self._passed, self.weights
        if isinstance(weights, np.ndarray) and self.num_sources == 2:
            rows = sum((b - a) * size for a, b, size in self._between(self._first(number)))
            begin = passed[self._origin // MAX_STEPS]
            rows //= self.group_size
            return two_progress(begin, int(weights[0, 0]) * rows, rows)
        known = number
        while known not in passed:
            known -= 1
        progress = passed[known]
        while known < number:
            if (known + 1) in passed:  # another thread may have been here
                progress = passed[known + 1]
                known += 1
                continue
            for ahead in self._next(known, number, progress):
                known += 1
                passed[known] = progress = ahead
        return progress

    def progress_at(self, step: int) -> tuple[Progress, int, Progress]:
        """The progress before a step, the first step of its block, the progress before that block.

        Cursors are in rows. Only the weights before the step are needed.
        """
        number = step // MAX_STEPS
        first, before = self._first(number), self.progress(number)
        units = self.units(first)[: step - first]
        if first + len(units) < step:
            self.raise_bad(first + len(units))
        progress = before
        for start, stop, size in self._stretches(first, len(self.units(first))):
            lines, groups = min(step - first, stop) - start, size // self.group_size
            if lines <= 0:
                break
            part = self.units(first)[start:stop]
            if lines < stop - start:
                progress = progress_after(progress, part, groups, lines)
            else:
                progress = end_progress(progress, part, groups)
        return self._in_rows(progress), first, self._in_rows(before)

    def units(self, first: int) -> np.ndarray:
        """The units [T, K] from a step to the end of its block, or to the first bad weights."""
        stop = first - first % MAX_STEPS + MAX_STEPS
        if isinstance(self.weights, np.ndarray):
            return np.broadcast_to(self.weights, (stop - first, self.num_sources))
        known = self._units_kept
        if known[0] != first:
            self._units_kept = known = (first, self._schedule_units(self.weights, first, stop))
        return known[1]

    def weights_from(self, step: int, stop: int) -> np.ndarray:
        """The weights [T, K] from a step to `stop` or the end of its block."""
        first = self._first(step // MAX_STEPS)
        units = self.units(first)
        last = min(stop, step - step % MAX_STEPS + MAX_STEPS)
        if last - first > len(units):
            self.raise_bad(first + len(units))
        return units[step - first : last - first] / ONE

    def raise_bad(self, step: int) -> NoReturn:
        """Raise the error for a step at which the value of the schedule is not valid weights."""
        assert isinstance(self.weights, PlannedSchedule)
        raise_bad_weights(self.weights, step)

    def _first(self, number: int) -> int:
        return max(number * MAX_STEPS, self._origin)

    def _stretches(self, first: int, length: int) -> list[tuple[int, int, int]]:
        """The lines of a block, split where the batch size changes: (first, stop, B) of each."""
        found = self.sizes.stretches(first, first + length) if length else []
        return [(start - first, stop - first, size) for start, stop, size in found]

    def _between(self, stop: int) -> list[tuple[int, int, int]]:
        """The stretches of equal batches from the first step here to another."""
        return self.sizes.stretches(self._origin, stop) if stop > self._origin else []

    def _schedule_units(self, schedule: PlannedSchedule, first: int, stop: int) -> np.ndarray:
        units = schedule_units(schedule, first, stop)
        count, names = units.shape[1], f"{self.num_sources}, one per source"
        need(count == self.num_sources, "the number of a schedule's weights", names, count)
        return units

    def _next(self, number: int, last: int, progress: Progress) -> Iterator[Progress]:
        """The progress after a whole block, or after each of several of equal batches."""
        first, block_end = self._first(number), (number + 1) * MAX_STEPS
        _, end, size = self.sizes.stretches(first, last * MAX_STEPS)[0]
        if first % MAX_STEPS == 0 and block_end <= end:
            end = min(end, first + blocks_at_once(self.num_sources) * MAX_STEPS)
            totals, blocks = self._totals(first, end)
            if blocks:
                groups = size // self.group_size
                yield from progress_by_block(progress, totals, groups, blocks)
                return
        units = self.units(first)
        if first + len(units) < block_end:
            self.raise_bad(first + len(units))
        for start, stop, size in self._stretches(first, block_end - first):
            progress = end_progress(progress, units[start:stop], size // self.group_size)
        yield progress

    def _totals(self, first: int, end: int) -> tuple[np.ndarray, int]:
        """The `span_totals` of the whole blocks from a step on, and the number of these blocks.

        They end at `end`, at bad weights, or where a source comes or leaves inside a span.
        """
        if isinstance(self.weights, np.ndarray):
            return span_totals(self.units(first)), (end - first) // MAX_STEPS
        found = [np.zeros((0, self.num_sources), np.int64)]
        at = first
        while at + MAX_STEPS <= end:
            alone = at + MAX_STEPS == end
            units = self.units(at) if alone else self._schedule_units(self.weights, at, end)
            whole = len(units) - len(units) % MAX_STEPS
            found.append(span_totals(units[:whole]))
            if len(found[-1]) == 0:
                break
            at += whole
        return np.concatenate(found), (at - first) // MAX_STEPS

    def _in_rows(self, progress: Progress) -> Progress:
        return Progress(self._offset + progress.cursors * self.group_size, progress.carry)

    def _join(self, begin: PlanState) -> None:
        """Plan from the start of the block of `begin` if this leads to exactly the same progress.

        It does if nothing was edited. Then the blocks are those of the plan that `begin` is from.
        """
        number, kept = begin.step // MAX_STEPS, dict(self._passed)
        if begin.block_step == begin.step or begin.block_step < self.sizes.starts[0]:
            return
        self._origin, self._offset = begin.block_step, begin.block_progress.cursors
        none = np.zeros_like(self._offset)
        self._passed = {number: Progress(none, begin.block_progress.carry)}
        if len(self.units(self._origin)) >= begin.step - self._origin:
            reached, _, _ = self.progress_at(begin.step)
            if all(map(np.array_equal, reached, begin.progress)):
                return
        self._origin, self._offset, self._passed = begin.step, begin.progress.cursors, kept

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(self.weights, PlannedSchedule):
            need_picklable(self.weights.schedule)
        return {**self.__dict__, "_units_kept": (-1, None), "_passed": dict(self._passed)}
