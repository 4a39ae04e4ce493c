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

# Numbers without a pattern in their bits. Factors are odd. The round step is even: a factor plus
# the step stays odd.
_FACTORS = (np.uint32(0x21F0AAAD), np.uint32(0x735A2D97))
_KEY_STEPS = (np.uint32(0xA511E9B3), np.uint32(0x63D83595), np.uint32(0x1B56C4E9))
_ROUND_STEP = np.uint32(0x7F4A7C16)
_ONE = np.uint32(1)


def numpy_like(words: Words) -> Any:
    """`jax.numpy` for an array of JAX, else `numpy`."""
    return jnp if isinstance(words, jax.Array) else np


def mix_key(left: Words, right: Words, word: Words) -> Key:
    """A key from three words; for one `word`, different pairs (left, right) have different keys.

    A Feistel network of three rounds, so that neighbouring words give unrelated keys.
    """
    left = left ^ word
    for step in _KEY_STEPS:
        left, right = right ^ _scramble(left + step), left
    return left, right


def _scramble(word: Words) -> Words:
    """A hash of each word, without collisions; a NumPy array may be overwritten."""
    word ^= word >> 16
    word *= _FACTORS[0]
    word ^= word >> 15
    word *= _FACTORS[1]
    word ^= word >> 15
    return word


def round_keys(key: Key) -> Iterator[Key]:
    """For each round the word to add and the odd word to multiply by."""
    added, factor = key[0], key[1] | _ONE
    for _ in range(NUM_ROUNDS):
        yield added, factor
        factor = factor + _ROUND_STEP


def permute(index: Words, length: Words, keys: Iterable[Key]) -> Words:
    """Where the permutation of [0, length) with these round keys puts each index.

    The indices form a grid of 2^k columns and about as many rows; the last row may be short. In
    even rounds every column is rotated, in odd rounds every row: within its own length, by a hash
    of its own number. Each rotation is a bijection, so the whole is one for every length.
    """
    minimum = numpy_like(index).minimum
    last = length - _ONE
    bits = num_bits(last)
    column_bits = bits >> 1
    line_bits = bits - column_bits
    width = _ONE << column_bits
    row, column = index >> column_bits, index & (width - _ONE)
    for number, key in enumerate(keys):
        if number % 2 == 0:
            size = (last - column) >> column_bits
            size += _ONE
            row = _rotate(row, size, _turn(column, size, line_bits, key), minimum)
        else:
            size = minimum(width, length - (row << column_bits))
            column = _rotate(column, size, _turn(row, size, line_bits, key), minimum)
    return (row << column_bits) | column


def _rotate(place: Words, size: Words, turn: Words, minimum: Any) -> Words:
    """`(place + turn) % size` for both below `size`: the smaller of two words, as one may wrap."""
    turn += place
    return minimum(turn, turn - size)


def _turn(line: Words, size: Words, line_bits: Words, key: Key) -> Words:
    """A hash of each line, scaled to [0, size), where `size` is at most 2^line_bits.

    It is floor(h size / 2^w) of the top w bits h of the hash, with w so small that the product fits
    a word. `lax.mulhi` does not compile for sharded arrays, and a remainder costs a division.
    """
    added, factor = key
    turn = (line + added) * factor
    turn ^= turn >> 16
    turn *= _FACTORS[1]
    turn >>= line_bits
    turn *= size
    turn >>= np.uint32(32) - line_bits
    return turn


def permute_one(index: int, length: int, keys: Iterable[Key]) -> int:
    """`permute` of a single index, in plain ints: ten times as fast as arrays of one element."""
    last = length - 1
    column_bits = last.bit_length() >> 1
    line_bits = last.bit_length() - column_bits
    width, second_factor = 1 << column_bits, int(_FACTORS[1])
    row, column = index >> column_bits, index & (width - 1)
    for number, (added, factor) in enumerate(keys):
        line = row if number % 2 else column
        hashed = (line + int(added)) * int(factor) & 0xFFFFFFFF
        hashed = ((hashed ^ (hashed >> 16)) * second_factor & 0xFFFFFFFF) >> line_bits
        if number % 2 == 0:
            size = ((last - column) >> column_bits) + 1
            row = (row + (hashed * size >> (32 - line_bits))) % size
        else:
            size = min(width, length - (row << column_bits))
            column = (column + (hashed * size >> (32 - line_bits))) % size
    return (row << column_bits) | column


def num_bits(word: Words) -> Words:
    """The bit length of each word, as `int.bit_length`."""
    if isinstance(word, jax.Array):
        return np.uint32(32) - jax.lax.clz(word)
    # A double holds a word without rounding, so its exponent is the number of bits.
    return np.frexp(np.asarray(word, np.float64))[1].astype(np.uint32)
