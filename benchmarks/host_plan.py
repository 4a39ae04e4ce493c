"""The host side of a mix, side by side: nanoseconds per row.

    python benchmarks/host_plan.py [--rounds 5] [--only rows,batches,single,preview,edits] [--fast]

The peers' weights are fixed; the plan's are fixed or scheduled. A batch has rows of float32 [8]
from arrays in memory, or plain ints where it says so. Plan rows are timed over whole blocks of
steps, the planning included.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from peers import HERE, PACKAGES, PEERS, blending_index, grain_dataset, grain_mix, mix_weights, ramp
from timing import in_turn, run_parts, seconds, table, take_next, turned

import jaxmix

Tables = Iterator[dict[str, Any]]


class Work(NamedTuple):
    """A run and the rows that it gives."""

    run: Callable[[], None]
    rows: int


def plan_rows(plan: jaxmix.MixPlan, rows: int) -> Work:
    """Works through the steps, and plans a block of 1,024 every time."""
    batch_size = plan.batch_size_at(0)
    return elements(map(plan.rows, itertools.count()), batch_size, max(1024 * batch_size, rows))


def elements(iterator: Iterator[Any], batch_size: int, rows: int) -> Work:
    count = max(1, rows // batch_size)
    return Work(take_next(iterator, count), count * batch_size)


def items(source: Any, batch_size: int, rows: int) -> Work:
    return elements((source[i] for i in itertools.count()), batch_size, rows)


def side_by_side(works: dict[str, Work], rounds: int) -> dict[str, np.ndarray]:
    """Nanoseconds per row of each, all in turn."""
    found = in_turn({name: work.run for name, work in works.items()}, rounds, warmup=1)
    return {name: 1e9 * took / works[name].rows for name, took in found.items()}


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
    note = ""
    if "megatron" in HERE:
        for num_sources in all_k:
            weights, count = mix_weights(num_sources), 10 * rows
            build = functools.partial(blending_index, weights, count)
            took = in_turn({"build": build}, rounds, warmup=1)["build"]
            columns[f"K = {num_sources}"]["Megatron's blending index, its build"] = (
                1e9 * took / count
            )
        note = (
            "Megatron's index is a table of all rows of a run of fixed weights, 10 bytes each. "
            "With few sources its build takes less time per row than small steps of a plan: each "
            "call for a step costs a few microseconds, whatever its size."
        )
    yield table("Plan rows alone, ns per row", columns, note)


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
            numbers: Any = [range(20_000)] * num_sources
            ints = jaxmix.PlanSource(plan, [np.arange(20_000)] * num_sources, 2**30)
            runs = {
                "jaxmix": items(feed, batch_size, rows),
                "jaxmix, ints": items(ints, batch_size, rows),
            }
            for name, peer in PEERS.items():
                if peer.package in HERE and batch_size <= 8 * peer.most_rows:
                    mixed = peer.mix(sources, weights, batch_size, 0)
                    runs[name] = elements(mixed, batch_size, min(rows, peer.most_rows))
            if "grain" in HERE:
                mixed = grain_mix(numbers, weights, batch_size)
                runs["grain mix + batch, ints"] = elements(mixed, batch_size, min(rows, 4096))
            found = side_by_side(runs, rounds)
            for name, times in found.items():
                columns[f"K = {num_sources}"][f"{name}, B = {batch_size:,}"] = times
                if not name.startswith("jaxmix"):
                    base = found["jaxmix, ints" if "ints" in name else "jaxmix"]
                    column = times_jaxmix[f"K = {num_sources}"]
                    column[f"{name}, B = {batch_size:,}"] = times / base
            for name in PEERS.keys() - found.keys():
                if PEERS[name].package in HERE:
                    columns[f"K = {num_sources}"][f"{name}, B = {batch_size:,}"] = "not measured"
    note = "HuggingFace in batches of 8,192 rows is not measured, as it takes minutes."
    yield table("Whole batches of float32 [8] rows, ns per row", columns, note)
    yield table("The same as a ratio to jaxmix", times_jaxmix)


def bench_single(all_k: Sequence[int], rounds: int, fast: bool) -> Tables:
    """Row by row through grain: a plan as a selection map beside grain's own mix."""
    if "grain" not in HERE:
        return
    import grain

    columns = {}
    for num_sources in all_k:
        weights, count = mix_weights(num_sources), 256 if fast else 4096
        numbers: Any = [range(20_000)] * num_sources
        datasets = [grain.MapDataset.range(len(source)).repeat() for source in numbers]
        chosen: Any = jaxmix.PlanSelectionMap(jaxmix.MixPlan(weights, 256), num_steps=2**22)
        mixes = {
            "jaxmix `PlanSelectionMap`": grain.MapDataset.select_from_datasets(datasets, chosen),
            "grain mix": grain_dataset(numbers, weights),
        }
        runs = {f"{name}, ds[i]": items(mix, 1, count) for name, mix in mixes.items()}
        for name, mix in mixes.items():
            runs[f"{name}, `_getitems` of 256"] = blocks(mix, count)
        columns[f"K = {num_sources}"] = side_by_side(runs, rounds)
    note = (
        "With two sources grain's own mix can be the faster: it looks for the source of a row in a "
        "loop over the sources, which is short then."
    )
    yield table("Single rows through grain, ns per row", columns, note)


