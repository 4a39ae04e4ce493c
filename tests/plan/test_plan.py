"""MixPlan: a pure function of its arguments, exact rows, restarts that lose nothing."""

import json
import pickle
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import cloudpickle
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from jax.sharding import AxisType, PartitionSpec

import jaxmix
from jaxmix import MixPlan
from jaxmix.testing import assert_conserves, assert_resumes


def three_waves(step):
    phase = jnp.asarray(step, jnp.float32) / 50.0 + jnp.array([0.0, 1.0, 2.0])
    return jax.nn.softmax(2.0 * jnp.sin(phase))


WEIGHTS = {
    "number": 0.3,
    "array": [0.5, 0.3, 0.15, 0.05],
    "cosine": optax.cosine_decay_schedule(1.0, 2000),
    "linear": optax.linear_schedule(0.1, 0.9, 1500, transition_begin=100),
    "waves": three_waves,
    "staged": jaxmix.staged_schedule(
        {0: [1.0, 0.0, 0.0], 100: [0.2, 0.5, 0.3], 1500: [0.0, 0.5, 0.5]}
    ),
}


def ids(plan, start, stop):
    """Every (source, index) of some steps, in order."""
    rows = [plan.rows(step) for step in range(start, stop)]
    return [pair for r in rows for pair in zip(r.source.tolist(), r.position.tolist(), strict=True)]


def assert_each_row_once(pairs, num_sources):
    for k in range(num_sources):
        index = [i for source, i in pairs if source == k]
        assert sorted(index) == list(range(len(index)))


@pytest.mark.parametrize("name", WEIGHTS)
def test_any_order_gives_the_rows_of_the_right_order(name):
    in_order, other = MixPlan(WEIGHTS[name], 12, seed=3), MixPlan(WEIGHTS[name], 12, seed=3)
    steps = [0, 1, 99, 100, 1023, 1024, 1025, 1500, 2047, 2048, 5000]
    wanted = {}
    for step in range(5001):
        if step in steps:
            wanted[step] = in_order.rows(step)
    for step in reversed(steps * 2):
        got = other.rows(step)
        assert (got.source == wanted[step].source).all()
        assert (got.position == wanted[step].position).all()
        assert got.source.dtype == np.int32 and got.position.dtype == np.int64


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_step_is_one_slice_of_each_source_and_the_ideal_is_kept(name):
    assert_conserves(MixPlan(WEIGHTS[name], 30), 1100)


@pytest.mark.parametrize("name", WEIGHTS)
def test_stopped_anywhere_it_goes_on_with_the_same_rows_on_other_parts(name):
    assert_resumes(MixPlan(WEIGHTS[name], 24, seed=3), 1100)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_those_of_weights_at_in_float64(name):
    plan = MixPlan(WEIGHTS[name], 4)
    for step in (0, 7, 99, 100, 1400, 1999, 2000, 3000):
        device = np.asarray(jaxmix.weights_at(step, WEIGHTS[name]))
        np.testing.assert_allclose(plan.weights_at(step), device, rtol=2e-7, atol=0)
        assert ((plan.weights_at(step) == 0.0) == (device == 0.0)).all()
        if plan.num_sources == 2 and name != "number":  # gamma itself, bit for bit
            assert np.float32(plan.weights_at(step)[0]) == device[0]
    np.testing.assert_allclose(MixPlan(0.3, 4).weights_at(5), [0.3, 0.7], rtol=0, atol=2.0**-52)


