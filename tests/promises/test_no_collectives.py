"""Mixing communicates nothing: no collective in the compiled text, on 8 devices or on 4,096."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

import jaxmix

KEY = jax.random.key(7)
GAMMA = jaxmix.cosine_schedule(0.9, 0.1, transition_steps=1000)
MANY = np.full(35, 1 / 35)
POOL = jaxmix.RowPool(np.arange(50), np.arange(1000, 1300))
COLLECTIVE = re.compile(
    r"(all|reduce|collective)[-_](reduce|gather|to[-_]all|scatter|permute|broadcast)"
)


def _counted(x, step, axis):
    total = x.shape[0] * (1 if axis is None else jax.lax.axis_size(axis))
    counts = jnp.array([total // 3, total - total // 3])
    return jaxmix.counted_sources(KEY, step, counts, x.shape[0], axis_name=axis)


MIXES = {
    "bernoulli": lambda x, step, axis: jaxmix.bernoulli_sources(
        KEY, step, GAMMA, x.shape[0], axis_name=axis
    ),
    "bernoulli of 35": lambda x, step, axis: jaxmix.bernoulli_sources(
        KEY, step, MANY, x.shape[0], axis_name=axis
    ),
    "systematic": lambda x, step, axis: jaxmix.systematic_sources(
        KEY, step, MANY, x.shape[0], axis_name=axis
    ),
    "counted": _counted,
    "mix_rows": lambda x, step, axis: (
        jaxmix.mix_rows(KEY, step, GAMMA, x, x + 1, axis_name=axis).rows
    ),
    "draw_rows": lambda x, step, axis: (
        jaxmix.draw_rows(KEY, step, GAMMA, POOL, x.shape[0], axis_name=axis).rows
    ),
    "a sum over the devices": lambda x, step, axis: x + jax.lax.psum(x.sum(), axis),
}
AXES = {"one axis": ((8,), ("data",)), "two axes": ((4, 2), ("data", "model"))}


def _sharded(mix, mesh):
    rows = PartitionSpec(mesh.axis_names)
    return jax.jit(
        jax.shard_map(
            lambda step, x: mix(x, step, mesh.axis_names),
            mesh=mesh,
            in_specs=(PartitionSpec(), rows),
            out_specs=rows,
        )
    )


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name", MIXES)
def test_no_collective_is_compiled_for_8_devices(name, axes):
    mesh = jax.make_mesh(*AXES[axes], axis_types=(AxisType.Auto,) * len(AXES[axes][0]))
    text = _sharded(MIXES[name], mesh).lower(0, jnp.zeros(64, jnp.int32)).compile().as_text()
    assert bool(COLLECTIVE.search(text)) == (name == "a sum over the devices")


@pytest.mark.parametrize("name", MIXES)
def test_no_collective_is_asked_for_on_4096_devices(name):
    mesh = AbstractMesh((512, 8), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    batch = jax.ShapeDtypeStruct((2**20,), jnp.int32, sharding=rows)
    lowered = (
        _sharded(MIXES[name], mesh).trace(jnp.int32(0), batch).lower(lowering_platforms=("cpu",))
    )
    assert bool(COLLECTIVE.search(lowered.as_text())) == (name == "a sum over the devices")


@pytest.mark.parametrize("draw", [jaxmix.bernoulli_sources, jaxmix.systematic_sources])
def test_no_collective_is_compiled_for_a_draw_that_jit_splits(draw):
    """Without `axis_name`: the sources of the global batch, split over the devices by XLA."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    run = jax.jit(lambda step: draw(KEY, step, GAMMA, 64), out_shardings=rows)
    assert not COLLECTIVE.search(run.lower(0).compile().as_text())
