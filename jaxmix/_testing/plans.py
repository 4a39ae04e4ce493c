"""Assertions about plans and feeds: exact counts, and the same rows after a restart."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxmix._checks import need, whole_number
from jaxmix._plan.counts import ONE
from jaxmix._plan.plan import MixPlan
from jaxmix._testing.compare import compare
from jaxmix._testing.streams import check_stream, has_state
from jaxmix._types import PyTree


def assert_conserves(plan: MixPlan, num_steps: int, *, max_error: float | None = None) -> None:
    """Assert that the counts of a plan are exact at every step below `num_steps`.

    At each step it checks, in whole numbers:

    - The counts are `>= 0` and their sum is B. A source of weight 0 has no row.
    - The rows of source k are ``cursors[k]`` to ``cursors[k] + counts[k] - 1``, each once, and in
      whole groups.
    - The cursors are within `max_error` rows of the sum of B times the weights.

    Args:
      plan: a `MixPlan`, or an object with its methods.
      num_steps: the end of the steps to check, above `plan.first_step`.
      max_error: in rows; by default 1/2 for two sources and 1.5 for more, times the group size.

    Raises:
      AssertionError: the message names the step, the source and what is wrong.
      ValueError, TypeError: not a plan; `num_steps` not above its first step.

    Example:
      >>> import jaxmix
      >>> from jaxmix.testing import assert_conserves
      >>> assert_conserves(jaxmix.MixPlan([0.5, 0.3, 0.2], batch_size=4), num_steps=100)
    """
    is_plan = hasattr(plan, "cursors")
    need(is_plan, "plan", "a MixPlan or an object with its methods", plan, TypeError)
    first, num_sources, group = plan.first_step, plan.num_sources, plan.group_size
    num_steps = whole_number("num_steps", num_steps, first + 1)
    bound = group * (0.5 if num_sources == 2 else 1.5) if max_error is None else max_error
    cursors = plan.cursors(first).tolist()
    ideal = [cursor * ONE for cursor in cursors]  # in units of 1/ONE row
    for k, owed in enumerate(plan.state(first)["carry"]):
        ideal[k] += owed * group
    table = plan.counts_table(first, num_steps).tolist()
    for step in range(first, num_steps):
        counts, rows = plan.counts(step).tolist(), plan.rows(step)
        size = plan.batch_size_at(step)
        fine = sum(counts) == size and min(counts) >= 0
        _claim(fine, step, f"counts {counts}, not >= 0 with the sum {size}")
        groups = (
            rows.source.reshape(-1, group) if len(rows.source) == size else rows.source[:, None]
        )
        whole = (groups == groups[:, :1]).all()
        _claim(whole, step, f"groups of {group} rows that are not of one source")
        tabled = table[step - first]
        _claim(tabled == counts, step, f"counts {counts}, but {tabled} in the table")
        shapes = rows.source.shape, rows.position.shape
        _claim(shapes == ((size,),) * 2, step, f"rows of shapes {shapes}, not {size} each")
        came = plan.cursors(step).tolist()
        _claim(came == cursors, step, f"cursors {came}, but {cursors} rows used")
        for k, weight in enumerate(plan.weights_at(step).tolist()):
            name = f"source {plan.names[k]}"
            _claim(weight > 0 or counts[k] == 0, step, f"{name}: {counts[k]} rows, weight 0")
            due = range(cursors[k], cursors[k] + counts[k])
            index = sorted(rows.position[rows.source == k].tolist())
            _claim(index == list(due), step, f"{name}: rows {index}, due are {list(due)}")
            error = abs(cursors[k] * ONE - ideal[k]) / ONE
            _claim(error <= bound, step, f"{name}: {error} rows off the ideal, allowed {bound}")
            cursors[k] += counts[k]
            ideal[k] += size * int(weight * ONE)


def _claim(ok: bool, step: int, otherwise: str) -> None:
    if not ok:
        raise AssertionError(f"step {step}: {otherwise}")


Feed = Callable[[int, int, int], Iterable[PyTree]]
RESUMABLE = (
    "a MixPlan, an iterator with `get_state` and `set_state`, or a function, such as "
    "`lambda step, index, count: PlanSource(plan, sources, num_steps, shard_index=index, "
    "shard_count=count).batches(step)`"
)


def assert_resumes(
    plan: MixPlan | Feed | Any,
    num_steps: int,
    *,
    shard_counts: Sequence[int] = (1, 2, 4, 8),
    first_step: int | None = None,
    max_error: float | None = None,
) -> None:
    """Assert that a stopped run continues with the same rows, on any number of processes.

    The run is restarted at its first and second step, in the middle and at the last step. All
    steps from there on are compared with an unbroken run.

    Args:
      plan: one of three things to restart:

        - a `MixPlan`. It continues from its own `state`, through JSON. It is also edited there, and
          must not skip or repeat a row (`assert_conserves`).
        - a function ``feed(first_step, shard_index, shard_count)`` that returns the batches from a
          step on, of one contiguous shard: trees of NumPy or JAX arrays (not lists), rows first. A
          scalar must be the same in all shards.
        - an iterator with `get_state` and `set_state`, such as a `PlanStream`. It is set to its own
          earlier states, through JSON.
      num_steps: the end of the run, above the first step.
      shard_counts: the numbers of processes to continue on. Those that do not divide the rows are
        left out.
      first_step: the first step of the unbroken run, by default the plan's, else 0.
      max_error: as for `assert_conserves`, for the edited plan.

    Raises:
      AssertionError: a row differs. The message names the step of the restart, the number of
        processes, and the first step, leaf and row.
      ValueError, TypeError: no number in `shard_counts` divides the rows; batches without arrays.

    Example:
      >>> import jaxmix, numpy as np
      >>> from jaxmix.testing import assert_resumes
      >>> plan = jaxmix.MixPlan(0.75, batch_size=8)
      >>> assert_resumes(plan, num_steps=20)
      >>> def feed(first_step, shard_index, shard_count):
      ...     shard = {"shard_index": shard_index, "shard_count": shard_count}
      ...     sources = [np.arange(10), np.arange(100, 110)]
      ...     return jaxmix.PlanSource(plan, sources, 20, **shard).batches(first_step)
      >>> assert_resumes(feed, num_steps=20)
    """
    if has_state(plan):
        check_stream(plan, whole_number("num_steps", num_steps, 1))
        return
    if isinstance(plan, MixPlan):
        unbroken = functools.partial(_plan_rows, plan)
        feed, begin = functools.partial(_resumed_rows, plan), plan.first_step
    else:
        need(callable(plan), "plan", RESUMABLE, plan, TypeError)
        feed, unbroken, begin = plan, plan, 0
    first = begin if first_step is None else whole_number("first_step", first_step, begin)
    num_steps = whole_number("num_steps", num_steps, first + 1)
    counts = [whole_number("a shard count", count, 1) for count in shard_counts]
    wanted = _batches(unbroken, first, num_steps, 1)
    lengths = [max(map(len, jax.tree.leaves(batch)), default=0) for batch in wanted]
    need(min(lengths) > 0, "a batch", "a tree of arrays with the rows first", wanted[0])
    divisors = [count for count in counts if math.gcd(*lengths) % count == 0]
    rows = sorted(set(lengths))[:20]
    need(len(divisors) > 0, "shard_counts", f"numbers that divide {rows} rows", counts)
    second = min(first + 1, num_steps - 1)
    for stop in sorted({first, second, (first + num_steps) // 2, num_steps - 1}):
        for count in divisors:
            name = f"restarted at step {stop} in {count} processes"
            got = _batches(feed, stop, num_steps, count)
            for step, a, b in zip(range(stop, num_steps), wanted[stop - first :], got, strict=True):
                compare(name, step, a, b, "unbroken")
        if isinstance(plan, MixPlan):
            group = plan.group_size
            even = np.full(plan.num_sources, 1.0 / plan.num_sources)
            edited = _again(plan, stop, even, (plan.batch_size_at(stop) // group - 1 or 2) * group)
            at, was = edited.cursors(stop).tolist(), plan.cursors(stop).tolist()
            _claim(at == was, stop, f"edited there, the plan continues at rows {at}, not {was}")
            assert_conserves(edited, stop + 8, max_error=max_error)


def _again(plan: MixPlan, step: int, weights: Any, batch_size: Any) -> MixPlan:
    """A new plan that continues from the state of another, as read from a checkpoint."""
    state = json.loads(json.dumps(plan.state(step)))
    same = {"names": plan.names, "group_size": plan.group_size}
    return type(plan)(weights, batch_size, state=state, **same)


def _plan_rows(plan: MixPlan, first_step: int, index: int, count: int) -> Iterator[PyTree]:
    shard = {"shard_index": index, "shard_count": count}
    return (plan.rows(step, **shard)._asdict() for step in itertools.count(first_step))


def _resumed_rows(plan: MixPlan, first_step: int, index: int, count: int) -> Iterator[PyTree]:
    again = _again(plan, first_step, plan.weights, plan.batch_size)
    return _plan_rows(again, first_step, index, count)


def _batches(feed: Feed, first_step: int, num_steps: int, shard_count: int) -> list[PyTree]:
    """The global batches of some steps, joined from the shards of all processes."""
    runs = []
    for index in range(shard_count):
        started = itertools.islice(feed(first_step, index, shard_count), num_steps - first_step)
        run = [jax.tree.map(np.array, batch) for batch in started]  # a feed may reuse its arrays
        end = first_step + len(run)
        _claim(
            end == num_steps, end, f"shard {index} of {shard_count} ends after {len(run)} batches"
        )
        runs.append(run)
    whole = []
    for step, pieces in zip(range(first_step, num_steps), zip(*runs, strict=True), strict=True):
        alike = len({jax.tree.structure(piece) for piece in pieces}) == 1
        _claim(alike, step, f"the {shard_count} shards differ in structure")
        whole.append(jax.tree.map(_joined, *pieces))
    return whole


def _joined(*leaves: np.ndarray) -> np.ndarray:
    """The shards of a leaf with rows joined; of a scalar leaf, its different values."""
    return np.concatenate(leaves) if leaves[0].ndim else np.unique(np.stack(leaves))
