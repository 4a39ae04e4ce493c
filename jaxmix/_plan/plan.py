"""MixPlan: which row of which source every step takes, known on the host before the step runs."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np

from jaxmix._checks import need, shown, source_names, whole_number
from jaxmix._html import html_table
from jaxmix._plan.batch_sizes import BatchSize, read_batch_sizes
from jaxmix._plan.counts import ONE
from jaxmix._plan.exact_weights import schedule_units
from jaxmix._plan.known_counts import KnownCounts
from jaxmix._plan.ledger import Ledger
from jaxmix._plan.lengths import check_lengths
from jaxmix._plan.names import default_names, match_by_name
from jaxmix._plan.state import (
    KIND,
    PlanState,
    continued,
    fresh_state,
    read_state,
    write_state,
)
from jaxmix._plan.timeline import PlannedRows, Timeline
from jaxmix._plan.weights import PlanWeights, read_weights
from jaxmix._types import Schedule


class MixPlan:
    """The exact number of rows of each source in every step, and which rows they are.

    A plan is a pure function of its arguments: ask for any step, in any order, in any process. The
    rows of source k in a step are ``cursors[k]`` to ``cursors[k] + counts[k] - 1``. At every step
    ``abs(cursors_k - B sum_{s<t} w_k(s))`` is at most 1/2 for two sources. For smooth, ramped,
    staged and random weights of 3 to 200 sources it is below 1.5. A source of weight 0 gets no row.

    Args:
      weights: gamma, the weight of source 0 of two; an array [K]; a schedule returning either; or a
        dict with a number or a schedule of scalars for each name. Their sum is 1 within 1e-4.
        Schedules run on the CPU, so `JAX_PLATFORMS`, if set, must include it.
      batch_size: B, the rows of the global batch, 1 to 2^24; or `{0: B, step: B from there on}`.
      names: the K names of the sources, in their order. By default the sorted keys of a dict, else
        "0", "1", ...
      normalize: True allows weights of any positive sum, such as counts of tokens.
      group_size: G, a divisor of every B: groups of G neighbouring rows have one source, and the
        bounds above count groups. With G = B a batch has one source. A shard may cut a group.
      seed: as for `jax.random.key(seed)`, in [0, 2^32); by default 0 or the seed of `state`. It
        decides how sources are spread over a batch, and the order of a shuffle.
      state: the `state(step)` of another plan, which this one continues from that step on. Weights,
        batch sizes and sources may change: no row is skipped or repeated, and the bounds hold over
        both plans. Sources are matched by name: a new one begins at row 0, and one that returns
        continues where it was. Sources without names are matched by place and can't be left out
        (give weight 0).
      resized: the names of sources whose length may differ from the length in `state`.

    Attributes:
      batch_size, names, group_size, seed: as passed, or their defaults.
      num_sources, first_step: K, and the step at which the plan begins.

    Raises:
      ValueError, TypeError: weights off the simplex (of a schedule when the step is reached); sizes
        out of range; a `state` that is not valid, or has another seed or other names; a length
        other than in `state`; a step before `first_step` or above 2^31 - 1.

    Example:
      >>> import jaxmix
      >>> plan = jaxmix.MixPlan([0.5, 0.3, 0.2], batch_size=4)
      >>> plan.counts_table(0, 3).tolist()
      [[2, 1, 1], [2, 1, 1], [2, 2, 0]]
      >>> plan.rows(1).source.tolist(), plan.rows(1).position.tolist()
      ([0, 2, 1, 0], [2, 1, 1, 3])
      >>> more = jaxmix.MixPlan([0.5, 0.3, 0.1, 0.1], batch_size=8, state=plan.state(2))
      >>> more.cursors(2).tolist(), more.counts(2).tolist()
      ([4, 2, 2, 0], [4, 3, 0, 1])
    """

    def __init__(
        self,
        weights: PlanWeights,
        batch_size: BatchSize,
        *,
        names: Sequence[str] | None = None,
        normalize: bool = False,
        group_size: int = 1,
        seed: int | None = None,
        state: Mapping[str, Any] | None = None,
        resized: Sequence[str] = (),
    ):
        known, labels = read_weights(weights, names, normalize)
        # A list beside a dict is meant in the dict's order, which may differ from the plan's order.
        by_name = list(weights) if isinstance(weights, Mapping) and names is None else None
        self._is_reordered = by_name is not None and by_name != labels
        old = None if state is None else read_state(state)
        first, rows = (0, 0) if old is None else (old.step, old.rows())
        self._sizes = read_batch_sizes(batch_size, first, rows)
        self.batch_size = self._sizes.given()
        self.group_size = whole_number("group_size", group_size, 1)
        self._sizes.need_divisor("group_size", self.group_size)
        self.seed = whole_number("seed", seed if seed is not None else old.seed if old else 0, 0)
        need(self.seed < 2**32, "seed", "below 2^32", seed)
        same = old is None or self.seed == old.seed
        need(same, "seed", f"{old and old.seed}, as in `state`", seed)
        units = known if isinstance(known, np.ndarray) else schedule_units(known, first, first + 1)
        self.num_sources = units.shape[1]
        self.names = tuple(source_names(labels, self.num_sources))
        begin = fresh_state(self.names, self.group_size)
        if old is not None:
            begin = continued(old, self.names, self.group_size)
        unknown = set(resized) - set(self.names)
        need(not unknown, "resized", f"names of {shown(list(self.names))}", sorted(unknown))
        kept = zip(self.names, begin.lengths, strict=True)
        self._lengths = tuple(None if name in resized else length for name, length in kept)
        self._away, self._weights_before, self._known = begin.away, begin.weights, None
        self.first_step = first
        self._timeline = Timeline(Ledger(known, self._sizes, begin), self.seed)
        self._timeline.weights(first, first + 1)  # raises if the first weights are not valid

    @property
    def weights(self) -> np.ndarray | Schedule | None:
        """The schedule, or the numbers as float64 [K]; None in the copy of a worker process."""
        known = self._timeline.ledger.weights
        if not isinstance(known, np.ndarray):
            return None if known is None else known.schedule
        numbers = known[0] / ONE
        numbers.setflags(write=False)
        return numbers

    def __repr__(self) -> str:
        named = self.names != default_names(self.num_sources)
        sources = shown(list(self.names)) if named else f"{self.num_sources} sources"
        group = f"group_size={self.group_size}, " if self.group_size > 1 else ""
        return (
            f"MixPlan({sources}, batch_size={self.batch_size}, {group}"
            f"seed={self.seed}, first_step={self.first_step})"
        )

    def _repr_html_(self) -> str:
        names = ("batch_size", "group_size", "seed", "first_step")
        facts = {name: getattr(self, name) for name in names}
        weights = np.array2string(self.weights_at(self.first_step), precision=4, threshold=16)
        facts |= {"sources": self.num_sources, "names": shown(list(self.names))}
        facts |= {f"weights at step {self.first_step}": weights}
        return html_table("MixPlan", [], facts.items())

    def counts(self, step: int) -> np.ndarray:
        """Return the rows of each source in a step: int64 [K] with the sum B."""
        block, line = self._timeline.find(step)
        return block.counts[line].copy()

    def cursors(self, step: int) -> np.ndarray:
        """Return the rows of each source that were used before a step: int64 [K]."""
        return self._timeline.cursors(step)

    def batch_size_at(self, step: int) -> int:
        """Return B, the rows of the batch of a step."""
        return self._sizes.at(step)

    @overload
    def rows_before(self, step: int) -> int: ...
    @overload
    def rows_before(self, step: np.ndarray) -> np.ndarray: ...
    def rows_before(self, step: int | np.ndarray) -> int | np.ndarray:
        """Return the rows of all batches before a step, in this plan and those that it continues.

        The result is exact: an int for an int, int64 for a NumPy array. To write a schedule in rows
        use ``rescale_schedule(schedule, plan.rows_before)``, or `rows_schedule` for the weights of
        the plan itself.
        """
        return self._sizes.rows_before(step)

    def step_of_row(self, row: int) -> int:
        """Return the step whose batch holds a row, counted as in `rows_before`."""
        return self._sizes.step_of_row(row)

    def weights_at(self, step: int) -> np.ndarray:
        """Return the weights of a step: float64 [K], multiples of 2^-52 with the sum exactly 1."""
        return self._timeline.weights(step, step + 1)[0]

    def rows(self, step: int, *, shard_index: int = 0, shard_count: int = 1) -> PlannedRows:
        """Return the rows of a step, in the order of the batch.

        `shard_index` is one of `shard_count` contiguous parts of the batch; `shard_count` must
        divide every B. Without shards the sources are those of
        ``counted_sources(jax.random.key(seed), step, counts(step), B, group_size=G)``.
        """
        rows = self._timeline.rows(step, shard_index, shard_count)
        return self._timeline.planned(rows, shard_count)

    def counts_table(self, start: int, stop: int) -> np.ndarray:
        """Return the counts of the steps start .. stop - 1, int32 [T, K], for `jit` or `scan`."""
        start = whole_number("start", start, self.first_step)
        stop = whole_number("stop", stop, start)
        none = np.zeros((0, self.num_sources), np.int32)
        return np.concatenate([none, *self._timeline.tables(start, stop)])

    def state(
        self, step: int, *, lengths: Sequence[int] | Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """Return the progress of all sources before a step, for `MixPlan(..., state=state)`.

        It is a dict of plain ints, lists and names, for JSON, and includes the seed. `lengths` are
        the rows of each source, by name or in order. With them, a plan that continues refuses a
        source of another length.
        """
        step = whole_number("step", step, 0)
        self._timeline.check(step)
        known = self._lengths if lengths is None else tuple(self._checked_lengths(lengths))
        progress, block_step, before = self._timeline.ledger.progress_at(step)
        state = PlanState(
            self.seed,
            step,
            self.names,
            known,
            self.group_size,
            progress,
            block_step,
            before,
            self._away,
            self._weights_before,
        )
        if step > self.first_step:
            state = state._replace(weights=tuple(self.weights_at(step - 1).tolist()))
        return write_state(state)

    def digest(self, num_steps: int) -> str:
        """Return a hash of all rows of the steps below `num_steps`: equal plans have equal hashes.

        Use it to compare processes, for example with `check_same_plan`. On machines of different
        kinds the values of a schedule may differ by a bit.
        """
        num_steps = whole_number("num_steps", num_steps, self.first_step)
        cursors = self.cursors(self.first_step).tolist()
        header = [KIND, self.names, self.group_size, self.seed, self.first_step, num_steps, cursors]
        sha = hashlib.sha256(repr(header).encode())
        for counts in self._timeline.tables(self.first_step, num_steps):  # each step's sum is B
            sha.update(counts.astype("<i4").tobytes())
        return sha.hexdigest()

    def runs_out_at(
        self, num_steps: int, lengths: Sequence[int] | Mapping[str, int]
    ) -> list[int | None]:
        """Return for each source the first step below `num_steps` that needs its next epoch.

        It is None if there is no such step. `lengths` are the rows of each source, by name or in
        order.
        """
        num_steps = whole_number("num_steps", num_steps, self.first_step)
        return self._runs_out_at(num_steps, self._checked_lengths(lengths, minimum=0))

    def _runs_out_at(self, num_steps: int, sizes: Sequence[int]) -> list[int | None]:
        limits = np.maximum(sizes, self.cursors(self.first_step))
        return self._timeline.runs_out_at(num_steps, limits)

    def _matched(self, what: str, given: Any) -> list[Any]:
        """The values given for each source, in order; a list of ambiguous order is refused."""
        if self._is_reordered and not isinstance(given, Mapping):
            raise ValueError(
                f"{what} must be a dict by name, as the weights are (they were sorted; "
                f"MixPlan(..., names=[...]) fixes an order), got {shown(type(given).__name__)}"
            )
        return match_by_name(what, given, self.names)

    def _checked_lengths(self, lengths: Any, minimum: int = 1) -> list[int]:
        """The rows of each source, by name or in order, as ints in order."""
        if isinstance(lengths, Mapping) or self._is_reordered:
            lengths = self._matched("lengths", lengths)
        return self._sizes_in_order(lengths, minimum)

    def _sizes_in_order(self, lengths: Any, minimum: int = 1) -> list[int]:
        return check_lengths(lengths, self.names, self._lengths, minimum)

    def _with_known_counts(self, num_steps: int) -> MixPlan:
        """A copy for worker processes: counts of the steps below `num_steps`, and no schedule."""
        ledger = self._timeline.ledger
        if not isinstance(ledger, Ledger) or isinstance(ledger.weights, np.ndarray):
            return self
        known = self._known
        if known is None or known.num_steps < num_steps:
            self._known = known = KnownCounts(ledger, num_steps)
        plan = copy.copy(self)
        plan._timeline, plan._known = Timeline(known, self.seed), None
        return plan

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": None}
