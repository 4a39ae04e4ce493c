"""Whole counts: exact, never negative, none for a weight of 0, close to the ideal for ever."""

import math
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given

from jaxmix._plan.counts import (
    MAX_STEPS,
    ONE,
    Progress,
    block_counts,
    deal,
    end_progress,
    to_units,
)


def fresh(num_sources):
    return Progress(np.zeros(num_sources, np.int64), np.zeros(num_sources, np.int64))


def all_counts(weights, batch_size):
    """The counts and the units of any number of steps, a block at a time."""
    units, mark, counts = to_units(weights), fresh(weights.shape[1]), []
    for first in range(0, len(units), MAX_STEPS):
        block = units[first : first + MAX_STEPS]
        counts.append(block_counts(mark, block, batch_size)[0])
        mark = end_progress(mark, block, batch_size)
    return np.concatenate(counts), units


def off_ideal(counts, units, batch_size):
    """Cursors less ideal after every step; in whole units up to the division."""
    missing = batch_size * units.astype(object) - counts.astype(object) * ONE
    return (np.cumsum(missing, axis=0) / ONE).astype(float)


T = 1200
RAMP = np.linspace(0.0, 1.0, T)[:, None]
STAGE = np.arange(T) // 90


def dirichlet(rng, num_sources, size):
    return rng.dirichlet(np.full(num_sources, rng.choice([0.3, 1.0, 10.0])), size=size)


def smooth(rng, k):
    waves = np.sin(RAMP * rng.uniform(1, 30, k) + rng.uniform(0, 6, k)) * rng.uniform(0, 3, k)
    return np.exp(waves)


def ramped(rng, k):
    first, last = dirichlet(rng, k, 2)
    return (1.0 - RAMP) * first + RAMP * last


def dying(rng, k):
    """One source after the other ends, until one is left."""
    ends = rng.integers(1, T, k)
    ends[0] = T
    return (np.arange(T)[:, None] < ends) * dirichlet(rng, k, None)


KINDS = {
    "equal": lambda rng, k: np.ones((T, k)),
    "one over rank": lambda rng, k: np.tile(1.0 / (1.0 + rng.permutation(k)), (T, 1)),
    "constant": lambda rng, k: np.tile(dirichlet(rng, k, None), (T, 1)),
    "ramped": ramped,
    "smooth": smooth,
    "staged": lambda rng, k: dirichlet(rng, k, STAGE[-1] + 1)[STAGE],
    "staged with zeros": lambda rng, k: (
        dirichlet(rng, k, STAGE[-1] + 1) * (rng.random((STAGE[-1] + 1, k)) < 0.5)
        + np.eye(k)[0] / 99
    )[STAGE],
    "random": lambda rng, k: dirichlet(rng, k, T),
    "dying": dying,
    "born": lambda rng, k: dying(rng, k)[::-1],
    "tiny": lambda rng, k: np.tile(np.append(1.0, np.full(k - 1, 1e-9)), (T, 1)),
}


