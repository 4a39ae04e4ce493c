"""The state of a plan at a step: plain ints and lists, read with care."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmix._checks import need, whole_number
from jaxmix._step import MAX_STEP
from jaxmix.counts import MAX_STEPS, ONE, Mark

KIND = "jaxmix.MixPlan"


class PlanState(NamedTuple):
    """A step, the mark before it, and the mark at the start of its block of steps."""

    seed: int
    step: int
    mark: Mark
    block_step: int
    block_mark: Mark


def fresh_state() -> PlanState:
    """Step 0, before any source has given a row."""
    none = Mark(np.zeros(0, np.int64), np.zeros(0, np.int64))
    return PlanState(0, 0, none, 0, none)


def write_state(state: PlanState) -> dict[str, Any]:
    """The state as plain ints and lists, fit for JSON; `carry` is in units of 2^-52 row."""
    return {
        "kind": KIND,
        "seed": state.seed,
        "step": state.step,
        "cursors": state.mark.cursors.tolist(),
        "carry": state.mark.carry.tolist(),
        "block_step": state.block_step,
        "block_cursors": state.block_mark.cursors.tolist(),
        "block_carry": state.block_mark.carry.tolist(),
    }


def read_state(start: Any) -> PlanState:
    """The state in a dict that `write_state` made; ValueError or TypeError for any other."""
    need(isinstance(start, Mapping), "start", "the dict of `MixPlan.state`", start, TypeError)
    fields = set(write_state(fresh_state()))
    ours = start.get("kind") == KIND and set(start) == fields
    need(ours, "start", f"the dict of `MixPlan.state`, with {sorted(fields)}", dict(start))
    step = whole_number("start['step']", start["step"], 0)
    need(step <= MAX_STEP, "start['step']", f"at most {MAX_STEP}", step)
    block_step = whole_number("start['block_step']", start["block_step"], 0)
    near = block_step <= step and block_step // MAX_STEPS == step // MAX_STEPS
    need(near, "start['block_step']", f"in the block of step {step}", block_step)
    mark, block_mark = _read_mark(start, ""), _read_mark(start, "block_")
    alike = len(mark.cursors) == len(block_mark.cursors)
    alike = alike and bool((block_mark.cursors <= mark.cursors).all())
    need(alike, "start['block_cursors']", "at most start['cursors']", start["block_cursors"])
    return PlanState(
        whole_number("start['seed']", start["seed"], 0), step, mark, block_step, block_mark
    )


def padded(mark: Mark, num_sources: int) -> Mark:
    """The mark with more sources, none of which has given a row."""
    cursors, carry = (np.pad(part, (0, num_sources - len(part))) for part in mark)
    return Mark(cursors, carry)


def _read_mark(start: Mapping[str, Any], prefix: str) -> Mark:
    name, cursors, carry = prefix + "cursors", start[prefix + "cursors"], start[prefix + "carry"]
    for key, numbers in ((name, cursors), (prefix + "carry", carry)):
        need(isinstance(numbers, list), f"start['{key}']", "a list", numbers, TypeError)
        small = all(type(number) is int and abs(number) < 2**62 for number in numbers)
        need(small, f"start['{key}']", "whole numbers below 2^62", numbers)
    fine = len(cursors) > 0 and min(cursors) >= 0
    need(fine, f"start['{name}']", "one number >= 0 a source", cursors)
    most = ONE // 2 if len(carry) == 2 else 64 * ONE
    fine = len(carry) == len(cursors) and sum(carry) == 0 and max(map(abs, carry)) <= most
    need(fine, f"start['{prefix}carry']", f"one number a source, of sum 0, up to {most}", carry)
    return Mark(np.array(cursors, np.int64), np.array(carry, np.int64))
