"""The state of a plan at a step: plain ints and lists, read with care."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmix._checks import need, whole_number
from jaxmix._plan.counts import MAX_STEPS, ONE, Progress
from jaxmix._schedules.evaluate import MAX_STEP

KIND = "jaxmix.MixPlan"


class PlanState(NamedTuple):
    """A step, the progress before it, and the progress before the block of steps that holds it."""

    seed: int
    step: int
    progress: Progress
    block_step: int
    block_progress: Progress


def fresh_state() -> PlanState:
    """Step 0, before any source has given a row."""
    none = Progress(np.zeros(0, np.int64), np.zeros(0, np.int64))
    return PlanState(0, 0, none, 0, none)


def write_state(state: PlanState) -> dict[str, Any]:
    """The state as plain ints and lists, fit for JSON; `carry` is in units of 2^-52 row."""
    return {
        "kind": KIND,
        "seed": state.seed,
        "step": state.step,
        "cursors": state.progress.cursors.tolist(),
        "carry": state.progress.carry.tolist(),
        "block_step": state.block_step,
        "block_cursors": state.block_progress.cursors.tolist(),
        "block_carry": state.block_progress.carry.tolist(),
    }


def read_state(state: Any) -> PlanState:
    """The state in a dict that `write_state` made; ValueError or TypeError for any other."""
    need(isinstance(state, Mapping), "state", "the dict of `MixPlan.state`", state, TypeError)
    fields = set(write_state(fresh_state()))
    ours = state.get("kind") == KIND and set(state) == fields
    need(ours, "state", f"the dict of `MixPlan.state`, with {sorted(fields)}", dict(state))
    step = whole_number("state['step']", state["step"], 0)
    need(step <= MAX_STEP, "state['step']", f"at most {MAX_STEP}", step)
    block_step = whole_number("state['block_step']", state["block_step"], 0)
    near = block_step <= step and block_step // MAX_STEPS == step // MAX_STEPS
    need(near, "state['block_step']", f"in the block of step {step}", block_step)
    progress, block_progress = _read_progress(state, ""), _read_progress(state, "block_")
    alike = len(progress.cursors) == len(block_progress.cursors)
    alike = alike and bool((block_progress.cursors <= progress.cursors).all())
    need(alike, "state['block_cursors']", "at most state['cursors']", state["block_cursors"])
    return PlanState(
        whole_number("state['seed']", state["seed"], 0), step, progress, block_step, block_progress
    )


def padded(progress: Progress, num_sources: int) -> Progress:
    """The same progress with more sources, none of which has given a row."""
    cursors, carry = (np.pad(part, (0, num_sources - len(part))) for part in progress)
    return Progress(cursors, carry)


def _read_progress(state: Mapping[str, Any], prefix: str) -> Progress:
    name, cursors, carry = prefix + "cursors", state[prefix + "cursors"], state[prefix + "carry"]
    for key, numbers in ((name, cursors), (prefix + "carry", carry)):
        need(isinstance(numbers, list), f"state['{key}']", "a list", numbers, TypeError)
        small = all(type(number) is int and abs(number) < 2**62 for number in numbers)
        need(small, f"state['{key}']", "whole numbers below 2^62", numbers)
    fine = len(cursors) > 0 and min(cursors) >= 0
    need(fine, f"state['{name}']", "one number >= 0 a source", cursors)
    most = ONE // 2 if len(carry) == 2 else 64 * ONE
    fine = len(carry) == len(cursors) and sum(carry) == 0 and max(map(abs, carry)) <= most
    need(fine, f"state['{prefix}carry']", f"one number a source, of sum 0, up to {most}", carry)
    return Progress(np.array(cursors, np.int64), np.array(carry, np.int64))