@pytest.mark.parametrize("num_sources", [1, 2, 3, 8, 35, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_counts_keep_every_promise(kind, num_sources):
    for batch_size in (1, 7, 256):
        rng = np.random.default_rng([num_sources, batch_size])
        weights = KINDS[kind](rng, num_sources)
        weights = weights / weights.sum(axis=1, keepdims=True)
        counts, units = all_counts(weights, batch_size)
        assert counts.min() >= 0
        assert (counts.sum(axis=1) == batch_size).all()
        assert not counts[weights == 0.0].any()
        worst = np.abs(off_ideal(counts, units, batch_size)).max()
        assert worst <= (0.5 if num_sources == 2 else 1.5)


def test_zeros_that_come_and_go_at_every_step():
    rng = np.random.default_rng(0)
    for num_sources in (3, 8):
        weights = rng.random((60, num_sources)) * (rng.random((60, num_sources)) < 0.5)
        weights[:, 0] += 1e-3
        weights = weights / weights.sum(axis=1, keepdims=True)
        counts, units = all_counts(weights, 5)
        assert counts.min() >= 0 and (counts.sum(axis=1) == 5).all()
        assert not counts[weights == 0.0].any()
        assert np.abs(off_ideal(counts, units, 5)).max() <= 1.5


def test_a_source_that_is_owed_rows_gets_none_while_its_weight_is_0():
    owed = ONE * np.array([3, -1, -2])
    units = to_units(np.repeat([[0.0, 0.5, 0.5], [0.8, 0.1, 0.1]], 4, axis=0))
    mark = Progress(np.array([10, 20, 30]), owed)
    counts, end = block_counts(mark, units, 2)
    assert counts.min() >= 0 and (counts.sum(axis=1) == 2).all() and not counts[:4, 0].any()
    assert (end.cursors == mark.cursors + counts.sum(axis=0)).all()
    assert (
        end.cursors[0] - 10 == 8
    )  # all of the rows that it can have, and still not all it is owed


gammas = st.one_of(
    st.floats(0.0, 1.0, allow_subnormal=False), st.sampled_from([0.0, 1.0, 0.5, 1 / 3, 1e-9])
)


@given(st.lists(gammas, min_size=1, max_size=40), st.integers(1, 70_000))
@example([0.5, 0.5, 0.5], 1)
@example([0.25, 0.125, 0.125, 0.0, 1.0], 3)
def test_two_sources_are_the_rounded_exact_ideal(values, batch_size):
    gamma = np.array(values)
    counts, units = all_counts(np.stack([gamma, 1.0 - gamma], axis=1), batch_size)
    ideal = Fraction(0)
    for step, gamma in enumerate(values):
        ideal += batch_size * Fraction(int(units[step, 0]), ONE)
        assert abs(Fraction(int(units[step, 0]), ONE) - Fraction(gamma)) <= Fraction(1, 2 * ONE)
        used = int(counts[: step + 1, 0].sum())
        assert used == math.floor(ideal + Fraction(1, 2))


@st.composite
def small_mixes(draw):
    num_sources, steps = draw(st.integers(3, 5)), draw(st.integers(1, 12))
    part = st.sampled_from([0, 0, 1, 2, 3, 7])
    line = st.lists(part, min_size=num_sources, max_size=num_sources).filter(any)
    return np.array(draw(st.lists(line, min_size=steps, max_size=steps)), float)


@given(small_mixes(), st.integers(1, 9))
def test_small_mixes_in_exact_fractions(parts, batch_size):
    weights = parts / parts.sum(axis=1, keepdims=True)
    counts, _ = all_counts(weights, batch_size)
    ideal, used = [Fraction(0)] * parts.shape[1], [0] * parts.shape[1]
    for line, given_rows in zip(parts.astype(int).tolist(), counts.tolist(), strict=True):
        assert sum(given_rows) == batch_size and min(given_rows) >= 0
        for k, part in enumerate(line):
            assert part > 0 or given_rows[k] == 0
            ideal[k] += batch_size * Fraction(part, sum(line))
            used[k] += given_rows[k]
            assert abs(used[k] - ideal[k]) < Fraction(2)


@given(small_mixes(), st.integers(1, 9), st.integers(0, 11))
def test_the_end_of_a_block_is_where_its_counts_lead(parts, batch_size, more):
    units = to_units(np.repeat(parts / parts.sum(axis=1, keepdims=True), 1 + more, axis=0))
    start = fresh(parts.shape[1])
    counts, end = block_counts(start, units, batch_size)
    assert all(map(np.array_equal, end, end_progress(start, units, batch_size)))
    assert (end.cursors == counts.sum(axis=0)).all()
    owed = batch_size * units.astype(object).sum(axis=0) - ONE * end.cursors.astype(object)
    assert end.carry.tolist() == owed.tolist() and sum(owed) == 0


@pytest.mark.parametrize(
    "weights", [[1e-9, 1.0 - 1e-9], [0.7, 0.3 - 1e-9, 1e-9], [1.0 - 3e-9, 1e-9, 1e-9, 1e-9]]
)
def test_exact_to_2_to_the_40_rows(weights):
    batch_size, blocks = 2**16, 2**14
    units = np.broadcast_to(to_units(np.array([weights])), (MAX_STEPS, len(weights)))
    mark, rows = fresh(len(weights)), 2**40
    for _ in range(blocks):
        mark = end_progress(mark, units, batch_size)
    assert mark.cursors.sum() == rows
    for k, weight in enumerate(weights):
        exact = Fraction(int(units[0, k]), ONE) * rows
        assert abs(int(mark.cursors[k]) - exact) <= (Fraction(1, 2) if len(weights) == 2 else 1)
        assert abs(float(exact) / rows - weight) <= 1.2e-16 * len(weights)
        assert exact - int(mark.cursors[k]) == Fraction(int(mark.carry[k]), ONE)
    counts, _ = block_counts(mark, units, batch_size)
    assert counts.min() >= 0 and (counts.sum(axis=1) == batch_size).all()


@pytest.mark.parametrize("num_sources", [3, 8, 60])
def test_weights_chosen_against_the_plan_stay_bounded(num_sources):
    harmonic = sum(1.0 / k for k in range(1, num_sources + 1))
    mark, unserved = fresh(num_sources), np.ones(num_sources, bool)
    for _ in range(20 * num_sources):
        units = to_units((unserved / unserved.sum())[None])
        end = end_progress(mark, units, 1)
        unserved &= end.cursors == mark.cursors
        if not unserved.any():
            unserved[:] = True
        mark = end
        assert np.abs(mark.carry).max() / ONE <= harmonic


def test_units_sum_to_one_and_keep_zero():
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(200, 0.2), size=50)
    weights[:, 7] = 0.0
    units = to_units(weights)
    assert (units.sum(axis=1) == ONE).all() and not units[:, 7].any() and units.min() >= 0
    assert (to_units(np.array([[0.25, 0.75]])) == [[ONE // 4, 3 * ONE // 4]]).all()


def test_a_row_goes_to_who_lacks_most_by_2_to_the_minus_32_and_to_the_first_of_equals():
    room = np.full((1, 3), 9.0)
    for more, wanted in ((2.0**-32, [0, 1, 0]), (2.0**-34, [1, 0, 0]), (0.0, [1, 0, 0])):
        assert deal(np.array([[0.5, 0.5 + more, 0.0]]), room, 1).tolist() == [wanted]
