"""The host side of a mix, side by side: nanoseconds per row, and the cost of opening a plan.

    python benchmarks/host_plan.py [--rounds 9] [--only rows,batches,opening,preview,edits] [--fast]

Prints five tables. grain, HuggingFace datasets,
torchdata and tf.data are measured where they are installed. The peers' weights are fixed; the
plan's are fixed or scheduled. A batch has rows of float32 [8] from arrays in memory, or plain ints
where it says so. Plan rows are timed over whole blocks of steps, the planning included.
"""

import gc
import importlib
import importlib.util
import itertools
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from timing import in_turn, run_parts, table, turned

import jaxmix

Tables = Iterator[dict[str, Any]]

Run = Callable[[], int]
"""Works through some rows and says how many."""


def mix_weights(num_sources: int) -> np.ndarray:
    """1/rank in a fixed shuffled order; 0.7 and 0.3 for two sources."""
    if num_sources == 2:
        return np.array([0.7, 0.3])
    weights = 1.0 / (1.0 + np.random.default_rng(0).permutation(num_sources))
    return weights / weights.sum()


def ramp(num_sources: int) -> Callable[[Any], Any]:
    """A schedule that goes from these weights to even ones and back."""
    first = jnp.asarray(mix_weights(num_sources), jnp.float32)

    def schedule(step: Any) -> Any:
        share = 0.5 - 0.5 * jnp.cos(jnp.asarray(step, jnp.float32) / 1000.0)
        return (1.0 - share) * first + share / num_sources

    return schedule


