"""What in a plan may be a mistake, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxmix._plan.plan import MixPlan
from jaxmix._schedules.evaluate import MAX_STEP

NEAR = 1e-3
"""The part of its whole way that a schedule may be away from its end and count as being there."""

JUMP = 10
"""An edit jumps if it moves a weight by more than so many of the largest step after it."""


def without_rows(names: Sequence[str], rows: np.ndarray, peaks: np.ndarray) -> list[str]:
    """Sources that give no rows; `peaks` are their largest weights."""
    return [
        f"{name} gives no rows: its weight is {f'at most {peak:.2g}' if peak else '0'} in all steps"
        for name, count, peak in zip(names, rows, peaks, strict=True)
        if count == 0
    ]


def running_out(
    names: Sequence[str],
    runs_out: Sequence[int | None],
    was_out: np.ndarray,
    epochs: Sequence[float],
    first_step: int,
) -> list[str]:
    """Sources whose rows are used again; `was_out` says of which that is so from before."""
    found = []
    for name, step, before, count in zip(names, runs_out, was_out, epochs, strict=True):
        if step is not None:
            when = f"ran out before step {first_step:,}" if before else f"runs out at step {step:,}"
            found.append(f"{name} {when}: its rows are used again, {count:.4g} epochs in all")
    return found


def unreached_end(plan: MixPlan, num_steps: int, curve: np.ndarray) -> list[str]:
    """A schedule that comes to rest within twice the run, but not in it; `curve`: weights [P, K].

    It rests if it is the same there, at twice that and at the last step of all, each time to the
    end of a block of steps.
    """
    if num_steps > MAX_STEP // 8:
        return []
    places = (2 * num_steps, 4 * num_steps, MAX_STEP)
    try:
        later = [
            weights for place in places for weights in plan._timeline.weights(place, MAX_STEP + 1)
        ]
    except ValueError:  # no weights that far out
        return []
    if any((weights != later[0]).any() for weights in later):
        return []
    last, way = plan.weights_at(num_steps - 1), np.abs(curve - later[0]).max()
    if np.abs(last - later[0]).max() <= NEAR * way:
        return []
    stop = f"the run stops after step {num_steps - 1:,} at {_shown(last)}"
    return [f"the schedule ends at {_shown(later[0])}, but {stop}"]


def jump_at_edit(plan: MixPlan, num_steps: int) -> list[str]:
    """Weights that jump where an edited plan begins, beside its own steps in the block after it."""
    before = plan._weights_before
    if before is None:
        return []
    after = plan._timeline.weights(plan.first_step, num_steps)
    steps = np.abs(np.diff(after, axis=0)).max(initial=0.0)
    if np.abs(after[0] - np.array(before)).max() <= max(JUMP * steps, 1e-6):
        return []
    moved = f"{_shown(np.array(before))} before it, {_shown(after[0])} from it on"
    return [f"the weights jump at the edit, step {plan.first_step:,}: {moved}"]


def _shown(weights: np.ndarray) -> str:
    """gamma, the weights of up to eight sources, or the largest of more."""
    if len(weights) == 2:
        return f"gamma = {weights[0]:.4g}"
    if len(weights) > 8:
        return f"weights of {weights.min():.3g} to {weights.max():.3g}"
    return "[" + ", ".join(f"{weight:.3g}" for weight in weights) + "]"
