"""Batches from a plan: plain arrays, or through grain, whose workers and checkpoints then apply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmix._checks import need, whole_number
from jaxmix._feed.readers import Reader, RowNumbers, check_row_spec, make_reader
from jaxmix._plan.names import match_by_name
from jaxmix._plan.plan import MixPlan
from jaxmix._plan.timeline import StepRows

ON_END = ("cycle", "stop", "error")


class PlanSource:
    """The batches of a plan, by step: a random access source, for grain or by itself.

    Element t is `{"rows", "source", "position", "index", "step"}`: a tree of arrays [b, ...] with
    the leaves of the sources; the source of each row, int32 [b]; its position in that source,
    counted through all epochs, int64 [b]; the row of the source that was read there, int64 [b]; and
    the step, int32. Iterating gives the batches from `plan.first_step` on, `batches(t)` those from
    step t on. `grain.MapDataset.source(PlanSource(...))` is batched already, so the number of
    workers, threads and prefetched elements changes no row, and a run continues at step t with
    `[t:]`.

    Args:
      plan: a `MixPlan`.
      sources: one a source of the plan, in their order or a dict by name. An array, or a dict or
        other tree of arrays of one length (NumPy, memory-mapped and the like); a list of examples;
        a grain MapDataset; a HuggingFace dataset; any object with `len` and `[i]`. All with the
        same leaves. Arrays, lists and HuggingFace datasets are asked for one slice a step, or by
        index for a part of the batch.
      num_steps: the steps, counted from step 0 whatever `plan.first_step` is.
      shard_index, shard_count: this process's contiguous part of each batch; `shard_count` must
        divide B. Only its own rows are read.
      on_end: what happens where a source ends. "cycle": its next epoch begins. "stop": the length
        is cut to the last step that all sources can serve. "error": ValueError at once, naming the
        source and the step. Never another source's row, never a short batch.

    Raises:
      ValueError, TypeError: as said; sources that are too many or few, empty, not alike, or give
        None for a row. IndexError: a step outside the plan.

    With grain: keep the seeds of shuffled sources apart (0, 1000, 2000), since the shuffle of seed
    s in its next epoch is that of seed s + 1. Don't `filter` a source; its length must be known.
    `mp_prefetch` needs `if __name__ == "__main__":` and, in grain 0.2.18,
    `absl.flags.FLAGS.mark_as_parsed()`; its workers need no JAX device. An iterator's checkpoint is
    for one number of workers, `[t:]` for any. Past the end a grain MapDataset starts again at step
    0. Close an iterator that you leave half-way.

    Example:
      >>> import jaxmix, numpy as np
      >>> plan = jaxmix.MixPlan(0.75, batch_size=4)
      >>> source = jaxmix.PlanSource(plan, [np.arange(10), np.arange(100, 110)], num_steps=5)
      >>> source[0]["rows"].tolist(), source[1]["rows"].tolist()
      ([2, 1, 0, 100], [4, 3, 101, 5])
    """

    def __init__(
        self,
        plan: MixPlan,
        sources: Sequence[Any] | Mapping[str, Any],
        num_steps: int,
        *,
        shard_index: int = 0,
        shard_count: int = 1,
        on_end: str = "cycle",
    ):
        need(isinstance(plan, MixPlan), "plan", "a MixPlan", plan, TypeError)
        need(on_end in ON_END, "on_end", f"one of {ON_END}", on_end)
        num_steps = whole_number("num_steps", num_steps, plan.first_step)
        found = match_by_name("sources", sources, plan.names)
        plan.rows(plan.first_step, shard_index=shard_index, shard_count=shard_count)  # is it one?
        self._plan, self._shard_index, self._shard_count = plan, shard_index, shard_count
        self._sources = found
        self._read, lengths = self._open()
        plan._checked_lengths(lengths)
        self._lengths = np.asarray(lengths)
        if on_end != "cycle":
            for k, step in enumerate(plan.runs_out_at(num_steps, lengths)):
                if step is not None and on_end == "error":
                    wanted = f"of enough rows for {num_steps} steps or on_end 'cycle' or 'stop'"
                    need(
                        False,
                        f"source {k}",
                        wanted,
                        f"{lengths[k]} rows, too few from step {step} on",
                    )
                num_steps = num_steps if step is None else min(num_steps, step)
        self._num_steps = num_steps

    def __len__(self) -> int:
        return self._num_steps

    def __repr__(self) -> str:
        return f"PlanSource({self._plan!r}, num_steps={self._num_steps})"

    def __getitem__(self, index: int) -> dict[str, Any]:  # grain's name for the step
        if not self._plan.first_step <= index < self._num_steps:
            wanted = f"in [{self._plan.first_step}, {self._num_steps})"
            raise IndexError(f"step must be {wanted}, got {index}")
        timeline = self._plan._timeline
        step_rows = timeline.rows(index, self._shard_index, self._shard_count)
        planned = timeline.planned(step_rows, self._shard_count)
        order, reads = self._reads(step_rows)
        found = [(k, *self._read[k](places)) for k, places in reads]
        first, _, row_spec = found[0]
        for k, _, other in found:
            if other is not row_spec:
                check_row_spec(other, row_spec, f"source {k}", f"source {first}")
        columns = zip(*(leaves for _, leaves, _ in found), strict=True)
        rows = row_spec.tree.unflatten(
            [np.concatenate(parts).take(order, axis=0) for parts in columns]
        )
        index_of_row = planned.position % self._lengths.take(planned.source)
        at = {"index": index_of_row, "step": np.int32(index)}
        return {"rows": rows, **planned._asdict(), **at}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.batches(self._plan.first_step)

    def batches(self, first_step: int) -> Iterator[dict[str, Any]]:
        """The batches from `first_step` on, in order; none where the run is done."""
        begin = whole_number("first_step", first_step, self._plan.first_step)
        done = f"at most {self._num_steps}, the end of the run"
        need(begin <= self._num_steps, "first_step", done, first_step)
        return (self[step] for step in range(begin, self._num_steps))

    def _reads(self, step_rows: StepRows) -> tuple[np.ndarray, list[tuple[int, RowNumbers]]]:
        """What to read of each source, rising, and where in that each row of the batch is."""
        counts, base, slots = step_rows
        ends = counts.cumsum()
        reads: list[tuple[int, RowNumbers]] = []
        if self._shard_count == 1:
            starts, stops = (base + ends - counts).tolist(), (base + ends).tolist()
            for k in counts.nonzero()[0].tolist():
                reads.append((k, range(starts[k], stops[k])))
            return slots, reads
        own = np.sort(slots)
        first = 0
        for k, stop in enumerate(own.searchsorted(ends).tolist()):
            if stop > first:
                places = own[first:stop] + base[k]
                low, high = int(places[0]), int(places[-1]) + 1
                reads.append((k, range(low, high) if high - low == stop - first else places))
            first = stop
        return own.searchsorted(slots), reads

    def _open(self) -> tuple[list[Reader], list[int]]:
        """A reader for each source, and their lengths."""
        readers, lengths = [], []
        for k, source in enumerate(self._sources):
            length, reader = make_reader(source, f"source {k}")
            need(length > 0, f"source {k}", "of at least one row", "none")
            readers.append(reader)
            lengths.append(length)
        return readers, lengths

    def __getstate__(self) -> dict[str, Any]:
        plan = self._plan._with_known_counts(self._num_steps)
        return {**self.__dict__, "_plan": plan, "_read": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._read, _ = self._open()


class PlanSelectionMap:
    """The plan row by row: a `DatasetSelectionMap` of grain, for transforms of single rows.

    For `grain.MapDataset.select_from_datasets(datasets, PlanSelectionMap(plan, num_steps))`: row i
    of the global batch of step t is element `plan.rows_before(t) + i`; a run continues at step t
    with `[plan.rows_before(t):]`. Batch before `to_iter_dataset`, as `.batch(B)` of the MapDataset:
    batched afterwards, several workers mix the rows of different steps. Don't `filter` a dataset
    before the mix: a row that is dropped moves all later ones to other steps.

    Raises:
      IndexError: an element outside the plan; so `.repeat()` fails, and `num_steps` is the end.

    Example:
      >>> import jaxmix
      >>> plan = jaxmix.MixPlan(0.75, batch_size=4)
      >>> chosen = jaxmix.PlanSelectionMap(plan, num_steps=5)
      >>> len(chosen), [chosen[i] for i in range(4)]
      (20, [(0, 2), (0, 1), (0, 0), (1, 0)])
    """

    def __init__(self, plan: MixPlan, num_steps: int):
        need(isinstance(plan, MixPlan), "plan", "a MixPlan", plan, TypeError)
        self._num_steps = whole_number("num_steps", num_steps, plan.first_step)
        self._plan = plan
        self._last: tuple[int, list[int], list[int]] = (0, [], [])

    def __len__(self) -> int:
        return self._plan.rows_before(self._num_steps)

    def __repr__(self) -> str:
        return f"PlanSelectionMap({self._plan!r}, num_steps={self._num_steps})"

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first = self._plan.rows_before(self._plan.first_step)
        return (self[element] for element in range(first, len(self)))

    def __getitem__(self, element: int) -> tuple[int, int]:
        last = self._last  # read once: grain's threads share the map
        row = element - last[0]
        if not 0 <= row < len(last[1]):
            first = self._plan.rows_before(self._plan.first_step)
            if not first <= element < len(self):
                raise IndexError(f"element must be in [{first}, {len(self)}), got {element}")
            step = self._plan.step_of_row(element)
            source, position = self._plan.rows(step)
            begin = self._plan.rows_before(step)
            self._last = last = (begin, source.tolist(), position.tolist())
            row = element - begin
        return last[1][row], last[2][row]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plan": self._plan._with_known_counts(self._num_steps)}
