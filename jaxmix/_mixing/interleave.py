"""The slot (a i + r) mod B of row i in a batch: one permutation, on the device and the host."""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
import numpy as np

from jaxmix._mixing.keys import host_word
from jaxmix._types import Array

GOLDEN_RATIO = (1.0 + math.sqrt(5.0)) / 2.0


@functools.lru_cache(maxsize=256)
def slot_multiplier(num_rows: int) -> int:
    """The multiplier a in slot ``(a row + r) mod B`` that spreads neighbouring slots best.

    Candidates are the numbers prime to B near B / golden ratio. The best one has the smallest
    largest quotient in the continued fraction of a/B: that bounds how uneven the spread is.
    """
    centre = round(num_rows / GOLDEN_RATIO)
    reach = range(max(1, centre - 64), min(num_rows, centre + 64) + 1)
    coprime = [a for a in reach if math.gcd(a, num_rows) == 1]
    return min(coprime, key=lambda a: (_largest_quotient(a, num_rows), abs(a - centre)))


def _largest_quotient(numerator: int, denominator: int) -> int:
    """The largest partial quotient of the continued fraction of numerator/denominator."""
    largest = 0
    while numerator:
        quotient, remainder = divmod(denominator, numerator)
        largest, denominator, numerator = max(largest, quotient), numerator, remainder
    return largest


def slots_of_rows(rows: Array, total: int, word: Array) -> Array:
    """The slot (a i + r) mod total of each global row i, uint32."""
    multiplier, bits = slot_multiplier(total), total.bit_length()
    width = bits if bits <= 16 else 32 - bits  # as many bits of the row as a product can hold
    slots = jnp.broadcast_to(word % jnp.uint32(total), rows.shape)
    for shift in range(0, bits, width):
        part = (rows >> shift) & (2**width - 1)
        slots = (slots + part * ((multiplier << shift) % total) % total) % total
    return slots


class SlotOrder:
    """The slot ``(a i + r) mod B`` of every row i: one permutation, rotated differently each step.

    Slots 0 .. B - 1 are given to the sources in order, as in `counted_sources`. r is a hash of the
    seed and the step.
    """

    def __init__(self, seed: int, batch_size: int):
        self._seed, self._batch_size = seed, batch_size
        multiplier = slot_multiplier(batch_size)
        self._inverse = pow(multiplier, -1, batch_size)
        once = np.arange(batch_size) * multiplier % batch_size
        self._twice = np.concatenate([once, once])

    def turns(self, first_step: int, num_steps: int) -> list[int]:
        """By how many rows the permutation is rotated at each of these steps."""
        steps = np.arange(first_step, first_step + num_steps).astype(np.uint32)
        words = host_word(self._seed, steps, "counted")
        offsets = words.astype(np.int64) % self._batch_size
        return (offsets * self._inverse % self._batch_size).tolist()

    def slots(self, turn: int, first_row: int, num_rows: int) -> np.ndarray:
        """The slots of `num_rows` rows from `first_row` on at a step with this turn: a view."""
        return self._twice[turn + first_row : turn + first_row + num_rows]
