"""Batches from a plan: plain arrays, or through grain, whose workers and checkpoints then apply."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxmix._checks import need, whole_number
from jaxmix.blocks import Block
from jaxmix.plan import MixPlan
from jaxmix.readers import Places, Reader, check_likeness, make_reader

ON_END = ("cycle", "stop", "error")


class PlanSource:
    """The batches of a plan, by step: a random access source, for grain or by itself.

    Element t is `{"rows", "source", "index", "step"}`: a tree of arrays [b, ...] with the leaves of
    the sources, the source of each row int32 [b], its index in that source int64 [b] (through all
    epochs), and the step, int32. `grain.MapDataset.source(PlanSource(...))` is batched already, so
    the number of workers, threads and prefetched elements changes no row, and a run goes on at step
    t with `[t:]`.

    Args:
      plan: a `MixPlan`.
      sources: one a source of the plan. An array, or a dict or other tree of arrays of one length
        (NumPy, memory-mapped and the like); a list of examples; a grain MapDataset; a HuggingFace
        dataset; any object with `len` and `[i]`. All with the same leaves. Arrays, lists and
        HuggingFace datasets are asked for one slice a step, or by index for a part of the batch.
      num_steps: the steps, counted from step 0 whatever `plan.first_step` is.
      part, parts: this process's contiguous part of each batch; `parts` must divide B. Only its
        own rows are read.
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
        sources: Sequence[Any],
        num_steps: int,
        part: int = 0,
        parts: int = 1,
        on_end: str = "cycle",
    ):
        need(isinstance(plan, MixPlan), "plan", "a MixPlan", plan, TypeError)
        need(on_end in ON_END, "on_end", f"one of {ON_END}", on_end)
        num_steps = whole_number("num_steps", num_steps, plan.first_step)
        count = plan.num_sources
        need(len(sources) == count, "sources", f"{count}, one a source of the plan", len(sources))
        plan.locate(plan.first_step, part, parts)  # refuses a wrong part
        self._plan, self._part, self._parts = plan, part, parts
        self._sources = list(sources)
        self._read, lengths = self._open()
        if on_end != "cycle":
            for k, step in enumerate(plan.first_step_beyond(lengths, num_steps)):
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
        place = self._plan.locate(index, self._part, self._parts)
        planned = self._plan.rows_at(*place)
        order, reads = self._reads(*place)
        found = [(k, *self._read[k](places)) for k, places in reads]
        first, _, likeness = found[0]
        for k, _, other in found:
            if other is not likeness:
                check_likeness(other, likeness, f"source {k}", f"source {first}")
        columns = zip(*(leaves for _, leaves, _ in found), strict=True)
        rows = likeness.tree.unflatten(
            [np.concatenate(parts).take(order, axis=0) for parts in columns]
        )
        return {"rows": rows, **planned._asdict(), "step": np.int32(index)}

    def _reads(
        self, block: Block, line: int, slots: np.ndarray
    ) -> tuple[np.ndarray, list[tuple[int, Places]]]:
        """What to read of each source, rising, and where in that each row of the batch is."""
        counts, base = block.counts[line], block.base[line]
        ends = counts.cumsum()
        reads: list[tuple[int, Places]] = []
        if self._parts == 1:
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
        self._plan = self._plan.with_known_counts(self._num_steps)
        return {**self.__dict__, "_read": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._read, _ = self._open()


class PlanSelectionMap:
    """The plan row by row: a `DatasetSelectionMap` of grain, for transforms of single rows.

    For `grain.MapDataset.select_from_datasets(datasets, PlanSelectionMap(plan, num_steps))`: row i
    of the global batch of step t is element `t * B + i`; a run goes on at step t with `[t * B:]`.
    Batch before `to_iter_dataset`, as `.batch(B)` of the MapDataset: batched afterwards, several
    workers mix the rows of different steps. Don't `filter` a dataset before the mix: a row that is
    dropped moves all later ones to other steps.

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
        self._last: tuple[int | None, list[int], list[int]] = (None, [], [])

    def __len__(self) -> int:
        return self._num_steps * self._plan.batch_size

    def __repr__(self) -> str:
        return f"PlanSelectionMap({self._plan!r}, num_steps={self._num_steps})"

    def __getitem__(self, element: int) -> tuple[int, int]:
        step, row = divmod(element, self._plan.batch_size)
        last = self._last  # read once: grain's threads share the map
        if last[0] != step:
            if not self._plan.first_step <= step < self._num_steps:
                first = self._plan.first_step * self._plan.batch_size
                raise IndexError(f"element must be in [{first}, {len(self)}), got {element}")
            source, index = self._plan.rows(step)
            self._last = last = (step, source.tolist(), index.tolist())
        return last[1][row], last[2][row]

    def __getstate__(self) -> dict[str, Any]:
        self._plan = self._plan.with_known_counts(self._num_steps)
        return self.__dict__


def plan_batches(
    plan: MixPlan,
    sources: Sequence[Any],
    num_steps: int,
    part: int = 0,
    parts: int = 1,
    on_end: str = "cycle",
    *,
    first_step: int | None = None,
) -> Iterator[dict[str, Any]]:
    """The batches of a plan in order, without grain: a plain iterator.

    `plan`, `sources`, `num_steps`, `part`, `parts`, `on_end` and the elements are those of
    `PlanSource`. It begins at `first_step`, by default that of the plan: a run that stopped before
    step t goes on with `first_step=t`.

    Example:
      >>> import jaxmix, numpy as np
      >>> plan = jaxmix.MixPlan(0.75, batch_size=4)
      >>> sources = [np.arange(10), np.arange(100, 110)]
      >>> for batch in jaxmix.plan_batches(plan, sources, num_steps=2):
      ...     print(batch["step"], batch["rows"])
      0 [  2   1   0 100]
      1 [  4   3 101   5]
    """
    source = PlanSource(plan, sources, num_steps, part, parts, on_end)
    begin = plan.first_step if first_step is None else first_step
    begin = whole_number("first_step", begin, plan.first_step)
    return (source[step] for step in range(begin, len(source)))
