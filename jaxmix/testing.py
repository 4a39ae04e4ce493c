"""Assertions for users' own tests; jaxmix's tests use them too."""

import functools
import itertools
import json
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmix._checks import need, whole_number
from jaxmix._types import PyTree
from jaxmix.counts import ONE
from jaxmix.plan import MixPlan

AXES = ("outer", "inner")


def assert_same_everywhere(
    fn: Callable[..., PyTree],
    *batches: PyTree,
    steps: Sequence[int] = (0, 1, 777),
    max_devices: int | None = None,
) -> None:
    """Assert that `fn` gives the same rows, bit for bit, however it is compiled and sharded.

    Compares eager, jit, vmap over steps, scan over steps, jit on sharded batches, `shard_map` over
    one axis and, from 4 devices, two (meshes with Auto and with Explicit axes) and `pmap`, on 1, 2,
    4, ... devices, as far as they divide the rows.

    Args:
      fn: `fn(step, *batches, axis_name=None) -> tree` whose leaves have the rows first. With an
        `axis_name`, one name or a tuple, the batches are one shard's rows.
      *batches: trees of arrays [B, ...], the global batch.
      steps: the steps to compare.
      max_devices: the most devices to use; all there are by default.

    Raises:
      AssertionError: naming how the function was run, the step, the leaf and the first row that
        differs.
      ValueError: no batches, no steps, or an `fn` that returns no arrays with rows.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmix
      >>> from jaxmix.testing import assert_same_everywhere
      >>> def mix(step, x, y, axis_name=None):
      ...     return jaxmix.mix_rows(jax.random.key(0), step, 0.5, x, y, axis_name=axis_name).rows
      >>> assert_same_everywhere(mix, jnp.zeros(8), jnp.ones(8), max_devices=2)
    """
    need(len(batches) > 0, "the number of batches", ">= 1", 0)
    need(len(steps) > 0, "the number of steps", ">= 1", 0)
    wanted = [jax.device_get(fn(step, *batches)) for step in steps]
    for name, run in _ways(fn, batches, max_devices or jax.device_count()):
        for step, want, got in zip(steps, wanted, run(jnp.asarray(steps, jnp.int32)), strict=True):
            _compare(name, step, want, jax.device_get(got))


def assert_conserves(plan: MixPlan, num_steps: int, *, max_error: float | None = None) -> None:
    """Assert that the counts of a plan are exact at every step below `num_steps`.

    The counts sum to B, none is negative, a source of weight 0 gets none; the rows of source k are
    the next ones, `cursors[k]` to `cursors[k] + counts[k] - 1`, each once; and the cursors stay
    within `max_error` rows of B times the summed weights. Whole numbers throughout, no rounding.

    Args:
      plan: a `MixPlan`, or an object with its methods.
      num_steps: above `plan.first_step`.
      max_error: in rows; by default 1/2 for two sources and 1.5 for more.

    Raises:
      AssertionError: naming the step, the source and what is wrong.

    Example:
      >>> import jaxmix
      >>> from jaxmix.testing import assert_conserves
      >>> assert_conserves(jaxmix.MixPlan([0.5, 0.3, 0.2], batch_size=4), num_steps=100)
    """
    first, num_sources, size = plan.first_step, plan.num_sources, plan.batch_size
    num_steps = whole_number("num_steps", num_steps, first + 1)
    bound = (0.5 if num_sources == 2 else 1.5) if max_error is None else max_error
    cursors = plan.cursors(first).tolist()
    ideal = [cursor * ONE for cursor in cursors]  # in units of 1/ONE row
    for k, owed in enumerate(plan.state(first)["carry"]):
        ideal[k] += owed
    for step in range(first, num_steps):
        counts, rows = plan.counts(step).tolist(), plan.rows(step)
        fine = sum(counts) == size and min(counts) >= 0
        _claim(fine, step, f"counts {counts}, not >= 0 with the sum {size}")
        for k, weight in enumerate(plan.weights_at(step).tolist()):
            name, came = f"source {k}", plan.cursors(step)[k]
            _claim(came == cursors[k], step, f"{name}: cursor {came}, but {cursors[k]} rows used")
            _claim(weight > 0 or counts[k] == 0, step, f"{name}: {counts[k]} rows, weight 0")
            due = range(cursors[k], cursors[k] + counts[k])
            index = sorted(rows.index[rows.source == k].tolist())
            _claim(index == list(due), step, f"{name}: rows {index}, due are {list(due)}")
            error = abs(cursors[k] * ONE - ideal[k]) / ONE
            _claim(error <= bound, step, f"{name}: {error} rows off the ideal, allowed {bound}")
            cursors[k] += counts[k]
            ideal[k] += size * int(weight * ONE)


