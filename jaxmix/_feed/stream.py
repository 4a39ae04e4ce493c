"""Batches of a plan from sources that can only be iterated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmix._checks import need, whole_number
from jaxmix._feed.feed import ON_END
from jaxmix._feed.row_spec import check_row_spec, example_spec
from jaxmix._feed.stacking import stack_examples
from jaxmix._feed.streams import Ended, Stream
from jaxmix._plan.plan import MixPlan

KIND = "jaxmix.PlanStream"


class PlanStream:
    """The batches of a plan from streams: sources without length and without random access.

    It is an iterator of the batches from `plan.first_step` on, as from `PlanSource` but without
    `"index"`. Counts are exact: step t takes from each stream its count in the plan. Position n of
    a source is the n-th row of its stream, so shuffle inside the stream.

    `get_state()` returns the state of all streams, and `set_state(state)` restores it: the batches
    after it are the same. grain's iterators, and HuggingFace streams without a shuffle buffer, are
    restored by their own states. Other streams skip the rows that were used; so does a plan with a
    `first_step` above 0 without a state.

    On another number of processes, or another order of them, the rows may be different. If you need
    the same rows there, use `PlanSource`.

    Args:
      plan: a `MixPlan`.
      iterables: one stream for each source, in the order of the plan or in a dict by name, all with
        the same leaves. A stream is an iterable (HuggingFace IterableDataset, grain IterDataset,
        tf.data Dataset), an iterator such as a generator, or a function that returns one of these.
      num_steps: the end of the run, counted from step 0 even if `plan.first_step` is later.
      on_end: what happens where a stream ends. "error": ValueError that names it. "stop": the run
        ends before that step. "cycle": the stream is iterated again (a generator can't be).
      shard_index, shard_count: the part of each batch for this process, one of `shard_count`
        contiguous parts; `shard_count` must divide B. Each process passes its own streams, and all
        of their rows are its own.

    Raises:
      ValueError, TypeError: streams that are too many or too few, empty or unlike; a state of
        another plan or shard; several shards of a plan that begins after step 0, without a state.

    Example:
      >>> import itertools, jaxmix
      >>> plan = jaxmix.MixPlan(0.75, batch_size=4)
      >>> stream = jaxmix.PlanStream(plan, [itertools.count(), itertools.count(100)], num_steps=5)
      >>> [batch["rows"].tolist() for batch in stream][:2]
      [[2, 1, 0, 100], [3, 101, 5, 4]]
    """

    def __init__(
        self,
        plan: MixPlan,
        iterables: Sequence[Any] | Mapping[str, Any],
        num_steps: int,
        *,
        on_end: str = "error",
        shard_index: int = 0,
        shard_count: int = 1,
    ):
        need(isinstance(plan, MixPlan), "plan", "a MixPlan", plan, TypeError)
        need(on_end in ON_END, "on_end", f"one of {ON_END}", on_end)
        self._num_steps = whole_number("num_steps", num_steps, plan.first_step)
        plan.rows(plan.first_step, shard_index=shard_index, shard_count=shard_count)  # checks them
        self._plan, self._on_end = plan, on_end
        self._shard = {"shard_index": shard_index, "shard_count": shard_count}
        given = plan._matched("iterables", iterables)
        self._names = [f"source {name!r}" for name in plan.names]
        pairs = zip(given, self._names, strict=True)
        self._streams = [Stream(source, name) for source, name in pairs]
        self._specs = [self._first_spec(k) for k in range(len(given))]
        for k, spec in enumerate(self._specs):
            check_row_spec(spec, self._specs[0], self._names[k], self._names[0])
        self._step, self._is_set, self._done = plan.first_step, plan.first_step == 0, False

    def __repr__(self) -> str:
        return f"PlanStream({self._plan!r}, num_steps={self._num_steps}, step={self._step})"

    def __iter__(self) -> PlanStream:
        return self

    def __next__(self) -> dict[str, Any]:
        if self._done or self._step >= self._num_steps:
            raise StopIteration
        if not self._is_set:
            self._skip_to_first_step()
        step = self._step
        source, position = self._plan.rows(step, **self._shard)
        counts = np.bincount(source, minlength=len(self._streams)).tolist()
        examples = self._take(counts, step)
        if examples is None:
            self._done = True
            raise StopIteration
        parts = [
            stack_examples(rows, len(rows), self._specs[k], self._names[k])
            for k, rows in enumerate(examples)
            if rows
        ]
        place = np.empty(len(source), np.int64)  # of each row among all rows by source
        place[np.lexsort((position, source))] = np.arange(len(source))
        leaves = [np.concatenate(leaf).take(place, axis=0) for leaf in zip(*parts, strict=True)]
        self._step = step + 1
        rows = self._specs[0].tree.unflatten(leaves)
        return {"rows": rows, "source": source, "position": position, "step": np.int32(step)}

    def get_state(self) -> dict[str, Any]:
        """Return the state of all streams, for `set_state`: plain numbers and strings, for JSON."""
        streams = zip(self._plan.names, self._streams, strict=True)
        kept = {name: stream.state() for name, stream in streams}
        return {"kind": KIND, "step": self._step, **self._shard, "streams": kept}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state from `get_state`: the next batch is the one that came after it."""
        ours = isinstance(state, Mapping) and state.get("kind") == KIND
        need(ours, "state", "the dict of `PlanStream.get_state`", state)
        shard = {name: state[name] for name in self._shard}
        need(shard == self._shard, "state", f"of shard {self._shard}", shard)
        step, first = state["step"], self._plan.first_step
        inside = first <= step <= self._num_steps
        need(inside, "the step of `state`", f"in [{first}, {self._num_steps}]", step)
        kept = state["streams"]
        for name, stream in zip(self._plan.names, self._streams, strict=True):
            if name in kept:  # a source that an edit added starts at its first row
                stream.set_state(kept[name], self._on_end == "cycle")
        self._step, self._is_set, self._done = step, True, False

    def _take(self, counts: list[int], step: int) -> list[list[Any]] | None:
        """The rows of a step from each stream; None if a stream ends and the run may stop.

        All rows are taken or none, so that a failed step can be repeated.
        """
        examples: list[list[Any]] = []
        before = [(stream.epoch, stream.rows) for stream in self._streams]
        try:
            for k, count in enumerate(counts):
                examples.append(self._streams[k].take(count, self._on_end == "cycle"))
        except BaseException as error:
            for k, taken in enumerate(examples):
                self._streams[k].give_back(taken, *before[k])
            if not isinstance(error, Ended):
                error.add_note(f"where step {step} read {self._names[len(examples)]}")
                raise
        if len(examples) == len(counts):
            return examples
        if self._on_end == "stop":
            return None
        k = len(examples)
        raise ValueError(
            f"{self._names[k]} must have rows for {self._num_steps} steps (or set on_end='cycle' "
            f"or 'stop'), got its end at step {step}, after {before[k][1]} rows"
        )

    def _first_spec(self, k: int) -> Any:
        try:
            return example_spec(self._streams[k].peek(), self._names[k])
        except Ended:
            raise ValueError(f"{self._names[k]} must have at least one row, got none") from None

    def _skip_to_first_step(self) -> None:
        first, shards = self._plan.first_step, self._shard["shard_count"]
        wanted = f"given a state by `set_state` to begin at step {first} in shards"
        need(shards == 1, "the stream", wanted, f"{shards} shards and no state")
        for stream, count in zip(self._streams, self._plan.cursors(first).tolist(), strict=True):
            stream.skip(count, self._on_end == "cycle")
        self._is_set = True
