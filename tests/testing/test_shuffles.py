"""`assert_shuffled` passes random orders and names the fault of each kind of bad one."""

from importlib.metadata import version

import numpy as np
import pytest

from jaxmix import shuffle_index
from jaxmix.testing import assert_shuffled


def random_order(length, seed=0):
    return np.random.default_rng(seed).permutation(length)


@pytest.mark.parametrize("length", [64, 65, 97, 1000, 1025, 4097, 50_000])
def test_the_permutations_of_numpy_pass(length):
    for seed in range(20 if length < 10_000 else 4):
        assert_shuffled(random_order(length, seed), length)


@pytest.mark.parametrize("length", [64, 97, 1000, 50_000, 10**6, 2**31 + 11, 2**32 - 1])
def test_the_shuffle_of_jaxmix_passes(length):
    assert_shuffled(lambda positions: shuffle_index(positions, length, 42), length)


def test_several_epochs_and_part_of_one_pass():
    assert_shuffled(shuffle_index(np.arange(3500), 1000, 0), 1000)
    assert_shuffled(shuffle_index(np.arange(3010), 1000, 0), 1000)
    assert_shuffled(random_order(1000)[:300], 1000)
    assert_shuffled(random_order(1000).astype(np.uint16), 1000)


def test_a_long_array_is_judged_to_its_end():
    order = random_order(600_000)
    assert_shuffled(order, 600_000)
    order[500_000:] = np.sort(order[500_000:])
    with pytest.raises(AssertionError, match="lag correlation at lag"):
        assert_shuffled(order, 600_000)


@pytest.mark.parametrize("length", [50_000, 262_144, 10**6, 10**7])
def test_the_shuffle_of_grain_0_2_18_fails(length):
    grain = pytest.importorskip("grain")
    if version("grain") != "0.2.18":
        pytest.skip("another version of grain")
    shuffled = grain.MapDataset.range(length).shuffle(42)
    order = np.array([shuffled[i] for i in range(50_000)])
    message = r"lag correlation at lag \d+ is -?0.\d+, \d+.\d sigma from random \(at most 6"
    with pytest.raises(AssertionError, match=message):
        assert_shuffled(order, length)


N = 10_000
RANDOM = random_order(N)


def linear_low_bits(length):
    """Random high bits, and two low bits that are those of the position."""
    high = [random_order(length // 4, seed) for seed in range(4)]
    return np.stack([4 * high[low] + low for low in range(4)], axis=1).reshape(-1)


def even_classes(length):
    """Of each 250 rows in order, 25 from every tenth of the rows."""
    tenths = [random_order(length // 10, k) + k * (length // 10) for k in range(10)]
    batches = np.stack(tenths).reshape(10, -1, 25).swapaxes(0, 1).reshape(-1, 250)
    return np.random.default_rng(11).permuted(batches, axis=1).reshape(-1)


def with_fixed_points(length):
    order = random_order(length)
    for position in range(100, 120):
        place = int(np.flatnonzero(order == position)[0])
        order[place], order[position] = order[position], position
    return order


def differences_of_fixed_parity(length):
    """Odd and even rows take turns."""
    half = [2 * random_order(length // 2, seed) + seed for seed in range(2)]
    return np.stack(half, axis=1).reshape(-1)


def steps_below_half(length):
    """Each row lies less than half the length above the one before, modulo the length."""
    order = random_order(length)
    for start in range(0, length - 1, 2):
        if (order[start + 1] - order[start]) % length > length // 2:
            order[start], order[start + 1] = order[start + 1], order[start]
    return order


BAD = {
    "file order": (np.arange(N), "lag correlation at lag 1 is 1.000"),
    "reversed": (np.arange(N)[::-1], "lag correlation at lag 1 is"),
    "turned": (np.roll(np.arange(N), 3000), "lag correlation at lag 1 is"),
    "a multiple": (np.arange(N) * 3571 % N, "lag correlation at lag"),
    "pairs kept": (np.repeat(random_order(N // 2) * 2, 2) + np.arange(N) % 2, "at lag 1 is"),
    "a shuffle buffer of 100": (
        np.concatenate([random_order(100, k) + 100 * k for k in range(100)]),
        "lag correlation at lag 1 is",
    ),
    "an echo at lag 2,000": (
        np.argsort(np.argsort(np.resize(random_order(2000), N), kind="stable"), kind="stable"),
        "lag correlation at lag 2000 is",
    ),
    "linear low bits": (linear_low_bits(8192), "bit correlation of position bit 0 with index bit"),
    "parity": (differences_of_fixed_parity(N), "bit correlation of position bit 0"),
    "small steps": (steps_below_half(N), "chi-square of differences at lag 1 is"),
    "even classes": (even_classes(N), "variance of class counts in batches of 256 is 0."),
    "fixed points": (with_fixed_points(N), "number of fixed points is 2"),
    "a row twice": (np.append(RANDOM[1:], RANDOM[1]), f"holds the index {RANDOM[1]} twice"),
    "drawn with replacement": (np.random.default_rng(0).integers(0, N, N), "twice"),
    "counted from 1": (RANDOM + 1, r"holds the index 10000, not in \[0, 10000\)"),
    "negative": (RANDOM - 1, r"holds the index -1, not in \[0, 10000\)"),
    "the same epoch again": (np.tile(RANDOM, 2), "correlation with the epoch before is 1.000"),
    "an epoch turned by a row": (np.concatenate([RANDOM, (RANDOM + 1) % N]), "epoch before is"),
    "an epoch mirrored": (np.concatenate([RANDOM, N - 1 - RANDOM]), "before is -1.000 in epoch 1"),
    "a few rows stay": (
        np.concatenate([RANDOM, RANDOM[:20], RANDOM[:19:-1]]),
        "indices equal to the epoch before is 2",
    ),
    "a bad second epoch": (np.concatenate([RANDOM, np.arange(N)]), "in epoch 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_order_fails_and_the_message_names_the_fault(name):
    order, message = BAD[name]
    length = 8192 if name == "linear low bits" else N
    with pytest.raises(AssertionError, match=message):
        assert_shuffled(order, length)


def test_gross_faults_are_seen_at_the_smallest_length():
    with pytest.raises(AssertionError, match="lag correlation at lag 1 is"):
        assert_shuffled(np.arange(64), 64)


@pytest.mark.parametrize(
    "order, length, error, message",
    [
        (np.arange(10), 10, ValueError, "length must be >= 64, got 10"),
        (np.arange(63), 64, ValueError, r"order must be .* at least 64 entries, got \(63,\)"),
        (np.zeros((64, 2), int), 64, ValueError, r"order must be an array \[m\] .* \(64, 2\)"),
        (np.ones(64), 64, TypeError, "order must be integers, got dtype"),
        (np.arange(64), 64.0, TypeError, "length must be an integer"),
        (lambda p: p[:5], 64, ValueError, r"order\(positions\) must be \[m\], got \(5,\)"),
        (lambda p: 3, 64, ValueError, r"order\(positions\) must be \[m\], got \(\)"),
    ],
)
def test_what_can_not_be_judged_is_refused(order, length, error, message):
    with pytest.raises(error, match=message):
        assert_shuffled(order, length)
