"""Reads of a feed beside its sources' own: 256 rows in order, every pair in one process.

    python benchmarks/reads.py [--rounds 7] [--fast]

Prints the rows per second of a feed of one source, of the source's own batched read and of its read
row by row, and the ratio of the feed to the batched read: medians of the rounds, with the 10th and
the 90th percentile in brackets. grain's ArrayRecord, HuggingFace datasets and HDF5 are measured
where they are installed.
"""

import functools
import importlib.util
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from timing import in_turn, run_parts, table, turned

import jaxmix

BATCH = 256
Read = Callable[[int], Any]
"""Reads the batch of a step."""


def array_records(folder: pathlib.Path, rows: int) -> tuple[Any, Read, Read]:
    """Records of 100 to 400 bytes, as serialised examples are."""
    import grain
    from array_record.python.array_record_module import ArrayRecordWriter

    random, path = np.random.default_rng(0), str(folder / "records.array_record")
    writer = ArrayRecordWriter(path, "group_size:1")
    for size in random.integers(100, 400, rows).tolist():
        writer.write(random.bytes(size))
    writer.close()
    source: Any = grain.sources.ArrayRecordDataSource(path)
    return (
        source,
        lambda step: source.__getitems__(list(range(step * BATCH, (step + 1) * BATCH))),
        lambda step: [source[row] for row in range(step * BATCH, (step + 1) * BATCH)],
    )


def datasets_columns(folder: pathlib.Path, rows: int) -> tuple[Any, Read, Read]:
    """A HuggingFace dataset of 128 tokens per row, in the format "numpy"."""
    import datasets

    tokens = np.random.default_rng(0).integers(0, 50_000, (rows, 128))
    source: Any = datasets.Dataset.from_dict({"ids": tokens}).with_format("numpy")
    return (
        source,
        lambda step: source[step * BATCH : (step + 1) * BATCH],
        lambda step: [source[row] for row in range(step * BATCH, (step + 1) * BATCH)],
    )


def hdf5(folder: pathlib.Path, rows: int) -> tuple[Any, Read, Read]:
    """An HDF5 data set of 128 tokens per row."""
    h5py = importlib.import_module("h5py")
    source = h5py.File(folder / "tokens.h5", "w").create_dataset(
        "ids", data=np.random.default_rng(0).integers(0, 50_000, (rows, 128)), chunks=(BATCH, 128)
    )
    return (
        source,
        lambda step: source[step * BATCH : (step + 1) * BATCH],
        lambda step: [source[row] for row in range(step * BATCH, (step + 1) * BATCH)],
    )


SOURCES = {
    "ArrayRecord": ("array_record", array_records),
    "HuggingFace, numpy": ("datasets", datasets_columns),
    "HDF5": ("h5py", hdf5),
}


PEERS = [package for package, _ in SOURCES.values()]


def bench_reads(rounds: int, fast: bool) -> Iterator[dict[str, Any]]:
    steps, lines = range(4 if fast else 40), {}
    for name, (package, build) in SOURCES.items():
        if importlib.util.find_spec(package) is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            source, many, one = build(pathlib.Path(folder), len(steps) * BATCH)
            feed = jaxmix.PlanSource(jaxmix.MixPlan([1.0], BATCH), [source], len(steps))
            reads = {"feed": feed.__getitem__, "many": many, "one": one}

            def run(read: Read) -> None:
                for step in steps:
                    read(step)

            runs = {kind: functools.partial(run, read) for kind, read in reads.items()}
            seconds = in_turn(runs, rounds, warmup=1)
        rate = {kind: len(steps) * BATCH / spent for kind, spent in seconds.items()}
        lines[name] = {
            "feed, rows per second": rate["feed"],
            "own batched read": rate["many"],
            "row by row": rate["one"],
            "feed / batched": rate["feed"] / rate["many"],
        }
    note = (
        "A feed copies the rows once more, into the order of the batch. That shows where the read "
        "itself is a copy in memory, as of HDF5 chunks that are in its cache."
    )
    yield table("Reads in order, 256 rows at a time", turned(lines), note)


if __name__ == "__main__":
    run_parts(__file__, __doc__, {"reads": bench_reads}, rounds=7, peers=PEERS)