def _claim(ok: bool, step: int, otherwise: str) -> None:
    if not ok:
        raise AssertionError(f"step {step}: {otherwise}")


Feed = Callable[[int, int, int], Iterable[PyTree]]


def assert_resumes(
    plan: MixPlan | Feed, num_steps: int, *, parts: Sequence[int] = (1, 2, 4, 8)
) -> None:
    """Assert that a run stopped at any step goes on with the same rows, on any number of processes.

    Starts anew at the first and second step, in the middle and at the last step, and compares all
    steps from there on with an unbroken run. A plan goes on from its own `state`, through JSON; it
    is also edited there, and must skip and repeat no row (`assert_conserves`).

    Args:
      plan: a `MixPlan`; or a function `feed(first_step, part, parts)` that starts a run and gives
        one process's part of its batches from a step on, trees of arrays with the rows first.
      num_steps: above the first step.
      parts: numbers of processes to go on with; those that do not divide the rows are left out.

    Raises:
      AssertionError: naming the step it went on at, the number of processes, and the first step,
        leaf and row that differ.

    Example:
      >>> import jaxmix, numpy as np
      >>> from jaxmix.testing import assert_resumes
      >>> plan = jaxmix.MixPlan(0.75, batch_size=8)
      >>> assert_resumes(plan, num_steps=20)
      >>> def feed(first_step, part, parts):
      ...     sources = [np.arange(10), np.arange(100, 110)]
      ...     return jaxmix.plan_batches(plan, sources, 20, part, parts, first_step=first_step)
      >>> assert_resumes(feed, num_steps=20)
    """
    if callable(plan):
        feed, unbroken, first = plan, plan, 0
    else:
        feed, first = functools.partial(_resumed_rows, plan), plan.first_step
        unbroken = functools.partial(_plan_rows, plan)
    num_steps = whole_number("num_steps", num_steps, first + 1)
    wanted = _batches(unbroken, first, num_steps, 1)
    num_rows = max(len(leaf) for leaf in jax.tree.leaves(wanted[0]))
    for stop in sorted(
        {first, (first + num_steps) // 2, num_steps - 1, min(first + 1, num_steps - 1)}
    ):
        for count in (count for count in parts if num_rows % count == 0):
            name = f"going on at step {stop} in {count} processes"
            got = _batches(feed, stop, num_steps, count)
            for step, a, b in zip(range(stop, num_steps), wanted[stop - first :], got, strict=True):
                _compare(name, step, a, b, "unbroken")
        if not callable(plan):
            even = np.full(plan.num_sources, 1.0 / plan.num_sources)
            edited = _again(plan, stop, even, 2 * plan.batch_size)
            at, was = edited.cursors(stop).tolist(), plan.cursors(stop).tolist()
            _claim(at == was, stop, f"edited there, the plan goes on at rows {at}, not {was}")
            assert_conserves(edited, stop + 8)


def _again(plan: MixPlan, step: int, weights: Any, batch_size: int) -> MixPlan:
    """A new plan that goes on from the state of another, as read from a checkpoint."""
    return type(plan)(weights, batch_size, start=json.loads(json.dumps(plan.state(step))))


def _plan_rows(plan: MixPlan, first_step: int, part: int, parts: int) -> Iterator[PyTree]:
    return (plan.rows(step, part, parts)._asdict() for step in itertools.count(first_step))


def _resumed_rows(plan: MixPlan, first_step: int, part: int, parts: int) -> Iterator[PyTree]:
    again = _again(plan, first_step, plan.weights, plan.batch_size)
    return _plan_rows(again, first_step, part, parts)


def _batches(feed: Feed, first_step: int, num_steps: int, parts: int) -> list[PyTree]:
    """The whole batches of some steps, put together from the parts of all processes."""
    length = num_steps - first_step
    runs = [list(itertools.islice(feed(first_step, p, parts), length)) for p in range(parts)]
    for part, run in enumerate(runs):
        ends = f"part {part} of {parts} ends after {len(run)} batches"
        _claim(len(run) == length, first_step + len(run), ends)
    return [jax.tree.map(_joined, *pieces) for pieces in zip(*runs, strict=True)]


def _joined(*leaves: Any) -> np.ndarray:
    """The parts of a leaf with rows as one; of a leaf without rows, the different values."""
    return np.concatenate(leaves) if np.ndim(leaves[0]) else np.unique(np.asarray(leaves))


def _compare(name: str, step: int, want: PyTree, got: PyTree, other: str = "eager") -> None:
    leaves, structure = jax.tree.flatten_with_path(want)
    ranks = [np.ndim(leaf) for _, leaf in leaves]
    need(min(ranks, default=0) > 0, "what fn returns", "a tree of arrays, rows first", ranks)
    if jax.tree.structure(got) != structure:
        raise AssertionError(f"{name}, step {step}: {jax.tree.structure(got)}, {other} {structure}")
    for (path, a), b in zip(leaves, jax.tree.leaves(got), strict=True):
        where = f"{name}, step {step}, leaf {jax.tree_util.keystr(path) or '.'}"
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape or a.dtype != b.dtype:
            raise AssertionError(f"{where}: {b.dtype}{b.shape}, {other} {a.dtype}{a.shape}")
        off = np.argwhere([x.tobytes() != y.tobytes() for x, y in zip(a, b, strict=True)])
        if off.size:
            row = int(off[0, 0])
            raise AssertionError(f"{where}: row {row} is {b[row]}, {other} {a[row]}")


Run = Callable[[jax.Array], Sequence[PyTree]]


def _ways(
    fn: Callable[..., PyTree], batches: tuple[PyTree, ...], max_devices: int
) -> Iterator[tuple[str, Run]]:
    """Each way to run `fn`, by name, as a function from steps to one result a step."""
    yield "jit", _one_by_one(jax.jit(fn), batches)
    mapped = jax.jit(lambda steps: jax.vmap(lambda step: fn(step, *batches))(steps))
    yield "vmap over steps", lambda steps: _unstacked(mapped(steps), len(steps))
    scanned = jax.jit(lambda steps: jax.lax.scan(lambda c, s: (c, fn(s, *batches)), 0, steps)[1])
    yield "scan over steps", lambda steps: _unstacked(scanned(steps), len(steps))
    num_rows = jax.tree.leaves(batches)[0].shape[0]
    count = 1
    while count <= max_devices:
        if num_rows % count == 0:
            yield f"pmap on {count} devices", _pmapped(fn, batches, count)
            for axis_type in (AxisType.Auto, AxisType.Explicit):
                yield from _sharded_ways(fn, batches, count, axis_type)
        count *= 2


def _one_by_one(run: Callable[..., PyTree], batches: tuple[PyTree, ...]) -> Run:
    # Blocked at each step: collectives left running on many CPU devices can abort XLA.
    return lambda steps: [jax.block_until_ready(run(step, *batches)) for step in steps]


def _within(mesh: jax.sharding.Mesh, run: Callable[..., PyTree], batches: Any) -> Run:
    def with_mesh(*args: Any) -> PyTree:
        with jax.set_mesh(mesh):  # now what the step makes is typed as replicated
            return run(*args)

    return _one_by_one(with_mesh, batches)


def _unstacked(stacked: PyTree, count: int) -> list[PyTree]:
    stacked = jax.device_get(stacked)
    return [jax.tree.map(operator.itemgetter(i), stacked) for i in range(count)]


def _pmapped(fn: Callable[..., PyTree], batches: tuple[PyTree, ...], count: int) -> Run:
    parts = jax.tree.map(lambda a: a.reshape(count, a.shape[0] // count, *a.shape[1:]), batches)
    mapped = jax.pmap(
        functools.partial(fn, axis_name="rows"),
        axis_name="rows",
        in_axes=(None, *(0 for _ in batches)),
        devices=jax.devices()[:count],
    )

    def joined(step: Any, *parts: PyTree) -> PyTree:
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), mapped(step, *parts))

    return _one_by_one(joined, parts)


def _sharded_ways(
    fn: Callable[..., PyTree], batches: tuple[PyTree, ...], count: int, axis_type: AxisType
) -> Iterator[tuple[str, Run]]:
    kind = f"{count} devices ({axis_type.name} axes)"
    devices = np.asarray(jax.devices()[:count])
    meshes = [((count,), ("rows",))] + [((2, count // 2), AXES)] * (count >= 4)
    for shape, names in meshes:
        mesh = jax.sharding.Mesh(
            devices.reshape(shape), names, axis_types=(axis_type,) * len(names)
        )
        rows = PartitionSpec(names)
        sharded = jax.device_put(batches, NamedSharding(mesh, rows))
        shard = functools.partial(fn, axis_name=names if len(names) > 1 else names[0])
        in_specs = (PartitionSpec(), *(rows for _ in batches))
        mapped = jax.jit(jax.shard_map(shard, mesh=mesh, in_specs=in_specs, out_specs=rows))
        yield f"shard_map over {len(names)} axes of {kind}", _one_by_one(mapped, sharded)
        if len(names) == 1:
            yield f"jit of batches sharded over {kind}", _within(mesh, jax.jit(fn), sharded)
