"""The slots of `counted_sources` on the host: which place each row of a step takes. NumPy only."""

import numpy as np

from jaxmix.draws import slot_multiplier

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


class SlotOrder:
    """The slot (a i + r) mod B of every row i: one permutation, turned by another amount each step.

    Slots 0 .. B - 1 are dealt to the sources in order, as in `counted_sources`; r is a hash of the
    seed and the step.
    """

    def __init__(self, seed: int, batch_size: int):
        self._seed, self._batch_size = seed, batch_size
        multiplier = slot_multiplier(batch_size)
        self._inverse = pow(multiplier, -1, batch_size)
        once = np.arange(batch_size) * multiplier % batch_size
        self._twice = np.concatenate([once, once])

    def turns(self, first_step: int, num_steps: int) -> list[int]:
        """By how many rows the permutation is turned at each of these steps."""
        steps = np.arange(first_step, first_step + num_steps).astype(np.uint32)
        offsets = fold_in(self._seed, steps).astype(np.int64) % self._batch_size
        return (offsets * self._inverse % self._batch_size).tolist()

    def slots(self, turn: int, first_row: int, num_rows: int) -> np.ndarray:
        """The slots int64 [b] of the rows from `first_row` on at a step with this turn; a view."""
        return self._twice[turn + first_row : turn + first_row + num_rows]


def fold_in(seed: int, steps: np.ndarray) -> np.ndarray:
    """The second word of `fold_in(jax.random.key(seed), step)` for uint32 steps: threefry2x32.

    Source: Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3.
    """
    keys = (np.uint32(0), np.uint32(seed), np.uint32(seed ^ 0x1BD11BDA))
    left, right = np.zeros_like(steps) + keys[0], steps + keys[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            left = left + right
            right = ((right << rotation) | (right >> (32 - rotation))) ^ left
        left = left + keys[(group + 1) % 3]
        right = right + keys[(group + 2) % 3] + np.uint32(group + 1)
    return right
