"""The block shuffle: windows read whole blocks, each row once per epoch, random within a window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmix import BlockShuffle, shuffle_index
from jaxmix.testing import assert_shuffled

# Whole blocks and windows, a short last block, a short last window, one block, blocks of one row.
SHAPES = [
    (1, 1, 1),
    (2, 1, 1),
    (7, 16, 4),
    (64, 16, 4),
    (100, 1, 1),
    (100, 1, 7),
    (1000, 16, 4),
    (1001, 16, 4),
    (1023, 16, 4),
    (1025, 16, 1),
    (4097, 256, 512),
]


class CountedReads:
    """A source on disk: rows are read by slices, each slice is counted, one block is kept."""

    def __init__(self, length, block_rows):
        self.rows, self.block_rows, self.slices = np.arange(length), block_rows, 0

    def read(self, rows):
        got = np.empty_like(rows)
        for block in np.unique(rows // self.block_rows):
            part = self.rows[block * self.block_rows : (block + 1) * self.block_rows]
            self.slices += 1
            mine = rows // self.block_rows == block
            got[mine] = part[rows[mine] - block * self.block_rows]
        return got


@pytest.mark.parametrize("length, block_rows, window_blocks", SHAPES)
def test_each_row_comes_once_per_epoch(length, block_rows, window_blocks):
    block = BlockShuffle(block_rows, window_blocks)
    order = shuffle_index(np.arange(3 * length), length, 5, block=block)
    for epoch in np.split(order, 3):
        assert (np.bincount(epoch, minlength=length) == 1).all()
    one_by_one = [shuffle_index(p, length, 5, block=block) for p in range(3)]
    assert one_by_one == order[:3].tolist() and type(one_by_one[0]) is int


@pytest.mark.parametrize("sizes", sorted({shape[1:] for shape in SHAPES}))
def test_jax_gives_the_rows_of_numpy(sizes):
    block = BlockShuffle(*sizes)
    run = jax.jit(lambda position, length: shuffle_index(position, length, 5, block=block))
    for length in (1, 2, 97, 4096, 4097, 2**31 + 5, 2**32 - 256):
        position = np.linspace(0, min(3 * length, 2**32 - 1), 500).astype(np.int64)
        device = run(jnp.asarray(position.astype(np.uint32)), jnp.uint32(length))
        assert device.tolist() == shuffle_index(position, length, 5, block=block).tolist()


@pytest.mark.parametrize("length, block_rows, window_blocks", SHAPES)
def test_a_window_reads_whole_blocks(length, block_rows, window_blocks):
    num_blocks, window_rows = -(-length // block_rows), block_rows * window_blocks
    for seed in range(20):
        order = shuffle_index(
            np.arange(length), length, seed, block=BlockShuffle(block_rows, window_blocks)
        )
        # All windows but the last are full, except that the short block lies in one of them.
        ends = np.minimum(np.arange(window_rows, length + window_rows, window_rows), length)
        short_window = int(np.argmax(order == length - 1)) // window_rows
        ends[short_window:] = np.minimum(ends[short_window:] - -length % block_rows, length)
        ends = ends[: -(-num_blocks // window_blocks)]
        ends[-1] = length
        source = CountedReads(length, block_rows)
        for window in np.split(order, ends[:-1]):
            before = source.slices
            assert source.read(window).tolist() == window.tolist()
            assert source.slices - before <= -(-len(window) // block_rows) + 1
        # No block is read in two windows: every block is read exactly once an epoch.
        assert source.slices == num_blocks


def test_the_short_block_lies_in_every_window_in_proportion():
    """33 blocks in windows of 4: eight full windows and one of a single block."""
    block, length = BlockShuffle(4, 4), 4 * 32 + 1
    position = np.arange(length)[None]
    orders = shuffle_index(position, length, np.arange(3300)[:, None], block=block)
    window = np.minimum(np.argmax(orders == length - 1, axis=1) // 16, 8)
    counts, expected = np.bincount(window, minlength=9), 100 * np.array([4] * 8 + [1])
    assert np.sum((counts - expected) ** 2 / expected) < 8 + 5 * np.sqrt(16)


def test_blocks_and_rows_lie_at_every_place_equally_often():
    block, length, num_seeds = BlockShuffle(4, 3), 30, 20_000
    position = np.arange(length)[None]
    orders = shuffle_index(position, length, np.arange(num_seeds)[:, None], block=block)
    counts = np.stack([np.bincount(orders[:, p], minlength=length) for p in range(length)])
    # Row r lies in the short block (r >= 28) or not, which says how it spreads over the windows.
    whole = counts[:, :28].reshape(length, 7, 4)
    spread = np.abs(whole - whole.mean(axis=(1, 2), keepdims=True))
    assert (spread < 5 * np.sqrt(whole.mean(axis=(1, 2), keepdims=True))).all()
    assert np.abs(counts.sum(axis=0) - num_seeds).max() == 0


def test_a_window_looks_random():
    """Rows in the window by their place among its blocks, and the order of all blocks."""
    block, length = BlockShuffle(64, 128), 64 * 128 * 10
    order = shuffle_index(np.arange(length), length, 3, block=block).reshape(10, -1)
    for window in order:
        blocks, place = np.unique(window // 64, return_inverse=True)
        assert len(blocks) == 128
        assert_shuffled(place * 64 + window % 64, 64 * 128)
    # A window that holds all the rows is a full shuffle, across its blocks too.
    assert_shuffled(shuffle_index(np.arange(8192), 8192, 3, block=block), 8192)
    one = BlockShuffle(1, 1)
    assert_shuffled(shuffle_index(np.arange(5000), 5000, 3, block=one), 5000)


def test_two_epochs_and_two_windows_have_nothing_in_common():
    block = BlockShuffle(64, 16)
    order = shuffle_index(np.arange(2**17), 2**16, 3, block=block)
    first, second = np.split(order, 2)
    assert np.sum(first == second) < 12
    places = first.reshape(64, 1024)
    inner = np.argsort(np.argsort(places, axis=1), axis=1)
    correlations = np.corrcoef(inner)[np.triu_indices(64, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(1024)


def test_the_largest_length_leaves_room_for_a_block():
    length = 2**32 - 256
    order = shuffle_index(np.arange(2**19), length, 3, block=BlockShuffle())
    assert order.max() < length and len(np.unique(order)) == len(order)
    last = shuffle_index(np.arange(length - 1000, length), length, 3, block=BlockShuffle())
    assert len(np.unique(last // 256)) <= 512 and not np.isin(last, order).any()
    with pytest.raises(ValueError, match=r"length must be in \[1, 4294967040\], got 4294967041"):
        shuffle_index(0, length + 1, 3, block=BlockShuffle())


def test_the_bits_are_those_of_the_release():
    order = shuffle_index(np.arange(8), 1000, 1, block=BlockShuffle(16, 4))
    assert order.tolist() == [552, 729, 547, 723, 733, 550, 559, 59]


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"block_rows": 0}, ValueError, "block_rows must be >= 1, got 0"),
        ({"window_blocks": -1}, ValueError, "window_blocks must be >= 1, got -1"),
        ({"block_rows": 2.0}, TypeError, "block_rows must be an integer >= 1, got 2.0"),
        ({"window_blocks": True}, TypeError, "window_blocks must be an integer >= 1, got True"),
        (
            {"block_rows": 2**16, "window_blocks": 2**16},
            ValueError,
            r"block_rows \* window_blocks must be below 2\^32, got 4294967296",
        ),
    ],
)
def test_a_block_shuffle_without_whole_sizes_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        BlockShuffle(**arguments)
