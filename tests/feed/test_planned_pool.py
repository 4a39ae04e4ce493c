"""PlannedPool: the rows of the host's feed on the device, bit for bit, however it is run."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmix
from jaxmix import BlockShuffle, MixPlan, PlannedPool, PlanSource

KINDS = (True, False, BlockShuffle(block_rows=4, window_blocks=3))


def lengths_of(num_sources):
    return [7 + 13 * k % 90 for k in range(num_sources)]


def buffers_of(num_sources):
    """Row i of source k is 1000 k + i, in two leaves."""
    rows = [1000 * k + np.arange(n) for k, n in enumerate(lengths_of(num_sources))]
    return [
        {"id": r.astype(np.int32), "pair": np.stack([r, -r], 1).astype(np.float32)} for r in rows
    ]


def is_marked(mixed):
    """Whether no number of a batch can be taken for one of a row."""
    rows = mixed.rows
    nothing = np.isnan(rows["pair"]).all() and (rows["id"] == np.iinfo(np.int32).min).all()
    return nothing and np.isnan(mixed.weights).all() and (mixed.source == -1).all()


def weights_of(num_sources):
    if num_sources == 1:
        return [1.0]
    if num_sources == 2:
        return jaxmix.cosine_schedule(0.9, 0.2, 30)
    start, end = np.random.default_rng(num_sources).dirichlet(np.ones(num_sources), 2)
    return jaxmix.staged_schedule({0: start, 10: end}, ramp_steps=15)


def assert_rows_of_the_feed(pool, feed, steps, lengths):
    take, locate = jax.jit(lambda step, pool: pool.take(step)), jax.jit(lambda s, p: p.locate(s))
    for step in steps:
        batch, mixed, found = feed[step], take(step, pool), locate(step, pool)
        assert (np.asarray(mixed.source) == batch["source"]).all()
        assert (np.asarray(found.index) == batch["index"]).all()
        position = np.asarray(found.epoch, np.int64) * np.take(lengths, batch["source"])
        assert (position + np.asarray(found.place) == batch["position"]).all()
        for got, wanted in zip(
            jax.tree.leaves(mixed.rows), jax.tree.leaves(batch["rows"]), strict=True
        ):
            assert np.asarray(got).tobytes() == wanted.tobytes()
        counts = np.bincount(batch["source"], minlength=len(lengths))
        assert np.asarray(mixed.weights).tolist() == (counts / len(position)).astype("f4").tolist()


@pytest.mark.parametrize("shuffle", KINDS, ids=["shuffled", "in order", "in blocks"])
@pytest.mark.parametrize("num_sources", [1, 2, 5, 35])
def test_the_rows_are_those_of_the_feed_over_many_epochs(num_sources, shuffle):
    buffers, lengths = buffers_of(num_sources), lengths_of(num_sources)
    for batch_size in (8, 256):
        plan = MixPlan(weights_of(num_sources), batch_size, seed=5)
        pool = PlannedPool(plan, *buffers, num_steps=40, shuffle=shuffle)
        feed = PlanSource(plan, buffers, 40, shuffle=shuffle)
        assert_rows_of_the_feed(pool, feed, (0, 1, 17, 39), lengths)


def test_a_large_batch_and_a_long_way_into_the_run():
    plan = MixPlan(0.3, 4096, seed=2**32 - 1)
    buffers = buffers_of(2)
    pool = PlannedPool(plan, *buffers, num_steps=1_000_010, first_step=1_000_000)
    feed = PlanSource(plan, buffers, 1_000_010, shuffle=True)
    assert_rows_of_the_feed(pool, feed, (1_000_000, 1_000_009), lengths_of(2))


def test_each_row_comes_once_in_every_epoch():
    plan = MixPlan([1.0], 10)
    pool = PlannedPool(plan, np.arange(30), num_steps=9)
    take = jax.jit(lambda step, pool: pool.take(step).rows)
    epochs = np.concatenate([take(step, pool) for step in range(9)]).reshape(3, 30)
    assert (np.sort(epochs) == np.arange(30)).all()
    assert len({row.tobytes() for row in epochs}) == 3


def test_equal_data_in_two_sources_is_in_another_order():
    plan = MixPlan(0.5, 16)
    batch = PlannedPool(plan, np.arange(1000), np.arange(1000), num_steps=50).take(0)
    first, second = (np.asarray(batch.rows)[np.asarray(batch.source) == k] for k in range(2))
    assert sorted(first) != sorted(second)


def test_an_edited_plan_continues_by_name_in_the_same_order():
    buffers = dict(zip(("a", "b"), buffers_of(2), strict=True))
    plan = MixPlan({"a": 0.5, "b": 0.5}, 8, seed=3)
    seen = {"a": [], "b": []}

    def collect(plan, start, stop):
        given = {name: buffers[name] for name in plan.names}
        pool = PlannedPool(plan, given, num_steps=stop)
        assert_rows_of_the_feed(
            pool,
            PlanSource(plan, given, stop, shuffle=True),
            (start, stop - 1),
            [len(given[name]["id"]) for name in plan.names],
        )
        for step in range(start, stop):
            found = pool.locate(step)
            names = np.take(plan.names, found.source)
            for name, epoch, index in zip(names, found.epoch, found.index, strict=True):
                seen[name].append((int(epoch), int(index)))

    collect(plan, 0, 13)
    state = json.loads(json.dumps(plan.state(13)))
    collect(MixPlan({"b": 0.7, "a": 0.3}, 16, names=["b", "a"], state=state), 13, 30)
    for name, rows in seen.items():
        count = len(buffers[name]["id"])
        assert len(set(rows)) == len(rows)  # each row once in an epoch, across the edit
        whole = len(rows) // count * count
        assert sorted(rows)[:whole] == [divmod(place, count) for place in range(whole)]


def test_batch_sizes_by_step_and_groups():
    buffers = buffers_of(5)
    plan = MixPlan(weights_of(5), {0: 8, 7: 24, 20: 16}, group_size=4)
    pool = PlannedPool(plan, *buffers, num_steps=40)
    feed = PlanSource(plan, buffers, 40, shuffle=True)
    with pytest.raises(ValueError, match=r"num_rows must be given for batches of \[8, 16, 24\]"):
        pool.take(0)
    traces = []

    @functools.partial(jax.jit, static_argnums=2)
    def take(step, pool, num_rows):
        traces.append(num_rows)
        return pool.take(step, num_rows)

    for step in (0, 6, 7, 19, 20, 39):
        batch = feed[step]
        mixed = take(jnp.int32(step), pool, len(batch["source"]))
        assert (np.asarray(mixed.rows["id"]) == batch["rows"]["id"]).all()
    assert sorted(traces) == [8, 16, 24]  # one compile for each size
    assert is_marked(take(jnp.int32(0), pool, 24))
    needed = "num_rows over all shards and microbatches must be 8, the batch of step 0, got 24"
    with pytest.raises(ValueError, match=needed):
        pool.take(0, 24)


def test_microbatches_are_parts_of_the_batch():
    plan, buffers = MixPlan(weights_of(2), 24), buffers_of(2)
    pool = PlannedPool(plan, *buffers, num_steps=9)
    whole = pool.take(5)
    parts = [
        jax.jit(lambda i, pool: pool.take(5, microbatch=(i, 3)))(i, pool).rows["id"]
        for i in range(3)
    ]
    assert (jnp.concatenate(parts) == whole.rows["id"]).all()


def run_on(mesh, names, pool, steps, count):
    shard = jax.jit(
        jax.shard_map(
            lambda step, pool: pool.take(step, axis_name=names).rows["id"],
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec()),
            out_specs=PartitionSpec(names),
        )
    )
    pool = jax.device_put(pool, NamedSharding(mesh, PartitionSpec()))
    return [np.asarray(jax.block_until_ready(shard(step, pool))) for step in steps]


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=lambda t: t.name)
def test_the_same_rows_on_every_number_of_devices(axis_type):
    plan, buffers = MixPlan(weights_of(5), 48), buffers_of(5)
    pool, steps = PlannedPool(plan, *buffers, num_steps=20), (0, 19)
    wanted = [np.asarray(pool.take(step).rows["id"]) for step in steps]
    scanned = jax.jit(
        lambda steps, pool: jax.lax.scan(lambda c, s: (c, pool.take(s).rows["id"]), 0, steps)[1]
    )(jnp.array(steps), pool)
    mapped = jax.jit(jax.vmap(lambda s, pool: pool.take(s).rows["id"], in_axes=(0, None)))
    assert (np.asarray(scanned) == wanted).all()
    assert (np.asarray(mapped(jnp.array(steps), pool)) == wanted).all()
    for count in (1, 2, 8):
        mesh = jax.make_mesh(
            (count,), ("rows",), axis_types=(axis_type,), devices=jax.devices()[:count]
        )
        assert (np.array(run_on(mesh, "rows", pool, steps, count)) == wanted).all(), count
        pmapped = jax.pmap(
            lambda step, pool: pool.take(step, axis_name="rows").rows["id"],
            axis_name="rows",
            in_axes=(0, None),
            devices=jax.devices()[:count],
        )
        assert (
            np.stack([pmapped(jnp.full(count, s), pool).reshape(-1) for s in steps]) == wanted
        ).all(), count


def test_a_shard_asks_for_nothing_from_the_others():
    plan, buffers = MixPlan(weights_of(5), 4096), buffers_of(5)
    pool = PlannedPool(plan, *buffers, num_steps=20)
    mesh = jax.make_mesh((8,), ("rows",))
    spec = PartitionSpec()
    shard = jax.shard_map(
        lambda step, pool: pool.take(step, axis_name="rows").rows,
        mesh=mesh,
        in_specs=(spec, spec),
        out_specs=PartitionSpec("rows"),
    )
    text = jax.jit(shard).lower(jnp.int32(3), pool).compile().as_text()
    for word in ("all-reduce", "all-gather", "collective", "all-to-all", " sort("):
        assert word not in text, word
    assert text.count(" while(") == text.count("known_trip_count")  # no length depends on data


def test_one_compile_and_no_transfer_over_a_run():
    plan, buffers = MixPlan(weights_of(2), 16), buffers_of(2)
    pool, traces = PlannedPool(plan, *buffers, num_steps=1000), []

    @jax.jit
    def next_step(step, pool):
        traces.append(1)
        return step + 1, pool.take(step).rows["id"].sum()

    step, _ = next_step(jnp.int32(0), pool)
    with jax.transfer_guard("disallow"):
        for _ in range(999):
            step, total = next_step(step, pool)
    jax.block_until_ready(total)
    assert len(traces) == 1


def test_the_table_has_12_bytes_per_source_and_step():
    pool = PlannedPool(MixPlan(0.5, 16), *buffers_of(2), num_steps=1000)
    assert sum(leaf.nbytes for leaf in (pool.ends, pool.epochs, pool.places)) == 12 * 2 * 1000


def test_steps_outside_the_table_are_refused_or_marked():
    pool = PlannedPool(MixPlan(0.5, 16), *buffers_of(2), num_steps=30, first_step=10)
    for step in (9, 30):
        with pytest.raises(ValueError, match=r"step must be in \[10, 30\), the pool's table"):
            pool.take(step)
        assert is_marked(jax.jit(lambda step, pool: pool.take(step))(step, pool))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PlannedPool(0.5, *buffers_of(2), num_steps=5), "plan must be a MixPlan"),
        (lambda: PlannedPool(MixPlan(0.5, 8), *buffers_of(3), num_steps=5), "buffers must be 2"),
        (lambda: PlannedPool(MixPlan(0.5, 8), *buffers_of(2), num_steps=0), "num_steps must be"),
        (
            lambda: PlannedPool(MixPlan(0.5, 8), *buffers_of(2), num_steps=5, shuffle="yes"),
            "shuffle must be a bool or a BlockShuffle",
        ),
        (
            lambda: PlannedPool(MixPlan(0.5, 8), *buffers_of(2), num_steps=5).take(0, 5),
            r"num_rows over all shards and microbatches must be one of \[8\], got 5",
        ),
        (
            lambda: PlannedPool(MixPlan(0.5, 8), *buffers_of(2), num_steps=5).take(
                0, microbatch=(0, 3)
            ),
            "shards times microbatches must be a divisor of B = 8, got 3",
        ),
    ],
)
def test_bad_input_is_refused_with_its_name(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