def blocks(mix: Any, rows: int) -> Work:
    """Reads 256 rows at a time by the method that grain's own `batch` uses."""
    starts = itertools.count(0, 256)
    return elements((mix._getitems(list(range(first, first + 256))) for first in starts), 256, rows)


def bench_preview(all_k: Sequence[int], all_steps: Sequence[int]) -> Tables:
    columns: dict[str, dict[str, Any]] = {f"K = {k}": {} for k in all_k}
    for num_steps in all_steps:
        for num_sources in all_k:
            jaxmix.MixPlan(ramp(num_sources), 256).rows(0)  # compiled
            plan = jaxmix.MixPlan(ramp(num_sources), 256)
            look = functools.partial(jaxmix.preview, plan, num_steps, lengths=[10**7] * num_sources)
            columns[f"K = {num_sources}"][f"{num_steps:,} steps"] = seconds(look)
    yield table("To preview a scheduled plan, s", columns)


def bench_edits(all_k: Sequence[int], hosts: Sequence[int], rounds: int) -> Tables:
    lines: dict[str, dict[str, Any]] = {}
    for num_sources in [*all_k, 1000]:
        weights = mix_weights(num_sources)
        state = jaxmix.MixPlan(weights, 1024).state(700)
        edit = functools.partial(jaxmix.MixPlan, np.roll(weights, 1), 1024, state=state)
        took = in_turn({"edit": edit}, rounds, warmup=0)["edit"]
        line = lines.setdefault(f"K = {num_sources:,}", {"an edit in mid-block, ms": 1e3 * took})
        if num_sources > 168:
            continue
        plan = jaxmix.MixPlan(weights, 2**20)
        for count in hosts:
            read = functools.partial(plan.rows, shard_index=count // 2, shard_count=count)
            read(0)
            hundred = take_next(map(read, itertools.cycle(range(1024))), 100)
            took = in_turn({"read": hundred}, rounds, warmup=0)["read"]
            line[f"rows of one host of {count}, us"] = 1e4 * took
    yield table("To edit a plan, and one host's rows of a step of 2^20", turned(lines))


def sizes(fast: bool) -> tuple[Sequence[int], Sequence[int], int]:
    """Numbers of sources, batch sizes, and rows in a round, of which slow peers do fewer."""
    return ((2, 8), (256,), 2**12) if fast else ((2, 8, 35, 168), (256, 1024, 8192), 2**18)


def steps(fast: bool) -> tuple[Sequence[int], Sequence[int]]:
    """Numbers of sources, and steps."""
    return ((2, 8), (10**3, 10**5)) if fast else ((2, 8, 35, 168), [10**n for n in range(3, 7)])


PARTS = {
    "rows": lambda rounds, fast: bench_rows(*sizes(fast), rounds),
    "batches": lambda rounds, fast: bench_batches(*sizes(fast), rounds),
    "single": lambda rounds, fast: bench_single(sizes(fast)[0], rounds, fast),
    "preview": lambda rounds, fast: bench_preview(*steps(fast)),
    "edits": lambda rounds, fast: bench_edits(sizes(fast)[0], (8, 512), rounds),
}


if __name__ == "__main__":
    run_parts(__file__, __doc__, PARTS, rounds=5, peers=PACKAGES)
