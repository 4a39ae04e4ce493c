"""The shuffle looks random: each gate passes it and fails a weaker construction."""

import itertools
import math

import numpy as np
import pytest

from jaxmix import shuffle_index
from jaxmix._mixing import permutation, shuffle

LENGTHS = [1000, 50_000, 10**6, 2**32 - 1]
ENTRIES = 100_000


def ours(position, length, seed, epoch=0):
    return shuffle_index(position, length, seed, epoch=epoch)


def two_rounds(position, length, seed, epoch=0):
    """The same rotations, of the columns and of the rows once each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(permutation, "NUM_ROUNDS", 2)
        shuffle._scalar_keys.cache_clear()
        rows = shuffle_index(position, length, seed, epoch=epoch)
    shuffle._scalar_keys.cache_clear()
    return rows


def summed_keys(position, length, seed, epoch=0):
    """A key that is seed + epoch, as in some libraries, so that epochs of two seeds meet."""
    return shuffle_index(position, length, seed + epoch)


def alike_seeds(position, length, seed, epoch=0):
    """A good order that only turns by one row from seed to seed and epoch to epoch."""
    return (shuffle_index(position, length, 0) + seed + epoch) % length


def linear_feistel(position, length, seed, epoch=0):
    """A Feistel network whose round function, a product modulo 2^h, leaves low bits linear."""
    half = (int(length - 1).bit_length() + 1) // 2
    mask = 2**half - 1
    rounds = np.random.default_rng([seed, epoch]).integers(0, 2**half, 5).tolist()
    row = np.array(position)
    out = np.ones(row.shape, bool)
    while out.any():
        left, right = row[out] >> half, row[out] & mask
        for added in rounds:
            left, right = right, left ^ ((right * 2654435761 + added) & mask)
        row[out] = left << half | right
        out &= row >= length
    return row


def even_batches(position, length, seed, epoch=0):
    """Each run of 64 positions takes one row of each of 64 parts: more even than random."""
    return position % 64 * (length // 64) + ours(position // 64, length // 64, seed, epoch)


def worst_lag(order):
    """The largest correlation in units of 1/sqrt(m) at lags 1 to 4,096."""
    worst = 0.0
    for length in LENGTHS:
        count = min(length, ENTRIES)
        rows = order(np.arange(count), length, 3) - (length - 1) / 2
        spectrum = np.abs(np.fft.rfft(rows, 2**18)) ** 2
        correlations = np.fft.irfft(spectrum)[1 : min(4096, count // 4) + 1] / np.sum(rows**2)
        worst = max(worst, float(np.abs(correlations).max()) * math.sqrt(count))
    return worst


def worst_pair(pairs):
    """The largest correlation between the orders of pairs of (seed, epoch), in 1/sqrt(m)."""

    def worst(order):
        found = 0.0
        for length, (one, other) in itertools.product(LENGTHS, pairs):
            count = min(length, ENTRIES)
            a, b = (order(np.arange(count), length, *which) for which in (one, other))
            found = max(found, abs(float(np.corrcoef(a, b)[0, 1])) * math.sqrt(count))
        return found

    return worst


def worst_bit(order):
    """The largest correlation of a bit of the position and a bit of the row, in 1/sqrt(m)."""
    worst = 0.0
    for length in (2**16, 2**20, 50_000, 2**32 - 1):
        position = np.arange(min(length, 2**17))
        rows = order(position, length, 3)
        used = np.arange(min(16, int(length).bit_length() - 1))
        # All bits of the row, those of the position that take both values nearly equally often.
        place = ((position >> used[:, None]) & 1) - 0.5
        place -= place.mean(axis=1, keepdims=True)
        bits = ((rows >> np.arange(int(length - 1).bit_length())[:, None]) & 1).astype(float)
        bits -= bits.mean(axis=1, keepdims=True)
        norms = np.sqrt(np.sum(place**2, axis=1)[:, None] * np.sum(bits**2, axis=1))
        worst = max(worst, float(np.abs(place @ bits.T / norms).max()) * math.sqrt(len(rows)))
    return worst


def class_variance(order):
    """The counts of 10 classes of sorted rows in batches of 256, over 1,000 seeds: sigmas."""
    length, batch, num_classes = 20 * 256, 256, 10
    rows = np.stack([order(np.arange(length), length, seed) for seed in range(1000)])
    classes = (rows * num_classes // length).reshape(1000, length // batch, batch)
    counts = np.stack([np.sum(classes == k, axis=2) for k in range(num_classes)])
    expected = batch / num_classes
    chi_squares = np.sum((counts - expected) ** 2 / expected, axis=(0, 2))
    # Fixed margins: (20 - 1) (10 - 1) degrees of freedom, by length / (length - 1).
    freedom = 19 * 9
    mean = freedom * length / (length - 1)
    return abs(float(np.mean(chi_squares)) - mean) / math.sqrt(2 * freedom / 1000)


def orders_of_97(order):
    """The orders [20,000, 97] of 97 rows by 20,000 neighbouring seeds, and of the next epoch."""
    position, seeds = np.arange(97)[None], np.arange(20_000)[:, None]
    return [order(position, 97, seeds, epoch) for epoch in (0, 1)]


def chi_square_sigmas(counts, expected, freedom):
    return (float(np.sum((counts - expected) ** 2 / expected)) - freedom) / math.sqrt(2 * freedom)


def position_counts(order):
    """How often each of 97 rows lies at each position, by chi-square."""
    orders, _ = orders_of_97(order)
    counts = np.stack([np.bincount(orders[:, p], minlength=97) for p in range(97)])
    return chi_square_sigmas(counts, len(orders) / 97, 96 * 96)


def differences(pick):
    """The differences modulo 97 of what `pick` pairs, uniform over 1 .. 96, or 0 .. 96."""

    def sigmas(order):
        one, other, smallest = pick(*orders_of_97(order))
        counts = np.bincount(((one - other) % 97).reshape(-1), minlength=97)[smallest:]
        return chi_square_sigmas(counts, counts.sum() / len(counts), len(counts) - 1)

    return sigmas


def equal_to_poisson(pick):
    """The number of equal entries of what `pick` pairs, by chi-square with Poisson of mean 1."""

    def sigmas(order):
        one, other = pick(*orders_of_97(order))
        counts = np.bincount(np.minimum(np.sum(one == other, axis=1), 5), minlength=6)
        chances = np.array([math.exp(-1) / math.factorial(k) for k in range(5)])
        expected = np.append(chances, 1 - chances.sum()) * len(one)
        return chi_square_sigmas(counts, expected, 5)

    return sigmas


EPOCHS = [((s, e), (s, e + 1)) for s in (0, 1, 42, 2**31, 12_345) for e in (0, 1, 2, 1000)]
SEEDS = [((s, e), (s + 1, e)) for s in (0, 1, 42, 2**31, 12_345) for e in (0, 1, 2, 1000)]
CROSSED = [((s, e + 1), (s + 1, e)) for s in (0, 1, 42, 2**31, 12_345) for e in (0, 1, 2, 1000)]
FAR = [((0, 0), (s, 0)) for s in range(7, 2000, 99)]

# What is measured, the most allowed, and a weaker construction that must fail.
GATES = {
    "lags 1 to 4,096": (worst_lag, 5, two_rounds),
    "lags, even batches": (worst_lag, 5, even_batches),
    "bits": (worst_bit, 5, linear_feistel),
    "neighbouring epochs": (worst_pair(EPOCHS), 5, alike_seeds),
    "neighbouring seeds": (worst_pair(SEEDS), 5, alike_seeds),
    "seed s in epoch e + 1, s + 1 in e": (worst_pair(CROSSED), 5, summed_keys),
    "seeds far apart": (worst_pair(FAR), 5, alike_seeds),
    "class variance": (class_variance, 4, even_batches),
    "positions at n = 97": (position_counts, 5, two_rounds),
    "neighbours at n = 97": (differences(lambda a, _: (a[:, 1:], a[:, :-1], 1)), 5, two_rounds),
    "seeds at n = 97": (differences(lambda a, _: (a[1:], a[:-1], 0)), 5, alike_seeds),
    "epochs at n = 97": (differences(lambda a, b: (a, b, 0)), 5, alike_seeds),
    "fixed points": (equal_to_poisson(lambda a, _: (a, np.arange(97))), 5, two_rounds),
    "equal rows of seeds": (equal_to_poisson(lambda a, _: (a[1:], a[:-1])), 5, alike_seeds),
    "equal rows of epochs": (equal_to_poisson(lambda a, b: (a, b)), 5, alike_seeds),
}


@pytest.mark.parametrize("name", GATES)
def test_the_shuffle_passes(name):
    measure, limit, _ = GATES[name]
    assert measure(ours) < limit


@pytest.mark.parametrize("name", GATES)
def test_a_weaker_construction_fails(name):
    measure, limit, weaker = GATES[name]
    assert measure(weaker) > 2 * limit
