"""What in a plan may not be meant, in words."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from jaxmix._plan.counts import MAX_STEPS
from jaxmix._plan.plan import MixPlan
from jaxmix._schedules.annealing import check_gamma
from jaxmix._schedules.evaluate import MAX_STEP

NEAR = 1e-3
"""The part of its whole way that a schedule may be away from its end and count as being there."""

SHORT_REST = 500
"""Rests are looked for between steps that are 1/500 of a run apart."""


def without_rows(names: Sequence[str], rows: np.ndarray, peaks: np.ndarray) -> list[str]:
    """Sources that give no rows; `peaks` are their largest weights."""
    return [
        f"{name} gives no rows: its weight is {f'at most {peak:.2g}' if peak else '0'} in all steps"
        for name, count, peak in zip(names, rows, peaks, strict=True)
        if count == 0
    ]


def running_out(
    names: Sequence[str], runs_out: Sequence[int | None], was_out: np.ndarray, first_step: int
) -> list[str]:
    """Sources whose rows are used again; `was_out` says of which that is so from before."""
    told = []
    for name, step, before in zip(names, runs_out, was_out, strict=True):
        if step is not None and before:
            told.append(f"{name} ran out before step {first_step:,}: its rows are used again")
        elif step is not None:
            told.append(f"{name} runs out at step {step:,}: from there on its rows are used again")
    return told


def unreached_end(plan: MixPlan, num_steps: int, curve: np.ndarray) -> list[str]:
    """A schedule that comes to rest, but only after the run; `curve`: weights of the run, [P, K].

    It rests if it is the same in 40 blocks of steps that are spread over the far half of all steps.
    One that only creeps up to its end, as a decay does until floats underflow, has none to miss.
    """
    half = MAX_STEP // 2
    far = [half + int(half * (0.6180339887 * k % 1.0)) for k in range(40)]
    try:
        end = plan.weights_at(MAX_STEP)
        if any(_off(plan, step, end).any() for step in far):
            return []
        way = NEAR * np.abs(curve - end).max()
        last = plan.weights_at(num_steps - 1)
        off = functools.cache(lambda step: _off(plan, step, end))
        there = _rests_from(off, num_steps)
        near = _rests_from(lambda step: off(step) > way, num_steps)
    except ValueError:  # no weights that far out, so nothing is said about their end
        return []
    if np.abs(last - end).max() <= way or near == num_steps or 2 * near < there:
        return []
    stop = f"the run stops after step {num_steps - 1:,} at {_shown(last)}"
    return [f"the schedule ends at {_shown(end)} from step {there:,} on, but {stop}"]


def _off(plan: MixPlan, step: int, end: np.ndarray) -> np.ndarray:
    """How far the weights are from their end, from a step to the end of its block: [T]."""
    return np.abs(plan._timeline.weights(step, MAX_STEP + 1) - end).max(axis=1)


def _rests_from(off: Callable[[int], np.ndarray], start: int) -> int:
    """The first step from `start` on after which `off` is 0, in blocks at growing distances."""
    grid = [start]
    while grid[-1] < MAX_STEP // 2:
        block = grid[-1] // MAX_STEPS
        grid.append((block + 1 + block // 8) * MAX_STEPS)
    moving = [place for place in grid if off(place).any()]
    if not moving:
        return start
    low = moving[-1]
    high = next((place for place in grid if place > low), MAX_STEP)
    while high // MAX_STEPS - low // MAX_STEPS > 1:
        middle = (low // MAX_STEPS + high // MAX_STEPS) // 2 * MAX_STEPS
        low, high = (middle, high) if off(middle).any() else (low, middle)
    return low + int(np.flatnonzero(off(low))[-1]) + 1


def no_annealing(gamma: np.ndarray, first_step: int) -> list[str]:
    """A gamma [T] that moves, where it breaks the conditions of an annealing."""
    if (gamma == gamma[0]).all():
        return []
    why = ""
    stride = max(1, len(gamma) // SHORT_REST)  # of two neighbours, float32 may make equals
    rests = np.flatnonzero(gamma[stride::stride] == gamma[:-stride:stride])
    if rests.size:
        line = int(rests[0]) * stride
        before = np.flatnonzero(gamma[:line] != gamma[line])
        step = first_step + (int(before[-1]) + 1 if before.size else 0)
        why = f"gamma rests at {gamma[line]:.4g} from step {step:,} on"
    try:
        check_gamma("gamma", gamma, first_step, strict=False)
    except ValueError as broken:
        why = str(broken)
    return [f"no strict annealing, 0 < gamma_0 < ... < gamma_N < 1: {why}"] if why else []


def _shown(weights: np.ndarray) -> str:
    """gamma, the weights of up to eight sources, or the largest of more."""
    if len(weights) == 2:
        return f"gamma = {weights[0]:.4g}"
    if len(weights) > 8:
        return f"weights of {weights.min():.3g} to {weights.max():.3g}"
    return "[" + ", ".join(f"{weight:.3g}" for weight in weights) + "]"
