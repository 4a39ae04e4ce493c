"""What a plan will do, before the run: a table of its sources."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmix._checks import need, source_names, whole_number
from jaxmix._html import html_table
from jaxmix._plan.names import match_by_name
from jaxmix._plan.plan import MixPlan
from jaxmix._preview.plots import plot_shares
from jaxmix._preview.warnings import (
    jump_at_edit,
    renamed_at_edit,
    running_out,
    unreached_end,
    without_rows,
)

PLOT_POINTS = 500


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Preview:
    """The effect of a plan in the steps first_step .. num_steps - 1; printed, it is a table.

    `preview` returns it.

    Attributes:
      names: list of str, the names of the sources. The lists below have one entry per source.
      batch_size: the plan's, an int or `{step: B from that step on}`.
      first_step, num_steps: the plan's first step, and the end of the steps shown.
      rows, share: the rows of the source in these steps, and their part of all rows.
      epochs: the epochs of the source after the last step; None without lengths.
      first_used, last_used: the first and the last step with a row of the source, or None.
      runs_out: the first step that needs the source's next epoch, or None.
      warnings: list of str, see `preview`.
      steps, weights: [P] and [P, K], for plots. The steps are divided into up to 500 parts; these
        are the first step of each part, and the mean of the planned weights in it.
    """

    names: list[str]
    batch_size: int | dict[int, int]
    first_step: int
    num_steps: int
    rows: list[int]
    share: list[float]
    epochs: list[float] | None
    first_used: list[int | None]
    last_used: list[int | None]
    runs_out: list[int | None]
    warnings: list[str]
    steps: np.ndarray
    weights: np.ndarray

    def plot(self, ax: Any = None) -> Any:
        """Draw the planned weights over the steps as bands.

        A ring marks the step at which a source runs out. Its epochs are written beside its name.

        Args:
          ax: the matplotlib Axes to draw in, by default in a new figure.

        Returns:
          The Axes.
        """
        return plot_shares(self.steps, self.weights, self.names, self.runs_out, self.epochs, ax)

    def __repr__(self) -> str:
        header, *lines = [self._header(), *self._lines()]
        widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
        text = [self._title()]
        for name, *cells in (header, *lines):
            numbers = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
            text.append("  ".join([name.ljust(widths[0]), *numbers]))
        return "\n".join(text + [f"! {warning}" for warning in self.warnings])

    def _repr_html_(self) -> str:
        return html_table(self._title(), self._header(), self._lines(), self.warnings)

    def _title(self) -> str:
        steps = f"Steps {self.first_step:,} to {self.num_steps - 1:,}"
        if isinstance(self.batch_size, int):
            return f"{steps}, {self.batch_size:,} rows each: {sum(self.rows):,} rows"
        stages = [f"{size:,} from step {start:,} on" for start, size in self._stages()]
        shown = (
            stages if len(stages) <= 4 else [*stages[:2], f"... {len(stages)} stages", stages[-1]]
        )
        return f"{steps}, {', '.join(shown)}: {sum(self.rows):,} rows"

    def _stages(self) -> list[tuple[int, int]]:
        """The stages of batch sizes that these steps touch."""
        assert isinstance(self.batch_size, dict)
        found = sorted(self.batch_size.items())
        ends = [start for start, _ in found[1:]] + [self.num_steps]
        inside = zip(found, ends, strict=True)
        return [
            stage for stage, end in inside if stage[0] < self.num_steps and end > self.first_step
        ]

    def _header(self) -> list[str]:
        lengths = [] if self.epochs is None else ["epochs", "runs out at"]
        return ["source", "rows", "share", "first used", "last used", *lengths]

    def _lines(self) -> list[list[str]]:
        columns = [self.names, map(_whole, self.rows), map(_percent, self.share)]
        columns += [map(_whole, self.first_used), map(_whole, self.last_used)]
        if self.epochs is not None:
            columns += [[f"{epochs:.2f}" for epochs in self.epochs], map(_whole, self.runs_out)]
        return [list(line) for line in zip(*columns, strict=True)]


def preview(
    plan: MixPlan,
    num_steps: int,
    *,
    names: Sequence[str] | Mapping[str, str] | None = None,
    lengths: Sequence[int] | Mapping[str, int] | None = None,
) -> Preview:
    """Show what a plan will do up to `num_steps`, with warnings about possible mistakes.

    A warning names:

    - a source that gives no rows;
    - a source that runs out of rows before the end;
    - a schedule that ends after the run, but before twice its steps;
    - an edited plan with a new source while another is gone, as after a change of name;
    - an edited plan whose weights jump at its first step, by more than ten times the largest change
      per step after it.

    A million steps of 35 sources take about a second.

    Args:
      plan: a `MixPlan`.
      num_steps: the end of the run, counted from step 0; above `plan.first_step`.
      names: other names to show for the sources, in order or in a dict by name.
      lengths: the rows in one epoch of each source, in order or in a dict by name.

    Returns:
      A `Preview`: print it, or use its `warnings`, `plot()` and other attributes.

    Raises:
      ValueError, TypeError: not K names or lengths, names that repeat, a length below 1; a schedule
        whose value at a step is not valid weights.

    Example:
      >>> import jaxmix
      >>> plan = jaxmix.MixPlan(jaxmix.make_schedule(100, 0.95, 0.05), batch_size=32)
      >>> jaxmix.preview(plan, 100, names=["web", "code"], lengths=[2_000, 1_000])
      Steps 0 to 99, 32 rows each: 3,200 rows
      source   rows   share  first used  last used  epochs  runs out at
      web     1,600  50.0 %           0         99    0.80            -
      code    1,600  50.0 %           0         99    1.60           78
      ! code runs out at step 78: its rows are used again, 1.6 epochs in all
    """
    need(isinstance(plan, MixPlan), "plan", "a MixPlan", plan, TypeError)
    num_steps = whole_number("num_steps", num_steps, plan.first_step + 1)
    if isinstance(names, Mapping):
        names = match_by_name("names", names, plan.names)
    labels = source_names(plan.names if names is None else names, plan.num_sources)
    sizes = None if lengths is None else plan._checked_lengths(lengths)

    first, last, num_sources = plan.first_step, num_steps - 1, plan.num_sources
    points = min(PLOT_POINTS, num_steps - first)
    curve, peaks = np.zeros((points, num_sources)), np.zeros(num_sources)
    starts, marks = [], []
    for start, weights, cursors in plan._timeline.outline(num_steps):
        starts.append(start)
        marks.append(cursors)
        peaks = np.maximum(peaks, weights.max(axis=0))
        steps = np.arange(start, start + len(weights))
        at, begins = np.unique((steps - first) * points // (num_steps - first), return_index=True)
        curve[at] += np.add.reduceat(weights, begins, axis=0)
    marks.append(plan.cursors(last) + plan.counts(last))
    steps = first - np.arange(points + 1) * (first - num_steps) // points
    curve /= np.diff(steps)[:, None]
    rows = marks[-1] - marks[0]
    first_used, last_used = _used(plan, np.diff(marks, axis=0) > 0, [*starts, num_steps])

    warnings = without_rows(labels, rows, peaks)
    runs_out: list[int | None] = [None] * num_sources
    epochs = None if sizes is None else (marks[-1] / sizes).tolist()
    if sizes is not None and epochs is not None:
        runs_out = plan._runs_out_at(num_steps, sizes)
        warnings += running_out(labels, runs_out, marks[0] > sizes, epochs, first)
    warnings += renamed_at_edit(plan) + jump_at_edit(plan, num_steps)
    if callable(plan.weights):
        warnings += unreached_end(plan, num_steps, curve)
    return Preview(
        names=labels,
        batch_size=plan.batch_size,
        first_step=first,
        num_steps=num_steps,
        rows=rows.tolist(),
        share=(rows / rows.sum()).tolist(),
        epochs=epochs,
        first_used=first_used,
        last_used=last_used,
        runs_out=runs_out,
        warnings=warnings,
        steps=steps[:-1],
        weights=curve,
    )


def _used(
    plan: MixPlan, moved: np.ndarray, starts: Sequence[int]
) -> tuple[list[int | None], list[int | None]]:
    """The first and the last step in which each source gives a row, None if there is none.

    `moved`: bool [blocks, K]. `starts`: the first step of each block, and the end.
    """
    first: list[int | None] = [None] * plan.num_sources
    last = list(first)
    ever = moved.any(axis=0)
    ends = {"first": moved.argmax(axis=0), "last": len(moved) - 1 - moved[::-1].argmax(axis=0)}
    for block in sorted({*ends["first"][ever], *ends["last"][ever]}):
        used = plan.counts_table(starts[block], starts[block + 1]) > 0
        for k in np.flatnonzero(ever & (ends["first"] == block)):
            first[k] = starts[block] + int(used[:, k].argmax())
        for k in np.flatnonzero(ever & (ends["last"] == block)):
            last[k] = starts[block + 1] - 1 - int(used[::-1, k].argmax())
    return first, last


def _whole(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 or share == 0 else f"{100 * share:.1e} %"
