"""Reads of a feed beside its sources' own: 256 rows in order, every pair in one process.

    python benchmarks/reads.py [--fast]

Prints the rows a second of a feed of one source, of the source's own batched read and of its read
row by row, and the ratio of the feed to the batched read: medians of the rounds, with the 10th and
the 90th percentile in brackets. grain's ArrayRecord, HuggingFace datasets and HDF5 are measured
where they are installed.
"""

import argparse
import importlib.util
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

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
    """A HuggingFace dataset of 128 tokens a row, in the format "numpy"."""
    import datasets

    tokens = np.random.default_rng(0).integers(0, 50_000, (rows, 128))
    source: Any = datasets.Dataset.from_dict({"ids": tokens}).with_format("numpy")
    return (
        source,
        lambda step: source[step * BATCH : (step + 1) * BATCH],
        lambda step: [source[row] for row in range(step * BATCH, (step + 1) * BATCH)],
    )


def hdf5(folder: pathlib.Path, rows: int) -> tuple[Any, Read, Read]:
    """An HDF5 data set of 128 tokens a row."""
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


def seconds(read: Read, steps: range) -> float:
    start = time.perf_counter()
    for step in steps:
        read(step)
    return time.perf_counter() - start


def show(values: Sequence[float] | np.ndarray, form: str) -> str:
    low, middle, high = np.percentile(values, [10, 50, 90])
    return f"{middle:{form}} ({low:{form}}..{high:{form}})"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The reads of a feed beside its sources' own.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--fast", action="store_true", help="small, to see that it runs")
    args = parser.parse_args(argv)
    steps, rounds = (range(4), 3) if args.fast else (range(40), args.rounds)
    print(
        "| | feed, rows a second | own batched read | row by row | feed / batched |\n" + "|---" * 5
    )
    for name, (package, build) in SOURCES.items():
        if importlib.util.find_spec(package) is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            source, many, one = build(pathlib.Path(folder), len(steps) * BATCH)
            feed = jaxmix.PlanSource(jaxmix.MixPlan([1.0], BATCH), [source], len(steps))
            reads = {"feed": feed.__getitem__, "many": many, "one": one}
            rates: dict[str, list[float]] = {kind: [] for kind in reads}
            for turn in range(-1, rounds):  # the first warms up
                for kind in sorted(reads, reverse=turn % 2 > 0):
                    rate = len(steps) * BATCH / seconds(reads[kind], steps)
                    if turn >= 0:
                        rates[kind].append(rate)
        ratio = np.divide(rates["feed"], rates["many"])
        cells = [*(show(found, ",.0f") for found in rates.values()), show(ratio, ".2f")]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
