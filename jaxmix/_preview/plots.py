"""Pictures of schedules and of planned weights, in matplotlib, with names beside the curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmix._checks import need, whole_number
from jaxmix._schedules.evaluate import call_schedule_each
from jaxmix._schedules.weights import numbers_of
from jaxmix._types import Weights

MAX_POINTS = 1000
MIN_FONT = 5.0
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#444444")
"""The colours of Okabe and Ito, which colour-blind readers can also tell apart."""


def plot_schedules(schedules: Mapping[str, Weights], num_steps: int, ax: Any = None) -> Any:
    """Draw schedules over the steps 0 .. num_steps - 1, with a name at the end of each line.

    Args:
      schedules: `{name: schedule}`. A schedule of gamma has one line, a schedule of weights [K] one
        line per source. A number or an array is a constant schedule.
      num_steps: `>= 1`. At most 1,000 steps are evaluated.
      ax: the matplotlib Axes to draw in, by default in a new figure.

    Returns:
      The Axes.

    Raises:
      ValueError, TypeError: no schedules, a value that is neither a number nor an array [K], a
        value that is not finite.

    Example:
      >>> import jaxmix
      >>> curves = {kind: jaxmix.make_schedule(100, kind=kind) for kind in ("linear", "cosine")}
      >>> ax = jaxmix.plot_schedules(curves, num_steps=100)
      >>> [line.get_label() for line in ax.lines]
      ['linear', 'cosine']
    """
    mapping = isinstance(schedules, Mapping) and len(schedules) > 0
    need(mapping, "schedules", "a dict {name: schedule}, not empty", schedules, TypeError)
    num_steps = whole_number("num_steps", num_steps, 1)
    steps = np.unique(np.linspace(0, num_steps - 1, MAX_POINTS).astype(int))
    curves: dict[str, np.ndarray] = {}
    of_gamma = True
    for name, schedule in schedules.items():
        if callable(schedule):
            values = np.asarray(call_schedule_each(schedule, steps), np.float64)
        else:
            known = np.asarray(numbers_of(schedule), np.float64)
            values = np.broadcast_to(known, (len(steps), *known.shape))
        label = f"schedules[{name!r}]"
        need(values.ndim in (1, 2), label, "of numbers or [K]", values.shape[1:])
        need(bool(np.isfinite(values).all()), label, "finite", values[~np.isfinite(values)][:1])
        if values.ndim == 1:
            new = {name: values}
        else:
            new = {f"{name} {k}": values[:, k] for k in range(values.shape[1])}
            of_gamma = False
        double = sorted(new.keys() & curves.keys())
        need(not double, "schedules", "of different names in the picture", double)
        curves |= new
    ax = _axes(ax)
    colours = _colours(len(curves))
    for (name, values), colour in zip(curves.items(), colours, strict=True):
        ax.plot(steps, values, color=colour, label=name)
    ax.set(xlabel="step", ylabel="gamma" if of_gamma else "weight")
    ax.set_xlim(0, max(num_steps - 1, 1))
    lines = np.stack(list(curves.values()))
    _name_ends(ax, lines, lines.mean(axis=1), list(curves), colours)
    return ax


def plot_shares(
    steps: np.ndarray,
    weights: np.ndarray,
    names: Sequence[str],
    runs_out: Sequence[int | None],
    epochs: Sequence[float] | None,
    ax: Any = None,
) -> Any:
    """Draw weights [P, K] as bands that fill 0 to 100 %.

    A ring marks the step at which a source runs out, and its `epochs` are written beside its name.
    """
    ax = _axes(ax)
    tops = 100 * weights.cumsum(axis=1)
    bottoms = tops - 100 * weights
    middles = (tops + bottoms) / 2
    colours = _colours(len(names))
    ax.set(xlabel="step", ylabel="share of the batch, %", ylim=(0, 100))
    ax.set_xlim(steps[0], max(steps[-1], steps[0] + 1))
    for k, colour in enumerate(colours):
        ax.fill_between(steps, bottoms[:, k], tops[:, k], color=colour, linewidth=0)
        ax.plot(steps, tops[:, k], color="white", linewidth=0.8, label=names[k])
    ends = list(names)
    for k, step in enumerate(runs_out):
        if step is not None and epochs is not None:
            ends[k] = f"{names[k]}, {epochs[k]:.4g} epochs"
            height = np.interp(step, steps, middles[:, k])
            ax.plot(step, height, "o", color="black", markerfacecolor="white", markersize=5)
            ax.set_title("○ the rows of a source begin again", loc="right", fontsize=9)
    _name_ends(ax, middles.T, weights.mean(axis=0), ends, colours)
    return ax


def _axes(ax: Any) -> Any:
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _colours(count: int) -> list[Any]:
    """`count` different colours."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    import matplotlib

    return list(matplotlib.colormaps["viridis"](np.linspace(0, 1, count)))


def _name_ends(
    ax: Any, lines: np.ndarray, sizes: np.ndarray, names: Sequence[str], colours: Sequence[Any]
) -> None:
    """Write the name of each of the lines [n, P] beside its end, or as near as possible.

    If there is no room for all names, only the names of the largest `sizes` [n] are written.
    """
    low, high = ax.get_ylim()
    points = ax.get_window_extent().height / ax.figure.dpi * 72
    most = max(1, int(points / (1.25 * MIN_FONT)))
    size = min(10.0, max(MIN_FONT, points / (1.25 * len(names))))
    gap = (high - low) * 1.2 * size / points
    ends = lines[:, -1]
    order = np.lexsort((lines.mean(axis=1), np.round(ends / gap)))  # by end, then by mean height
    order = order[np.isin(order, np.argsort(-sizes, kind="stable")[:most])]
    places = ends[order]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    places[-1] = min(places[-1], high)
    for i in reversed(range(len(places) - 1)):
        places[i] = min(places[i], places[i + 1] - gap)
    for k, place in zip(order, places, strict=True):
        leader = {"arrowstyle": "-", "color": colours[k], "relpos": (0, 0.5), "shrinkA": 0}
        ax.annotate(
            names[k],
            xy=(1.0, ends[k]),
            xytext=(1.04, place),
            xycoords=ax.get_yaxis_transform(),
            va="center",
            fontsize=size,
            arrowprops=leader,
            annotation_clip=False,
            parse_math=False,
        )
