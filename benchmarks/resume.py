"""What it costs to start far into a run: jaxmix's plan beside other libraries.

    python benchmarks/resume.py [--rounds 5] [--fast]

Milliseconds until the batch at a row is there, of 8 sources in batches of 256, with nothing saved
and with what the library saves. A library that reads its way there is measured once, and near by.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from peers import (
    HERE,
    PACKAGES,
    PEERS,
    blending_index,
    grain_dataset,
    hf_stream,
    levanter_dataset,
    mix_weights,
    ramp,
    torchdata_loader,
)
from timing import in_turn, run_parts, seconds, table

import jaxmix

BATCH, SOURCES = 256, 8
WEIGHTS = mix_weights(SOURCES)
ARRAYS = [np.arange(500_000)] * SOURCES

Runs = dict[str, Callable[[], Any]]


def own(step: int) -> Runs:
    """A plan opened with nothing and with the state of another."""
    runs: Runs = {}
    for name, weights in (("fixed", WEIGHTS), ("scheduled", ramp(SOURCES))):
        state = jaxmix.MixPlan(weights, BATCH).state(step)

        def run(weights: Any = weights, state: Any = None) -> Any:
            return jaxmix.MixPlan(weights, BATCH, state=state).rows(step)

        runs[f"jaxmix, {name} weights"] = run
        runs[f"jaxmix, {name} weights, from a state"] = functools.partial(run, state=state)
    return runs


def direct(row: int) -> Runs:
    """The peers that go to a row without reading those before."""
    runs: Runs = {}
    if "grain" in HERE:
        runs["grain mix, one row"] = lambda: grain_dataset(ARRAYS, WEIGHTS)[row]
        runs["grain mix, a batch"] = lambda: grain_dataset(ARRAYS, WEIGHTS).batch(BATCH)[
            row // BATCH
        ]
    if "levanter" in HERE:
        rows = range(row, row + BATCH)
        runs["Levanter mixture"] = lambda: levanter_dataset(ARRAYS, WEIGHTS).get_batch(rows)
    return runs


def read_there(row: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The peers that read their way to a row, then from the state that they save there."""
    if "tensorflow" in HERE:
        batches = PEERS["tf.data sample + batch"].mix(ARRAYS, WEIGHTS, BATCH, 0)
        yield "tf.data sample, read and dropped", lambda: nth(batches, row // BATCH)
    if "torchdata" in HERE:
        loader, other = (torchdata_loader(ARRAYS, WEIGHTS, BATCH) for _ in range(2))
        yield "torchdata, read and dropped", lambda: nth(iter(loader), row // BATCH)
        other.load_state_dict(loader.state_dict())
        yield "torchdata, from a state", lambda: next(iter(other))
    if "datasets" in HERE:
        stream, other = (hf_stream(ARRAYS, WEIGHTS) for _ in range(2))
        yield "datasets interleave, read and dropped", lambda: nth(iter(stream), row)
        other.load_state_dict(stream.state_dict())
        yield "datasets interleave, from a state", lambda: next(iter(other))


def nth(iterator: Iterator[Any], count: int) -> Any:
    """The next item after `count` others."""
    return next(itertools.islice(iterator, count, None))


def bench_rows(rounds: int, fast: bool) -> Iterator[dict[str, Any]]:
    near = 10**4 if fast else 10**5
    if "megatron" in HERE:
        blending_index(WEIGHTS, 1)  # imported
    columns: dict[str, dict[str, Any]] = {}
    for row in (near, 10**5) if fast else (near, 10**6, 10**8, 10**9):
        found = in_turn(own(row // BATCH) | direct(row), rounds, warmup=1)
        column = columns[f"row {row:,}"] = {name: 1e3 * took for name, took in found.items()}
        if "megatron" in HERE:
            built = functools.partial(blending_index, WEIGHTS, row)
            fits = row <= 10**8
            name = "Megatron blending index, built to there"
            column[name] = 1e3 * seconds(built) if fits else "not measured: takes 10 GB"
        if row == near:
            column |= {name: 1e3 * seconds(run) for name, run in read_there(row)}
        else:
            reading = (name for name in columns[f"row {near:,}"] if name.endswith("dropped"))
            column |= dict.fromkeys(reading, "reads all rows before")
    note = (
        "With nothing saved, grain and Levanter are the fastest far into a run: of fixed weights "
        "they compute the place of one row or block. A plan sums what its schedule gave in all "
        "steps before, unless it has a state. Megatron reads its table from disk once it is built. "
        "A library that reads all rows before was measured once, near by."
    )
    yield table(
        f"Milliseconds to the batch of {BATCH} rows at a row, {SOURCES} sources", columns, note
    )


if __name__ == "__main__":
    run_parts(__file__, __doc__, {"rows": bench_rows}, rounds=5, peers=PACKAGES)
