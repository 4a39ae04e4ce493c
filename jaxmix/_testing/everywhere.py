"""An assertion: the same rows, bit for bit, however a function is compiled and sharded."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmix._checks import leaf_name, need, whole_number
from jaxmix._testing.compare import compare
from jaxmix._types import PyTree

AXES = ("outer", "inner")
AXIS_TYPES = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
EXPLICIT_HINT = (
    ". JAX checks the sharding of each operation there, and an array that `fn` makes has none. "
    'axis_types=("auto",) leaves these meshes out'
)


def assert_same_everywhere(
    fn: Callable[..., PyTree],
    *batches: PyTree,
    steps: Sequence[int] = (0, 1, 777),
    max_devices: int | None = None,
    axis_types: Sequence[str] = ("auto", "explicit"),
) -> None:
    """Assert that `fn` gives the same rows, bit for bit, however it is compiled and sharded.

    An eager call is compared with jit, with vmap and scan over steps, and, on 1, 2, 4, ... devices
    that divide the rows, with `pmap`, jit on sharded batches and `shard_map` over one axis and over
    two (from 4 devices). A CPU is one device, unless `JAX_NUM_CPU_DEVICES=8` is set before JAX
    starts. A call compiles for some seconds.

    Args:
      fn: a function ``fn(step, *batches, axis_name=None)`` that returns a tree of arrays with one
        entry per row of the batches: the `rows` of a `MixedBatch`, not its `weights`. With an
        `axis_name`, a name or a tuple of names, the batches are the rows of a shard.
      *batches: trees of arrays [B, ...], the global batch. A function that draws its rows itself,
        as with `draw_rows`, takes ``x = jnp.arange(B)`` and draws ``num_rows=x.shape[0]`` rows.
      steps: the steps to compare.
      max_devices: the most devices to use. By default all devices, which must be two or more. With
        1 only the ways to compile are compared.
      axis_types: the kinds of mesh axes. With "explicit" axes JAX checks the sharding of each
        operation, and code that states none may fail. ``("auto",)`` leaves these meshes out.

    Raises:
      AssertionError: a row differs. The message names the way to run `fn`, the step, the leaf and
        the first such row.
      ValueError: no batches, no steps, fewer devices than `max_devices`, an odd number of rows,
        other `axis_types`, or an `fn` that returns anything but arrays with one entry per row.

    An error of `fn` gets a note with the way to run it and the step.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmix
      >>> from jaxmix.testing import assert_same_everywhere
      >>> def mix(step, x, y, axis_name=None):
      ...     return jaxmix.mix_rows(jax.random.key(0), step, 0.5, x, y, axis_name=axis_name).rows
      >>> assert_same_everywhere(mix, jnp.zeros(8), jnp.ones(8), max_devices=2)
    """
    need(len(steps) > 0, "the number of steps", ">= 1", 0)
    known = isinstance(axis_types, list | tuple) and all(t in list(AXIS_TYPES) for t in axis_types)
    wanted = 'a tuple of "auto" and "explicit"'
    need(known and len(axis_types) > 0, "axis_types", wanted, axis_types)
    there, num_rows = jax.device_count(), _count_rows(batches)
    most = whole_number("max_devices", there if max_devices is None else max_devices, 1)
    devices = "devices (JAX_NUM_CPU_DEVICES=8, set before JAX starts, makes eight)"
    need(most <= there, "max_devices", f"at most {there}, the number of {devices}", most)
    enough = most > 1 or max_devices == 1
    need(enough, "max_devices", f"set to 1 if there are no more {devices}", max_devices)
    divisible = most == 1 or num_rows % 2 == 0
    need(divisible, "the number of rows", "even, so that devices can share them", num_rows)
    results = []
    for step in steps:
        with _located("eager", step):
            results.append(jax.device_get(fn(step, *batches)))
        _check_result(results[-1], num_rows)
    kinds = [kind for name, kind in AXIS_TYPES.items() if name in axis_types]
    for name, run in _ways(fn, batches, most, kinds):
        runs = run(jnp.asarray(steps, jnp.int32))
        for step, want in zip(steps, results, strict=True):
            with _located(name, step):
                got = jax.device_get(next(runs))
            compare(name, step, want, got)


def _count_rows(batches: tuple[PyTree, ...]) -> int:
    """The number of rows B, which all leaves of the batches share."""
    leaves = jax.tree.leaves(batches)
    how = "for a function without one: `jnp.arange(B)`, with `num_rows=x.shape[0]` in `fn`"
    need(len(leaves) > 0, "the number of batches", f">= 1 ({how})", 0)
    first = leaves[0]
    need(np.ndim(first) > 0 and np.size(first) > 0, "a batch", "a tree of arrays with rows", first)
    for k, batch in enumerate(batches):
        for path, leaf in jax.tree.leaves_with_path(batch):
            fine = np.shape(leaf)[:1] == (len(first),)
            need(fine, f"{leaf_name(path)} of batch {k}", f"an array of {len(first)} rows", leaf)
    return len(first)


def _check_result(result: PyTree, num_rows: int) -> None:
    leaves = jax.tree.leaves_with_path(result)
    wanted = f"an array of {num_rows} rows, one per row of the batch"
    need(len(leaves) > 0, "what fn returns", wanted, result)
    for path, leaf in leaves:
        fine = np.shape(leaf)[:1] == (num_rows,)
        how = f"{wanted} (of a `MixedBatch` return `.rows`)"
        need(fine, f"{leaf_name(path)} of what fn returns", how, leaf)


@contextlib.contextmanager
def _located(name: str, step: int) -> Iterator[None]:
    """Add the way to run `fn` and the step to an error."""
    try:
        yield
    except Exception as error:
        hint = EXPLICIT_HINT if AxisType.Explicit.name in name else ""
        error.add_note(f"where fn ran: {name}, step {step}{hint}")
        raise


Run = Callable[[jax.Array], Iterator[PyTree]]


def _ways(
    fn: Callable[..., PyTree],
    batches: tuple[PyTree, ...],
    max_devices: int,
    axis_types: Sequence[AxisType],
) -> Iterator[tuple[str, Run]]:
    """Each way to run `fn`, by name, as a generator function from steps to one result per step."""
    yield "jit", _one_by_one(jax.jit(fn), batches)
    mapped = jax.jit(lambda steps: jax.vmap(lambda step: fn(step, *batches))(steps))
    yield "vmap over steps", _all_at_once(mapped)
    scanned = jax.jit(lambda steps: jax.lax.scan(lambda c, s: (c, fn(s, *batches)), 0, steps)[1])
    yield "scan over steps", _all_at_once(scanned)
    num_rows = jax.tree.leaves(batches)[0].shape[0]
    count = 1
    while count <= max_devices:
        if num_rows % count == 0:
            yield f"pmap on {count} devices", _pmapped(fn, batches, count)
            for axis_type in axis_types:
                yield from _sharded_ways(fn, batches, count, axis_type)
        count *= 2


def _one_by_one(run: Callable[..., PyTree], batches: tuple[PyTree, ...]) -> Run:
    # Blocked at each step: collectives left running on many CPU devices can abort XLA.
    return lambda steps: (jax.block_until_ready(run(step, *batches)) for step in steps)


def _within(mesh: jax.sharding.Mesh, run: Callable[..., PyTree], batches: Any) -> Run:
    def with_mesh(*args: Any) -> PyTree:
        with jax.set_mesh(mesh):  # arrays made in the step are then replicated on the mesh
            return run(*args)

    return _one_by_one(with_mesh, batches)


def _all_at_once(run: Callable[[jax.Array], PyTree]) -> Run:
    def unstacked(steps: jax.Array) -> Iterator[PyTree]:
        stacked = jax.device_get(run(steps))
        for i in range(len(steps)):
            yield jax.tree.map(operator.itemgetter(i), stacked)

    return unstacked


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
