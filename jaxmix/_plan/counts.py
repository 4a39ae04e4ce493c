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


def to_units(weights: np.ndarray) -> np.ndarray:
    """Weights [T, K] as int64 units [T, K]: a step sums to exactly ONE, 0 stays 0."""
    if weights.shape[1] == 2:  # the same by columns: a sum along an axis of two is slow
        first, second = weights.T
        scale = ONE / (first + second)
        ours, others = (np.rint(column * scale).astype(np.int64) for column in (first, second))
        ours += np.where(first >= second, ONE - ours - others, 0)
        return np.stack([ours, ONE - ours], axis=1)
    units = np.rint(weights * (ONE / weights.sum(axis=1, keepdims=True))).astype(np.int64)
    rest = ONE - np.einsum("tk->t", units)  # a sum along a short axis is slow
    units[np.arange(len(units)), weights.argmax(axis=1)] += rest
    return units


def end_progress(progress: Progress, units: np.ndarray, batch_size: int) -> Progress:
    """The state after a block of at most MAX_STEPS steps with these units [T, K]."""
    *_, (_, _, end) = _spans(progress, units, batch_size)
    return end


def two_progress(progress: Progress, units: int, rows: int) -> Progress:
    """The state of two sources after `rows` more rows, of which source 0 is owed these units."""
    owed_units = units + int(progress.carry[0])
    given = (owed_units + ONE // 2) >> 52
    carry = owed_units - given * ONE
    return Progress(progress.cursors + np.array([given, rows - given]), np.array([carry, -carry]))


def progress_by_block(
    progress: Progress, units: np.ndarray, batch_size: int, num_blocks: int
) -> Iterator[Progress]:
    """The state after each of `num_blocks` whole blocks, with the units [T, K] of all or of one.

    It computes the same as `end_progress` in fewer operations: the rows owed in all spans at once,
    except for the carry. `end_progress` itself is used for a block in which a source gets less than
    a row of a span, or all rows, or in which a weight becomes 0 or leaves 0.
    """
    num_sources = units.shape[1]
    blocks = units.reshape(-1, MAX_STEPS, num_sources)
    if num_sources == 2:
        sums = blocks[:, :, 0].sum(axis=1).tolist()
        for number in range(num_blocks):
            total = sums[number % len(sums)] * batch_size
            progress = two_progress(progress, total, batch_size * MAX_STEPS)
            yield progress
        return
    steps = min(MAX_STEPS, _longest_span(num_sources))
    rows, spans = batch_size * steps, MAX_STEPS // steps
    alive = np.flatnonzero(units[0])
    totals = np.einsum("stk->sk", units.reshape(-1, steps, num_sources))
    steady = np.count_nonzero(units) == len(units) * len(alive)
    steady &= np.count_nonzero(totals) == len(totals) * len(alive)
    totals = totals[:, alive]
    none = Progress(np.zeros(0, np.int64), np.zeros(len(alive), np.int64))
    whole, part = owed(none, totals, batch_size)
    fits = (whole.min(axis=1, initial=rows) >= 1) & (whole.max(axis=1, initial=0) + 2 <= rows)
    plain = (fits.reshape(-1, spans).all(axis=1) & (steady and len(alive) > 1)).tolist()
    place, count = np.arange(len(alive)), len(alive)
    for number in range(num_blocks):
        at = number % len(blocks)
        carry = progress.carry[alive]
        if not plain[at] or np.abs(carry).max() >= ONE:
            progress = end_progress(progress, blocks[at], batch_size)
            yield progress
            continue
        given = np.zeros(count)
        for line in range(at * spans, (at + 1) * spans):
            carry = carry + part[line]
            ideal = (carry >> 52) + whole[line]
            carry &= ONE - 1
            wanted = carry * (1.0 / ONE) + ideal
            dealt = np.floor(wanted)
            left = int(rows - dealt.sum())
            if left:
                order = _lack(wanted, dealt) * count - place
                dealt += order >= np.sort(order)[count - left]
            given += dealt
            ideal -= dealt.astype(np.int64)
            carry += ideal << 52
        cursors, owes = progress.cursors.copy(), progress.carry.copy()
        cursors[alive] += given.astype(np.int64)
        owes[alive] = carry
        progress = Progress(cursors, owes)
        yield progress


def progress_after(progress: Progress, units: np.ndarray, batch_size: int, line: int) -> Progress:
    """The state after the first `line` steps, 1 or more, of the block with these units."""
    for first, last, end in _spans(progress, units, batch_size):
        if line <= last:
            if line < last:
                end = _inside(progress, units[first:last], end, batch_size, line - first)
            return end
        progress = end
    raise IndexError(line)


def block_counts(progress: Progress, units: np.ndarray, batch_size: int) -> np.ndarray:
    """The rows of each source in each step of a block: int64 [T, K], >= 0, each step's sum B."""
    if units.shape[1] == 2:
        rows = batch_size * np.arange(1, len(units) + 1)
        given = _round_two(*owed(progress, np.cumsum(units, axis=0), batch_size), rows)
        return np.diff(given, axis=0, prepend=0)
    counts = np.empty(units.shape, np.int64)
    for first, last, end in _spans(progress, units, batch_size):
        ideal = _ideal(progress, np.cumsum(units[first:last], axis=0), batch_size)
        given = np.zeros((last - first + 1, units.shape[1]))
        given[-1] = end.cursors - progress.cursors
        _halve(given, ideal, batch_size)
        counts[first:last] = given[1:] - given[:-1]
        progress = end
    return counts


def owed(progress: Progress, totals: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows owed so far, B times the summed units plus the carry: whole rows and units.

    Both are int64 and exact: the product has up to 86 bits and is computed in two words.
    """
    low = (totals & 0xFFFFFFFF) * batch_size
    high = (totals >> 32) * batch_size + (low >> 32)
    part = ((high & (2**20 - 1)) << 32) + (low & 0xFFFFFFFF) + progress.carry
    return (high >> 20) + (part >> 52), part & (ONE - 1)


def _round_two(whole: np.ndarray, part: np.ndarray, rows: int | np.ndarray) -> np.ndarray:
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
        longest = _longest_span(num_sources)
        alive = units > 0
        ends = np.flatnonzero((alive[1:] != alive[:-1]).any(axis=1)) + 1
        cuts = sorted({*ends.tolist(), *range(longest, num_steps, longest), num_steps})
    first = 0
    for last in cuts:
        whole, part = owed(progress, units[first:last].sum(axis=0), batch_size)
        rows = batch_size * (last - first)
        if num_sources == 2:
            given = _round_two(whole, part, rows)
        else:
            room = np.where(units[first] > 0, float(rows), 0.0)
            given = _deal((whole + part / ONE)[None], room[None], rows)[0].astype(np.int64)
        progress = Progress(progress.cursors + given, (whole - given) * ONE + part)
        yield first, last, progress
        first = last


def _longest_span(num_sources: int) -> int:
    return 1 << (max(SPAN_NUMBERS // num_sources, 1).bit_length() - 1)


def _lack(wanted: np.ndarray, dealt: np.ndarray) -> np.ndarray:
    """What each source lacks of what it wants, as a whole number."""
    return ((wanted - dealt) * 2.0**32).astype(np.int64)


def _ideal(progress: Progress, totals: np.ndarray, batch_size: int) -> np.ndarray:
    """The rows owed by the summed units since `progress`, in floats."""
    return totals * (batch_size / ONE) + progress.carry / ONE


def _halve(given: np.ndarray, ideal: np.ndarray, batch_size: int) -> None:
    """Fill in `given` [T + 1, K] between its first and last line, all middles of gaps at once."""
    last = len(given) - 1
    gap = 1 << (last - 1).bit_length()
    while gap > 1:
        half = gap // 2
        middle = np.arange(half, last, gap)
        below = given[middle - half]
        room = given[np.minimum(middle + half, last)] - below
        given[middle] = below + _deal(ideal[middle - 1] - below, room, half * batch_size)
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
        given = _round_two(whole, part, batch_size * line)
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
            dealt = below + _deal(wanted[None], (above - below)[None], gap * batch_size)[0]
            if middle <= line:
                low, below, summed = middle, dealt, total
            else:
                above = dealt
        given = below.astype(np.int64)
    return Progress(progress.cursors + given, (whole - given) * ONE + part)


def _deal(wanted: np.ndarray, room: np.ndarray, rows: int) -> np.ndarray:
    """Assign `rows` to the K sources of each line [M, K]: the whole numbers nearest to `wanted`.

    The result is floats that hold whole numbers in [0, `room`]: the floor of `wanted`, then one
    more for the sources that lack most, the first of equals.
    """
    dealt = np.minimum(np.maximum(np.floor(wanted), 0.0), room)
    left = rows - dealt.sum(axis=1)
    while (over := left < 0.0).any():  # some are ahead of their share
        dealt[over] = np.maximum(dealt[over] - 1.0, 0.0)
        left[over] = rows - dealt[over].sum(axis=1)
    _top_up(wanted, room, dealt, left)
    while (left := rows - dealt.sum(axis=1)).any():  # more than one each
        lines = left > 0.0
        some = dealt[lines]
        _top_up(wanted[lines], room[lines], some, left[lines])
        dealt[lines] = some
    return dealt


def _top_up(wanted: np.ndarray, room: np.ndarray, dealt: np.ndarray, left: np.ndarray) -> None:
    """Give one more row to those `left` sources of a line that lack most and have room."""
    num_sources = wanted.shape[1]
    # One whole number per source, all different: what it lacks in the high digits, then its place.
    order = _lack(wanted, dealt) * num_sources - np.arange(num_sources)
    order = np.where(dealt < room, order, _NO_ROOM)
    place = np.maximum(num_sources - left.astype(np.int64), 0)
    lines = np.arange(len(place))
    bar = np.sort(order, axis=1)[lines, np.minimum(place, num_sources - 1)]
    bar = np.where(place < num_sources, np.maximum(bar, _NO_ROOM + 1), _NO_ROW)
    dealt += order >= bar[:, None]
