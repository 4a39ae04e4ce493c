"""The row at each position of the endless stream of a source: each row once per epoch."""

from __future__ import annotations

import functools
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import is_concrete, need
from jaxmix._mixing.block_shuffle import BlockShuffle, permute_blocks
from jaxmix._mixing.permutation import Key, mix_key, permute, permute_one, round_keys
from jaxmix._types import ArrayLike

_WORD = 2**32
# Spreads a length over all bits: (seed + 1, length + 1) must not give the key of (seed, length).
_SPREAD = np.uint32(0x9E3779B1)
# The rows that NumPy handles at once: all arrays of a round then fit the cache.
_PIECE_ROWS = 16_384


def shuffle_index(
    position: ArrayLike,
    length: ArrayLike,
    seed: ArrayLike,
    *,
    epoch: ArrayLike = 0,
    block: BlockShuffle | None = None,
) -> Any:
    """Return the row to read at each position: a random order with each row once per epoch.

    Each (seed, epoch, length) has its own permutation, computed from integers without a table or a
    state. So any position can be asked for directly. NumPy and JAX give the same rows, under every
    transform and sharding. The order passes statistical tests; it is not for cryptography.

    Args:
      position: positions in the stream of a source, counted through all epochs: an int or an array
        of integers. Position p lies in epoch ``p // length``. A JAX array is int32 or uint32. An
        int or a NumPy array may hold numbers up to 2^63 - 1.
      length: the rows in the source, ``1 <= length < 2^32``. Each length has its own order.
      seed: ``0 <= seed < 2^32``; a JAX array is uint32.
      epoch: a number `>= 0` that is added to the epoch of each position, modulo 2^32.
      block: a `BlockShuffle`, for sources that read neighbouring rows fast (static); None shuffles
        single rows. `length` is then at most ``2^32 - block_rows``.

    JAX arrays may be traced. `length`, `seed` and `epoch` may be arrays with one number for each
    position, for the rows of several sources in one call.

    Returns:
      The rows in [0, length): an int if all arguments are ints; a JAX array if any argument is one,
      with the dtype of `position` if that is a JAX array, else uint32; otherwise NumPy int64.

    Raises:
      ValueError, TypeError: numbers out of range or of another type. The values of traced arrays
        can't be checked.

    Example:
      >>> import jaxmix, numpy as np
      >>> order = jaxmix.shuffle_index(np.arange(10), 10, seed=0)
      >>> sorted(order.tolist())
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
      >>> order.tolist() == [jaxmix.shuffle_index(p, 10, seed=0) for p in range(10)]
      True
    """
    ok = block is None or isinstance(block, BlockShuffle)
    need(ok, "block", "a BlockShuffle or None", block, TypeError)
    longest = _WORD - (1 if block is None else block.block_rows)
    values = (
        _integers("position", position, 0, 2**63 - 1),
        _integers("length", length, 1, longest),
        _integers("seed", seed, 0, _WORD - 1),
        _integers("epoch", epoch, 0, 2**63 - 1),
    )
    if any(isinstance(value, jax.Array) for value in values):
        return _rows_in_jax(values, block)
    if block is None and all(isinstance(value, int) for value in values):
        return _row_of_ints(*values)
    return _rows_in_numpy(values, block)


def _integers(name: str, value: Any, low: int, high: int) -> Any:
    """`value` as an int, an int64 array of NumPy or an array of JAX, its numbers in [low, high]."""
    if isinstance(value, jax.Array):
        wanted = "uint32" if name == "seed" else "int32 or uint32"
        ok = value.dtype.name in (*wanted.split(" or "), "int64", "uint64")
        need(ok, name, f"{wanted} if it is a JAX array", value.dtype, TypeError)
        if is_concrete(value) and value.is_fully_addressable:
            _check_range(name, np.asarray(value), low, high)
        return value
    if isinstance(value, np.ndarray) and value.ndim > 0:
        need(value.dtype.kind in "iu", name, "an array of integers", value.dtype, TypeError)
        _check_range(name, value, low, high)
        return value.astype(np.int64, copy=False)
    number = value[()] if isinstance(value, np.ndarray) else value
    ok = isinstance(number, numbers.Integral) and not isinstance(number, bool | np.bool_)
    need(ok, name, "an int or an array of integers", number, TypeError)
    need(low <= int(number) <= high, name, f"in [{low}, {high}]", number)
    return int(number)


