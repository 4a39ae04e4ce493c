"""Batches from a plan and sources with random access: by step, in order, or through grain."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmix._checks import need, whole_number
from jaxmix._feed.readers import open_source
from jaxmix._feed.row_order import host_index, row_order
from jaxmix._feed.row_spec import check_row_spec
from jaxmix._feed.stacking import Rows
from jaxmix._mixing.block_shuffle import BlockShuffle
from jaxmix._plan.plan import MixPlan
from jaxmix._plan.timeline import PlannedRows, StepRows

ON_END = ("cycle", "stop", "error")


def as_sequence(plan: MixPlan, sources: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
    """The sources in the order of the plan."""
    if not isinstance(sources, Mapping):
        wanted = f"a list of {plan.num_sources} sources, or a dict by the names of the plan"
        kind = type(sources).__name__
        need(isinstance(sources, list | tuple), "sources", wanted, kind, TypeError)
        need(len(sources) == plan.num_sources, "sources", wanted, len(sources))
    return plan._matched("sources", sources)


class PlanSource:
    """The batches of a plan, by step, read from sources with random access.

    Iterating yields the batches from `plan.first_step` on, `batches(t)` those from step t on, and
    `[t]` returns the batch of step t. It is a dict:

    - `"rows"`: a tree of arrays [b, ...], with the structure of a row.
    - `"source"`: int32 [b], the source of each row.
    - `"position"`: int64 [b], the position of the row in its source, counted through all epochs.
    - `"index"`: int64 [b], the row of the source that was read there.
    - `"step"`: the step, int32.

    `grain.MapDataset.source(PlanSource(...))` is batched already: workers, threads and prefetching
    change no row, and `[t:]` continues at step t.

    Args:
      plan: a `MixPlan`.
      sources: the data of each source, in the order of the plan or in a dict by name: arrays or
        trees of arrays of one length, tables, lists of rows, grain and HuggingFace datasets, any
        object with `len` and `[i]`. All have rows of one structure, with leaves of the same dtype
        and shape. The page "Feeds" of the documentation says how each kind is read.
      num_steps: the end of the run, counted from step 0 even if `plan.first_step` is later.
      shard_index, shard_count: the part of each batch for this process, one of `shard_count`
        contiguous parts; `shard_count` must divide B. Other rows are not read.
      shuffle: True reads the rows of each epoch in a random order, each row once per epoch. The
        order depends on the plan's seed, the name of the source and the epoch. A `BlockShuffle`
        does the same for sources that read neighbouring rows fast. False reads them in order.
      on_end: what happens where a source ends. "cycle": its next epoch begins. "stop": the run ends
        before the first step for which a source lacks rows. "error": ValueError at once.

    Raises:
      ValueError, TypeError: sources that are too many or too few, empty or unlike; a kind of source
        that has no clear rows; a row that is None or differs from the first row of its source.
      IndexError: a step outside the plan.

    An error of a source itself gets a note with the source, the row and the step.

    Example:
      >>> import jaxmix, numpy as np
      >>> plan = jaxmix.MixPlan(0.75, batch_size=4)
      >>> source = jaxmix.PlanSource(plan, [np.arange(10), np.arange(100, 110)], num_steps=5)
      >>> source[0]["rows"].tolist(), source[1]["rows"].tolist()
      ([2, 1, 0, 100], [3, 101, 5, 4])
    """

    def __init__(
        self,
        plan: MixPlan,
        sources: Sequence[Any] | Mapping[str, Any],
        num_steps: int,
        *,
        shard_index: int = 0,
        shard_count: int = 1,
        shuffle: bool | BlockShuffle = False,
        on_end: str = "cycle",
    ):
        need(isinstance(plan, MixPlan), "plan", "a MixPlan", plan, TypeError)
        need(on_end in ON_END, "on_end", f"one of {ON_END}", on_end)
        num_steps = whole_number("num_steps", num_steps, 0)
        begins = f">= {plan.first_step}, where the plan begins (it counts from step 0)"
        need(num_steps >= plan.first_step, "num_steps", begins, num_steps)
        self._order = row_order(shuffle, plan.seed, plan.names)
        plan.rows(plan.first_step, shard_index=shard_index, shard_count=shard_count)  # checks them
        self._plan, self._shard_index, self._shard_count = plan, shard_index, shard_count
        self._data = as_sequence(plan, sources)
        self._open()
        lengths = self._lengths.tolist()
        for k, length in enumerate(lengths):
            self._order.need_length(length, self._name(k))
        plan._sizes_in_order(lengths)
        if on_end != "cycle":
            for k, step in enumerate(plan._runs_out_at(num_steps, lengths)):
                if step is not None and on_end == "error":
                    raise ValueError(
                        f"{self._name(k)} must have rows for {num_steps} steps, got {lengths[k]} "
                        f"rows, too few at step {step}: on_end='cycle' uses them again, 'stop' "
                        "ends the run"
                    )
                num_steps = num_steps if step is None else min(num_steps, step)
        self._num_steps = num_steps

    def __len__(self) -> int:
        return self._num_steps

    def __repr__(self) -> str:
        return f"PlanSource({self._plan!r}, num_steps={self._num_steps})"

    def __getitem__(self, index: int) -> dict[str, Any]:  # grain's name for the step
        if isinstance(index, slice):
            raise TypeError("step must be an integer, got a slice: use `batches(first_step)`")
        if not self._plan.first_step <= index < self._num_steps:
            first, stop = self._plan.first_step, self._num_steps
            how = f" (grain: `dataset[{first}:]`; torch: `sampler=range({first}, {stop})`)"
            wanted = f"in [{first}, {stop}){how if first else ''}"
            raise IndexError(f"step must be {wanted}, got {index}")
        timeline = self._plan._timeline
        step_rows = timeline.rows(index, self._shard_index, self._shard_count)
        planned = timeline.planned(step_rows, self._shard_count)
        index_of_row = host_index(self._order, *planned, self._lengths)
        order, reads = self._reads(step_rows, planned, index_of_row)
        found: list[Sequence[np.ndarray]] = []
        failed = None
        try:
            for k, rows in reads:
                found.append(self._read[k](rows))
        except Exception as error:
            failed = error
        if failed is not None:
            raise self._located(failed, *reads[len(found)], index)
        leaves = [_joined(parts).take(order, axis=0) for parts in zip(*found, strict=True)]
        at = {"index": index_of_row, "step": np.int32(index)}
        return {"rows": self._tree.unflatten(leaves), **planned._asdict(), **at}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.batches(self._plan.first_step)

    def batches(self, first_step: int) -> Iterator[dict[str, Any]]:
        """Yield the batches from step `first_step` on, in order, to the end of the run."""
        begin = whole_number("first_step", first_step, self._plan.first_step)
        done = f"at most {self._num_steps}, the end of the run"
        need(begin <= self._num_steps, "first_step", done, first_step)
        return (self[step] for step in range(begin, self._num_steps))

    def _reads(
        self, step_rows: StepRows, planned: PlannedRows, index: np.ndarray
    ) -> tuple[np.ndarray, list[tuple[int, Rows]]]:
        """What to read from each source, and the place of each row of the batch in what is read."""
        counts, base, order = step_rows
        stops, slots = counts.cumsum(), np.zeros(0, np.int64)
        first = base + stops - counts
        if self._shard_count > 1:
            slots = np.sort(order)
            order, stops = slots.searchsorted(order), slots.searchsorted(stops)
            counts = np.diff(stops, prepend=0)
        if self._order.seeds is not None:
            return order, self._shuffled_reads(order, counts, stops, planned, index)
        scattered = {}
        for k in counts.nonzero()[0].tolist() if slots.size else ():
            places = slots[stops[k] - counts[k] : stops[k]] + base[k]
            first[k] = places[0]
            if places[-1] - places[0] >= counts[k]:
                scattered[k] = places % self._periods[k]
        used = counts.nonzero()[0]
        periods = self._periods.take(used)
        begin = first.take(used) % periods
        spans = (used, begin, begin + counts.take(used), periods)
        reads: list[tuple[int, Rows]] = []
        for k, start, stop, period in zip(*(span.tolist() for span in spans), strict=True):
            if k in scattered:
                reads.append((k, scattered[k]))
            elif stop <= period:
                reads.append((k, slice(start, stop)))
            elif stop <= 2 * period:
                reads += [(k, slice(start, period)), (k, slice(0, stop - period))]
            else:
                reads.append((k, np.arange(start, stop) % period))
        return order, reads

    def _shuffled_reads(
        self,
        order: np.ndarray,
        counts: np.ndarray,
        stops: np.ndarray,
        planned: PlannedRows,
        index: np.ndarray,
    ) -> list[tuple[int, Rows]]:
        source, position = planned
        begins = position - position % self._lengths.take(source)
        wanted = np.empty_like(index)
        wanted[order] = np.where(self._by_position.take(source), begins + index, index)
        used = counts.nonzero()[0].tolist()
        return [(k, wanted[stops[k] - counts[k] : stops[k]]) for k in used]

    def _located(self, error: Exception, k: int, rows: Rows, step: int) -> Exception:
        """The error of the first of these rows that can't be read, with a note naming the row."""
        name = self._name(k)
        numbers = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        place = f"one of the rows {numbers.min()} to {numbers.max()}"
        for row in numbers.tolist():
            try:
                self._read[k](slice(row, row + 1))
            except Exception as own:
                error, place = own, f"row {row % self._lengths[k]}"
                break
        if isinstance(error, StopIteration):  # a loop would take it for the end of the batches
            ended = RuntimeError(f"{name} must have rows at any index, got StopIteration")
            ended.__cause__ = error
            error = ended
        error.add_note(f"where step {step} read {place} of {name}")
        return error

    def _name(self, k: int) -> str:
        """What a source is called in messages."""
        name = self._plan.names[k]
        return f"source {k}" if name == str(k) else f"source {name!r}"

    def _open(self) -> None:
        """Open all sources and compare their first rows, whether or not they meet in a batch."""
        opened = [open_source(data, self._name(k)) for k, data in enumerate(self._data)]
        for k, source in enumerate(opened):
            check_row_spec(source.spec, opened[0].spec, self._name(k), self._name(0))
        self._data = [source.data for source in opened]
        self._read = [source.read for source in opened]
        self._tree = opened[0].spec.tree
        self._lengths = np.array([source.length for source in opened])
        self._by_position = np.array([source.by_position for source in opened])
        self._periods = np.where(self._by_position, sys.maxsize, self._lengths)

    def __getstate__(self) -> dict[str, Any]:
        plan = self._plan._with_known_counts(self._num_steps)
        return {**self.__dict__, "_plan": plan, "_read": None, "_tree": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The parts as one array; a single one is not copied."""
    return np.concatenate(parts) if len(parts) > 1 else parts[0]
