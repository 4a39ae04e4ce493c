"""The state of a plan: restarts and edits lose no row, and a false state is refused."""

import json

import hypothesis.strategies as st
import optax
import pytest
from hypothesis import given
from plan_cases import WEIGHTS, assert_each_row_once, ids, three_waves

import jaxmix
from jaxmix import MixPlan


def test_a_swap_at_100_touches_no_row_of_99_and_all_of_100():
    plan = MixPlan(jaxmix.staged_schedule({0: [1.0, 0.0], 100: [0.0, 1.0]}), 16)
    assert [plan.counts(step).tolist() for step in (98, 99, 100)] == [[16, 0], [16, 0], [0, 16]]
    assert plan.cursors(101).tolist() == [1600, 16]


mixes = st.sampled_from(
    [
        *(0.3, 1.0, [0.5, 0.5], [0.7, 0.2, 0.1], [0.0, 0.6, 0.4], [0.2, 0.0, 0.3, 0.5]),
        three_waves,
        optax.linear_schedule(0.0, 1.0, 40),
    ]
)


@given(st.lists(st.tuples(mixes, st.integers(1, 40), st.integers(0, 30)), min_size=2, max_size=4))
def test_edits_at_any_step_skip_and_repeat_no_row(phases):
    step, pairs = 1000, []  # from here on the edits reach over the end of a block
    plan = MixPlan(phases[0][0], phases[0][1], seed=9)
    start = plan.state(step)
    base, owed = plan.cursors(step).tolist(), list(start["carry"])
    for weights, batch_size, num_steps in phases:
        more = MixPlan(weights, 1).num_sources - plan.num_sources
        if more < 0:
            continue
        base, owed = base + [0] * more, owed + [0] * more
        plan = MixPlan(weights, batch_size, state=json.loads(json.dumps(start)))
        assert (plan.first_step, plan.seed) == (step, 9)
        pairs += ids(plan, step, step + num_steps)
        for s in range(step, step + num_steps):
            weights_at, counts = plan.weights_at(s).tolist(), plan.counts(s).tolist()
            owed = [
                o + int(2**52 * w) * batch_size - 2**52 * c
                for o, w, c in zip(owed, weights_at, counts, strict=True)
            ]
        step += num_steps
        start = plan.state(step)
        # Conservation over all the plans together: what is owed is what the state carries.
        assert owed == start["carry"]
        assert max(map(abs, owed)) <= (1.5 if plan.num_sources > 2 else 0.5) * 2**52
    assert_each_row_once([(k, i - base[k]) for k, i in pairs], plan.num_sources)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("step", [0, 700, 1024, 1300])
def test_going_on_unedited_is_the_same_plan(name, step):
    plan = MixPlan(WEIGHTS[name], 14, seed=2)
    again = MixPlan(WEIGHTS[name], 14, state=plan.state(step))
    twice = MixPlan(WEIGHTS[name], 14, state=again.state(step + 50))
    assert (plan.counts_table(step, 2100) == again.counts_table(step, 2100)).all()
    assert ids(plan, 1360, 1380) == ids(again, 1360, 1380) == ids(twice, 1360, 1380)
    assert twice.state(1400) == plan.state(1400)


@pytest.mark.parametrize("weights", [[0.5, 0.3, 0.2], 0.3])
def test_a_state_that_owes_something_else_is_taken_at_its_word(weights):
    plan = MixPlan(weights, 10)
    state = plan.state(1030)
    moved = [owed + more for owed, more in zip(state["carry"], (2**48, -(2**48), 0), strict=False)]
    again = MixPlan(weights, 10, state={**state, "carry": moved}).state(1030)
    assert again["carry"] == moved and again["block_step"] == 1030
    assert MixPlan(weights, 10, state=state).state(1030)["block_step"] == 1024


@pytest.mark.parametrize("name", ["cursors", "carry", "block_cursors", "block_carry"])
def test_a_bool_is_no_number_of_a_state(name):
    state = MixPlan([1.0, 0.0, 0.0], 1).state(1)
    for bad in (True, False, 1.0, None):
        line = [bad if number == int(bad or 0) else number for number in state[name]]
        with pytest.raises((ValueError, TypeError), match=name):
            MixPlan([1.0, 0.0, 0.0], 1, state={**state, name: [bad, *line[1:]]})


@pytest.mark.parametrize("owed", [2**51 + 1, 2**52, 2**58])
def test_two_sources_are_owed_no_more_than_half_a_row(owed):
    state = MixPlan(0.3, 10).state(30)
    zero = MixPlan(0.0, 10, state={**state, "carry": [2**51, -(2**51)]})
    assert zero.counts(30)[0] == 0 and zero.state(30)["carry"] == [2**51 - 1, 1 - 2**51]
    with pytest.raises(ValueError, match=r"state\['carry'\]"):
        MixPlan(0.3, 10, state={**state, "carry": [owed, -owed]})


def test_an_edit_moves_no_earlier_row_and_drops_a_source():
    plan = MixPlan([0.4, 0.4, 0.2], 10)
    edited = MixPlan([0.5, 0.0, 0.25, 0.25], 8, state=plan.state(777))
    assert_each_row_once(ids(plan, 0, 777) + ids(edited, 777, 900), 4)
    assert (edited.counts_table(777, 900)[:, 1] == 0).all()
    assert edited.cursors(777).tolist() == [*plan.cursors(777).tolist(), 0]


def test_a_small_weight_gets_its_rows_though_the_plan_is_edited_at_every_step():
    plan = MixPlan(0.01, 32)
    for step in range(1, 400):
        plan = MixPlan(0.01, 32, state=plan.state(step))
    assert plan.cursors(400)[0] == 128


STATE = MixPlan([0.5, 0.3, 0.2], 4, seed=1).state(1030)


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "another"},
        {"step": -1},
        {"step": 1030.0},
        {"step": 2**31},
        {"block_step": 3},
        {"block_step": 1031},
        {"cursors": [1, 2]},
        {"cursors": [1, 2, -3]},
        {"cursors": [2.0, 2, 2]},
        {"cursors": "abc"},
        {"cursors": [2060, 1236, True]},
        {"cursors": [2060, 1236, 2**62]},
        {"carry": [2**58 + 1, -(2**58) - 1, 0]},
        {"weights": [0.5, 0.3]},
        {"weights": [0.5, 0.3, True]},
        {"weights": [0.5, 0.3, 1.5]},
        {"carry": [1, 0, 0]},
        {"carry": [2**60, -(2**60), 0]},
        {"block_cursors": [10**9, 10**9, 10**9]},
        {"seed": -2},
        {"more": 1},
    ],
)
def test_a_foreign_state_is_refused(changed):
    with pytest.raises((ValueError, TypeError), match="state"):
        MixPlan([0.5, 0.3, 0.2], 4, state={**STATE, **changed})