def _check_range(name: str, values: np.ndarray, low: int, high: int) -> None:
    if values.size:
        least, most = int(values.min()), int(values.max())
        need(low <= least and most <= high, name, f"in [{low}, {high}]", [least, most])


def _rows_in_jax(values: tuple[Any, Any, Any, Any], block: BlockShuffle | None) -> jax.Array:
    """The rows as a JAX array; all numbers in between are uint32."""
    position, length, seed, epoch = values
    dtype = position.dtype if isinstance(position, jax.Array) else np.dtype(np.uint32)
    if dtype == np.int32:
        fits = length < 2**31 if isinstance(length, int) else length.dtype != np.uint32
        got = length if isinstance(length, int) else length.dtype
        need(fits, "length", "below 2^31, or int32, if positions are int32", got, TypeError)
    if not isinstance(position, jax.Array):
        _check_range("position", np.asarray(position), 0, _WORD - 1)
    wide = dtype if dtype.itemsize == 8 else np.dtype(np.uint32)
    position, length = _as_jax(position, wide), _as_jax(length, wide)
    passed = position // length
    index = (position - passed * length).astype(np.uint32)
    passed, length = passed.astype(np.uint32), length.astype(np.uint32)
    key = mix_key(_as_jax(seed), _as_jax(epoch) + passed, length * _SPREAD)
    if block is None:
        rows = permute(index, length, round_keys(key))
    else:
        rows = permute_blocks(index, length, key, block)
    return rows.astype(dtype)


def _as_jax(value: Any, dtype: Any = np.uint32) -> jax.Array:
    """The numbers modulo 2^32 or 2^64 in JAX."""
    if isinstance(value, jax.Array):
        return value.astype(dtype)
    return jnp.asarray(np.asarray(value, np.int64).astype(dtype))


def _row_of_ints(position: int, length: int, seed: int, epoch: int) -> int:
    passed, index = divmod(position, length)
    return permute_one(index, length, _scalar_keys(seed, (epoch + passed) % _WORD, length))


def _rows_in_numpy(values: tuple[Any, Any, Any, Any], block: BlockShuffle | None) -> Any:
    """The rows as NumPy int64, or an int if all are ints, computed piece by piece."""
    shape = np.broadcast_shapes(*(np.shape(value) for value in values))
    flat = [
        value if isinstance(value, int) else np.broadcast_to(value, shape).reshape(-1)
        for value in values
    ]
    rows = np.empty(shape, np.int64)
    out = rows.reshape(-1)
    for start in range(0, out.size, _PIECE_ROWS):
        piece = slice(start, start + _PIECE_ROWS)
        position, length, seed, epoch = (
            value if isinstance(value, int) else value[piece] for value in flat
        )
        out[piece] = _rows_of_piece(position, length, seed, epoch, block)
    return rows if shape else int(rows)


def _rows_of_piece(
    position: Any, length: Any, seed: Any, epoch: Any, block: BlockShuffle | None
) -> np.ndarray:
    """The rows uint32 [b] of arrays [b] or ints."""
    passed = position // length
    index = _words(position - passed * length)
    epochs = np.ravel((passed + epoch) % _WORD)
    same_key = isinstance(length, int) and isinstance(seed, int) and (epochs == epochs[0]).all()
    if same_key and block is None:
        return permute(index, np.uint32(length), _scalar_keys(seed, int(epochs[0]), length))
    lengths = _words(length)
    key = mix_key(_words(seed), _words(epochs), lengths * _SPREAD)
    if block is not None:
        return permute_blocks(index, lengths, key, block)
    return permute(index, lengths, round_keys(key))


def _words(value: Any) -> np.ndarray:
    """The numbers below 2^32 as uint32 of rank 1 or more: NumPy scalars warn when they wrap."""
    return np.atleast_1d(np.asarray(value)).astype(np.uint32)


@functools.lru_cache(maxsize=1024)
def _scalar_keys(seed: int, epoch: int, length: int) -> tuple[Key, ...]:
    """The keys of all rounds, cached: every step in an epoch needs the same ones."""
    pairs = round_keys(mix_key(_words(seed), _words(epoch), _words(length) * _SPREAD))
    return tuple((added[0], factor[0]) for added, factor in pairs)
