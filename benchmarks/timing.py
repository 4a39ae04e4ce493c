"""The timer, the tables and the flags of all suites: what is compared takes turns in one process.

A machine's speed drifts, so a time says little beside one from another minute. Ratios are taken
round by round, and each figure is a median with the 10th and the 90th percentile of the rounds.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import itertools
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tables

Columns = Mapping[str, Mapping[str, Any]]
"""Cells by column and line: a word, a number, or an array of what the rounds gave."""

Part = Callable[[int, bool], Iterable[dict[str, Any]]]
"""A part of a suite, of `(rounds, fast)`: it gives its tables."""


def in_turn(
    variants: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 2
) -> dict[str, np.ndarray]:
    """The seconds of each variant in each round; in a round every variant runs once."""
    found: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warmup + rounds):
        for name, run in variants.items():
            took = seconds(run)
            if turn >= warmup:
                found[name].append(took)
    return {name: np.asarray(times) for name, times in found.items()}


def seconds(run: Callable[[], Any]) -> float:
    """The seconds of one run, to the end of what it has JAX compute."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def take_next(iterator: Iterator[Any], count: int) -> Callable[[], None]:
    """A run that takes the next `count` items."""

    def run() -> None:
        for _ in range(count):
            next(iterator)

    return run


def ratios(seconds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The first variant in microseconds, the others as ratios to it."""
    base, *others = seconds
    found = {f"{base}, us": 1e6 * seconds[base]}
    return found | {name: seconds[name] / seconds[base] for name in others}


def table(title: str, columns: Columns, note: str = "") -> dict[str, Any]:
    """A table as the results keep it; a line that a column lacks has no figure there."""
    names = dict.fromkeys(name for column in columns.values() for name in column)
    lines = {name: [_kept(column.get(name)) for column in columns.values()] for name in names}
    return {"title": title, "head": list(columns), "lines": lines, "note": note}


def turned(columns: Columns) -> Columns:
    """Lines for columns: for more cases than fit side by side."""
    names = dict.fromkeys(name for column in columns.values() for name in column)
    return {name: {key: column.get(name) for key, column in columns.items()} for name in names}


def _kept(value: Any) -> Any:
    """A cell in JSON: of an array the median, the 10th and the 90th percentile."""
    if isinstance(value, np.ndarray):
        return [float(f"{found:.4g}") for found in np.percentile(value, [50, 10, 90])]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def run_parts(
    file: str,
    doc: str | None,
    parts: Mapping[str, Part],
    rounds: int,
    peers: Sequence[str] = (),
    argv: Sequence[str] | None = None,
) -> None:
    """Run the parts of a suite that the command line asks for, and keep what they found."""
    about = (doc or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=about, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=rounds, help="in each, all take turns")
    parser.add_argument("--only", default=",".join(parts), help="parts, with commas between")
    parser.add_argument("--fast", action="store_true", help="small, to see that it runs")
    parser.add_argument("--device", default="cpu", choices=tables.DEVICES)
    parser.add_argument(
        "--results", type=pathlib.Path, help="where to keep the figures; of a whole run, here"
    )
    args = parser.parse_args(argv)
    chosen = args.only.split(",")
    if unknown := set(chosen) - set(parts):
        parser.error(f"--only must be of {', '.join(parts)}, got {', '.join(sorted(unknown))}")
    if args.rounds < 1:
        parser.error(f"--rounds must be >= 1, got {args.rounds}")
    try:
        device = jax.devices(args.device)[0]
    except RuntimeError:
        sys.exit(f"no {args.device} here: JAX has {jax.default_backend()} only")
    count = 2 if args.fast else args.rounds
    suite, start = pathlib.Path(file).stem, os.getloadavg()[0]
    result = {"suite": suite, "about": about.split(":")[0].rstrip("."), "rounds": count}
    result |= _surroundings(device, peers)
    print(f"\n# {suite}: {device.device_kind}, {result['versions']}, {count} rounds", flush=True)
    found = []
    with jax.default_device(device):
        for one in itertools.chain.from_iterable(parts[n](count, args.fast) for n in chosen):
            print(f"\n{tables.markdown(one)}", flush=True)
            found.append(one)
    result |= {"load": [round(start, 1), round(os.getloadavg()[0], 1)], "tables": found}
    whole = not args.fast and len(chosen) == len(parts)
    if target := args.results or (tables.RESULTS if whole else None):
        path = tables.folder(target, args.device) / f"{suite}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")


def _surroundings(device: Any, peers: Sequence[str]) -> dict[str, Any]:
    """The day, the machine, the versions, and which peers are left out."""
    installed = ["jax", "numpy", *(name for name in peers if importlib.util.find_spec(name))]
    distributions = importlib.metadata.packages_distributions()
    versions = {name: importlib.metadata.version(distributions[name][0]) for name in installed}
    return {
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} {device.device_kind}",
        "cores": len(os.sched_getaffinity(0)),
        "versions": {"Python": platform.python_version()} | versions,
        "not_installed": [name for name in peers if name not in installed],
    }
