"""An assertion: an order of rows looks random, by statistics in units of sigma."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxmix._checks import need, whole_number

MAX_SIGMAS = 6.0
MIN_ENTRIES = 64
MAX_LAG = 4096
SPAN = 2**18
"""The number of entries that are tested together."""

_Finding = tuple[float, str]
"""The deviation of a statistic from its mean in sigma, and its name."""


def assert_shuffled(order: Any, length: int) -> None:
    """Assert that rows come in random order, each at most once per epoch.

    Each statistic must be within 6 sigma of its mean over random orders. A random order fails in
    about one of 100,000 calls.

    - Repeats: in an epoch no index comes twice, and all indices are in [0, length).
    - Lag correlation: of the indices at positions p and p + lag, for all lags up to 4,096.
    - Differences of the indices at p and p + lag, by chi-square, at lags 1, 2, 4, ... 4,096.
    - Bit correlation: of every bit of the position with every bit of the index.
    - Class counts: neighbouring rows form up to 10 equal classes. The counts of each class in
      batches of up to 256, by chi-square, must be neither too uneven nor too even.
    - Fixed points: indices that equal their position in the epoch.
    - Epochs: the correlation of each epoch with the next, and the number of equal indices.

    Lags are at most a quarter of the entries. Below 1,000 entries only large faults reach 6 sigma.
    Fewer than 64 entries are refused.

    Args:
      order: an array of integers [m], the indices at positions 0, 1, ... of the stream. Entry p is
        in epoch ``p // length``; the last epoch may be incomplete. To compare two seeds, join their
        orders. Or a function that takes positions, int64 [m], and returns the indices [m]. It is
        called once, with the first ``min(length, 2^18)`` positions.
      length: the rows in an epoch, `>= 64`.

    Raises:
      AssertionError: a statistic is too far off; the message names it, the lag or bit, and the
        sigma.
      ValueError, TypeError: an order that is not integers [m], or has fewer than 64 of them.

    Example:
      >>> import jaxmix, numpy as np
      >>> from jaxmix.testing import assert_shuffled
      >>> assert_shuffled(lambda p: jaxmix.shuffle_index(p, 1000, seed=0), 1000)
      >>> assert_shuffled(np.arange(1000), 1000)
      Traceback (most recent call last):
        ...
      AssertionError: lag correlation at lag 1 is 0.998, 31.6 sigma from random (at most 6 allowed)
    """
    length = whole_number("length", length, MIN_ENTRIES)
    if callable(order):
        positions = np.arange(min(length, SPAN))
        indices = np.asarray(order(positions))
        need(indices.shape == positions.shape, "order(positions)", "[m]", indices.shape)
    else:
        indices = np.asarray(order)
    need(indices.dtype.kind in "iu", "order", "integers", indices.dtype, TypeError)
    enough = indices.ndim == 1 and indices.size >= MIN_ENTRIES
    need(enough, "order", f"an array [m] of at least {MIN_ENTRIES} entries", indices.shape)
    epochs = np.split(indices.astype(np.int64), range(length, indices.size, length))
    for number, epoch in enumerate(epochs):
        where = f" in epoch {number}" if len(epochs) > 1 else ""
        _check_each_once(epoch, length, where)
        _raise_if_off(_between_epochs(epochs[number - 1], epoch, length) if number else (), where)
        if epoch.size >= MIN_ENTRIES:
            spans = np.array_split(epoch, math.ceil(epoch.size / SPAN))
            first = 0
            for span in spans:
                _raise_if_off(_findings(span, first, length), where)
                first += span.size


def _raise_if_off(findings: Any, where: str) -> None:
    for sigmas, text in findings:
        if not abs(sigmas) <= MAX_SIGMAS:
            limit = f"at most {MAX_SIGMAS:g} allowed"
            raise AssertionError(f"{text}{where}, {abs(sigmas):.1f} sigma from random ({limit})")


def _check_each_once(epoch: np.ndarray, length: int, where: str) -> None:
    ordered = np.sort(epoch)
    for index in (ordered[0], ordered[-1]):
        if not 0 <= index < length:
            raise AssertionError(f"the order holds the index {index}{where}, not in [0, {length})")
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if again.size:
        raise AssertionError(f"the order holds the index {again[0]} twice{where}")


def _findings(span: np.ndarray, first: int, length: int) -> Iterator[_Finding]:
    """Each statistic of the entries at positions from `first` on."""
    positions = np.arange(first, first + span.size)
    yield _lag_correlation(span, length)
    yield from _differences(span, length)
    yield _bit_correlation(positions, span, length)
    yield _class_counts(span, length)
    yield _equal(positions, span, length, "fixed points")


def _lag_correlation(span: np.ndarray, length: int) -> _Finding:
    """The worst of the correlations at all lags, by a Fourier transform."""
    size = span.size
    scaled = (span - (length - 1) / 2) / math.sqrt((length**2 - 1) / 12)
    num_lags = min(MAX_LAG, size // 4)
    spectrum = np.fft.rfft(scaled, 2 ** math.ceil(math.log2(size + num_lags)))
    sums = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[1 : num_lags + 1]
    terms = size - np.arange(1, num_lags + 1)
    # Two different indices of a permutation have the correlation -1 / (length - 1).
    sigmas = (sums + terms / (length - 1)) / np.sqrt(terms)
    worst = int(np.argmax(np.abs(sigmas)))
    value = sums[worst] / terms[worst]
    return float(sigmas[worst]), f"lag correlation at lag {worst + 1} is {value:.3f}"


def _differences(span: np.ndarray, length: int) -> Iterator[_Finding]:
    """The differences modulo the length, uniform over 1 .. length - 1."""
    lag = 1
    while lag <= min(MAX_LAG, span.size // 4):
        apart = (span[lag:] - span[:-lag]) % length - 1
        num_bins = min(64, apart.size // 8)
        counts = np.bincount(apart * num_bins // (length - 1), minlength=num_bins)
        expected = _bin_sizes(length - 1, num_bins) * (apart.size / (length - 1))
        ratio = float(np.sum((counts - expected) ** 2 / expected)) / (num_bins - 1)
        yield (
            _chi_square_sigmas(ratio, num_bins - 1),
            f"chi-square of differences at lag {lag} is {ratio:.2f} of its mean",
        )
        lag *= 2


def _bit_correlation(positions: np.ndarray, span: np.ndarray, length: int) -> _Finding:
    """The worst of the correlations of a bit of the position with a bit of the index.

    Bits that are nearly always 0 or 1 are left out: a normal tail needs about 16 rows per cell.
    """
    shifts = np.arange(int(length - 1).bit_length())
    position_bits, index_bits = (
        np.stack([(values >> shift & 1).astype(np.float32) for shift in shifts])
        for values in (positions, span)
    )
    in_order = position_bits.mean(axis=1, dtype=np.float64)
    period = 2 << shifts
    ones = length // period * (period // 2) + np.maximum(length % period - period // 2, 0)
    in_all = ones / length
    rare = np.minimum(in_order, 1 - in_order)[:, None] * np.minimum(in_all, 1 - in_all)
    position_bits -= in_order[:, None].astype(np.float32)
    index_bits -= in_all[:, None].astype(np.float32)
    variances = in_all * (1 - in_all) * length / (length - 1)
    squares = span.size * in_order * (1 - in_order)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigmas = (position_bits @ index_bits.T) / np.sqrt(squares[:, None] * variances)
    sigmas = np.where(rare * span.size >= 16, sigmas, 0.0)
    i, j = np.unravel_index(int(np.argmax(np.abs(sigmas))), sigmas.shape)
    value = sigmas[i, j] / math.sqrt(span.size)
    text = f"bit correlation of position bit {i} with index bit {j} is {value:.3f}"
    return float(sigmas[i, j]), text


def _class_counts(span: np.ndarray, length: int) -> _Finding:
    """The counts of equal classes of neighbouring rows in batches of neighbouring positions."""
    batch = min(256, span.size // 8)
    num_classes = min(10, max(2, batch // 5))
    num_batches = span.size // batch
    classes = (span * num_classes // length)[: num_batches * batch].reshape(num_batches, batch)
    counts = np.stack([np.sum(classes == k, axis=1) for k in range(num_classes)], axis=1)
    expected = _bin_sizes(length, num_classes) * (batch / length)
    total = float(np.sum((counts - expected) ** 2 / expected))
    # A batch is drawn without replacement, which makes its counts a little more even.
    mean = num_batches * (num_classes - 1) * (length - batch) / (length - 1)
    text = f"variance of class counts in batches of {batch} is {total / mean:.2f} of its mean"
    return _chi_square_sigmas(total / mean, mean), text


def _between_epochs(one: np.ndarray, other: np.ndarray, length: int) -> Iterator[_Finding]:
    if other.size >= MIN_ENTRIES:
        one, middle = one[: other.size], (length - 1) / 2
        products = float(np.dot(one - middle, other - middle)) * 12 / (length**2 - 1)
        value = products / other.size
        yield (
            products / math.sqrt(other.size),
            f"correlation with the epoch before is {value:.3f}",
        )
        yield _equal(one, other, length, "indices equal to the epoch before")


def _equal(one: np.ndarray, other: np.ndarray, length: int, name: str) -> _Finding:
    """The number of equal entries, of Poisson distribution, as its signed root deviance."""
    count, mean = int(np.sum(one == other)), one.size / length
    deviance = 2 * (mean - count + (count * math.log(count / mean) if count else 0.0))
    sigmas = math.copysign(math.sqrt(max(deviance, 0.0)), count - mean)
    return sigmas, f"number of {name} is {count}, expected {mean:.1f}"


def _bin_sizes(length: int, num_bins: int) -> np.ndarray:
    """How many of 0 .. length - 1 fall in each bin `i * num_bins // length`."""
    edges = -(-np.arange(num_bins + 1) * length // num_bins)
    return np.diff(edges)


def _chi_square_sigmas(ratio: float, freedom: float) -> float:
    """A chi-square divided by its mean, as a normal deviate.

    Source: Wilson and Hilferty (1931), The distribution of chi-square.
    """
    spread = 2 / (9 * freedom)
    return (ratio ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
