"""MixPlan: which row of which source every step takes, known on the host before the step runs."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmix._checks import need, source_lengths, whole_number
from jaxmix._html import html_table
from jaxmix._plan.counts import MAX_BATCH_SIZE, ONE
from jaxmix._plan.exact_weights import PlannedSchedule, constant_units
from jaxmix._plan.state import KIND, PlanState, fresh_state, read_state, write_state
from jaxmix._plan.timeline import PlannedRows, Timeline
from jaxmix._types import Weights


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
      seed: that of `jax.random.key(seed)`, in [0, 2^32); by default 0, or that of `state`. It only
        decides how the sources are spread over a batch.
      state: the `state(step)` of another plan. This one continues from there with other weights,
        another batch size or more sources: no row is skipped, none repeated. Steps stay absolute.
        What each source is owed is carried over, so conservation holds over all the plans
        together. With the same weights and batch size it is the same plan.

    Attributes: `batch_size`, `seed`, `num_sources`, `first_step`; `weights`, the schedule, or the
    numbers as float64 [K].

    Raises:
      ValueError, TypeError: weights off the simplex, those of a schedule when the step is reached;
        sizes out of range; a `state` that is none, has more sources or another seed; a step
        before `first_step` or above 2^31 - 1.

    Example:
      >>> import jaxmix
      >>> plan = jaxmix.MixPlan([0.5, 0.3, 0.2], batch_size=4)
      >>> plan.counts_table(0, 3).tolist()
      [[2, 1, 1], [2, 1, 1], [2, 2, 0]]
      >>> plan.rows(1).source.tolist(), plan.rows(1).position.tolist()
      ([0, 0, 2, 1], [3, 2, 1, 1])
      >>> more = jaxmix.MixPlan([0.5, 0.3, 0.1, 0.1], batch_size=8, state=plan.state(2))
      >>> more.cursors(2).tolist(), more.counts(2).tolist()
      ([4, 2, 2, 0], [4, 3, 0, 1])
    """

    def __init__(
        self,
        weights: Weights,
        batch_size: int,
        *,
        seed: int | None = None,
        state: Mapping[str, Any] | None = None,
    ):
        begin = fresh_state() if state is None else read_state(state)
        self.batch_size = whole_number("batch_size", batch_size, 1)
        need(self.batch_size <= MAX_BATCH_SIZE, "batch_size", "at most 2^24", batch_size)
        self.seed = whole_number("seed", begin.seed if seed is None else seed, 0)
        need(self.seed < 2**32, "seed", "below 2^32", seed)
        same = state is None or self.seed == begin.seed
        need(same, "seed", f"{begin.seed}, that of `state`", seed)
        known = PlannedSchedule(weights) if callable(weights) else constant_units(weights)
        self._timeline = Timeline(known, self.batch_size, self.seed, begin)
        self.num_sources, self.first_step = self._timeline.num_sources, self._timeline.first_step
        self.weights = weights if callable(weights) else known[0] / ONE
        if not callable(self.weights):
            self.weights.setflags(write=False)

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
        block, line = self._timeline.find(step)
        return block.counts[line].copy()

    def cursors(self, step: int) -> np.ndarray:
        """The rows of each source used before a step: int64 [K]."""
        block, line = self._timeline.find(step)
        counts = block.counts[line]
        return block.base[line] + counts.cumsum() - counts

    def weights_at(self, step: int) -> np.ndarray:
        """The weights of a step: float64 [K], each a multiple of 2^-52, with the sum exactly 1."""
        return self._timeline.weights(step, step + 1)[0]

    def rows(self, step: int, *, shard_index: int = 0, shard_count: int = 1) -> PlannedRows:
        """The rows of a step, in the order of the batch.

        With `shard_count` shards, which must divide B, shard `shard_index` gets only its own
        contiguous part. The sources are
        `counted_sources(jax.random.key(seed), step, counts(step), B)`.
        """
        return self._timeline.planned(self._timeline.rows(step, shard_index, shard_count))

    def counts_table(self, start: int, stop: int) -> np.ndarray:
        """The counts of the steps start .. stop - 1, int32 [T, K], for use in `jit` or `scan`."""
        start = whole_number("start", start, self.first_step)
        stop = whole_number("stop", stop, start)
        none = np.zeros((0, self.num_sources), np.int32)
        return np.concatenate([none, *self._timeline.tables(start, stop)])

    def state(self, step: int) -> dict[str, Any]:
        """Where the sources stand before a step, for `MixPlan(..., state=state)`.

        Plain ints and lists, fit for JSON, the seed among them.
        """
        block, progress = self._timeline.progress_at(step)
        state = PlanState(self.seed, int(step), progress, block.first, block.progress)
        return write_state(state)

    def digest(self, num_steps: int) -> str:
        """A hash of every row of the steps below `num_steps`, equal where two plans agree.

        For comparing processes, as a schedule might differ by a bit between kinds of machines:
        `multihost_utils.assert_equal(np.frombuffer(bytes.fromhex(plan.digest(n)), np.uint8))`.
        """
        num_steps = whole_number("num_steps", num_steps, self.first_step)
        cursors = self.cursors(self.first_step).tolist()
        header = [KIND, self.batch_size, self.seed, self.first_step, num_steps, cursors]
        sha = hashlib.sha256(repr(header).encode())
        for counts in self._timeline.tables(self.first_step, num_steps):
            sha.update(counts.astype("<i4").tobytes())
        return sha.hexdigest()

    def runs_out_at(self, num_steps: int, lengths: Sequence[int]) -> list[int | None]:
        """Per source the first step below `num_steps` that needs a position >= its length, or None.

        Such a position is a row of the source's next epoch.
        """
        num_steps = whole_number("num_steps", num_steps, self.first_step)
        known = source_lengths(lengths, self.num_sources, minimum=0)
        limits = np.maximum(known, self.cursors(self.first_step))
        return self._timeline.runs_out_at(num_steps, limits)

    def _with_known_counts(self, num_steps: int) -> MixPlan:
        """The same plan, with the counts of the steps below `num_steps` in a table, for workers."""
        plan = copy.copy(self)
        plan._timeline = self._timeline.with_known_counts(num_steps)
        return plan
