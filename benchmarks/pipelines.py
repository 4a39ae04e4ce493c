"""Whole pipelines of ArrayRecord files: parse and pad each row, mix two sources, batch 256 rows.

    python benchmarks/pipelines.py [--rounds 7] [--fast]

The same two files, the same function per row and the same batches for all. grain mixes random
access data sets (`MapDataset.mix`) or streams (`IterDataset.mix`, as MaxText builds its pipeline).
jaxmix reads a batch of records at once and parses them, or takes grain data sets that parse.
"""

import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from timing import in_turn, run_parts, table, take_next

import jaxmix

BATCH, LENGTH = 256, 256
WEIGHTS = [0.75, 0.25]


def parse(record: bytes) -> dict[str, np.ndarray]:
    """The tokens of a record, padded to LENGTH, and which of them are real."""
    tokens = np.frombuffer(record, np.int32)
    padded = np.zeros(LENGTH, np.int32)
    padded[: len(tokens)] = tokens
    return {"tokens": padded, "mask": np.arange(LENGTH) < len(tokens)}


def parse_batch(batch: dict[str, Any]) -> dict[str, Any]:
    """The same for a batch of records."""
    rows = [parse(record) for record in batch["rows"]]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def write(path: pathlib.Path, rows: int, seed: int) -> Any:
    """An ArrayRecord file of 64 to 256 tokens per record, as a grain source."""
    import grain
    from array_record.python.array_record_module import ArrayRecordWriter

    random, writer = np.random.default_rng(seed), ArrayRecordWriter(str(path), "group_size:1")
    for size in random.integers(64, LENGTH + 1, rows).tolist():
        writer.write(random.integers(0, 50_000, size, np.int32).tobytes())
    writer.close()
    return grain.sources.ArrayRecordDataSource(str(path))


def pipelines(sources: list[Any], steps: int, threads: int) -> dict[str, Callable[[], Any]]:
    """Each reads all steps once; `threads` of grain read ahead, 0 for none."""
    import grain

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=8 if threads else 0)
    plan = jaxmix.MixPlan(WEIGHTS, BATCH)
    opened = [grain.MapDataset.source(source) for source in sources]
    parsed = [data.map(parse) for data in opened]
    raw = grain.MapDataset.source(jaxmix.PlanSource(plan, sources, steps)).map(parse_batch)
    ready = grain.MapDataset.source(jaxmix.PlanSource(plan, parsed, steps))
    mixed = grain.MapDataset.mix([data.repeat() for data in parsed], WEIGHTS).batch(BATCH)[:steps]

    def streams() -> Any:
        found = [data.repeat().to_iter_dataset(options).map(parse) for data in opened]
        return grain.IterDataset.mix(found, WEIGHTS).batch(BATCH)

    def run(build: Callable[[], Any]) -> None:
        take_next(iter(build()), steps)()

    return {
        "jaxmix, parsed per batch": lambda: run(lambda: raw.to_iter_dataset(options)),
        "jaxmix, parsed by grain": lambda: run(lambda: ready.to_iter_dataset(options)),
        "grain MapDataset.mix": lambda: run(lambda: mixed.to_iter_dataset(options)),
        "grain IterDataset.mix": lambda: run(streams),
    }


def bench_pipelines(rounds: int, fast: bool) -> Iterator[dict[str, Any]]:
    steps, columns = 4 if fast else 40, {}
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder) / name for name in ("web", "code")]
        sources = [write(path, steps * BATCH, seed) for seed, path in enumerate(files)]
        for threads in (0, 2):
            seconds = in_turn(pipelines(sources, steps, threads), rounds, warmup=1)
            base = next(iter(seconds.values()))
            label = "without threads" if threads == 0 else f"{threads} threads"
            columns[f"{label}, rows per second"] = {
                name: steps * BATCH / spent for name, spent in seconds.items()
            }
            columns[f"{label}, time / first"] = {
                name: spent / base for name, spent in seconds.items()
            }
    note = "Rows of 64 to 256 tokens, padded to 256; the sources are read in order."
    yield table("Parse, pad, mix and batch records of two ArrayRecord files", columns, note)


if __name__ == "__main__":
    peers = ["grain", "array_record"]
    run_parts(__file__, __doc__, {"pipelines": bench_pipelines}, rounds=7, peers=peers)
