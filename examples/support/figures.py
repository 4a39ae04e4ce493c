"""What the pictures of the examples share: colours, plain panels, names at the ends of lines."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart, and black.
BLUE, ORANGE, GREEN, RED, PINK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
SKY, BLACK = "#56B4E9", "#222222"


def style(panel: Any, title: str) -> None:
    """Give a panel its title on the left, a pale grid and no box."""
    panel.set_title(title, loc="left", fontsize=11)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(color="0.93")
    panel.set_axisbelow(True)


def name_lines(panel: Any, ends: Iterable[tuple[float, str, str]], gap: float) -> None:
    """Write each name beside the end of its line, about `gap` of the panel's height apart.

    Call it when the panel has its final limits and scale. `ends` has (last value, name, colour).
    """
    ends = sorted(ends)
    panel.get_ylim()  # fits the limits to the lines
    to_panel = panel.transScale + panel.transLimits
    heights = np.array([to_panel.transform((0.0, value))[1] for value, *_ in ends])
    for _ in range(40):  # each round pushes neighbours that are too close apart
        push = np.maximum(gap - np.diff(heights), 0) / 2
        heights += np.append(0, push) - np.append(push, 0)
    for height, (_, name, colour) in zip(heights, ends, strict=True):
        panel.text(
            1.01, height, name, color=colour, fontsize=11, va="center", transform=panel.transAxes
        )


def mean_se(values: np.ndarray) -> tuple[Any, Any]:
    """The mean over the seeds, which are the last axis, and its standard error."""
    return values.mean(-1), values.std(-1, ddof=1) / values.shape[-1] ** 0.5


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
