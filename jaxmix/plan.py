"""MixPlan: which row of which source every step takes, known on the host before the step runs."""

import collections
import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmix._checks import need, source_lengths, whole_number
from jaxmix._html import html_table
from jaxmix._types import ScalarOrSchedule
from jaxmix.blocks import Block, Blocks
from jaxmix.counts import MAX_BATCH_SIZE, MAX_STEPS, ONE
from jaxmix.plan_state import KIND, PlanState, fresh_state, read_state, write_state
from jaxmix.units import constant_units


class PlannedRows(collections.namedtuple("PlannedRows", ["source", "index"])):
    """The rows of a step, or of one process's part of it, in the order of the batch.

    `source`: int32 [b], the source of each row. `index`: int64 [b], its row in that source, counted
    through all epochs: in a source of n rows it is row `index % n` of epoch `index // n`.
    """

    __slots__ = ()


class MixPlan:
    """The exact number of rows of each source in every step, and which rows they are.

    A pure function of the arguments: any step may be asked for, in any order and in any process,
    there is no horizon and nothing to save. Source k's rows of a step are `cursors[k]` to
    `cursors[k] + counts[k] - 1`. At every step |cursors_k - B sum_{s<t} w_k(s)|, with the weights
    of `weights_at`, is at most 1/2 for two sources. For more it is below 1.5 for smooth, ramped,
    staged and random weights of up to 200 sources (mostly below 1), and bounded for any: by about
    ln K against weights picked step by step to leave out the sources that were just served. A
    source of weight 0 gets no row.

    Steps are planned in blocks of 1,024. Opening a plan at step t works once through the blocks
    before it; two numbers a source are kept of each. Weights of more than two sources that come
    to or leave 0 at nearly every step are slow, about 0.1 ms a step.

    Args:
      weights: gamma, the share of source 0 of two; an array [K]; or a schedule returning either.
        Numbers are taken as float64, a schedule's float32 values are widened, and either is
        normalised. Schedules are evaluated on the CPU (so `JAX_PLATFORMS`, if set, must name it).
      batch_size: B, the rows of the global batch, 1 to 2^24.
      seed: that of `jax.random.key(seed)`, in [0, 2^32); by default 0, or that of `start`. It only
        decides how the sources are spread over a batch.
      start: the `state(step)` of another plan. This one goes on from there with other weights,
        another batch size or more sources: no row is skipped, none repeated. Steps stay absolute.
        What each source is owed is carried over, so conservation holds over all the plans
        together. With the same weights and batch size it is the same plan.

    Attributes: `batch_size`, `seed`, `num_sources`, `first_step`; `weights`, the schedule, or the
    numbers as float64 [K].

    Raises:
      ValueError, TypeError: weights off the simplex, those of a schedule when the step is reached;
        sizes out of range; a `start` that is no state, has more sources or another seed; a step
        before `first_step` or above 2^31 - 1.

    Example:
      >>> import jaxmix
      >>> plan = jaxmix.MixPlan([0.5, 0.3, 0.2], batch_size=4)
      >>> plan.table(0, 3).tolist()
      [[2, 1, 1], [2, 1, 1], [2, 2, 0]]
      >>> plan.rows(1).source.tolist(), plan.rows(1).index.tolist()
      ([0, 0, 2, 1], [3, 2, 1, 1])
      >>> more = jaxmix.MixPlan([0.5, 0.3, 0.1, 0.1], batch_size=8, start=plan.state(2))
      >>> more.cursors(2).tolist(), more.counts(2).tolist()
      ([4, 2, 2, 0], [4, 3, 0, 1])
    """

    def __init__(
        self,
        weights: ScalarOrSchedule,
        batch_size: int,
        *,
        seed: int | None = None,
        start: Mapping[str, Any] | None = None,
    ):
        state = fresh_state() if start is None else read_state(start)
        self.batch_size = whole_number("batch_size", batch_size, 1)
        need(self.batch_size <= MAX_BATCH_SIZE, "batch_size", "at most 2^24", batch_size)
        self.seed = whole_number("seed", state.seed if seed is None else seed, 0)
        need(self.seed < 2**32, "seed", "below 2^32", seed)
        same = start is None or self.seed == state.seed
        need(same, "seed", f"{state.seed}, that of `start`", seed)
        known = weights if callable(weights) else constant_units(weights)
        self._blocks = Blocks(known, self.batch_size, self.seed, state)
        self.num_sources, self.first_step = self._blocks.num_sources, self._blocks.first_step
        self.weights = known if callable(known) else known[0] / ONE
        if not callable(self.weights):
            self.weights.setflags(write=False)
        self._ids = np.arange(self.num_sources, dtype=np.int32)

    def __repr__(self) -> str:
        return (
            f"MixPlan({self.num_sources} sources, batch_size={self.batch_size}, "
            f"seed={self.seed}, first_step={self.first_step})"
        )

    def _repr_html_(self) -> str:
        facts = {name: getattr(self, name) for name in ("batch_size", "seed", "first_step")}
        weights = np.array2string(self.weights_at(self.first_step), precision=4, threshold=16)
        facts |= {"sources": self.num_sources, f"weights at step {self.first_step}": weights}
        return html_table("MixPlan", [], facts.items())

    def counts(self, step: int) -> np.ndarray:
        """The rows of each source in a step: int64 [K] with the sum B."""
        block, line = self._blocks.find(step)
        return block.counts[line].copy()

    def cursors(self, step: int) -> np.ndarray:
        """The rows of each source used before a step: int64 [K]."""
        block, line = self._blocks.find(step)
        counts = block.counts[line]
        return block.base[line] + counts.cumsum() - counts

    def weights_at(self, step: int) -> np.ndarray:
        """The weights of a step: float64 [K], each a multiple of 2^-52, with the sum exactly 1."""
        return self._blocks.units_at(step) / ONE

    def rows(self, step: int, part: int = 0, parts: int = 1) -> PlannedRows:
        """The rows of a step, in the order of the batch.

        With `parts` processes, which must divide B, process `part` gets only its own contiguous
        part. The sources are `counted_sources(jax.random.key(seed), step, counts(step), B)`.
        """
        return self.rows_at(*self.locate(step, part, parts))

    def rows_at(self, block: Block, line: int, slots: np.ndarray) -> PlannedRows:
        """The rows that take these slots at the step of a line."""
        source = self._ids.repeat(block.counts[line]).take(slots)
        index = block.base[line].take(source)
        index += slots
        return PlannedRows(source, index)

    def table(self, start: int, stop: int) -> np.ndarray:
        """The counts of the steps start .. stop - 1, int32 [T, K], for use in `jit` or `scan`."""
        start = whole_number("start", start, self.first_step)
        stop = whole_number("stop", stop, start)
        none = np.zeros((0, self.num_sources), np.int32)
        return np.concatenate([none, *self._tables(start, stop)])

    def state(self, step: int) -> dict[str, Any]:
        """Where the sources stand before a step, for `MixPlan(..., start=state)`.

        Plain ints and lists, fit for JSON, the seed among them.
        """
        block, mark = self._blocks.mark_at(step)
        return write_state(PlanState(self.seed, int(step), mark, block.first, block.mark))

    def digest(self, num_steps: int) -> str:
        """A hash of every row of the steps below `num_steps`, equal where two plans agree.

        For comparing processes, as a schedule might differ by a bit between kinds of machines:
        `multihost_utils.assert_equal(np.frombuffer(bytes.fromhex(plan.digest(n)), np.uint8))`.
        """
        num_steps = whole_number("num_steps", num_steps, self.first_step)
        cursors = self.cursors(self.first_step).tolist()
        header = [KIND, self.batch_size, self.seed, self.first_step, num_steps, cursors]
        sha = hashlib.sha256(repr(header).encode())
        for counts in self._tables(self.first_step, num_steps):
            sha.update(counts.astype("<i4").tobytes())
        return sha.hexdigest()

    def first_step_beyond(self, lengths: Sequence[int], num_steps: int) -> list[int | None]:
        """Per source the first step below `num_steps` that needs an index >= its length, or None.

        Such an index is a row of the source's next epoch.
        """
        num_steps = whole_number("num_steps", num_steps, self.first_step)
        known = source_lengths(lengths, self.num_sources, minimum=0)
        limits = np.maximum(known, self.cursors(self.first_step))
        beyond: list[int | None] = [None] * self.num_sources
        for number in range(self.first_step // MAX_STEPS, -(-num_steps // MAX_STEPS)):
            unmet = [k for k, step in enumerate(beyond) if step is None]
            if (number + 1) * MAX_STEPS <= num_steps:
                end = self._blocks.mark(number + 1).cursors
                if (end[unmet] <= limits[unmet]).all():
                    continue
            block = self._blocks.block(number)
            after = block.base + block.counts.cumsum(axis=1)
            over = ((after > limits) & (block.counts > 0))[: num_steps - block.first]
            for k in unmet:
                if over[:, k].any():
                    beyond[k] = block.first + int(over[:, k].argmax())
        return beyond

    def with_known_counts(self, num_steps: int) -> "MixPlan":
        """The same plan, with the counts of the steps below `num_steps` in a table.

        For worker processes: its pickled copy calls no schedule for those steps, so it needs no JAX
        device. The table has 1, 2 or 4 bytes a source and step.
        """
        plan = copy.copy(self)
        plan._blocks = self._blocks.with_known_counts(num_steps)
        return plan

    def locate(self, step: int, part: int = 0, parts: int = 1) -> tuple[Block, int, np.ndarray]:
        """The block of a step, its line there and the slots of one part's rows, for a feed.

        The slots 0 .. B - 1 of a step are dealt to the sources in order, those of a source in order
        of the index.
        """
        block, line = self._blocks.find(step)
        size = self.batch_size
        if parts != 1 or part != 0:
            parts, part = whole_number("parts", parts, 1), whole_number("part", part, 0)
            need(size % parts == 0, "parts", f"a divisor of batch_size = {size}", parts)
            need(part < parts, "part", f"below parts = {parts}", part)
            size //= parts
        return block, line, self._blocks.order.slots(block.turns[line], part * size, size)

    def weights_from(self, step: int, stop: int) -> np.ndarray:
        """The weights [T, K] from a step to `stop` or the end of its block, for a preview."""
        stop = min(stop, step - step % MAX_STEPS + MAX_STEPS)
        units = self._blocks.units(step)[: stop - step]
        if len(units) < stop - step:
            self.weights_at(step + len(units))  # which says that they are none
        return units / ONE

    def outline(self, num_steps: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """For a preview: each block of steps below `num_steps` without its counts.

        Its first step, its weights [T, K] and the cursors before it.
        """
        for number in range(self.first_step // MAX_STEPS, -(-num_steps // MAX_STEPS)):
            first = max(number * MAX_STEPS, self.first_step)
            begins = first == self.first_step
            cursors = self.cursors(first) if begins else self._blocks.mark(number).cursors
            yield first, self.weights_from(first, num_steps), cursors

    def _tables(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """The counts of the steps start .. stop - 1 in int32, a block at a time."""
        while start < stop:
            block, line = self._blocks.find(start)
            counts = block.counts[line : line + stop - start].astype(np.int32)
            start += len(counts)
            yield counts
