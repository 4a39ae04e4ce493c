"""How the cost of mixing grows: with the batch, the sources, the steps, the devices and the hosts.

    python benchmarks/growth.py [--rounds 5] [--only batch,sources,steps,devices,hosts] [--fast]

`devices`: one shard's draw, compiled as on a mesh of up to 4,096 devices with the index of the
shard given instead of read; nothing is communicated, so the time on one device stands for all.
`hosts`: the rows of one host of up to 512.
"""

import functools
import gc
import itertools
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from in_jit import GAMMA, KEY, looped
from peers import mix_weights, ramp
from timing import in_turn, run_parts, seconds, table, take_next

import jaxmix

Tables = Iterator[dict[str, Any]]

DEVICES = (1, 8, 64, 512, 4096)
BATCH_SIZES = (2**12, 2**16, 2**20)


def batch(rounds: int, fast: bool) -> Tables:
    """Nanoseconds per row of batches of other sizes, two sources."""
    columns = {}
    for size in (2**8, 2**10) if fast else [2**n for n in range(8, 21, 2)]:
        columns[f"B = {size:,}"] = per_row(2, size, rounds)
    yield table("Other batch sizes, K = 2, ns per row", columns)


def sources(rounds: int, fast: bool) -> Tables:
    """Nanoseconds per row of other numbers of sources."""
    columns = {}
    for count in (2, 8) if fast else (2, 8, 35, 168, 1000, 10_000):
        columns[f"K = {count:,}"] = per_row(count, 4096, rounds)
    yield table("Other numbers of sources, B = 4,096, ns per row", columns)


def per_row(num_sources: int, size: int, rounds: int) -> dict[str, np.ndarray]:
    """Of each draw in a compiled loop, and of the rows of a plan, the blocks of steps included."""
    weights: Any = GAMMA if num_sources == 2 else np.full(num_sources, 1 / num_sources)
    in_loop, in_blocks = max(4, 2**18 // size), max(16, min(1024, 2**24 // size))
    runs, steps = {}, {}
    for draw in (jaxmix.bernoulli_sources, jaxmix.systematic_sources):
        loop = looped(functools.partial(drawn, draw, weights), in_loop)
        steps[draw.__name__] = in_loop
        runs[draw.__name__] = functools.partial(loop, jnp.zeros(size, jnp.int32), None)
    for name, mix in (("fixed", mix_weights), ("scheduled", ramp)):
        steps[f"rows of a {name} plan"] = in_blocks
        plan = jaxmix.MixPlan(mix(num_sources), size)
        runs[f"rows of a {name} plan"] = host_rows(plan, in_blocks, 1)
    found = in_turn(runs, rounds, warmup=1)
    return {name: 1e9 * took / steps[name] / size for name, took in found.items()}


def drawn(draw: Callable[..., jax.Array], weights: Any, step: Any, sums: Any, _: Any) -> Any:
    return sums + draw(KEY, step, weights, sums.shape[0])


def steps(rounds: int, fast: bool) -> Tables:
    """A plan opened with nothing saved: seconds, and the memory that it then holds."""
    all_k: Sequence[int] = (2, 8) if fast else (2, 8, 35, 168)
    columns: dict[str, dict[str, Any]] = {f"K = {k}": {} for k in all_k}
    for step in (10**3, 10**5) if fast else [10**n for n in range(3, 8)]:
        for name, make in (("fixed", mix_weights), ("scheduled", ramp)):
            for num_sources in all_k:
                if step > 10**6 and num_sources > 8:
                    continue  # takes a minute, most of it to trace the memory
                weights, column = make(num_sources), columns[f"K = {num_sources}"]
                jaxmix.MixPlan(weights, 256).rows(3000)  # compiled
                run = functools.partial(open_plan, weights, step)
                column[f"step {step:,}, {name}, s"] = seconds(run)
                gc.collect()
                tracemalloc.start()
                plan = run()
                column[f"step {step:,}, {name}, MB held"] = tracemalloc.get_traced_memory()[0] / 1e6
                tracemalloc.stop()
                del plan
    yield table("To give the rows of a step with nothing saved", columns)


def open_plan(weights: Any, step: int) -> jaxmix.MixPlan:
    """A plan that has given the rows of a step."""
    plan = jaxmix.MixPlan(weights, 256)
    plan.rows(step)
    return plan


def on_shard(draw: Callable[..., jax.Array], shards: int) -> Callable[..., jax.Array]:
    """The draw of one of many shards, with its index as an argument."""

    def run(index: jax.Array, *args: Any) -> jax.Array:
        with (
            mock.patch.object(jax.lax, "axis_size", lambda name: shards),
            mock.patch.object(jax.lax, "axis_index", lambda name: index),
        ):
            return draw(*args, axis_name="data")

    return run


def devices(rounds: int, fast: bool) -> Tables:
    """Microseconds of one shard's draw."""
    many = np.full(35, 1 / 35)
    draws = {
        "bernoulli, K = 2": lambda step, rows, **at: jaxmix.bernoulli_sources(
            KEY, step, GAMMA, rows, **at
        ),
        "systematic, K = 35": lambda step, rows, **at: jaxmix.systematic_sources(
            KEY, step, many, rows, **at
        ),
    }
    columns: dict[str, dict[str, Any]] = {}
    for name, one in draws.items():
        for batch_size in BATCH_SIZES[:1] if fast else BATCH_SIZES:
            for shards in DEVICES:
                rows = batch_size // shards
                run = on_shard(one, shards)

                def body(step: Any, sums: Any, index: Any, run: Any = run, n: int = rows) -> Any:
                    return sums + run(index, step, n)

                length = max(8, 2**18 // rows)
                start = jnp.zeros(rows, jnp.int32)
                call = functools.partial(looped(body, length), start, jnp.int32(shards - 1))
                took = in_turn({"draw": call}, rounds)["draw"] / length
                column = columns.setdefault(f"{shards:,} devices", {})
                column[f"{name}, B = {batch_size:,}"] = 1e6 * took
    yield table("One shard's draw, us per step", columns)


def hosts(rounds: int, fast: bool) -> Tables:
    """Microseconds of one host's rows, hosts of 8 devices."""
    columns: dict[str, dict[str, Any]] = {}
    for num_sources in (2, 35):
        first = np.random.default_rng(0).dirichlet(np.ones(num_sources))
        weights = jaxmix.staged_schedule(
            {0: first, 10: np.full(num_sources, 1 / num_sources)}, ramp_steps=10_000
        )
        for batch_size in BATCH_SIZES[:1] if fast else BATCH_SIZES:
            one = jaxmix.MixPlan(weights, batch_size)
            for hosts in sorted({max(1, devices // 8) for devices in DEVICES}):
                per_round = max(20, min(1024, 2**22 // (batch_size // hosts)))
                read = host_rows(one, per_round, hosts)
                took = in_turn({"plan": read}, rounds)["plan"] / per_round
                column = columns.setdefault(f"{hosts:,} hosts", {})
                column[f"K = {num_sources}, B = {batch_size:,}"] = 1e6 * took
    yield table("One host's rows of a scheduled plan, us per step", columns)


def host_rows(plan: jaxmix.MixPlan, count: int, hosts: int) -> Callable[[], None]:
    """Gives one host's rows of the next `count` steps."""
    read = functools.partial(plan.rows, shard_index=hosts // 2, shard_count=hosts)
    return take_next(map(read, itertools.count()), count)


PARTS = {
    "batch": batch,
    "sources": sources,
    "steps": steps,
    "devices": devices,
    "hosts": hosts,
}


if __name__ == "__main__":
    run_parts(__file__, __doc__, PARTS, rounds=5)
