"""What a plan sends to worker processes: a table of counts, without the schedule."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from jaxmix._plan.batch_sizes import BatchSizes
from jaxmix._plan.counts import MAX_STEPS
from jaxmix._plan.ledger import BlockCounts, Ledger


class KnownCounts:
    """A `Ledger` of the steps below `num_steps`, for a process that must not call the schedule.

    It takes 1, 2 or 4 bytes per source and step.
    """

    weights = None

    def __init__(self, ledger: Ledger, num_steps: int):
        self.first_step, self.num_sources = ledger.first_step, ledger.num_sources
        self.sizes: BatchSizes = ledger.sizes
        self.group_size, self.first_cursors = ledger.group_size, ledger.first_cursors
        self._start, self.num_steps = ledger.first_step // MAX_STEPS, num_steps
        small = np.min_scalar_type(max(ledger.sizes.sizes) // self.group_size)
        stop = max(self._start + 1, -(-num_steps // MAX_STEPS))
        blocks = [ledger.block(number) for number in range(self._start, stop)]
        self._firsts = [block.first for block in blocks]
        self._tables = [(block.counts // self.group_size).astype(small) for block in blocks]
        self._cursors = [block.cursors for block in blocks]

    def cursors(self, number: int) -> np.ndarray:
        """As `Ledger.cursors`."""
        at = number - self._start
        if at == len(self._cursors):
            return self._cursors[-1] + self.block(number - 1).counts.sum(axis=0)
        return self._cursors[at] if at < len(self._cursors) else self.raise_bad(number * MAX_STEPS)

    def block(self, number: int) -> BlockCounts:
        """As `Ledger.block`."""
        at = number - self._start
        if at >= len(self._tables):
            self.raise_bad(number * MAX_STEPS)
        counts = self._tables[at].astype(np.int64) * self.group_size
        return BlockCounts(self._firsts[at], self._cursors[at], counts)

    def progress_at(self, step: int) -> NoReturn:
        """Raise: the weights are not here."""
        raise TypeError("state must be called on the plan itself, got a worker process's copy")

    def weights_from(self, step: int, stop: int) -> NoReturn:
        """Raise: the weights are not here."""
        raise TypeError("weights_at must be called on the plan itself, got a worker process's copy")

    def raise_bad(self, step: int) -> NoReturn:
        """Raise for a step that is not in the table."""
        raise ValueError(
            f"step must be below {self.num_steps}, as sent to this process, got {step}"
        )
