"""On several devices: from scores that are reduced once, the same weights on each, bit for bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptive_mixers import MIXERS, K
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmix

NAMES = ["exponentiated_gradient", "all wrappers around exp3"]
P = PartitionSpec
NUM_STEPS, NUM_ROWS = 12, 64


def batch(step):
    """Losses [B], which are multiples of 1/8 so that no order of adding changes a sum."""
    rng = np.random.default_rng(step)
    source = rng.integers(0, K - (step % 2), NUM_ROWS).astype(np.int32)  # one is unseen at times
    loss = np.asarray(rng.integers(0, 64, NUM_ROWS) / 8 + source, np.float32)
    return jnp.asarray(loss), jnp.asarray(source)


LOSS, SOURCE = (jnp.stack(arrays) for arrays in zip(*map(batch, range(NUM_STEPS)), strict=True))


def learn(mixer, state, loss, source, axis_name=None):
    """The state after one batch, of which this device may have a part."""
    sums = jaxmix.source_sums(loss, source, K, axis_name=axis_name)
    return mixer.update(state, sums.mean(), sums.count)


def run_one(mixer):
    """The weights [T, K] on one device."""
    update = jax.jit(functools.partial(learn, mixer))
    return weights_of(mixer, update, mixer.init(), lambda step: (LOSS[step], SOURCE[step]))


def weights_of(mixer, update, state, rows):
    log = []
    for step in range(NUM_STEPS):
        state = jax.block_until_ready(update(state, *rows(step)))
        log.append(state)
    return log


def replicas(leaf):
    """The values of a leaf on each device."""
    return [np.asarray(shard.data) for shard in leaf.addressable_shards]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=lambda a: a.name)
@pytest.mark.parametrize("how", ["shard_map", "jit"])
def test_on_a_mesh_every_device_has_the_weights_of_one(name, axis_type, how):
    mixer = MIXERS[name]
    want = run_one(mixer)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    by_row, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    if how == "shard_map":
        part = functools.partial(learn, mixer, axis_name="data")
        specs = {"in_specs": (P(), P("data"), P("data")), "out_specs": P()}
        update = jax.jit(jax.shard_map(part, mesh=mesh, **specs))
    else:
        update = jax.jit(functools.partial(learn, mixer))

    def rows(step):
        return jax.device_put((LOSS[step], SOURCE[step]), by_row)

    with jax.set_mesh(mesh):
        got = weights_of(mixer, update, jax.device_put(mixer.init(), whole), rows)
        for state, other in zip(got, want, strict=True):
            for leaf, value in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
                shards = replicas(leaf)
                assert len(shards) == 8
                assert all((shard == shards[0]).all() for shard in shards)
                np.testing.assert_allclose(shards[0], value, rtol=1e-6, atol=1e-6)
        weights = jax.jit(mixer)(got[-1])
    assert len({shard.tobytes() for shard in replicas(weights)}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_under_pmap_every_device_has_the_weights_of_one(name):
    mixer = MIXERS[name]
    part = functools.partial(learn, mixer, axis_name="data")
    update = jax.pmap(part, axis_name="data", in_axes=(0, 0, 0))
    state = jax.tree.map(lambda leaf: jnp.stack([leaf] * 8), mixer.init())

    def rows(step):
        return LOSS[step].reshape(8, -1), SOURCE[step].reshape(8, -1)

    got = weights_of(mixer, update, state, rows)
    for state, other in zip(got, run_one(mixer), strict=True):
        for leaf, value in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
            leaf = np.asarray(leaf)
            assert (leaf == leaf[:1]).all()
            np.testing.assert_allclose(leaf[0], value, rtol=1e-6, atol=1e-6)


def test_an_update_needs_no_collective():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    whole = NamedSharding(mesh, P())
    mixer = MIXERS["all wrappers"]
    args = jax.device_put((mixer.init(), jnp.ones(K), jnp.ones(K, jnp.int32)), whole)
    text = jax.jit(mixer.update).lower(*args).compile().as_text()
    assert not any(name in text for name in ("all-reduce", "all-gather", "collective-permute"))


def test_scores_that_were_not_reduced_are_refused_by_shard_map():
    """Each device would have weights of its own: JAX sees that the state is not replicated."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    part = functools.partial(learn, MIXERS["exponentiated_gradient"])
    specs = {"in_specs": (P(), P("data"), P("data")), "out_specs": P()}
    update = jax.jit(jax.shard_map(part, mesh=mesh, **specs))
    with pytest.raises(ValueError, match="out_specs"):
        update.lower(MIXERS["exponentiated_gradient"].init(), LOSS[0], SOURCE[0])