def plan_rows(plan: jaxmix.MixPlan, rows: int) -> Run:
    """Works through the steps, and plans a block of 1,024 every time."""
    batch_size = plan.batch_size_at(0)
    steps, count = itertools.count(), max(1024, rows // batch_size)

    def run() -> int:
        for step in itertools.islice(steps, count):
            plan.rows(step)
        return count * batch_size

    return run


def elements(iterator: Iterator[Any], batch_size: int, rows: int) -> Run:
    count = max(1, rows // batch_size)

    def run() -> int:
        for _ in range(count):
            next(iterator)
        return count * batch_size

    return run


def items(source: Any, batch_size: int, rows: int) -> Run:
    return elements((source[i] for i in itertools.count()), batch_size, rows)


def grain_mix(
    sources: Sequence[np.ndarray], weights: np.ndarray, batch_size: int, rows: int
) -> Run:
    import grain

    found: Sequence[Any] = sources
    datasets = [grain.MapDataset.source(source).repeat() for source in found]
    return items(
        grain.MapDataset.mix(datasets, weights.tolist()).batch(batch_size), batch_size, rows
    )


def grain_ints(
    sources: Sequence[np.ndarray], weights: np.ndarray, batch_size: int, rows: int
) -> Run:
    import grain

    datasets = [grain.MapDataset.range(2**40) for _ in sources]
    return items(
        grain.MapDataset.mix(datasets, weights.tolist()).batch(batch_size), batch_size, rows
    )


def hf_interleave(
    sources: Sequence[np.ndarray], weights: np.ndarray, batch_size: int, rows: int
) -> Run:
    import datasets

    parts = [
        datasets.Dataset.from_dict({"x": source}).with_format("numpy").to_iterable_dataset()
        for source in sources
    ]
    mixed = datasets.interleave_datasets(
        parts, probabilities=weights.tolist(), seed=0, stopping_strategy="all_exhausted"
    )
    return elements(iter(mixed.batch(batch_size)), batch_size, rows)


def torchdata_mix(
    sources: Sequence[np.ndarray], weights: np.ndarray, batch_size: int, rows: int
) -> Run:
    nodes = importlib.import_module("torchdata.nodes")

    parts = {
        str(k): nodes.IterableWrapper(itertools.cycle(source)) for k, source in enumerate(sources)
    }
    shares = {str(k): float(weight) for k, weight in enumerate(weights)}
    mixed = nodes.Batcher(nodes.MultiNodeWeightedSampler(parts, shares), batch_size)
    return elements(iter(nodes.Loader(mixed)), batch_size, rows)


def tf_mix(sources: Sequence[np.ndarray], weights: np.ndarray, batch_size: int, rows: int) -> Run:
    tf = importlib.import_module("tensorflow")

    parts = [tf.data.Dataset.from_tensor_slices(source).repeat() for source in sources]
    mixed = tf.data.Dataset.sample_from_datasets(parts, weights.tolist(), seed=0).batch(batch_size)
    options = tf.data.Options()
    options.autotune.enabled = False  # on few cores it costs ten times the work
    return elements(mixed.with_options(options).as_numpy_iterator(), batch_size, rows)


PEERS = {
    "grain mix + batch": ("grain", grain_mix, 4096),
    "grain mix + batch, ints": ("grain", grain_ints, 4096),
    "datasets interleave + batch": ("datasets", hf_interleave, 1024),
    "torchdata weighted + batch": ("torchdata", torchdata_mix, 8192),
    "tf.data sample + batch": ("tensorflow", tf_mix, 8192),
}


def side_by_side(runs: dict[str, Run], rounds: int) -> dict[str, np.ndarray]:
    """Nanoseconds per row of each, all in turn."""
    rows = {name: run() for name, run in runs.items()}
    found = in_turn(runs, rounds, warmup=0)
    return {name: 1e9 * seconds / rows[name] for name, seconds in found.items()}


def bench_rows(all_k: Sequence[int], all_b: Sequence[int], rows: int, rounds: int) -> Tables:
    columns: dict[str, dict[str, Any]] = {f"K = {k}": {} for k in all_k}
    for batch_size in all_b:
        for num_sources in all_k:
            weights = mix_weights(num_sources)
            plans = {
                "fixed": jaxmix.MixPlan(weights, batch_size),
                "scheduled": jaxmix.MixPlan(ramp(num_sources), batch_size),
            }
            runs = {name: plan_rows(plan, rows) for name, plan in plans.items()}
            for name, found in side_by_side(runs, rounds).items():
                columns[f"K = {num_sources}"][f"{name}, B = {batch_size:,}"] = found
    yield table("Plan rows alone, ns per row", columns)


def bench_batches(all_k: Sequence[int], all_b: Sequence[int], rows: int, rounds: int) -> Tables:
    columns: dict[str, dict[str, Any]] = {f"K = {k}": {} for k in all_k}
    times_jaxmix: dict[str, dict[str, Any]] = {f"K = {k}": {} for k in all_k}
    for batch_size in all_b:
        for num_sources in all_k:
            weights = mix_weights(num_sources)
            array = np.random.default_rng(1).random((20_000, 8), np.float32)
            sources = [array + k for k in range(num_sources)]
            plan = jaxmix.MixPlan(weights, batch_size)
            feed = jaxmix.PlanSource(plan, sources, 2**30)
            ints = jaxmix.PlanSource(plan, [np.arange(20_000)] * num_sources, 2**30)
            runs = {
                "jaxmix": items(feed, batch_size, rows),
                "jaxmix, ints": items(ints, batch_size, rows),
            }
            for name, (package, make, most) in PEERS.items():
                if importlib.util.find_spec(package) is not None:
                    runs[name] = make(sources, weights, batch_size, min(rows, most))
            found = side_by_side(runs, rounds)
            for name, times in found.items():
                columns[f"K = {num_sources}"][f"{name}, B = {batch_size:,}"] = times
                if not name.startswith("jaxmix"):
                    base = found["jaxmix, ints" if "ints" in name else "jaxmix"]
                    column = times_jaxmix[f"K = {num_sources}"]
                    column[f"{name}, B = {batch_size:,}"] = times / base
    yield table("Whole batches of float32 [8] rows, ns per row", columns)
    yield table("The same as a ratio to jaxmix", times_jaxmix)


def bench_opening(all_k: Sequence[int], all_steps: Sequence[int]) -> Tables:
    columns: dict[str, dict[str, Any]] = {f"K = {k}": {} for k in all_k}
    for step in all_steps:
        for name, make in (("fixed", mix_weights), ("scheduled", ramp)):
            for num_sources in all_k:
                weights = make(num_sources)
                jaxmix.MixPlan(weights, 256).rows(3000)  # compiled
                start = time.perf_counter()
                plan = jaxmix.MixPlan(weights, 256)
                plan.rows(step)
                seconds = time.perf_counter() - start
                del plan
                gc.collect()
                tracemalloc.start()
                plan = jaxmix.MixPlan(weights, 256)
                plan.rows(step)
                held = tracemalloc.get_traced_memory()[0] / 1e6
                tracemalloc.stop()
                column = columns[f"K = {num_sources}"]
                column[f"step {step:,}, {name}, s"] = seconds
                column[f"step {step:,}, {name}, MB held"] = held
    yield table("To give the rows of a step with nothing saved", columns)


def bench_preview(all_k: Sequence[int], all_steps: Sequence[int]) -> Tables:
    columns: dict[str, dict[str, Any]] = {f"K = {k}": {} for k in all_k}
    for num_steps in all_steps:
        for num_sources in all_k:
            jaxmix.MixPlan(ramp(num_sources), 256).rows(0)  # compiled
            plan = jaxmix.MixPlan(ramp(num_sources), 256)
            start = time.perf_counter()
            jaxmix.preview(plan, num_steps, lengths=[10**7] * num_sources)
            columns[f"K = {num_sources}"][f"{num_steps:,} steps"] = time.perf_counter() - start
    yield table("To preview a scheduled plan, s", columns)


def bench_edits(all_k: Sequence[int], hosts: Sequence[int], rounds: int) -> Tables:
    lines: dict[str, dict[str, Any]] = {}
    for num_sources in [*all_k, 1000]:
        weights = mix_weights(num_sources)
        state = jaxmix.MixPlan(weights, 1024).state(700)
        other = np.roll(weights, 1)
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            jaxmix.MixPlan(other, 1024, state=state)
            times.append(1e3 * (time.perf_counter() - start))
        line = lines.setdefault(
            f"K = {num_sources:,}", {"an edit in mid-block, ms": np.array(times)}
        )
        if num_sources > 168:
            continue
        plan = jaxmix.MixPlan(weights, 2**20)
        for count in hosts:
            shard = {"shard_index": count // 2, "shard_count": count}
            plan.rows(0, **shard)
            times = []
            for first in range(rounds):
                start = time.perf_counter()
                for step in range(100 * first, 100 * first + 100):
                    plan.rows(step % 1024, **shard)
                times.append(1e4 * (time.perf_counter() - start))
            line[f"rows of one host of {count}, us"] = np.array(times)
    yield table("To edit a plan, and one host's rows of a step of 2^20", turned(lines))


def sizes(fast: bool) -> tuple[Sequence[int], Sequence[int], int]:
    """Numbers of sources, batch sizes, and rows in a round, of which slow peers do fewer."""
    return ((2, 8), (256,), 2**12) if fast else ((2, 8, 35, 168), (256, 1024, 8192), 2**18)


def steps(fast: bool) -> tuple[Sequence[int], Sequence[int]]:
    """Numbers of sources, and steps."""
    return ((2, 8), (10**3, 10**5)) if fast else ((2, 8, 35, 168), [10**n for n in range(3, 8)])


PARTS = {
    "rows": lambda rounds, fast: bench_rows(*sizes(fast), rounds),
    "batches": lambda rounds, fast: bench_batches(*sizes(fast), rounds),
    "opening": lambda rounds, fast: bench_opening(*steps(fast)),
    "preview": lambda rounds, fast: bench_preview(*steps(fast)),
    "edits": lambda rounds, fast: bench_edits(sizes(fast)[0], (8, 512), rounds),
}


if __name__ == "__main__":
    run_parts(__file__, __doc__, PARTS, rounds=9, peers=[name for name, *_ in PEERS.values()])
