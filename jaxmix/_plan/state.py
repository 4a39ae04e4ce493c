"""The state of a plan at a step: plain ints, lists and names, read with care."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmix._checks import need, shown, source_names, whole_number
from jaxmix._plan.counts import MAX_STEPS, ONE, Progress
from jaxmix._plan.names import default_names
from jaxmix._schedules.evaluate import MAX_STEP

KIND = "jaxmix.MixPlan/2"

MOST_OWED = 64 * ONE
"""The most that a source of three or more can be owed, in units of 1/ONE group."""

Lengths = tuple[int | None, ...]


class PlanState(NamedTuple):
    """A step, the progress before it, and the progress before the block of steps that holds it.

    Cursors are in rows, carries in units of 1/ONE group of `group_size` rows. `lengths`: the rows
    of each source, None if not known. `away`: the cursor and the length of each source that an
    earlier plan had and this one has not. `weights`: those of the step before, if there is one.
    """

    seed: int
    step: int
    names: tuple[str, ...]
    lengths: Lengths
    group_size: int
    progress: Progress
    block_step: int
    block_progress: Progress
    away: dict[str, tuple[int, int | None]]
    weights: tuple[float, ...] | None

    def rows(self) -> int:
        """The rows that all sources gave before the step; none before step 0.

        A user may set the cursors of a state at step 0, to leave out the first rows of a source.
        """
        used = sum(self.progress.cursors.tolist()) + sum(used for used, _ in self.away.values())
        return used if self.step else 0


def fresh_state(names: Sequence[str] = (), group_size: int = 1) -> PlanState:
    """The state at step 0, before any source has given a row."""
    none = Progress(*np.zeros((2, len(names)), np.int64))
    return PlanState(0, 0, tuple(names), (None,) * len(names), group_size, none, 0, none, {}, None)


def write_state(state: PlanState) -> dict[str, Any]:
    """The state as plain ints, lists and names, for JSON; names are None if there are none."""
    named = state.names != default_names(len(state.names))
    return {
        "kind": KIND,
        "seed": state.seed,
        "step": state.step,
        "names": list(state.names) if named else None,
        "lengths": list(state.lengths),
        "group_size": state.group_size,
        "cursors": state.progress.cursors.tolist(),
        "carry": state.progress.carry.tolist(),
        "block_step": state.block_step,
        "block_cursors": state.block_progress.cursors.tolist(),
        "block_carry": state.block_progress.carry.tolist(),
        "away": {name: list(kept) for name, kept in state.away.items()},
        "weights": None if state.weights is None else list(state.weights),
    }


def read_state(state: Any) -> PlanState:
    """The state in a dict that `write_state` made; ValueError or TypeError for any other."""
    need(isinstance(state, Mapping), "state", "the dict of `MixPlan.state`", state, TypeError)
    fields = set(write_state(fresh_state()))
    ours = state.get("kind") == KIND and set(state) == fields
    needed = f"the dict of `MixPlan.state` of kind {KIND!r}, with {sorted(fields)}"
    need(ours, "state", needed, {key: state[key] for key in list(state)[:20]})
    step = whole_number("state['step']", state["step"], 0)
    need(step <= MAX_STEP, "state['step']", f"at most {MAX_STEP}", step)
    block_step = whole_number("state['block_step']", state["block_step"], 0)
    near = block_step <= step and block_step // MAX_STEPS == step // MAX_STEPS
    need(near, "state['block_step']", f"in the block of step {step}", block_step)
    progress, block_progress = _read_progress(state, ""), _read_progress(state, "block_")
    count = len(progress.cursors)
    alike = count == len(block_progress.cursors)
    alike = alike and bool((block_progress.cursors <= progress.cursors).all())
    need(alike, "state['block_cursors']", "at most state['cursors']", state["block_cursors"])
    names = tuple(source_names(state["names"], count))
    lengths = state["lengths"]
    fine = isinstance(lengths, list) and len(lengths) == count and all(map(_is_length, lengths))
    need(fine, "state['lengths']", f"{count} numbers >= 1 or None", lengths)
    return PlanState(
        whole_number("state['seed']", state["seed"], 0),
        step,
        names,
        tuple(lengths),
        whole_number("state['group_size']", state["group_size"], 1),
        progress,
        block_step,
        block_progress,
        _read_away(state["away"], names),
        _read_weights(state["weights"], count),
    )


def continued(state: PlanState, names: tuple[str, ...], group_size: int) -> PlanState:
    """The state for a plan of these sources, matched by name; new sources begin at row 0.

    The rows owed to a source that leaves are divided evenly among the others. With another group
    size a source is owed at most one group, or half a group if there are two sources.
    """
    _check_names(state, names)
    old = {name: k for k, name in enumerate(state.names)}
    kept = [old.get(name) for name in names]
    cursors, lengths, carry, before = [], [], [], ([], [])
    for name, k in zip(names, kept, strict=True):
        used, length = state.away.get(name, (0, None))
        if k is not None:
            used, length = int(state.progress.cursors[k]), state.lengths[k]
        cursors.append(used)
        lengths.append(length)
        carry.append(0 if k is None else int(state.progress.carry[k]))
        before[0].append(used if k is None else int(state.block_progress.cursors[k]))
        before[1].append(0 if k is None else int(state.block_progress.carry[k]))
    away = {name: kept for name, kept in state.away.items() if name not in names}
    for name, k in old.items():
        if name not in names:
            away[name] = (int(state.progress.cursors[k]), state.lengths[k])
    weights = state.weights
    if weights is not None:
        weights = tuple(0.0 if k is None else weights[k] for k in kept)
    begin = state._replace(
        names=names, lengths=tuple(lengths), group_size=group_size, away=away, weights=weights
    )
    if group_size != state.group_size:
        carry = [owed * state.group_size // group_size for owed in carry]
        most = ONE
    else:
        most = MOST_OWED
    progress = Progress(np.array(cursors, np.int64), _balanced(carry, most))
    block = Progress(*np.array(before, np.int64))
    return begin._replace(progress=progress, block_progress=block)


def _balanced(carry: list[int], most: int) -> np.ndarray:
    """The carries with the sum 0 and none above `most`: int64 [K]."""
    if len(carry) == 2:
        first = (carry[0] - carry[1]) // 2 if sum(carry) else carry[0]
        first = max(-ONE // 2, min(first, ONE // 2 - 1))  # as two sources are rounded
        return np.array([first, -first], np.int64)
    each, more = divmod(sum(carry), len(carry))
    even = [owed - each - (k < more) for k, owed in enumerate(carry)]
    largest = max(map(abs, even))
    if largest > most:
        even = [owed * most // largest for owed in even]
        even[int(np.argmax(even))] -= sum(even)
    return np.array(even, np.int64)


def _check_names(state: PlanState, names: tuple[str, ...]) -> None:
    """Raise unless these sources can continue from the state."""
    count = len(state.names)
    if state.names == default_names(count) and names == default_names(len(names)):
        more = len(names) >= count
        need(more, "weights", f"for the {count} sources of `state` or more", len(names))
    elif not set(names) & {*state.names, *state.away}:
        raise ValueError(
            f"at least one source must be in `state`, which has {shown(list(state.names))}, "
            f"got {shown(list(names))} (if sources were renamed, rename them in state['names'] too)"
        )


def _read_progress(state: Mapping[str, Any], prefix: str) -> Progress:
    name, cursors, carry = prefix + "cursors", state[prefix + "cursors"], state[prefix + "carry"]
    for key, numbers in ((name, cursors), (prefix + "carry", carry)):
        need(isinstance(numbers, list), f"state['{key}']", "a list", numbers, TypeError)
        small = all(type(number) is int and abs(number) < 2**62 for number in numbers)
        need(small, f"state['{key}']", "whole numbers below 2^62", numbers)
    fine = len(cursors) > 0 and min(cursors) >= 0
    need(fine, f"state['{name}']", "one number >= 0 per source", cursors)
    most = ONE // 2 if len(carry) == 2 else MOST_OWED
    fine = len(carry) == len(cursors) and sum(carry) == 0 and max(map(abs, carry)) <= most
    need(fine, f"state['{prefix}carry']", f"one number per source, of sum 0, up to {most}", carry)
    return Progress(np.array(cursors, np.int64), np.array(carry, np.int64))


def _read_away(away: Any, names: tuple[str, ...]) -> dict[str, tuple[int, int | None]]:
    fine = isinstance(away, Mapping) and not set(away) & set(names)
    need(fine, "state['away']", "a dict by the names of other sources", away)
    for name, kept in away.items():
        fine = isinstance(kept, list | tuple) and len(kept) == 2 and type(kept[0]) is int
        fine = fine and 0 <= kept[0] < 2**62 and _is_length(kept[1])
        need(fine, f"state['away'][{name!r}]", "[rows used, length or None]", kept)
    return {name: (kept[0], kept[1]) for name, kept in away.items()}


def _read_weights(weights: Any, count: int) -> tuple[float, ...] | None:
    if weights is None:
        return None
    fine = isinstance(weights, list) and len(weights) == count
    fine = fine and all(isinstance(weight, float) and 0.0 <= weight <= 1.0 for weight in weights)
    need(fine, "state['weights']", f"{count} floats in [0, 1] or None", weights)
    return tuple(weights)


def _is_length(length: Any) -> bool:
    return length is None or (type(length) is int and 1 <= length < 2**62)
