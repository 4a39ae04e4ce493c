"""The way to a far step: the progress after many whole blocks, computed at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxmix._plan.counts import (
    MAX_STEPS,
    ONE,
    SPAN_NUMBERS,
    Progress,
    deal,
    longest_span,
    owed,
    round_two,
    top_up,
)


def two_progress(progress: Progress, units: int, rows: int) -> Progress:
    """The state of two sources after `rows` more rows, of which source 0 is owed these units."""
    owed_units = units + int(progress.carry[0])
    given = (owed_units + ONE // 2) >> 52
    carry = owed_units - given * ONE
    return Progress(progress.cursors + np.array([given, rows - given]), np.array([carry, -carry]))


def span_totals(units: np.ndarray) -> np.ndarray:
    """The summed units [S, K] of each span of whole blocks with the units [T, K].

    There are none, [0, K], if one of more than two weights becomes 0 or leaves 0 inside a span.
    """
    steps = longest_span(units.shape[1])
    totals = np.einsum("stk->sk", units.reshape(-1, steps, units.shape[1]))
    steady = np.count_nonzero(units) == steps * np.count_nonzero(totals)
    return totals if steady or units.shape[1] == 2 else totals[:0]


def blocks_at_once(num_sources: int) -> int:
    """How many blocks to give `progress_by_block` at most: more would not fit the cache."""
    return max(
        min(SPAN_NUMBERS // num_sources, MAX_STEPS) * longest_span(num_sources) // MAX_STEPS, 1
    )


def progress_by_block(
    progress: Progress, totals: np.ndarray, batch_size: int, num_blocks: int
) -> Iterator[Progress]:
    """The state after each of `num_blocks` whole blocks, with the `span_totals` of all or of one.

    It computes the same as `end_progress`. What a span is given depends on what was given before
    it. So this is guessed for all spans, from what the sources lack at the end of each. Then the
    rows are assigned, once more for each span whose predecessor was guessed wrong, until none is.
    For two sources the guess is the result.
    """
    steps = longest_span(totals.shape[1])
    spans, rows = MAX_STEPS // steps, batch_size * steps
    lines = np.arange(num_blocks * spans)
    totals = totals[lines % len(totals)]
    none = Progress(progress.cursors, np.zeros_like(progress.carry))
    whole, part = owed(none, totals, batch_size)
    part = part.cumsum(axis=0) + progress.carry
    whole = whole.cumsum(axis=0) + (part >> 52)
    part &= ONE - 1
    wanted, room = part / ONE, np.where(totals > 0, float(rows), 0.0)
    given = np.zeros((len(lines) + 1, totals.shape[1]), np.int64)
    if totals.shape[1] == 2:
        given[1:], lines = round_two(whole, part, rows * (lines + 1)), lines[:0]
    else:
        guess = np.zeros(whole.shape)
        top_up(wanted, room, guess, rows * (lines + 1.0) - whole.sum(axis=1))
        given[1:] = whole + guess.astype(np.int64)
    while len(lines):
        ideal = whole[lines] - given[lines]
        dealt = deal(ideal + wanted[lines], room[lines], rows)
        found = given[lines] + dealt.astype(np.int64)
        changed = (found != given[lines + 1]).any(axis=1)
        given[lines + 1] = found
        lines = lines[changed] + 1
        lines = lines[lines < len(whole)]
    carry = (whole - given[1:]) * ONE + part
    ends = given[spans::spans] + progress.cursors, carry[spans - 1 :: spans].copy()
    yield from map(Progress, *ends)
