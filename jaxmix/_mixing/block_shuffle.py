"""Shuffle blocks of neighbouring rows, then rows within a window of blocks: few, whole reads."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxmix._checks import need, whole_number
from jaxmix._mixing.permutation import Key, Words, mix_key, numpy_like, permute, round_keys

# Words from which an epoch's keys are made: for the order of the blocks, the last block, a window.
_BLOCKS, _LAST_BLOCK, _WINDOWS = np.uint32(0x5851F42D), np.uint32(0xB5297A4D), np.uint32(0x68E31DA4)
_ONE = np.uint32(1)


@dataclasses.dataclass(frozen=True)
class BlockShuffle:
    """A shuffle for which neighbouring positions read few blocks of neighbouring rows.

    Use it for data on disks and object stores. The rows are cut into blocks, and the blocks are put
    in random order. Then the rows of each `window_blocks` blocks are shuffled. So a window of
    ``block_rows * window_blocks`` positions holds exactly the rows of `window_blocks` whole blocks.
    The last block may be shorter.

    Args:
      block_rows: the number of rows in a block, `>= 1` (static).
      window_blocks: the number of blocks in a window, `>= 1` (static).

    Raises:
      ValueError, TypeError: a number that is not an integer or below 1; a window of 2^32 rows or
        more.

    Example:
      >>> import jaxmix, numpy as np
      >>> block = jaxmix.BlockShuffle(block_rows=4, window_blocks=2)
      >>> rows = jaxmix.shuffle_index(np.arange(8), 40, seed=0, block=block)
      >>> sorted(set((rows // 4).tolist()))  # the first 8 rows are 2 whole blocks
      [5, 6]
    """

    block_rows: int = 256
    window_blocks: int = 512

    def __post_init__(self):
        whole_number("block_rows", self.block_rows, 1)
        whole_number("window_blocks", self.window_blocks, 1)
        rows = self.block_rows * self.window_blocks
        need(rows < 2**32, "block_rows * window_blocks", "below 2^32", rows)


def permute_blocks(index: Words, length: Words, key: Key, block: BlockShuffle) -> Words:
    """Where the block shuffle of [0, length) puts each index; length at most 2^32 - block_rows.

    The last block, which may be short, takes the last slot of a window, so that the rows before
    each slot can be counted. A random slot decides which window; the order of the blocks inside a
    window does not matter. The other blocks are permuted over the other slots.
    """
    where, minimum = numpy_like(index).where, numpy_like(index).minimum
    block_rows, window_blocks = np.uint32(block.block_rows), np.uint32(block.window_blocks)
    window_rows = np.uint32(block.block_rows * block.window_blocks)
    zero = np.uint32(0)

    num_blocks = (length - _ONE) // block_rows + _ONE
    missing = num_blocks * block_rows - length
    drawn = mix_key(*key, _LAST_BLOCK)[0] % num_blocks
    short_window = drawn // window_blocks
    first_slot = short_window * window_blocks
    short_slot = first_slot + minimum(window_blocks, num_blocks - first_slot) - _ONE
    short_end = (short_slot + _ONE) * block_rows - missing

    # If the missing rows are counted too, all windows except the last have the same size.
    spaced = index + where(index >= short_end, missing, zero)
    window = spaced // window_rows
    start = window * window_rows
    size = minimum(window_rows, num_blocks * block_rows - start)
    size = size - where(window == short_window, missing, zero)
    inside = permute(spaced - start, size, round_keys(mix_key(*key, _WINDOWS + window)))

    slot = window * window_blocks + inside // block_rows
    others = num_blocks - _ONE
    other_slot = slot - where(slot > short_slot, _ONE, zero)
    moved = permute(
        other_slot, others + where(others == zero, _ONE, zero), round_keys(mix_key(*key, _BLOCKS))
    )
    return where(slot == short_slot, others, moved) * block_rows + inside % block_rows
