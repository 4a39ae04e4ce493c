"""What mixing costs on a pod: a shard's draw, a host's plan, and both beside a real training step.

    python benchmarks/pod.py [--repeats 20] [--only draw,plan,step]

`draw`: one shard's draw, compiled as on a mesh of up to 4,096 devices with the index of the shard
given instead of asked for; nothing is communicated, so one device tells for all. `plan`: the rows
of one host of up to 512. `step`: the step of `examples/language_model.py` with either feed, beside
the same step on a fixed source, in turns; and, as that is too noisy for 1 %, what mixing and
planning take by themselves.
"""

import argparse
import functools
import itertools
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from in_jit import GAMMA, KEY, in_turn, looped, report

import jaxmix

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

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


def draw(repeats: int) -> None:
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
    print("\n== a shard's draw, us a step: median (10th .. 90th percentile) ==")
    for name, one in draws.items():
        for batch_size in BATCH_SIZES:
            cells = []
            for shards in DEVICES:
                rows = batch_size // shards
                run = on_shard(one, shards)

                def body(step: Any, sums: Any, index: Any, run: Any = run, n: int = rows) -> Any:
                    return sums + run(index, step, n)

                length = max(8, 2**18 // rows)
                start = jnp.zeros(rows, jnp.int32)
                call = functools.partial(looped(body, length), start, jnp.int32(shards - 1))
                seconds = in_turn({"draw": call}, repeats)["draw"] / length
                low, middle, high = 1e6 * np.percentile(seconds, [10, 50, 90])
                cells.append(f"{middle:.1f} ({low:.1f} .. {high:.1f})")
            print(f"{name}, B = {batch_size:,}, on {DEVICES} devices: {' | '.join(cells)}")


def plan(repeats: int) -> None:
    """Microseconds of one host's rows, hosts of 8 devices."""
    print("\n== a host's rows of a scheduled plan, us a step: median (10th .. 90th) ==")
    for num_sources in (2, 35):
        first = np.random.default_rng(0).dirichlet(np.ones(num_sources))
        weights = jaxmix.staged_schedule(
            {0: first, 10: np.full(num_sources, 1 / num_sources)}, ramp_steps=10_000
        )
        for batch_size in BATCH_SIZES:
            one = jaxmix.MixPlan(weights, batch_size)
            cells = []
            for hosts in sorted({max(1, devices // 8) for devices in DEVICES}):
                steps = max(20, min(1024, 2**22 // (batch_size // hosts)))
                seconds = []
                for repeat in range(repeats + 1):
                    begin = time.perf_counter()
                    for step in range(repeat * steps, (repeat + 1) * steps):
                        one.rows(step, shard_index=hosts // 2, shard_count=hosts)
                    seconds.append((time.perf_counter() - begin) / steps)
                low, middle, high = 1e6 * np.percentile(seconds[1:], [10, 50, 90])
                cells.append(f"{middle:.0f} ({low:.0f} .. {high:.0f})")
            title = f"K = {num_sources}, B = {batch_size:,}, on 1, 8, 64, 512 hosts"
            print(f"{title}: {' | '.join(cells)}")


def step(repeats: int) -> None:
    """The language model's step with either feed, to the same step on a fixed source."""
    import language_model as lm

    print("\n== language model, 16 x 128 bytes on one device, ratio to a fixed, unmixed source ==")
    for feed in ("plan", "pool"):
        args = lm.parse(["--feed", feed, "--steps", "100000", "--megabytes", "1"])
        mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        whole, rows = (jax.NamedSharding(mesh, jax.P(*axis)) for axis in ((), ("data",)))
        sources, _ = lm.load_text(args, mesh)
        gamma = jaxmix.cosine_schedule(0.9, 0.2, args.steps)
        one = jaxmix.MixPlan(gamma, args.batch_size)
        fixed_plan = jaxmix.MixPlan([1.0], args.batch_size)
        mixed_feed = lm.plan_feed if feed == "plan" else lm.pool_feed
        feeds = {
            "fixed source": lm.plan_feed(fixed_plan, sources[:1], args, 0, rows),
            "fixed again (noise)": lm.plan_feed(fixed_plan, sources[:1], args, 0, rows),
            f"mixed, --feed {feed}": mixed_feed(one, sources, args, 0, rows),
        }
        graph, state = jax.jit(functools.partial(lm.start_state, args), out_shardings=whole)()
        train_step = jax.jit(functools.partial(lm.train_step, gamma, args, mesh, graph))
        runs = {
            name: functools.partial(segment, train_step, state, fed) for name, fed in feeds.items()
        }
        seconds = in_turn(runs, repeats)
        report(f"--feed {feed}, 10 steps", seconds)
        step_seconds = float(np.median(seconds["fixed source"])) / 10
        if feed == "plan":
            mixed = jaxmix.PlanSource(one, sources, args.steps)
            fixed = jaxmix.PlanSource(fixed_plan, sources[:1], args.steps)
            alone = {name: counted_off(s) for name, s in {"fixed": fixed, "mixed": mixed}.items()}
        else:
            (pool,) = itertools.islice(feeds[f"mixed, --feed {feed}"], 1)
            alone = {
                name: functools.partial(looped(body, 1000), jnp.zeros((16, 128), jnp.uint8), pool)
                for name, body in pool_bodies(gamma, args.batch_size).items()
            }
        took = in_turn(alone, repeats)
        costs = {"in all": took["mixed"], "more than a fixed source": took["mixed"] - took["fixed"]}
        for name, cost in costs.items():
            low, middle, high = 100 * np.percentile(cost / 1000 / step_seconds, [10, 50, 90])
            print(f"    by itself, {name}: {middle:.3f} % of a step ({low:.3f} .. {high:.3f})")


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
    """A batch from the pool: the next rows of one source, or drawn rows of both."""

    def fixed(step: Any, rows: Any, pool: Any) -> jax.Array:
        first = (step * batch_size) % (pool.lengths[0] - batch_size)
        return rows ^ jax.lax.dynamic_slice_in_dim(pool.rows, first, batch_size)

    def mixed(step: Any, rows: Any, pool: Any) -> jax.Array:
        return rows ^ jaxmix.draw_rows(KEY, step, gamma, pool, batch_size).rows

    return {"fixed": fixed, "mixed": mixed}


PARTS = {"draw": draw, "plan": plan, "step": step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--only", default=",".join(PARTS))
    args = parser.parse_args()
    print(f"{platform.machine()}, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    for name in args.only.split(","):
        PARTS[name](args.repeats)


if __name__ == "__main__":
    main()
