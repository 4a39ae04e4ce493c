"""Rows: what is picked, what is left untouched, and what is refused."""

import contextlib

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmix

KEY = jax.random.key(7)
DTYPES = [bool, jnp.uint8, jnp.int32, jnp.uint16, jnp.bfloat16, jnp.float16, jnp.float32]


def _constant(value, num_rows=64):
    """A batch of several ranks and dtypes in which every element is `value`."""
    return {str(i): jnp.full((num_rows, 3, 2)[: 1 + i % 3], value, d) for i, d in enumerate(DTYPES)}


@pytest.mark.parametrize("num_sources", [1, 2, 3, 8])
def test_row_i_is_row_i_of_the_source_that_was_drawn(num_sources):
    batches = [_constant(k) for k in range(num_sources)]
    mixed = jaxmix.mix_rows(KEY, 3, np.full(num_sources, 1 / num_sources), *batches)
    assert set(mixed.source.tolist()) == set(range(num_sources))
    for name, leaf in mixed.rows.items():
        like = batches[0][name]
        assert leaf.dtype == like.dtype and leaf.shape == like.shape
        want = np.broadcast_to(
            np.asarray(mixed.source).reshape((-1,) + (1,) * (leaf.ndim - 1)), leaf.shape
        )
        assert (np.asarray(leaf) == want.astype(leaf.dtype)).all(), name


def test_source_and_weights_say_what_was_done():
    gamma = jaxmix.cosine_schedule(0.0, 1.0, transition_steps=100)
    x, y = jnp.zeros(64), jnp.ones(64)
    mixed = jax.jit(lambda step: jaxmix.mix_rows(KEY, step, gamma, x, y))(30)
    assert mixed.rows.tolist() == mixed.source.tolist() and mixed.source.dtype == jnp.int32
    assert mixed.weights.tolist() == jaxmix.weights_at(30, gamma).tolist()
    assert mixed.source.tolist() == jaxmix.bernoulli_sources(KEY, 30, gamma, 64).tolist()


def test_weak_types_and_typed_keys_pass_unchanged():
    weak = jnp.broadcast_to(jnp.asarray(1.0), (4,))
    assert weak.weak_type
    x = {"weak": weak, "key": jax.random.split(jax.random.key(0), 4)}
    y = {"weak": weak + 1.0, "key": jax.random.split(jax.random.key(1), 4)}
    rows = jaxmix.select_rows(jnp.array([0, 1, 1, 0]), x, y)
    assert rows["weak"].weak_type and rows["weak"].tolist() == [1.0, 2.0, 2.0, 1.0]
    picked = jax.random.key_data(rows["key"])
    assert (picked[0] == jax.random.key_data(x["key"])[0]).all()
    assert (picked[1] == jax.random.key_data(y["key"])[1]).all()


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("jit", [jax.jit, lambda fn: fn])
def test_nan_in_a_row_not_taken_reaches_neither_value_nor_gradient(bad, jit):
    source = jnp.array([0, 1, 0, 1])
    x = jnp.array([1.0, bad, 3.0, bad])
    y = jnp.array([bad, 20.0, bad, 40.0])
    loss = jit(lambda x, y: jnp.sum(jaxmix.select_rows(source, x, y) ** 2))
    value, (dx, dy) = jax.value_and_grad(loss, argnums=(0, 1))(x, y)
    assert float(value) == 1.0 + 400.0 + 9.0 + 1600.0
    assert dx.tolist() == [2.0, 0.0, 6.0, 0.0] and dy.tolist() == [0.0, 40.0, 0.0, 80.0]


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("draw", [jaxmix.bernoulli_sources, jaxmix.systematic_sources])
@pytest.mark.parametrize("in_context", [True, False])
def test_the_sharding_of_the_batch_is_kept_and_nothing_is_communicated(axis_type, draw, in_context):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type,) * 2)
    specs = {"wide": PartitionSpec("data", "model"), "label": PartitionSpec("data")}
    shardings = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}

    def batch(value):
        rows = {"wide": jnp.full((16, 4), value), "label": jnp.full(16, value)}
        return jax.device_put(rows, shardings)

    mix = jax.jit(lambda step, x, y: jaxmix.mix_rows(KEY, step, 0.5, x, y, draw=draw).rows)
    with jax.set_mesh(mesh) if in_context else contextlib.nullcontext():
        rows = mix(3, batch(0.0), batch(1.0))
        text = mix.lower(3, batch(0.0), batch(1.0)).compile().as_text()
    for name, sharding in shardings.items():
        assert rows[name].sharding.is_equivalent_to(sharding, rows[name].ndim)
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert f"{collective}(" not in text and f"{collective}-start(" not in text


