"""A plan row by row, for grain's transforms of single rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmix._checks import need, shown, whole_number
from jaxmix._feed.row_order import host_index, row_order
from jaxmix._mixing.block_shuffle import BlockShuffle
from jaxmix._plan.plan import MixPlan


class PlanSelectionMap:
    """A plan row by row: a `DatasetSelectionMap` of grain, for transforms of single rows.

    Pass it to `grain.MapDataset.select_from_datasets(datasets, selection_map)`. Element
    ``plan.rows_before(t) + i`` is row i of the global batch of step t, as a pair (source,
    position). To continue at step t, slice with ``[plan.rows_before(t):]``.

    Call `.batch(B)` before `.to_iter_dataset()`: otherwise several workers mix the rows of
    different steps. Don't `filter` a dataset before the mix: a dropped row moves all later rows.

    Args:
      plan: a `MixPlan`.
      num_steps: the end of the run, counted from step 0 even if `plan.first_step` is later.
      shuffle: as for `PlanSource`, which gives the same rows.
      lengths: the rows of each source, in order or by name; needed for a shuffle.

    Raises:
      ValueError, TypeError: a shuffle without lengths; a dict of weights without `names`, whose
        order differs from the plan's.
      IndexError: an element outside the plan. So `.repeat()` fails at the end of the run.

    Example:
      >>> import jaxmix
      >>> plan = jaxmix.MixPlan(0.75, batch_size=4)
      >>> chosen = jaxmix.PlanSelectionMap(plan, num_steps=5)
      >>> len(chosen), [chosen[i] for i in range(4)]
      (20, [(0, 2), (0, 1), (0, 0), (1, 0)])
    """

    def __init__(
        self,
        plan: MixPlan,
        num_steps: int,
        *,
        shuffle: bool | BlockShuffle = False,
        lengths: Sequence[int] | Mapping[str, int] | None = None,
    ):
        need(isinstance(plan, MixPlan), "plan", "a MixPlan", plan, TypeError)
        self._num_steps = whole_number("num_steps", num_steps, plan.first_step)
        if plan._is_reordered:
            raise ValueError(
                "plan must have names=[...] in the order of the datasets, got a dict of weights "
                f"that was sorted to {shown(list(plan.names))}"
            )
        self._order = row_order(shuffle, plan.seed, plan.names)
        known = self._order.seeds is None or lengths is not None
        need(known, "lengths", "the rows of each source, to shuffle them", lengths)
        sizes = [] if lengths is None else plan._checked_lengths(lengths)
        for k, length in enumerate(sizes):
            self._order.need_length(length, f"source {plan.names[k]!r}")
        self._lengths = np.array(sizes, np.int64)
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
            if self._order.seeds is not None:
                n = self._lengths.take(source)
                index = host_index(self._order, source, position, self._lengths)
                position = position - position % n + index  # the same row of the same epoch
            begin = self._plan.rows_before(step)
            self._last = last = (begin, source.tolist(), position.tolist())
            row = element - begin
        return last[1][row], last[2][row]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plan": self._plan._with_known_counts(self._num_steps)}
