"""The record of a training run: one JSON line per step, a picture, and what may be resumed."""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from support import figures

COLOURS = (figures.BLUE, figures.RED, figures.GREEN)


@contextlib.contextmanager
def own_folder(folder: Path, resume: bool) -> Iterator[str]:
    """Keep a folder for this run alone; give the reason why it may not be used, or ''."""
    why = ""
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder / "lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends
            if (folder / "run.json").exists() and not resume:
                why = f"{folder} has a run already: --resume it, or choose another --out"
        except BlockingIOError:
            why = f"{folder} is in use by another run"
        except OSError as error:
            why = f"{folder} cannot be used and locked: {error}"
        yield why


@contextlib.contextmanager
def open_log(path: Path, start: int, tensorboard: Path | None) -> Iterator[Callable]:
    """Give a function that appends lines; first drop those of steps that will be repeated."""
    kept = [line for line in read_log(path) if line["step"] < start]
    own = path.with_suffix(".new")
    own.write_text("".join(json.dumps(line) + "\n" for line in kept))
    os.replace(own, path)
    with contextlib.ExitStack() as stack:
        writer = None
        if tensorboard is not None:
            from tensorboardX import SummaryWriter

            writer = stack.enter_context(SummaryWriter(str(tensorboard), purge_step=start))

        def write(lines: Sequence[dict[str, Any]]) -> None:
            with path.open("a") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))
            if writer is not None:
                for line in lines:
                    for name, value in line.items():
                        if isinstance(value, float):
                            writer.add_scalar(name, value, line["step"])

        yield write


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, without a last one that was only partly written."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def check_same_run(path: Path, facts: dict[str, Any]) -> None:
    """Refuse to resume a run whose facts, such as its schedule, were others."""
    before = json.loads(path.read_text())
    for name, value in facts.items():
        if before.get(name) != value:
            change = f"{name} was {before.get(name)} and is now {value}"
            raise SystemExit(f"--resume: {change}; keep the value, or choose another --out")


def draw(path: Path, log: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """The planned and the realised share of each source, and its held-out loss, over the steps."""
    steps = [line for line in log if "rows" in line]
    scores = [line for line in log if f"valid/{names[0]}" in line]
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    mix, valid = figure.subplots(1, 2)
    figures.style(mix, "Rows of the batch, % (line: planned, dots: realised in 10 steps)")
    figures.style(valid, "Held-out bits per byte (log scale)")
    for panel in (mix, valid):
        panel.set_xlabel("step")
    valid.set_yscale("log")
    valid.yaxis.set_major_locator(FixedLocator([1, 1.5, 2, 3, 4, 5, 6, 8]))
    valid.yaxis.set_major_formatter("{x:g}")
    valid.yaxis.set_minor_locator(NullLocator())
    shares, losses = [], []
    for name, colour in zip(names, COLOURS, strict=False):
        planned = [100 * line[f"mix/weight/{name}"] for line in steps]
        mix.plot([line["step"] for line in steps], planned, color=colour, linewidth=1.5)
        for ten in (steps[k : k + 10] for k in range(0, len(steps) - 9, 10)):
            share = 100 * np.mean([line[f"mix/share/{name}"] for line in ten])
            mix.plot(ten[0]["step"] + 4.5, share, "o", color=colour, alpha=0.5, markersize=4)
        shares.append((planned[-1], name, colour))
        updates, bits = zip(*((s["step"], s[f"valid/{name}"]) for s in scores), strict=True)
        valid.plot(updates, bits, "o-", color=colour, linewidth=1.5, markersize=4)
        losses.append((bits[-1], f"{name} {bits[-1]:.2f}", colour))
    figures.name_lines(mix, shares, gap=0.06)
    figures.name_lines(valid, losses, gap=0.06)
    figures.save(figure, path)