def test_uneven_rows_under_jit_on_a_mesh_are_the_rows_of_one_device():
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))

    def mix(x, y, constrain):
        x, y = (jax.lax.with_sharding_constraint(a, sharding) if constrain else a for a in (x, y))
        return jaxmix.mix_rows(KEY, 3, 0.5, x, y).rows

    for num_rows in (7, 9, 39, 41):
        x, y = jnp.zeros(num_rows), jnp.ones(num_rows)
        run = jax.jit(mix, static_argnums=2)
        assert run(x, y, True).tolist() == run(x, y, False).tolist()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64])
@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_every_integer_kind_of_source_picks_the_same_rows(dtype, as_array):
    if as_array is jnp.asarray and dtype is np.int64:
        dtype = np.int32
    batches = [np.full(4, k) for k in range(300)]
    known = np.array([0, 127, 200, 299]).clip(max=np.iinfo(dtype).max)
    want = known.tolist()
    assert jaxmix.select_rows(as_array(known.astype(dtype)), *batches).tolist() == want


def test_a_batch_goes_through_export():
    def mix(step, x, y):
        return jaxmix.mix_rows(KEY, step, 0.5, x, y)

    args = (jnp.int32(3), jnp.zeros(8), jnp.ones(8))
    exported = jax.export.export(jax.jit(mix))(*args)
    again = jax.export.deserialize(exported.serialize()).call(*args)
    assert type(again) is jaxmix.MixedBatch
    assert again.source.tolist() == mix(*args).source.tolist()


def test_batches_that_differ_are_refused_naming_leaf_and_source():
    x = {"image": jnp.zeros((4, 2)), "label": jnp.zeros(4, jnp.int32)}
    cases = [
        ({"image": x["image"]}, ValueError, "source 1 must be of the structure of source 0"),
        (
            {**x, "image": jnp.zeros((4, 3))},
            ValueError,
            r"leaf \['image'\] of source 1 must be of shape",
        ),
        (
            {**x, "image": jnp.zeros((5, 2))},
            ValueError,
            r"leaf \['image'\] of source 1 must be of shape",
        ),
        (
            {**x, "label": jnp.zeros(4)},
            TypeError,
            r"leaf \['label'\] of source 1 must be int32 as in",
        ),
        ({**x, "label": [1, 2, 3, 4]}, ValueError, "source 1 must be of the structure"),
    ]
    for y, error, message in cases:
        for run in (jaxmix.mix_rows, jax.jit(jaxmix.mix_rows, static_argnums=())):
            with pytest.raises((error, TypeError), match=message):
                run(KEY, 0, 0.5, x, y)
    more = [
        (
            lambda: jaxmix.mix_rows(KEY, 0, 0.5, x, x, x),
            ValueError,
            "the number of weights must be 3",
        ),
        (
            lambda: jaxmix.mix_rows(KEY, 0, 0.5),
            ValueError,
            "the number of sources must be >= 1, got 0",
        ),
        (lambda: jaxmix.mix_rows(KEY, 0, 0.5, {}, {}), ValueError, "source 0 must be a tree with"),
        (
            lambda: jaxmix.mix_rows(KEY, 0, 0.5, 1.0, 2.0),
            TypeError,
            "the array of source 0",
        ),
        (
            lambda: jaxmix.select_rows(jnp.zeros(3, jnp.int32), x, x),
            ValueError,
            "source must be of 4 rows, got 3",
        ),
        (
            lambda: jaxmix.select_rows(jnp.zeros(4), x, x),
            TypeError,
            "source must be an array of integers",
        ),
        (
            lambda: jaxmix.select_rows(jnp.zeros(4, jnp.int32), {**x, "label": jnp.zeros(5)}),
            ValueError,
            "a batch must be of equally many rows in every leaf",
        ),
        (lambda: jaxmix.RowPool(jnp.zeros(0)), ValueError, "buffer 0 must be of at least one row"),
        (
            lambda: jaxmix.RowPool(jnp.zeros((3, 2)), jnp.zeros((9, 4))),
            ValueError,
            "of source 1 must be of shape",
        ),
    ]
    for call, error, message in more:
        with pytest.raises(error, match=message):
            call()


def test_a_forgotten_key_is_missed_by_name():
    x, y = jnp.zeros((8, 3)), jnp.ones((8, 3))
    with pytest.raises(TypeError, match="key must be a JAX key, got 0"):
        jaxmix.mix_rows(0, 0.5, x, y)
    with pytest.raises(TypeError, match="key must be a JAX key, got 7"):
        jaxmix.draw_rows(7, 0, 0.5, jaxmix.RowPool(x, y), 8)  # a seed
