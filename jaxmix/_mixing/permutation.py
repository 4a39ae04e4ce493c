"""A keyed permutation of [0, n), elementwise, for every n below 2^32, in NumPy and in JAX alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

NUM_ROUNDS = 12

Words = Any
"""uint32 array of NumPy or JAX. All sums and products in this file wrap modulo 2^32."""

Key = tuple[Words, Words]
"""The two words that decide a permutation."""

# Numbers without a pattern in their bits; factors are odd.
_FACTORS = (np.uint32(0x21F0AAAD), np.uint32(0x735A2D97))
_KEY_STEPS = (np.uint32(0xA511E9B3), np.uint32(0x63D83595), np.uint32(0x1B56C4E9))
_ROUND_STEPS = (np.uint32(0x9E3779B9), np.uint32(0x7F4A7C16))
_ONE, _LOW_HALF = np.uint32(1), np.uint32(0xFFFF)


def numpy_like(words: Words) -> Any:
    """`jax.numpy` for an array of JAX, else `numpy`."""
    return jnp if isinstance(words, jax.Array) else np


def mix_key(left: Words, right: Words, word: Words) -> Key:
    """A key from three words; beside one `word`, different pairs have different keys.

    A Feistel network of three rounds, so that neighbouring words give unrelated keys.
    """
    left = left ^ word
    for step in _KEY_STEPS:
        left, right = right ^ _scramble(left + step), left
    return left, right


def _scramble(word: Words) -> Words:
    """A hash of each word, without collisions, in place where the array allows it."""
    word ^= word >> 16
    word *= _FACTORS[0]
    word ^= word >> 15
    word *= _FACTORS[1]
    word ^= word >> 15
    return word


def round_keys(key: Key) -> Iterator[Key]:
    """For each round a word to add and an odd word to multiply with."""
    added, factor = key[0], key[1] | _ONE
    for _ in range(NUM_ROUNDS):
        yield added, factor
        added, factor = added + _ROUND_STEPS[0], factor + _ROUND_STEPS[1]


def permute(index: Words, length: Words, keys: Iterable[Key]) -> Words:
    """Where the permutation of [0, length) with these round keys puts each index.

    The indices lie in a grid of 2^k columns and about as many rows, of which the last may be short.
    In turn the columns and the rows are rotated, each within its own length and by a hash of its
    own number. Within a line a rotation is a bijection, so the whole is one for every length.
    """
    minimum = numpy_like(index).minimum
    last = length - _ONE
    bits = half_bits(last)
    width = _ONE << bits
    row, column = index >> bits, index & (width - _ONE)
    for number, key in enumerate(keys):
        if number % 2 == 0:
            size = (last - column) >> bits
            size += _ONE
            row = _rotate(row, size, scaled_hash(column, size, key), minimum)
        else:
            size = minimum(width, length - (row << bits))
            column = _rotate(column, size, scaled_hash(row, size, key), minimum)
    return (row << bits) | column


def _rotate(place: Words, size: Words, turn: Words, minimum: Any) -> Words:
    """`(place + turn) % size` for both below `size`: of the two words, one wraps to a large one."""
    turn += place
    return minimum(turn, turn - size)


def scaled_hash(line: Words, size: Words, key: Key) -> Words:
    """A hash of each word, scaled to [0, size), for sizes to 2^16.

    The hash h becomes floor(h size / 2^32), in halves: `lax.mulhi` does not compile for sharded
    arrays, and a remainder costs a division.
    """
    added, factor = key
    hashed = (line + added) * factor
    hashed ^= hashed >> 16
    hashed *= _FACTORS[1]
    low = hashed & _LOW_HALF
    low *= size
    low >>= 16
    hashed >>= 16
    hashed *= size
    hashed += low
    hashed >>= 16
    return hashed


def permute_one(index: int, length: int, keys: Iterable[Key]) -> int:
    """`permute` of a single index, in plain ints: ten times as fast as arrays of one element."""
    last = length - 1
    bits = last.bit_length() >> 1
    width = 1 << bits
    row, column = index >> bits, index & (width - 1)
    second_factor = int(_FACTORS[1])
    for number, (added, factor) in enumerate(keys):
        line = row if number % 2 else column
        hashed = (line + int(added)) * int(factor) & 0xFFFFFFFF
        hashed = (hashed ^ (hashed >> 16)) * second_factor & 0xFFFFFFFF
        if number % 2 == 0:
            size = ((last - column) >> bits) + 1
            row = (row + (hashed * size >> 32)) % size
        else:
            size = min(width, length - (row << bits))
            column = (column + (hashed * size >> 32)) % size
    return (row << bits) | column


def half_bits(last: Words) -> Words:
    """Half the bits of each number, rounded down."""
    if isinstance(last, jax.Array):
        return (np.uint32(32) - jax.lax.clz(last)) >> 1
    # A double holds a word without rounding, so its exponent is the number of bits.
    return (np.frexp(np.asarray(last, np.float64))[1] >> 1).astype(np.uint32)
