"""What mixing costs on a pod: a shard's draw, a host's plan, and both beside a real training step.

    python benchmarks/pod.py [--rounds 20] [--only draw,plan,step] [--fast]

`draw`: one shard's draw, compiled as on a mesh of up to 4,096 devices with the index of the shard
given instead of read; nothing is communicated, so the time on one device stands for all. `plan`:
the rows of one host of up to 512. `step`: the step of `examples/language_model.py` with each
feed, beside the same step on a fixed source; and, as that is too noisy for 1 %, mixing and
planning alone.
"""

import functools
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from in_jit import GAMMA, KEY, looped
from timing import in_turn, ratios, run_parts, table

import jaxmix

sys.path.append(str(pathlib.Path(__file__).parents[1] / "examples"))

DEVICES = (1, 8, 64, 512, 4096)
BATCH_SIZES = (2**12, 2**16, 2**20)


def on_shard(draw: Callable[..., jax.Array], shards: int) -> Callable[..., jax.Array]:
    """The draw of one of many shards, with its index as an argument."""

    def run(index: jax.Array, *args: Any) -> jax.Array:
        with (
            mock.patch.object(jax.lax, "axis_size", lambda name: shards),
            mock.patch.object(jax.lax, "axis_index", lambda name: index),
        ):
            return draw(*args, axis_name="data")

    return run


def draw(rounds: int, fast: bool) -> Iterator[dict[str, Any]]:
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
                seconds = in_turn({"draw": call}, rounds)["draw"] / length
                column = columns.setdefault(f"{shards:,} devices", {})
                column[f"{name}, B = {batch_size:,}"] = 1e6 * seconds
    yield table("One shard's draw, us per step", columns)


def plan(rounds: int, fast: bool) -> Iterator[dict[str, Any]]:
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
                seconds = in_turn({"plan": read}, rounds)["plan"] / per_round
                column = columns.setdefault(f"{hosts:,} hosts", {})
                column[f"K = {num_sources}, B = {batch_size:,}"] = 1e6 * seconds
    yield table("One host's rows of a scheduled plan, us per step", columns)


def host_rows(plan: jaxmix.MixPlan, count: int, hosts: int) -> Callable[[], None]:
    """Works out one host's rows of the next `count` steps."""
    steps = itertools.count()

    def run() -> None:
        for at in itertools.islice(steps, count):
            plan.rows(at, shard_index=hosts // 2, shard_count=hosts)

    return run


def step(rounds: int, fast: bool) -> Iterator[dict[str, Any]]:
    """The language model's step with each feed, to the same step on a fixed source."""
    import language_model as lm

    columns = {}
    for feed in ("plan",) if fast else ("plan", "planned", "pool"):
        args = lm.parse(["--feed", feed, "--steps", "100000", "--megabytes", "1"])
        axis_types = (jax.sharding.AxisType.Auto,)
        mesh = jax.make_mesh((1,), ("data",), axis_types, devices=list(jnp.zeros(()).devices()))
        whole, rows = (jax.NamedSharding(mesh, jax.P(*axis)) for axis in ((), ("data",)))
        sources, _ = lm.load_text(args, mesh)
        gamma = jaxmix.cosine_schedule(0.9, 0.2, args.steps)
        one = jaxmix.MixPlan(gamma, args.batch_size)
        fixed_plan = jaxmix.MixPlan([1.0], args.batch_size)
        mixed_feed = lm.plan_feed if feed == "plan" else lm.pool_feed
        feeds = {
            "fixed source": lm.plan_feed(fixed_plan, sources[:1], args, 0, rows),
            "fixed again (noise)": lm.plan_feed(fixed_plan, sources[:1], args, 0, rows),
            "mixed": mixed_feed(one, sources, args, 0, rows),
        }
        graph, state = jax.jit(functools.partial(lm.start_state, args), out_shardings=whole)()
        train_step = jax.jit(functools.partial(lm.train_step, gamma, args, mesh, graph))
        runs = {
            name: functools.partial(segment, train_step, state, fed) for name, fed in feeds.items()
        }
        seconds = in_turn(runs, rounds)
        step_seconds = float(np.median(seconds["fixed source"])) / 10
        if feed == "plan":
            mixed = jaxmix.PlanSource(one, sources, args.steps, shuffle=True)
            fixed = jaxmix.PlanSource(fixed_plan, sources[:1], args.steps, shuffle=True)
            alone = {name: counted_off(s) for name, s in {"fixed": fixed, "mixed": mixed}.items()}
        else:
            (pool,) = itertools.islice(feeds["mixed"], 1)
            alone = {
                name: functools.partial(looped(body, 1000), jnp.zeros((16, 128), jnp.uint8), pool)
                for name, body in pool_bodies(gamma, args.batch_size).items()
            }
        took = in_turn(alone, rounds)
        costs = {"in all": took["mixed"], "more than fixed": took["mixed"] - took["fixed"]}
        columns[f"--feed {feed}"] = ratios({name: s / 10 for name, s in seconds.items()}) | {
            f"batches alone, {name}, % of a step": cost / 10 / step_seconds
            for name, cost in costs.items()
        }
    yield table("A language model's step, 16 x 128 bytes, ratio to a fixed source", columns)


def segment(train_step: Any, state: Any, fed: Iterator[Any]) -> Any:
    """Ten steps."""
    for batch in itertools.islice(fed, 10):
        state, last = train_step(state, batch)
        jax.block_until_ready(last)
    return state


def counted_off(source: jaxmix.PlanSource) -> Callable[[], None]:
    """Reads the next thousand batches."""
    steps = itertools.count()

    def run() -> None:
        for at in itertools.islice(steps, 1000):
            source[at]

    return run


def pool_bodies(gamma: Any, batch_size: int) -> dict[str, Callable[..., jax.Array]]:
    """A batch from the pool: the next rows of one source, or the planned or drawn rows of both."""

    def fixed(step: Any, rows: Any, pool: Any) -> jax.Array:
        pool = pool.pool if isinstance(pool, jaxmix.PlannedPool) else pool
        first = (step * batch_size) % (pool.lengths[0] - batch_size)
        return rows ^ jax.lax.dynamic_slice_in_dim(pool.rows, first, batch_size)

    def mixed(step: Any, rows: Any, pool: Any) -> jax.Array:
        if isinstance(pool, jaxmix.PlannedPool):
            return rows ^ pool.take(step).rows
        return rows ^ jaxmix.draw_rows(KEY, step, gamma, pool, batch_size).rows

    return {"fixed": fixed, "mixed": mixed}


PARTS = {"draw": draw, "plan": plan, "step": step}


if __name__ == "__main__":
    run_parts(__file__, __doc__, PARTS, rounds=20)
