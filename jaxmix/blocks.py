"""A plan's steps in blocks: the state before each, and the counts of those that are in use."""

import copy
import threading
from typing import Any, NamedTuple

import numpy as np

from jaxmix._checks import need, whole_number
from jaxmix._step import MAX_STEP
from jaxmix._types import Schedule
from jaxmix.counts import MAX_STEPS, ONE, Mark, block_counts, end_mark, owed
from jaxmix.plan_state import PlanState, padded
from jaxmix.slots import SlotOrder
from jaxmix.units import refuse, schedule_units

KEPT_BLOCKS = 3


class Block(NamedTuple):
    """The steps from `first` on, T in all, to the end of a block of MAX_STEPS steps.

    `mark`: the state before them. `counts`: [T, K]. `base`: [T, K]; a row's index is its slot plus
    the base of its source. `turns`: T numbers for `SlotOrder`.
    """

    first: int
    mark: Mark
    counts: np.ndarray
    base: np.ndarray
    turns: list[int]


NO_COUNTS = np.zeros((0, 0), np.int64)
NO_UNITS = (-1, NO_COUNTS)
NO_BLOCK = Block(0, Mark(NO_COUNTS, NO_COUNTS), NO_COUNTS, NO_COUNTS, [])


class Blocks:
    """The blocks of a plan from a state on, each worked out when a step of it is asked for.

    A mark is kept for every block that was passed; counts only for the blocks used last.
    """

    def __init__(
        self, weights: Schedule | np.ndarray, batch_size: int, seed: int, state: PlanState
    ):
        self._weights, self._batch_size = weights, batch_size
        self._known_units, self._known_counts = NO_UNITS, NO_COUNTS
        self._blocks: dict[int, Block] = {}
        self._lock = threading.RLock()
        self.order = SlotOrder(seed, batch_size)
        self.first_step = self._origin = state.step
        self.num_sources = self.units(state.step).shape[1]
        least = len(state.mark.cursors)
        more = self.num_sources >= least
        need(more, "weights", f"for the {least} sources of `start` or more", self.num_sources)
        self._marks = [padded(state.mark, self.num_sources)]
        self._join(state.block_step, padded(state.block_mark, self.num_sources))
        self._last = NO_BLOCK
        self.find(self.first_step)

    def find(self, step: int) -> tuple[Block, int]:
        """The block that holds a step, and its line there."""
        if type(step) is not int:
            step = whole_number("step", step, 0)
        block = self._last  # read once: threads may share a plan
        line = step - block.first
        if step < self.first_step or not 0 <= line < len(block.turns):
            self._check(step)
            self._last = block = self.block(step // MAX_STEPS)
            line = step - block.first
            if line >= len(block.turns) and callable(self._weights):
                refuse(self._weights, block.first + len(block.turns))
        return block, line

    def block(self, number: int) -> Block:
        """The block of the steps from MAX_STEPS * number on."""
        with self._lock:
            block = self._blocks.pop(number, None)
            if block is None:
                block = self._new_block(number)
            self._blocks[number] = block  # the last used comes last
            if len(self._blocks) > KEPT_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            return block

    def mark(self, number: int) -> Mark:
        """The state before a block."""
        with self._lock:
            start = self._origin // MAX_STEPS
            for done in range(start + len(self._marks) - 1, number):
                first = max(done * MAX_STEPS, self._origin)
                units = self.units(first)
                if first + len(units) < (done + 1) * MAX_STEPS and callable(self._weights):
                    refuse(self._weights, first + len(units))
                self._marks.append(end_mark(self._marks[-1], units, self._batch_size))
            return self._marks[number - start]

    def mark_at(self, step: int) -> tuple[Block, Mark]:
        """The block that holds a step, and the state before that step."""
        block, line = self.find(step)
        given = block.counts[:line].sum(axis=0)
        return block, self._mark_after(block.mark, self.units(block.first)[:line], given)

    def units(self, first: int) -> np.ndarray:
        """The units [T, K] from a step to the end of its block."""
        if not callable(self._weights):
            rest = MAX_STEPS - first % MAX_STEPS
            return np.broadcast_to(self._weights, (rest, self._weights.shape[1]))
        known = self._known_units
        if known[0] != first:
            self._known_units = known = (first, schedule_units(self._weights, first))
        return known[1]

    def units_at(self, step: int) -> np.ndarray:
        """The units [K] of a step, whatever came before it."""
        step = whole_number("step", step, 0)
        self._check(step)
        first = max(step - step % MAX_STEPS, self._origin)
        units = self.units(first)
        if step - first >= len(units) and callable(self._weights):
            refuse(self._weights, first + len(units))
        return units[step - first]

    def with_known_counts(self, num_steps: int) -> "Blocks":
        """The same blocks with the counts of all steps below `num_steps` in a table."""
        known = self._origin + len(self._known_counts)
        if not callable(self._weights) or num_steps <= known:
            return self
        numbers = range(self._origin // MAX_STEPS, -(-num_steps // MAX_STEPS))
        small = np.min_scalar_type(self._batch_size)
        table = np.concatenate([self.block(number).counts.astype(small) for number in numbers])
        blocks = copy.copy(self)
        blocks._known_counts, blocks._marks = table, list(self._marks)
        return blocks

    def __getstate__(self) -> dict[str, Any]:
        none = {"_lock": None, "_blocks": {}, "_last": NO_BLOCK, "_known_units": NO_UNITS}
        return {**self.__dict__, **none}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def _check(self, step: int) -> None:
        ok = self.first_step <= step <= MAX_STEP
        need(ok, "step", f"in [{self.first_step}, {MAX_STEP}]", step)

    def _new_block(self, number: int) -> Block:
        first, mark = max(number * MAX_STEPS, self._origin), self.mark(number)
        known = self._known_counts[first - self._origin :][: (number + 1) * MAX_STEPS - first]
        if len(known):
            counts = known.astype(np.int64)
        else:
            units = self.units(first)
            if len(units) == 0 and callable(self._weights):
                refuse(self._weights, first)
            counts = block_counts(mark, units, self._batch_size)
        base = mark.cursors + counts.cumsum(axis=0) - counts.cumsum(axis=1)
        return Block(first, mark, counts, base, self.order.turns(first, len(counts)))

    def _mark_after(self, mark: Mark, units: np.ndarray, given: np.ndarray) -> Mark:
        whole, part = owed(mark, units.sum(axis=0), self._batch_size)
        return Mark(mark.cursors + given, (whole - given) * ONE + part)

    def _join(self, block_step: int, mark: Mark) -> None:
        """Plan from the start of the block of `start` if that leads to the very state of `start`.

        It does where nothing was edited; then these are the blocks of the plan `start` came from.
        """
        lines = self._origin - block_step
        units = self.units(block_step)
        if 0 < lines <= len(units):
            given = block_counts(mark, units, self._batch_size)[:lines].sum(axis=0)
            reached = self._mark_after(mark, units[:lines], given)
            if all(map(np.array_equal, reached, self._marks[0])):
                self._origin, self._marks = block_step, [mark]
