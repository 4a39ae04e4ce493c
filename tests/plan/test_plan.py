"""MixPlan: a pure function of its arguments, wherever and in whatever order it is asked."""

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
import pytest
from hypothesis import given, settings
from jax.sharding import AxisType, PartitionSpec
from plan_cases import WEIGHTS, ids, three_waves

import jaxmix
from jaxmix import MixPlan
from jaxmix.testing import assert_conserves, assert_resumes


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
