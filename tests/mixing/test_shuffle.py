"""The shuffle: each row once per epoch, and the same rows in NumPy, JAX and every transform."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmix import BlockShuffle, shuffle_index
from jaxmix.testing import assert_same_everywhere

LARGEST = 2**32 - 1
COLLECTIVE = r"(all|reduce|collective)[-_](reduce|gather|to[-_]all|scatter|permute|broadcast)"
# Grids that are full, one short, one over or a single line, and the limits of int32 and uint32.
LENGTHS = [1, 2, 3, 97, 1000, 4096, 4097, 65_535, 1_000_003, 2**31 - 1, 2**31, 2**31 + 1, LARGEST]


def test_an_epoch_of_every_length_to_4096_holds_each_row_once():
    for length in range(1, 4097):
        order = shuffle_index(np.arange(length), length, seed=length % 5, epoch=length % 3)
        counts = np.bincount(order, minlength=length)
        assert counts.shape == (length,) and (counts == 1).all(), length


@pytest.mark.parametrize("length", [65_535, 65_536, 65_537, 1_000_003, 2**20 + 2**10])
def test_an_epoch_of_a_large_length_holds_each_row_once(length):
    order = shuffle_index(np.arange(length, 2 * length), length, seed=9)
    assert (np.bincount(order, minlength=length) == 1).all()


def test_no_row_comes_twice_at_200_lengths_to_the_largest():
    generator = np.random.default_rng(0)
    lengths = np.exp(generator.uniform(np.log(5000), np.log(LARGEST), 196)).astype(np.int64)
    for length in [*lengths.tolist(), 2**31, 2**31 + 1, LARGEST - 1, LARGEST]:
        # Of 2^17 random draws from 2^32 two pairs would meet on average, far more from fewer.
        count = min(length, 2**17)
        start = int(generator.integers(length - count + 1))
        order = np.sort(shuffle_index(np.arange(start, start + count), length, seed=1))
        assert order[0] >= 0 and order[-1] < length, length
        assert (order[1:] != order[:-1]).all(), length


def test_one_row_and_two_rows():
    assert shuffle_index(np.arange(3), 1, seed=4).tolist() == [0, 0, 0]
    orders = {tuple(shuffle_index(np.arange(2), 2, seed=s).tolist()) for s in range(20)}
    assert orders == {(0, 1), (1, 0)}


def test_every_seed_and_epoch_has_an_order_of_its_own():
    """Seed s in epoch e + 1 is not seed s + 1 in epoch e, either."""
    seeds, epochs = (grid.reshape(-1, 1) for grid in np.mgrid[0:40, 0:25])
    orders = shuffle_index(np.arange(50)[None], 50, seeds, epoch=epochs)
    assert len(np.unique(orders, axis=0)) == 1000


def test_another_length_has_another_order():
    for seed in range(4):
        one = shuffle_index(np.arange(1000), 1000, seed)
        for other_seed in (seed, seed + 1):
            other = shuffle_index(np.arange(1000), 1001, other_seed)
            assert np.sum(one == other) < 10


@pytest.mark.parametrize(
    "first, count, length, seed, epoch, rows",
    [
        (0, 10, 10, 0, 0, [8, 4, 5, 7, 2, 3, 1, 6, 0, 9]),
        (10, 10, 10, 0, 0, [8, 7, 5, 0, 4, 2, 1, 9, 3, 6]),
        (0, 5, 10**6, 42, 0, [490665, 277622, 650204, 802437, 665663]),
        (0, 3, LARGEST, LARGEST, 7, [3312837942, 2729970768, 1843262524]),
    ],
)
def test_the_bits_are_those_of_the_release(first, count, length, seed, epoch, rows):
    position = np.arange(first, first + count)
    assert shuffle_index(position, length, seed, epoch=epoch).tolist() == rows


def test_positions_past_the_end_are_of_the_next_epochs():
    position = np.arange(350)
    order = shuffle_index(position, 100, seed=3, epoch=2)
    again = shuffle_index(position % 100, 100, seed=3, epoch=2 + position // 100)
    assert order.tolist() == again.tolist()


@pytest.mark.parametrize("length", [7, 10**6, LARGEST])
def test_positions_past_2_to_the_32_work_on_the_host(length):
    position = 2**40 + np.arange(3000)
    order = shuffle_index(position, length, seed=3)
    again = shuffle_index(position % length, length, seed=3, epoch=position // length)
    assert order.tolist() == again.tolist()
    assert shuffle_index(2**40 + 17, length, seed=3) == order[17]


@pytest.mark.parametrize("length", LENGTHS)
def test_an_int_gives_the_int_and_jax_the_bits_of_numpy(length):
    position = np.linspace(0, min(3 * length, LARGEST), 300).astype(np.int64)
    order = shuffle_index(position, length, seed=LARGEST, epoch=3)
    assert order.dtype == np.int64
    one_by_one = [shuffle_index(int(p), length, seed=LARGEST, epoch=3) for p in position]
    assert one_by_one == order.tolist() and type(one_by_one[0]) is int
    device = jnp.asarray(position.astype(np.uint32))
    on_device = shuffle_index(device, jnp.uint32(length), seed=LARGEST, epoch=jnp.int32(3))
    assert on_device.dtype == jnp.uint32 and on_device.tolist() == order.tolist()


def test_pieces_of_any_size_give_the_same_rows():
    position = np.arange(70_000)
    whole = shuffle_index(position, 60_001, seed=5)
    parts = [shuffle_index(part, 60_001, seed=5) for part in np.array_split(position, 17)]
    assert (np.concatenate(parts) == whole).all()
    assert (shuffle_index(position.reshape(700, 100), 60_001, seed=5).reshape(-1) == whole).all()


def test_the_rows_of_several_sources_come_in_one_call():
    source = np.arange(600) % 4
    lengths, seeds, epochs = np.array([1, 50, 977, LARGEST]), np.arange(4) + 7, np.arange(4)
    position = np.arange(600) // 4 * 11
    rows = shuffle_index(position, lengths[source], seeds[source], epoch=epochs[source])
    for k in range(4):
        mine = source == k
        alone = shuffle_index(position[mine], int(lengths[k]), int(seeds[k]), epoch=int(epochs[k]))
        assert rows[mine].tolist() == alone.tolist()


def test_any_of_the_numbers_may_be_an_array():
    rows = [shuffle_index(p, 97, 1, epoch=2) for p in (5, 300)]
    several = np.array([5, 300])
    assert shuffle_index(several, 97, 1, epoch=2).tolist() == rows
    assert shuffle_index(5, np.array([97, 97]), 1, epoch=2).tolist() == [rows[0]] * 2
    assert shuffle_index(5, 97, np.array([1, 1]), epoch=2).tolist() == [rows[0]] * 2
    assert shuffle_index(5, 97, 1, epoch=np.array([2, 2])).tolist() == [rows[0]] * 2
    assert shuffle_index(several[:, None], 97, 1, epoch=np.array([[2, 2]])).T.tolist() == [rows] * 2
    assert shuffle_index(jnp.array([5, 300]), 97, np.array([1, 1]), epoch=2).tolist() == rows


@pytest.mark.parametrize("block, max_devices", [(None, 8), (BlockShuffle(16, 4), 1)])
def test_rows_are_the_same_everywhere(block, max_devices):
    source = np.arange(64) % 3
    lengths = np.array([5, 977, 2**31 - 257], np.int32)[source]
    seeds = np.array([0, 1, LARGEST], np.uint32)[source]

    def rows(step, place, length, seed, axis_name=None):
        position = jnp.asarray(step, jnp.int32) * 64 + place
        return shuffle_index(position, length, seed, epoch=length % 3, block=block)

    batch = (jnp.arange(64, dtype=jnp.int32), jnp.asarray(lengths), jnp.asarray(seeds))
    assert_same_everywhere(rows, *batch, max_devices=max_devices)
    position = 777 * 64 + np.arange(64)
    host = shuffle_index(position, lengths, seeds, epoch=lengths % 3, block=block)
    assert rows(777, *batch).tolist() == host.tolist()


@pytest.mark.parametrize(
    "num_devices, block",
    [*((count, None) for count in range(1, 9)), (8, BlockShuffle(16, 4))],
)
def test_sharded_positions_give_the_same_rows_without_talk_or_loops(num_devices, block):
    devices = jax.devices()[:num_devices]
    mesh = jax.make_mesh((num_devices,), ("data",), (AxisType.Auto,), devices=devices)
    rows = NamedSharding(mesh, PartitionSpec("data"))
    position = jax.device_put(np.arange(840, dtype=np.uint32), rows)
    length = jnp.int32(97)
    run = jax.jit(lambda position, length: shuffle_index(position, length, 5, block=block))
    compiled = run.lower(position, length).compile()
    text = compiled.as_text()
    for word in (COLLECTIVE, r"\bwhile\(", r"\bsort\(", r"\bgather\(", r"dynamic-slice"):
        assert not re.search(word, text), word
    got = compiled(position, length)
    assert got.sharding.is_equivalent_to(rows, 1)
    assert got.tolist() == shuffle_index(np.arange(840), 97, 5, block=block).tolist()


def test_the_result_has_the_dtype_of_the_position():
    for dtype in (jnp.int32, jnp.uint32):
        assert shuffle_index(jnp.arange(4, dtype=dtype), 10, 0).dtype == dtype
    assert shuffle_index(np.arange(4, dtype=np.int32), 10, 0).dtype == np.int64
    assert type(shuffle_index(np.int64(3), 10, 0)) is int
    assert shuffle_index(3, jnp.int32(10), 0).dtype == jnp.uint32
    assert shuffle_index(np.arange(4), 10, jnp.uint32(0)).dtype == jnp.uint32
    assert shuffle_index(np.arange(0), 10, 0).shape == (0,)


def test_64_bit_positions_of_jax_give_the_rows_of_numpy():
    position = 2**40 + np.arange(50)
    with jax.enable_x64(True):
        got = shuffle_index(jnp.asarray(position), 977, 5)
        assert got.dtype == jnp.int64
        assert got.tolist() == shuffle_index(position, 977, 5).tolist()


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((-1, 10, 0), ValueError, r"position must be in \[0, \d+\], got -1"),
        ((np.array([3, -2]), 10, 0), ValueError, r"position must be .* got \[-2, 3\]"),
        ((jnp.array([3, -2]), 10, 0), ValueError, r"position must be .* got \[-2, 3\]"),
        ((1.0, 10, 0), TypeError, r"position must be an int or an array of integers, got 1.0"),
        ((np.ones(3), 10, 0), TypeError, r"position must be .* got dtype\('float64'\)"),
        ((jnp.ones(3), 10, 0), TypeError, r"position must be int32 or uint32 .*float32"),
        (([1, 2], 10, 0), TypeError, r"position must be .* got \[1, 2\]"),
        ((True, 10, 0), TypeError, r"position must be .* got True"),
        ((1, 0, 0), ValueError, r"length must be in \[1, 4294967295\], got 0"),
        ((1, 2**32, 0), ValueError, r"length must be .* got 4294967296"),
        ((np.arange(2), np.array([4, 0]), 0), ValueError, r"length must be .* got \[0, 4\]"),
        ((1, 10, -1), ValueError, r"seed must be in \[0, 4294967295\], got -1"),
        ((1, 10, 2**32), ValueError, r"seed must be .* got 4294967296"),
        ((1, 10, True), TypeError, r"seed must be .* got True"),
        ((1, 10, None), TypeError, r"seed must be .* got None"),
        ((1, 10, jnp.int32(3)), TypeError, r"seed must be uint32 .*'int32'"),
        ((1, 10, jax.random.key(0)), TypeError, r"seed must be uint32 .*key"),
        ((jnp.arange(3), 2**31, 0), TypeError, r"length must be below 2\^31, or int32, .* 2147"),
        ((jnp.arange(3), jnp.uint32(5), 0), TypeError, r"length must be .* got dtype\('uint32'\)"),
        ((2**32, jnp.int32(5), 0), ValueError, r"position must be in \[0, 4294967295\]"),
    ],
)
def test_what_is_nearly_right_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        shuffle_index(*arguments)


def test_an_epoch_and_a_block_of_the_wrong_kind_are_refused():
    with pytest.raises(ValueError, match=r"epoch must be .* got -1"):
        shuffle_index(1, 10, 0, epoch=-1)
    with pytest.raises(TypeError, match=r"block must be a BlockShuffle or None, got 256"):
        shuffle_index(1, 10, 0, block=256)
