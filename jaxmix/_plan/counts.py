"""Whole counts under changing weights: the rows of each source in every step, on the host.

A weight is a whole number of units, and the units of a step sum to ONE exactly. So the rows that a
source is owed are known exactly, however many there are. The cursors of two sources are the ideal
numbers of rows, rounded. More sources can't be rounded one by one: a small one would sometimes get
-1 rows. Instead the rows of a span of many steps are assigned first, by largest remainder. Then the
span is halved again and again, and each half gets cursors between the cursors at its ends. So no
cursor falls, all halves of one size are computed at once, and only the state before each block is
kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

ONE = 2**52
"""The units of a weight of 1."""

MAX_STEPS = 1024
"""The most steps in a block: their units fit an int64."""

SPAN_NUMBERS = 2**15
"""The most counts in a span of steps: larger arrays do not fit the cache."""

_NO_ROOM = np.iinfo(np.int64).min
_NO_ROW = np.iinfo(np.int64).max


class Progress(NamedTuple):
    """The progress of the sources before a step.

    `cursors`: int64 [K], the rows used of each source. `carry`: int64 [K], the rows that each is
    owed beyond them, in units of 1/ONE row, with the sum 0.
    """

    cursors: np.ndarray
    carry: np.ndarray


def to_units(weights: np.ndarray, total: np.ndarray | None = None) -> np.ndarray:
    """Weights [T, K] as int64 units [T, K]: a step sums to exactly ONE, 0 stays 0.

    `total`: their sums [T], if they are known to the last bit.
    """
    if weights.shape[1] == 2:  # the same by columns: a sum along an axis of two is slow
        first, second = weights.T
        scale = ONE / (first + second)
        ours, others = (np.rint(column * scale).astype(np.int64) for column in (first, second))
        ours += np.where(first >= second, ONE - ours - others, 0)
        return np.stack([ours, ONE - ours], axis=1)
    sums = weights.sum(axis=1) if total is None else total
    scaled = weights * (ONE / sums)[:, None]
    units = np.rint(scaled, out=scaled).astype(np.int64)
    rest = ONE - np.einsum("tk->t", units)  # a sum along a short axis is slow
    largest = np.arange(0, units.size, units.shape[1]) + weights.argmax(axis=1)
    units.reshape(-1)[largest] += rest
    return units


def end_progress(progress: Progress, units: np.ndarray, batch_size: int) -> Progress:
    """The state after a block of at most MAX_STEPS steps with these units [T, K]."""
    *_, (_, _, end) = _spans(progress, units, batch_size)
    return end


def progress_after(progress: Progress, units: np.ndarray, batch_size: int, line: int) -> Progress:
    """The state after the first `line` steps, 1 or more, of the block with these units."""
    for first, last, end in _spans(progress, units, batch_size):
        if line <= last:
            if line < last:
                end = _inside(progress, units[first:last], end, batch_size, line - first)
            return end
        progress = end
    raise IndexError(line)


def block_counts(
    progress: Progress, units: np.ndarray, batch_size: int
) -> tuple[np.ndarray, Progress]:
    """The rows of each source in each step of a block, and the state after it.

    int64 [T, K], >= 0, each step's sum B.
    """
    counts = np.empty(units.shape, np.int64)
    for first, last, end in _spans(progress, units, batch_size):
        totals = np.cumsum(units[first:last], axis=0)
        if units.shape[1] == 2:
            rows = batch_size * np.arange(1, last - first + 1)
            given = round_two(*owed(progress, totals, batch_size), rows)
            counts[first:last] = np.diff(given, axis=0, prepend=0)
        else:
            given = np.zeros((last - first + 1, units.shape[1]))
            given[-1] = end.cursors - progress.cursors
            _halve(given, _ideal(progress, totals, batch_size), batch_size)
            np.subtract(given[1:], given[:-1], out=counts[first:last], casting="unsafe")
        progress = end
    return counts, progress


def owed(progress: Progress, totals: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows owed so far, B times the summed units plus the carry: whole rows and units.

    Both are int64 and exact: the product has up to 86 bits and is computed in two words.
    """
    low = (totals & 0xFFFFFFFF) * batch_size
    high = (totals >> 32) * batch_size + (low >> 32)
    part = ((high & (2**20 - 1)) << 32) + (low & 0xFFFFFFFF) + progress.carry
    return (high >> 20) + (part >> 52), part & (ONE - 1)


