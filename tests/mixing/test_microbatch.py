"""The part of an update that a call draws: microbatches, shards, groups over both, and neither."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

import jaxmix

KEY = jax.random.key(7)
B = 48
LENGTHS = (5, 300)
COUNTS = np.array([12, 36])
ROWS = PartitionSpec("data")


def _uniform(num_rows, **part):
    return jaxmix.uniform_rows(KEY, 3, jnp.full(num_rows, 1000), **part)


def _joined(parts):
    """The lists of all parts as one."""
    return [row for part in parts for row in part]


DRAWS = {
    "bernoulli": lambda n, **part: jaxmix.bernoulli_sources(KEY, 3, 0.3, n, **part),
    "bernoulli of three": lambda n, **part: jaxmix.bernoulli_sources(
        KEY, 3, [0.2, 0.3, 0.5], n, **part
    ),
    "systematic": lambda n, **part: jaxmix.systematic_sources(KEY, 3, 0.3, n, **part),
    "counted": lambda n, counts=COUNTS, **part: jaxmix.counted_sources(KEY, 3, counts, n, **part),
    "uniform rows": _uniform,
}
GROUPED = {name: draw for name, draw in DRAWS.items() if draw is not _uniform}


@pytest.mark.parametrize("name", DRAWS)
def test_the_microbatches_of_an_update_are_the_parts_of_its_batch_in_order(name):
    draw = DRAWS[name]
    whole = draw(B).tolist()
    part = jax.jit(lambda index: draw(B // 4, microbatch=(index, 4)))
    parts = [part(np.int32(index)).tolist() for index in range(4)]
    assert _joined(parts) == whole and len({tuple(rows) for rows in parts}) == 4
    assert draw(B // 4, microbatch=(2, 4)).tolist() == parts[2]
    assert draw(B, microbatch=(0, 1)).tolist() == whole


def _sharded(draw, num_rows, devices=8, axis="data"):
    """The draws of all shards of a microbatch together, as a function of its index."""
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))

    def shard(index):
        return draw(num_rows // devices, axis_name=axis, microbatch=(index, 2))

    return jax.jit(jax.shard_map(shard, mesh=mesh, in_specs=PartitionSpec(), out_specs=ROWS))


@pytest.mark.parametrize("name", DRAWS)
def test_shards_split_the_microbatch_so_that_it_is_the_same_without_them(name):
    run, whole = _sharded(DRAWS[name], B // 2), DRAWS[name](B)
    for index in range(2):
        assert run(jnp.int32(index)).tolist() == whole[index * 24 : (index + 1) * 24].tolist()


@pytest.mark.parametrize("group_size", [2, 12, 16, 48])
@pytest.mark.parametrize("name", GROUPED)
def test_a_group_may_span_shards_and_microbatches(name, group_size):
    grouped = {"group_size": group_size}
    counts = np.array([group_size * (16 // group_size), B - group_size * (16 // group_size)])
    draw = functools.partial(GROUPED[name], counts=counts) if name == "counted" else GROUPED[name]
    whole = draw(B, **grouped)
    groups = np.asarray(whole).reshape(-1, group_size)
    assert (groups == groups[:, :1]).all()
    run = _sharded(lambda n, **part: draw(n, **part, **grouped), B // 2)
    both = [run(jnp.int32(index)).tolist() for index in range(2)]
    assert _joined(both) == whole.tolist()
    if name == "counted":
        assert np.bincount(whole, minlength=2).tolist() == counts.tolist()


def test_systematic_counts_hold_over_the_whole_update():
    draw = jax.jit(
        lambda step, index: jaxmix.systematic_sources(KEY, step, 0.3, 12, microbatch=(index, 4))
    )
    shares = []
    for step in range(20):
        first = [int((draw(step, index) == 0).sum()) for index in range(4)]
        assert sum(first) in (14, 15)  # 14.4
        shares += first
    assert len(set(shares)) > 1


@pytest.mark.parametrize("mixed", ["mix_rows", "draw_rows"])
@pytest.mark.parametrize("draw", ["bernoulli", "systematic"])
def test_mixed_and_pooled_rows_of_microbatches_are_those_of_the_batch(mixed, draw):
    pool = jaxmix.RowPool(*(jnp.arange(n) + 1000 * k for k, n in enumerate(LENGTHS)))
    x, y = jnp.arange(B), jnp.arange(B) + 1000

    def rows(first, size, **part):
        if mixed == "draw_rows":
            return jaxmix.draw_rows(KEY, 3, 0.3, pool, size, draw=draw, group_size=3, **part)
        batches = x[first : first + size], y[first : first + size]
        return jaxmix.mix_rows(KEY, 3, 0.3, *batches, draw=draw, group_size=3, **part)

    whole = rows(0, B)
    parts = [rows(16 * index, 16, microbatch=(index, 3)) for index in range(3)]
    assert _joined(part.rows.tolist() for part in parts) == whole.rows.tolist()
    assert _joined(part.source.tolist() for part in parts) == whole.source.tolist()


def test_the_index_is_taken_modulo_the_count_and_may_be_any_integer():
    draw = DRAWS["uniform rows"]
    want = draw(12, microbatch=(1, 4)).tolist()
    small = (np.uint8(1), jnp.int8(-3), nnx.Variable(jnp.int32(1)))
    kinds = (5, -3, 2**40 + 1, np.int64(5), jnp.uint32(2**32 - 3), *small)
    for index in kinds:
        assert draw(12, microbatch=(index, 4)).tolist() == want, index
    many = jax.jit(lambda index: draw(1, microbatch=(index, 300)))
    assert many(jnp.int8(-44)).tolist() == draw(300)[256:257].tolist()


def test_a_draw_of_ones_own_gets_a_microbatch_where_one_is_given():
    def plain(key, step, weights, num_rows, *, axis_name, group_size):
        return jnp.zeros(num_rows, jnp.int32)

    def taking(key, step, weights, num_rows, **parts):
        assert parts == {"axis_name": None, "group_size": 1, "microbatch": (1, 2)}
        return jnp.zeros(num_rows, jnp.int32)

    x = jnp.zeros(8)
    assert jaxmix.mix_rows(KEY, 0, 0.5, x, x + 1, draw=plain).rows.tolist() == [0.0] * 8
    pair = {"microbatch": (1, 2)}
    assert jaxmix.mix_rows(KEY, 0, 0.5, x, x + 1, draw=taking, **pair).rows.tolist() == [0.0] * 8
    with pytest.raises(TypeError, match="microbatch"):
        jaxmix.mix_rows(KEY, 0, 0.5, x, x + 1, draw=plain, **pair)


def test_multi_steps_trains_on_one_batch_an_update():
    """The box of the docs: `gradient_step` counts updates, `mini_step` the microbatches of one."""
    every, size = 4, 8
    optimizer = optax.MultiSteps(optax.sgd(1.0), every_k_schedule=every)
    gamma = jaxmix.make_schedule(5, 0.9, 0.1)

    @jax.jit
    def train_step(params, state, x, y):
        mixed = jaxmix.mix_rows(
            KEY, state.gradient_step, gamma, x, y, draw="systematic",
            microbatch=(state.mini_step, every),
        )  # fmt: skip
        grads = jax.grad(lambda w: jnp.mean(w * mixed.rows))(params)
        with jax.numpy_dtype_promotion("standard"):  # MultiSteps divides by an int32
            updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, mixed

    params = jnp.float32(0.0)
    state = optimizer.init(params)
    sources, weights = [], []
    for _ in range(5 * every):
        params, state, mixed = train_step(params, state, jnp.zeros(size), jnp.ones(size))
        sources.append(np.asarray(mixed.source))
        weights.append(np.asarray(mixed.weights))
    sources = np.stack(sources).reshape(5, every * size)
    weights = np.stack(weights).reshape(5, every, 2)
    assert (weights == weights[:, :1]).all()
    for step, update in enumerate(sources):
        whole = jaxmix.systematic_sources(KEY, step, gamma, every * size)
        assert update.tolist() == whole.tolist()
        assert abs((update == 0).sum() - every * size * weights[step, 0, 0]) < 1
    np.testing.assert_allclose(float(params), -sources.mean(axis=1).sum(), rtol=1e-6)


def _in_shard_map(fn, axes=("data",), shape=(8,), names=None):
    mesh = jax.make_mesh(shape, axes, axis_types=(AxisType.Auto,) * len(axes))
    specs = {"mesh": mesh, "in_specs": ROWS, "out_specs": ROWS, "check_vma": False}
    return jax.jit(jax.shard_map(lambda _: fn()[None], axis_names=names or set(axes), **specs))


def _in_scan_and_vmap(fn):
    one = jax.jit(jax.vmap(lambda _: fn()))
    return jax.lax.scan(lambda carry, x: (carry, one(x)[0]), 0, jnp.zeros((1, 1)))[1][0]


MAPPED = {
    "pmap": lambda fn: jax.pmap(lambda _: fn(), axis_name="data"),
    "pmap without a name": lambda fn: jax.pmap(lambda _: fn()),
    "pmap of one device": lambda fn: jax.pmap(
        lambda _: fn(), axis_name="data", devices=jax.devices()[:1]
    ),
    "shard_map": _in_shard_map,
    "shard_map over one of two axes": lambda fn: _in_shard_map(
        fn, ("data", "model"), (4, 2), {"data"}
    ),
    "jit, scan and vmap in shard_map": lambda fn: _in_shard_map(lambda: _in_scan_and_vmap(fn)),
}


@pytest.mark.parametrize("name", MAPPED)
def test_a_draw_without_the_mapped_axis_is_refused_unless_it_is_meant(name):
    size = 1 if name == "pmap of one device" else 8
    for draw in DRAWS.values():
        with pytest.raises(ValueError, match=r"axis_name must be the axis or axes among \('"):
            MAPPED[name](lambda draw=draw: draw(B))(jnp.zeros(size))
    meant = MAPPED[name](lambda: DRAWS["bernoulli"](8, axis_name=()))(jnp.zeros(size))
    assert (np.asarray(meant) == np.asarray(DRAWS["bernoulli"](8))).all()


def test_ways_of_compiling_that_split_no_rows_need_no_axis_name():
    draw, want = DRAWS["bernoulli"], DRAWS["bernoulli"](8).tolist()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    assert nnx.jit(lambda: draw(8))().tolist() == want
    assert jax.vmap(lambda _: draw(8), axis_name="data")(jnp.zeros(2)).tolist() == [want] * 2
    with jax.set_mesh(mesh):
        assert jax.jit(lambda: draw(8))().tolist() == want
        spmd = jax.vmap(lambda x: draw(8) + x, axis_name="data", spmd_axis_name="data")
        assert jax.jit(spmd)(jnp.zeros(8, jnp.int32)).tolist() == [want] * 8


def test_bad_parts_are_refused_by_name():
    count = "the count of `microbatch`"
    for part, error, message in [
        ({"microbatch": 3}, TypeError, r"microbatch must be a pair \(index, count\), got 3"),
        ({"microbatch": (1, 2, 3)}, TypeError, "microbatch must be a pair"),
        ({"microbatch": (0, 0)}, ValueError, f"{count} must be >= 1, got 0"),
        ({"microbatch": (0, 2.0)}, TypeError, f"{count} must be an integer"),
        ({"microbatch": (0, 2**31)}, ValueError, f"{count} must be below 2"),
        ({"microbatch": (0.5, 2)}, TypeError, "the index of `microbatch` must be an integer"),
        ({"microbatch": (jnp.zeros(()), 2)}, TypeError, "the index of `microbatch` must be an int"),
        ({"microbatch": (jnp.arange(2), 2)}, ValueError, "the index of `microbatch` must be a sca"),
        ({"microbatch": (0, 2**28)}, ValueError, r"the global batch must be below 2\^31 rows"),
    ]:
        with pytest.raises(error, match=message):
            jaxmix.bernoulli_sources(KEY, 0, 0.5, 8, **part)
    for group_size in (5, 32):
        with pytest.raises(ValueError, match="group_size must be a divisor of the 16 rows of the"):
            draw = jaxmix.bernoulli_sources
            draw(KEY, 0, 0.5, 8, microbatch=(0, 2), group_size=group_size)
    with pytest.raises(ValueError, match="counts must be multiples of group_size = 4"):
        jaxmix.counted_sources(KEY, 0, np.array([3, 5]), 8, group_size=4)


def test_a_global_batch_is_below_2_to_the_31_rows():
    last = 2**30 - 2
    draw = jax.jit(lambda index: _uniform(2, microbatch=(index, 2**30 - 1)))
    assert draw(jnp.int32(last)).tolist() != draw(jnp.int32(0)).tolist()
    with pytest.raises(ValueError, match=r"the global batch must be below 2\^31 rows"):
        _uniform(2, microbatch=(0, 2**30))
