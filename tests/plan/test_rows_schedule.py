"""A schedule written in rows or tokens is exact while the batch grows, to the counts of each step.

The wanted counts come from plain Python: fractions, one step after the other.
"""

import itertools
from fractions import Fraction

import numpy as np
import pytest

import jaxmix
from jaxmix import MixPlan, make_schedule, rescale_schedule, rows_schedule, staged_schedule

RAMP = {0: 8, 50: 64, 60: 4, 90: 256, 1030: 16, 1200: 512}
NUM_STEPS = 1300
TOKENS = 2**20 + 1
"""Tokens per row: no float32 holds those of the run."""

TOTAL = 2**18
CASES = {
    "linear": (
        lambda unit: make_schedule(TOTAL * unit + 1, 1.0, 0.0),
        lambda row: Fraction(max(TOTAL - row, 0), TOTAL),
    ),
    "staged": (  # at the first row of step 190, and a unit after that of step 290
        lambda unit: staged_schedule({0: 1.0, 26_760 * unit: 0.25, 52_360 * unit + 1: 0.75}),
        lambda row: Fraction((4, 1, 3)[(row >= 26_760) + (row > 52_360)], 4),
    ),
    "plain Python": (
        lambda unit: lambda row: 0.125 if row < 70_000 * unit else 0.875,
        lambda row: Fraction(1 if row < 70_000 else 7, 8),
    ),
}


def by_hand(gamma_of_row, first=0, stop=NUM_STEPS):
    """The counts of each step: the rows of source 0 are what it is owed so far, rounded."""
    rows, owed, given, counts = 0, Fraction(0), 0, []
    for step in range(stop):
        size = RAMP[max(start for start in RAMP if start <= step)]
        owed += gamma_of_row(rows) * size
        taken = int(owed + Fraction(1, 2)) - given
        counts.append([taken, size - taken])
        rows, given = rows + size, given + taken
    return counts[first:]


@pytest.mark.parametrize("unit", [1, TOKENS])
@pytest.mark.parametrize("name", CASES)
def test_every_step_of_a_ramp_has_the_counts_of_its_rows(name, unit):
    make, gamma_of_row = CASES[name]
    rows = rows_schedule(RAMP)
    gamma = rescale_schedule(make(unit), lambda step: unit * rows(step))
    plan, wanted = MixPlan(gamma, RAMP), by_hand(gamma_of_row)
    assert plan.counts_table(0, NUM_STEPS).tolist() == wanted
    assert MixPlan(gamma, RAMP).counts(NUM_STEPS - 1).tolist() == wanted[-1]
    for step in (55, 90, 1100):
        later = MixPlan(gamma, RAMP, state=plan.state(step))
        assert later.counts_table(step, NUM_STEPS).tolist() == wanted[step:]
    in_steps = MixPlan(rescale_schedule(make(1), 1 / 8), RAMP)  # as if all batches had 8 rows
    assert in_steps.counts_table(0, NUM_STEPS).tolist() != wanted


def test_a_plan_that_is_there_gives_the_rows_of_an_edit():
    """The ramp of the edited plan is long known; its schedule starts in the middle of the run."""
    make, gamma_of_row = CASES["linear"]
    first = MixPlan(0.5, RAMP)
    gamma = rescale_schedule(make(1), first.rows_before)
    edited = MixPlan(gamma, RAMP, state=first.state(700))
    wanted = np.array(by_hand(gamma_of_row))
    weights = [edited.weights_at(step)[0] for step in range(700, NUM_STEPS)]
    rows = first.rows_before(np.arange(700, NUM_STEPS))
    assert weights == [float(gamma_of_row(row)) for row in rows.tolist()]
    given, exact = edited.counts_table(700, NUM_STEPS).cumsum(axis=0), wanted[700:].cumsum(axis=0)
    assert np.abs(given - exact).max() <= 1


def test_many_sources_keep_to_shares_by_row():
    shares = [(0, [0.5, 0.25, 0.125, 0.125]), (2048, [0.0, 0.5, 0.25, 0.25]), (65_536, [0.25] * 4)]
    gamma = rescale_schedule(staged_schedule(dict(shares)), rows_schedule(RAMP))
    plan = MixPlan(gamma, RAMP)
    owed = np.zeros(4)
    for step, (row, after) in enumerate(itertools.pairwise(map(plan.rows_before, range(1301)))):
        weights = [numbers for start, numbers in shares if start <= row][-1]
        assert plan.weights_at(step).tolist() == weights
        owed += (after - row) * np.array(weights)
        assert np.abs(plan.cursors(step + 1) - owed).max() <= 1.5


def test_gamma_is_the_closed_form_of_the_exact_rows():
    rows = rows_schedule(RAMP)
    gamma = rescale_schedule(jaxmix.cosine_schedule(0.9, 0.1, TOTAL), rows)
    plan = MixPlan(gamma, RAMP)
    done = np.minimum(np.array([rows(step) for step in range(NUM_STEPS)]) / TOTAL, 1.0)
    exact = 0.1 + 0.8 * np.cos(np.pi / 2 * done) ** 2
    found = [plan.weights_at(step)[0] for step in range(NUM_STEPS)]
    np.testing.assert_allclose(found, exact, rtol=0, atol=2e-7)
    sizes = np.diff(rows(np.arange(NUM_STEPS + 1)))
    cursors = [plan.cursors(step)[0] for step in range(1, NUM_STEPS + 1)]
    assert np.abs(cursors - np.cumsum(sizes * exact)).max() <= 0.5 + TOTAL * 2e-7