def round_two(whole: np.ndarray, part: np.ndarray, rows: int | np.ndarray) -> np.ndarray:
    """The rows of two sources that are owed whole and part rows: [..., 2] with the sum `rows`.

    All rounding of two sources is here: source 0 gets a row for half a row.
    """
    first = whole[..., 0] + (part[..., 0] >= ONE // 2)
    return np.stack([first, rows - first], axis=-1)


def _spans(
    progress: Progress, units: np.ndarray, batch_size: int
) -> Iterator[tuple[int, int, Progress]]:
    """Split a block into spans of steps: first, last + 1 and the state after each span.

    Within a span every source has a weight above 0 in all steps or in none, so that its rows may be
    in any of the steps. Two sources need no spans.
    """
    num_steps, num_sources = units.shape
    cuts = [num_steps]
    if num_sources > 2:
        longest = longest_span(num_sources)
        alive = units > 0
        ends = np.flatnonzero((alive[1:] != alive[:-1]).any(axis=1)) + 1
        cuts = sorted({*ends.tolist(), *range(longest, num_steps, longest), num_steps})
    first = 0
    for last in cuts:
        whole, part = owed(progress, units[first:last].sum(axis=0), batch_size)
        rows = batch_size * (last - first)
        if num_sources == 2:
            given = round_two(whole, part, rows)
        else:
            room = np.where(units[first] > 0, float(rows), 0.0)
            given = deal((whole + part / ONE)[None], room[None], rows)[0].astype(np.int64)
        progress = Progress(progress.cursors + given, (whole - given) * ONE + part)
        yield first, last, progress
        first = last


def longest_span(num_sources: int) -> int:
    return min(MAX_STEPS, 1 << (max(SPAN_NUMBERS // num_sources, 1).bit_length() - 1))


def _lack(wanted: np.ndarray, dealt: np.ndarray) -> np.ndarray:
    """What each source lacks of what it wants, as a whole number."""
    lack = wanted - dealt
    lack *= 2.0**32
    return lack.astype(np.int64)


def _ideal(progress: Progress, totals: np.ndarray, batch_size: int) -> np.ndarray:
    """The rows owed by the summed units since `progress`, in floats."""
    return totals * (batch_size / ONE) + progress.carry / ONE


def _halve(given: np.ndarray, ideal: np.ndarray, batch_size: int) -> None:
    """Fill in `given` [T + 1, K] between its first and last line, all middles of gaps at once."""
    last = len(given) - 1
    gap = 1 << (last - 1).bit_length()
    while gap > 1:
        half = gap // 2
        middle = given[half:last:gap]
        below = given[: last - half : gap]
        room = given[np.minimum(np.arange(gap, last + half, gap), last)]
        room -= below
        wanted = ideal[half - 1 : last - 1 : gap] - below
        np.add(below, deal(wanted, room, half * batch_size), out=middle)
        gap = half


def _inside(
    progress: Progress, units: np.ndarray, end: Progress, batch_size: int, line: int
) -> Progress:
    """The state after `line` steps inside a span with the state `end` after it.

    Of the lines of `_halve` only those that lead to this one are computed.
    """
    totals = units[:line].sum(axis=0)
    whole, part = owed(progress, totals, batch_size)
    if len(totals) == 2:
        given = round_two(whole, part, batch_size * line)
    else:
        low, gap = 0, 1 << (len(units) - 1).bit_length()
        below, above = np.zeros(len(totals)), (end.cursors - progress.cursors).astype(float)
        summed = np.zeros_like(totals)
        while low < line:
            gap //= 2
            middle = low + gap
            if middle >= len(units):
                continue
            total = summed + units[low:middle].sum(axis=0)
            wanted = _ideal(progress, total, batch_size) - below
            dealt = below + deal(wanted[None], (above - below)[None], gap * batch_size)[0]
            if middle <= line:
                low, below, summed = middle, dealt, total
            else:
                above = dealt
        given = below.astype(np.int64)
    return Progress(progress.cursors + given, (whole - given) * ONE + part)


def deal(wanted: np.ndarray, room: np.ndarray, rows: int) -> np.ndarray:
    """Assign `rows` to the K sources of each line [M, K]: the whole numbers nearest to `wanted`.

    The result is floats that hold whole numbers in [0, `room`]: the floor of `wanted`, then one
    more for the sources that lack most, the first of equals.
    """
    dealt = np.floor(wanted)
    np.maximum(dealt, 0.0, out=dealt)
    np.minimum(dealt, room, out=dealt)
    left = rows - dealt.sum(axis=1)
    while (over := left < 0.0).any():  # some are ahead of their share
        dealt[over] = np.maximum(dealt[over] - 1.0, 0.0)
        left[over] = rows - dealt[over].sum(axis=1)
    top_up(wanted, room, dealt, left)
    while (left := rows - dealt.sum(axis=1)).any():  # more than one each
        lines = left > 0.0
        some = dealt[lines]
        top_up(wanted[lines], room[lines], some, left[lines])
        dealt[lines] = some
    return dealt


def top_up(wanted: np.ndarray, room: np.ndarray, dealt: np.ndarray, left: np.ndarray) -> None:
    """Give one more row to those `left` sources of a line that lack most and have room."""
    num_sources = wanted.shape[1]
    # One whole number per source, all different: what it lacks in the high digits, then its place.
    order = _lack(wanted, dealt)
    order *= num_sources
    order -= np.arange(num_sources)
    order[dealt >= room] = _NO_ROOM
    place = np.maximum(num_sources - left.astype(np.int64), 0)
    lines = np.arange(len(place))
    bar = np.sort(order, axis=1)[lines, np.minimum(place, num_sources - 1)]
    bar = np.where(place < num_sources, np.maximum(bar, _NO_ROOM + 1), _NO_ROW)
    dealt += order >= bar[:, None]
