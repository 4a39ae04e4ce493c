"""The batch size by step: one size, or stages of sizes, with exact sums."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, overload

import numpy as np

from jaxmix._checks import need, whole_number
from jaxmix._schedules.evaluate import MAX_STEP
from jaxmix._types import Schedule

MAX_BATCH_SIZE = 2**24

BatchSize = int | Mapping[int, int]
"""B, the rows of the global batch; or `{step: B from that step on}`."""


@dataclasses.dataclass(frozen=True)
class BatchSizes:
    """Stages of equal batches: the first step of each, its B, and the rows before it.

    Neighbouring stages differ in size. `first_step` is the plan's. Steps before it matter only in
    the block of steps that holds it.
    """

    first_step: int
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    before: tuple[int, ...]

    def given(self) -> int | dict[int, int]:
        """B, or the dict of B by step."""
        if len(self.sizes) == 1:
            return self.sizes[0]
        return dict(zip(self.starts, self.sizes, strict=True))

    def at(self, step: int) -> int:
        """B at a step."""
        return self.sizes[self._stage(step)]

    @overload
    def rows_before(self, step: int) -> int: ...
    @overload
    def rows_before(self, step: np.ndarray) -> np.ndarray: ...
    def rows_before(self, step: int | np.ndarray) -> int | np.ndarray:
        """The rows of all batches before a step: see `MixPlan.rows_before`."""
        if not isinstance(step, np.ndarray) or step.ndim == 0:
            step = step.item() if isinstance(step, np.ndarray) else step
            stage = self._stage(step)
            return self.before[stage] + (int(step) - self.starts[stage]) * self.sizes[stage]
        whole = np.issubdtype(step.dtype, np.integer)
        need(whole, "step", "integers", step.dtype, TypeError)
        for end in (step.min(), step.max()) if step.size else ():
            self._check(int(end))
        starts, sizes, before = np.array(self.starts), np.array(self.sizes), np.array(self.before)
        stage = starts.searchsorted(step, side="right") - 1
        return before[stage] + (step.astype(np.int64) - starts[stage]) * sizes[stage]

    def step_of_row(self, row: int) -> int:
        """The step whose batch holds a row, counted over all batches."""
        row = whole_number("row", row, self.rows_before(self.first_step))
        stage = bisect.bisect_right(self.before, row) - 1
        step = self.starts[stage] + (row - self.before[stage]) // self.sizes[stage]
        need(step <= MAX_STEP, "row", f"in a step up to {MAX_STEP}", row)
        return step

    def stretches(self, first: int, stop: int) -> list[tuple[int, int, int]]:
        """The steps first .. stop - 1, split where B changes: (first, stop, B) of each part."""
        low, high = bisect.bisect_right(self.starts, first), bisect.bisect_left(self.starts, stop)
        cuts = [first, *self.starts[low:high], stop]
        ends = itertools.pairwise(cuts)
        return [(a, b, size) for (a, b), size in zip(ends, self.sizes[low - 1 :], strict=False)]

    def need_divisor(self, name: str, number: int) -> None:
        """Raise unless `number` divides the batch size of every stage."""
        for start, size in zip(self.starts, self.sizes, strict=True):
            stage = "" if len(self.sizes) == 1 else f", the batch size from step {start} on"
            need(size % number == 0, name, f"a divisor of B = {size}{stage}", number)

    def _check(self, step: int) -> None:
        inside = self.first_step <= step <= MAX_STEP + 1
        need(inside, "step", f"in [{self.first_step}, {MAX_STEP + 1}]", step)

    def _stage(self, step: Any) -> int:
        self._check(whole_number("step", step, 0))
        return bisect.bisect_right(self.starts, step) - 1


def read_batch_sizes(batch_size: Any, first_step: int = 0, rows: int = 0) -> BatchSizes:
    """The batch sizes from a step on; all sources together gave `rows` before it."""
    stages = batch_size if isinstance(batch_size, Mapping) else {0: batch_size}
    is_one = not isinstance(batch_size, list | tuple) and not callable(batch_size)
    need(len(stages) > 0 and is_one, "batch_size", "an integer or {step: integer}", batch_size)
    for start, size in stages.items():
        name = f"batch_size at step {start}" if stages is batch_size else "batch_size"
        whole_number("a step of batch_size", start, 0)
        need(start <= MAX_STEP, "a step of batch_size", f"at most {MAX_STEP}", start)
        need(whole_number(name, size, 1) <= MAX_BATCH_SIZE, name, "at most 2^24", size)
    needed = f"<= {first_step}, so that each step has a size"
    need(min(stages) <= first_step, "the first step of batch_size", needed, min(stages))
    starts, sizes, before = [], [], [0]
    for start, size in sorted((int(start), int(size)) for start, size in stages.items()):
        if sizes and sizes[-1] == size:
            continue
        if starts:
            before.append(before[-1] + (start - starts[-1]) * sizes[-1])
        starts.append(start)
        sizes.append(size)
    found = BatchSizes(first_step, tuple(starts), tuple(sizes), tuple(before))
    more = rows - found.rows_before(first_step)
    return dataclasses.replace(found, before=tuple(number + more for number in before))


def rows_schedule(batch_size: BatchSize) -> Schedule:
    """Return a function that counts the rows of all batches before a step.

    Use it with `rescale_schedule`, to write a plan's own weights in rows:
    `MixPlan.rows_before` does the same, but exists only after the plan is made.

    Args:
      batch_size: B, or `{0: B, step: B from that step on, ...}`.

    Returns:
      A function of the step for the host, exact: an int for an int, int64 for a NumPy array.

    Raises:
      ValueError, TypeError: as for the `batch_size` of a `MixPlan`.

    Example:
      >>> import jaxmix
      >>> sizes = {0: 256, 9_000: 512}
      >>> rows = jaxmix.rows_schedule(sizes)
      >>> rows(9_000), rows(9_001)
      (2304000, 2304512)
      >>> by_row = jaxmix.staged_schedule({0: 1.0, 2_304_000: 0.5})
      >>> plan = jaxmix.MixPlan(jaxmix.rescale_schedule(by_row, rows), sizes)
      >>> plan.counts(8_999).tolist(), plan.counts(9_000).tolist()
      ([256, 0], [256, 256])
    """
    return read_batch_sizes(batch_size).rows_before
