"""Warnings about possible mistakes in a plan, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxmix._plan.plan import MixPlan
from jaxmix._schedules.evaluate import MAX_STEP

NEAR = 1e-3
"""A schedule has reached its end if the distance is below this part of its whole change."""

JUMP = 10
"""An edit jumps if it changes a weight more than JUMP times as much as any later step."""


def without_rows(names: Sequence[str], rows: np.ndarray, peaks: np.ndarray) -> list[str]:
    """A warning for each source that gives no rows; `peaks` are the largest weights."""
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
    """A warning for each source whose rows are used again; `was_out`: already before the plan."""
    found = []
    for name, step, before, count in zip(names, runs_out, was_out, epochs, strict=True):
        if step is not None:
            when = f"ran out before step {first_step:,}" if before else f"runs out at step {step:,}"
            found.append(f"{name} {when}: its rows are used again, {count:.4g} epochs in all")
    return found


def unreached_end(plan: MixPlan, num_steps: int, curve: np.ndarray) -> list[str]:
    """A warning if a schedule ends within twice the run, but not in it; `curve`: weights [P, K].

    The schedule has ended if its values in the blocks at two times the run, at four times the run
    and at the last possible step are all the same.
    """
    if num_steps > MAX_STEP // 8:
        return []
    places = (2 * num_steps, 4 * num_steps, MAX_STEP)
    try:
        later = [
            weights for place in places for weights in plan._timeline.weights(place, MAX_STEP + 1)
        ]
        after = plan.weights_at(num_steps)  # a transition of T steps ends at step T
    except ValueError:  # no valid weights at such late steps
        return []
    if any((weights != later[0]).any() for weights in later):
        return []
    way = np.abs(curve - later[0]).max()
    if np.abs(after - later[0]).max() <= NEAR * way:
        return []
    stop = f"the run stops after step {num_steps - 1:,} at {_shown(plan.weights_at(num_steps - 1))}"
    return [f"the schedule ends at {_shown(later[0])}, but {stop}"]


def jump_at_edit(plan: MixPlan, num_steps: int) -> list[str]:
    """A warning if weights jump where an edited plan begins, compared with the block after it."""
    before = plan._weights_before
    if before is None:
        return []
    after = plan._timeline.weights(plan.first_step, num_steps)
    steps = np.abs(np.diff(after, axis=0)).max(initial=0.0)
    if np.abs(after[0] - np.array(before)).max() <= max(JUMP * steps, 1e-6):
        return []
    is_gamma = len(before) == 2 and before[0] != after[0, 0]
    old, new = (_shown(np.array(weights), is_gamma) for weights in (before, after[0]))
    moved = f"{old} before it, {new} from it on"
    return [f"the weights jump at the edit, step {plan.first_step:,}: {moved}"]


def renamed_at_edit(plan: MixPlan) -> list[str]:
    """A warning if sources begin at row 0 and others of the state are gone: perhaps a new name."""
    fresh = [
        n for n, used in zip(plan.names, plan.cursors(plan.first_step), strict=True) if not used
    ]
    gone = [name for name, (used, _) in plan._away.items() if used]
    if not fresh or not gone:
        return []
    begin = f"{', '.join(fresh[:8])} begins at row 0, and {', '.join(gone[:8])}"
    return [
        f"{begin} is only in the state: if a source was renamed, rename it in state['names'] too"
    ]


def _shown(weights: np.ndarray, is_gamma: bool = True) -> str:
    """Gamma for two sources, the weights of up to eight, or the smallest and largest of more."""
    if len(weights) == 2 and is_gamma:
        return f"gamma = {weights[0]:.4g}"
    if len(weights) > 8:
        return f"weights of {weights.min():.3g} to {weights.max():.3g}"
    return "[" + ", ".join(f"{weight:.3g}" for weight in weights) + "]"