@pytest.mark.parametrize("batch_size", [1, 2, 24, 120, 8192])
@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_the_device_draws_the_sources_of_the_plan(batch_size, seed):
    plan = MixPlan(three_waves, batch_size, seed=seed)
    draw = jax.jit(jaxmix.counted_sources, static_argnums=3)
    for step in (0, 5, 1024, 30_000):
        source = draw(jax.random.key(seed), step, plan.counts(step), batch_size)
        assert (plan.rows(step).source == np.asarray(source)).all()


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_each_process_and_device_has_its_part(devices):
    plan, spec = MixPlan(three_waves, 48, seed=5), PartitionSpec
    mesh = jax.make_mesh(
        (devices,), ("rows",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )

    def shard(step, counts):
        return jaxmix.counted_sources(
            jax.random.key(5), step, counts, 48 // devices, axis_name="rows"
        )

    draw = jax.jit(
        jax.shard_map(shard, mesh=mesh, in_specs=(spec(), spec()), out_specs=spec("rows"))
    )
    for step in (0, 9, 2000):
        whole = plan.rows(step)
        parts = [plan.rows(step, shard_index=part, shard_count=devices) for part in range(devices)]
        for field in ("source", "position"):
            joined = np.concatenate([getattr(part, field) for part in parts])
            assert (joined == getattr(whole, field)).all()
        assert (np.asarray(draw(jnp.int32(step), plan.counts(step))) == whole.source).all()


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


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MixPlan(0.5, 0), "batch_size must be >= 1, got 0"),
        (lambda: MixPlan(0.5, 2.0), "batch_size must be an integer"),
        (lambda: MixPlan(0.5, 2**25), "batch_size must be at most 2\\^24"),
        (lambda: MixPlan(1.5, 4), "weights must be in"),
        (lambda: MixPlan(float("nan"), 4), "weights must be in"),
        (lambda: MixPlan([0.5, 0.4], 4), "weights must be of sum 1"),
        (lambda: MixPlan([1.5, -0.5], 4), r"weights must be finite and in \[0, 1\]"),
        (lambda: MixPlan([[0.5, 0.5]], 4), "weights must be a number or an array"),
        (lambda: MixPlan("half", 4), "weights must be a number, an array"),
        (lambda: MixPlan(0.5, 4, seed=-1), "seed must be >= 0, got -1"),
        (lambda: MixPlan(0.5, 4, seed=2**32), "seed must be below 2\\^32"),
        (lambda: MixPlan(lambda step: 1.5, 4), "weights at step 0 must be in \\[0, 1\\], got 1.5"),
        (lambda: MixPlan(lambda step: jnp.ones((2, 2)) / 4, 4), "a number or an array"),
        (lambda: MixPlan([0.5, 0.5], 4, state=STATE), "weights must be for the 3 sources"),
        (lambda: MixPlan([0.5, 0.3, 0.2], 4, state=STATE, seed=2), "seed must be 1, as in `state`"),
        (lambda: MixPlan([0.5, 0.3, 0.2], 4, state=[1]), "state must be the dict"),
        (lambda: MixPlan([0.5, 0.3, 0.2], 4, state=STATE).rows(1029), "step must be in \\[1030, "),
        (lambda: MixPlan(0.5, 4).counts(-1), "step must be in"),
        (lambda: MixPlan(0.5, 4).counts(2**31), "step must be in"),
        (lambda: MixPlan(0.5, 4).counts(1.0), "step must be an integer"),
        (lambda: MixPlan(0.5, 4).rows(0, shard_count=3), "shard_count must be a divisor of B = 4"),
        (
            lambda: MixPlan(0.5, 4).rows(0, shard_index=2, shard_count=2),
            "shard_index must be below shard_count = 2, got 2",
        ),
        (
            lambda: MixPlan(0.5, 4).rows(0, shard_index=-1, shard_count=2),
            "shard_index must be >= 0",
        ),
        (lambda: MixPlan(0.5, 4).counts_table(3, 2), "stop must be >= 3"),
        (lambda: MixPlan(0.5, 4).runs_out_at(3, [1]), "lengths must be 2 numbers"),
        (lambda: jax.jit(lambda w: MixPlan(w, 4).counts(0))(0.5), "not traced"),
    ],
)
def test_bad_input_is_refused_with_its_name(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


@pytest.mark.parametrize("bad", [500, 1024, 1500])
def test_a_nan_is_refused_at_its_step_and_not_before(bad):
    plan = MixPlan(lambda step: jnp.where(step == bad, jnp.nan, 0.25), 8)
    assert plan.counts(bad - 1).sum() == 8 and len(plan.counts_table(0, bad)) == bad
    for step in (bad, bad + 1, bad + 5000):
        with pytest.raises(ValueError, match=f"weights at step {bad} must be .*nan"):
            plan.rows(step)
    go_on = MixPlan(0.25, 8, state=plan.state(bad - 1))
    assert ids(go_on, bad - 1, bad) == ids(plan, bad - 1, bad)


@pytest.mark.parametrize("weights", [[0.7, 0.2], [0.7, 0.2, 0.2], [0.7, 0.2, 0.1, 0.2]])
def test_weights_wrong_from_the_first_step_on_are_refused_by_name(weights):
    for step in (0, 1024, 1500):
        good = np.eye(len(weights))[0]
        stages = {0: good, step: weights}
        plan = MixPlan(jaxmix.staged_schedule(stages), 8) if step else None
        with pytest.raises(ValueError, match=f"weights at step {step} must be of sum 1"):
            MixPlan(jaxmix.staged_schedule(stages), 8).rows(step)
        if plan is not None:
            assert plan.counts(step - 1)[0] == 8
            state = plan.state(step - 1)
            with pytest.raises(ValueError, match=f"weights at step {step} must be of sum 1"):
                MixPlan(jaxmix.staged_schedule(stages), 8, state=state).counts_table(
                    step - 1, step + 1
                )


def test_a_schedule_may_be_no_weights_before_the_plan_begins():
    def late(step):
        return jnp.where(step < 700, jnp.nan, 0.25)

    plan = MixPlan(late, 8, state=MixPlan(0.5, 8).state(777))
    assert plan.weights_at(777)[0] == plan.weights_at(1023)[0] == 0.25
    assert plan.counts(800).tolist() == [2, 6]


def test_a_schedule_is_traced_once_for_all_blocks():
    traces = []

    def schedule(step):
        traces.append(step)
        return 0.5 + 0.4 * jnp.sin(step / 100.0)

    plan = MixPlan(schedule, 8)
    plan.rows(50_000), plan.rows(0), MixPlan(schedule, 16).rows(9_000)
    assert len(traces) == 1


def test_it_works_wherever_it_is_called():
    plan = MixPlan(WEIGHTS["cosine"], 8)
    wanted = plan.counts_table(0, 3000)

    def fresh_table():
        return MixPlan(WEIGHTS["cosine"], 8).counts_table(0, 3000)

    inside = jax.jit(lambda step: jnp.asarray(fresh_table())[step])
    assert (inside(2500) == wanted[2500]).all()
    with jax.transfer_guard("disallow"):
        assert (fresh_table() == wanted).all()
    with jax.set_mesh(jax.make_mesh((8,), ("rows",))):
        assert (fresh_table() == wanted).all()
    with jax.default_device(jax.devices()[3]):
        assert (fresh_table() == wanted).all()
    with ThreadPoolExecutor(8) as pool:
        steps = np.random.default_rng(0).integers(0, 20_000, 400).tolist()
        got = list(pool.map(plan.cursors, steps))
    serial = MixPlan(WEIGHTS["cosine"], 8)
    assert all((serial.cursors(s) == c).all() for s, c in zip(steps, got, strict=True))


def test_the_table_is_the_counts():
    plan = MixPlan(three_waves, 10)
    table = plan.counts_table(1000, 1100)
    assert table.dtype == np.int32 and table.shape == (100, 3)
    assert (table == [plan.counts(step) for step in range(1000, 1100)]).all()
    assert plan.counts_table(5, 5).shape == (0, 3)


@settings(max_examples=20)
@given(st.integers(1, 40), st.lists(st.integers(0, 30_000), min_size=3, max_size=3))
def test_runs_out_at_is_what_a_search_finds(batch_size, lengths):
    weights, num_steps = [0.6, 0.4, 0.0], 1500
    for start in (0, 300):
        plan = MixPlan(weights, batch_size, state=MixPlan(weights, batch_size).state(start))
        table, cursors = plan.counts_table(start, num_steps), plan.cursors(start)
        after = cursors + np.cumsum(table, axis=0)
        wanted = [
            next(
                (start + i for i in range(len(table)) if table[i, k] and after[i, k] > length), None
            )
            for k, length in enumerate(lengths)
        ]
        assert plan.runs_out_at(num_steps, lengths) == wanted


def test_digests_agree_just_where_the_rows_do():
    plans = [
        MixPlan(three_waves, 8),
        MixPlan(three_waves, 16),
        MixPlan(three_waves, 8, seed=1),
        MixPlan([0.5, 0.3, 0.2], 8),
        MixPlan(three_waves, 8, state=MixPlan([0.5, 0.3, 0.2], 8).state(10)),
    ]
    digests = [plan.digest(1500) for plan in plans] + [plans[0].digest(1501)]
    assert len(set(digests)) == len(digests)
    assert MixPlan(three_waves, 8).digest(1500) == digests[0]
    late = MixPlan(lambda step: jnp.where(step < 1499, 0.5, 1.0), 8)
    assert late.digest(1499) == MixPlan(0.5, 8).digest(1499)
    assert late.digest(1500) != MixPlan(0.5, 8).digest(1500)


def test_another_process_has_the_same_digest():
    plan = MixPlan(WEIGHTS["cosine"], 8, seed=4)
    code = "import sys, pickle; print(pickle.load(sys.stdin.buffer).digest(3000))"
    sent = cloudpickle.dumps(plan)
    out = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, check=True)
    assert out.stdout.decode().strip() == plan.digest(3000)
    assert pickle.loads(pickle.dumps(MixPlan(0.5, 8))).digest(99) == MixPlan(0.5, 8).digest(99)


def test_memory_does_not_grow_with_the_horizon():
    plans = []
    for weights in (np.full(8, 0.125), lambda step: jnp.full(8, 0.125) + 0.0 * step):
        MixPlan(weights, 256).rows(5000)  # compiled
        tracemalloc.start()
        plans.append(MixPlan(weights, 256))
        for step in (*range(0, 100_000, 1000), 10**6):
            plans[-1].rows(step)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert used < 2e6
    assert ids(plans[0], 10**6, 10**6 + 3) == ids(plans[1], 10**6, 10**6 + 3)


def test_the_last_step_there_is():
    plan = MixPlan(three_waves, 6)
    start = {**plan.state(0), "step": 2**31 - 2, "block_step": 2**31 - 2}
    last = MixPlan(three_waves, 6, state=start)
    assert last.counts(2**31 - 1).sum() == 6 and last.state(2**31 - 1)["step"] == 2**31 - 1


def test_repr_says_what_it_is():
    plan = MixPlan([0.5, 0.3, 0.2], 4, seed=1)
    assert repr(plan) == "MixPlan(3 sources, batch_size=4, seed=1, first_step=0)"
