"""The timer and the flags of all benchmarks: what is compared takes turns in one process.

A machine's speed drifts, so a time says little beside one from another minute. Ratios are taken
round by round, and each figure is a median with the 10th and the 90th percentile of the rounds.
"""

import argparse
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np


def in_turn(
    variants: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 2
) -> dict[str, np.ndarray]:
    """The seconds of each variant in each round; in a round every variant runs once."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warmup + rounds):
        for name, run in variants.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.asarray(times) for name, times in seconds.items()}


def show(values: np.ndarray, form: str = ".2f") -> str:
    """The median, and in brackets the 10th and the 90th percentile."""
    low, middle, high = np.percentile(values, [10, 50, 90])
    return f"{middle:{form}} ({low:{form}} .. {high:{form}})"


def report(title: str, seconds: Mapping[str, np.ndarray], length: int = 1) -> None:
    """Print the ratio of each variant to the first, whose time is divided by `length`."""
    base, *others = seconds
    print(f"{title}: {base} {1e6 * np.median(seconds[base]) / length:.1f} us")
    for name in others:
        print(f"    {name:<34} {show(seconds[name] / seconds[base])}", flush=True)


def print_table(title: str, head: Iterable[Any], lines: Mapping[str, Sequence[str]]) -> None:
    """Print a Markdown table, with a name at the head of each line."""
    head = ["", *map(str, head)]
    print(f"\n## {title}\n\n| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for name, cells in lines.items():
        print(f"| {' | '.join([name, *cells])} |", flush=True)


def run_parts(
    doc: str | None,
    parts: Mapping[str, Callable[[int, bool], None]],
    rounds: int,
    argv: Sequence[str] | None = None,
) -> None:
    """Run the parts `(rounds, fast)` of a benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="in each, all take turns")
    parser.add_argument("--only", default=",".join(parts), help="parts, with commas between")
    parser.add_argument("--fast", action="store_true", help="small, to see that it runs")
    args = parser.parse_args(argv)
    chosen = args.only.split(",")
    if unknown := set(chosen) - set(parts):
        parser.error(f"--only must be of {', '.join(parts)}, got {', '.join(sorted(unknown))}")
    if args.rounds < 1:
        parser.error(f"--rounds must be >= 1, got {args.rounds}")
    count = 2 if args.fast else args.rounds
    device = jax.devices()[0].device_kind
    print(f"{platform.machine()}, {device}, jax {jax.__version__}, {count} rounds")
    for name in chosen:
        parts[name](count, args.fast)
