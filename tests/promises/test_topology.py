"""The main promise: the rows depend on (seed, step, global row), not on how the program is run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmix
from jaxmix.testing import assert_same_everywhere

KEY = jax.random.key(7)
GAMMA = optax.cosine_decay_schedule(0.9, 1000, alpha=0.2)
THREE = np.array([0.2, 0.0, 0.8])


def _batch(source, num_rows):
    """A batch that says of every row where it comes from, in leaves of several ranks and dtypes."""
    row = np.arange(num_rows)
    return {
        "id": jnp.asarray(row + 1000 * source),
        "image": jnp.asarray(np.stack([row, row + 0.5], axis=1)[:, :, None] + 1000.0 * source),
        "flag": jnp.asarray(row % 2 == source % 2),
        "half": jnp.asarray(row, jnp.bfloat16),
    }


def _drawn(draw, weights, **options):
    def run(step, x, axis_name=None):
        return draw(KEY, step, weights, x.shape[0], axis_name=axis_name, **options)

    return run


def _counted(step, x, axis_name=None):
    size = x.shape[0] * (1 if axis_name is None else jax.lax.axis_size(axis_name))
    counts = jnp.array([size // 3, 0, size - size // 3])
    return jaxmix.counted_sources(KEY, step, counts, x.shape[0], axis_name=axis_name)


def _grouped(step, x, axis_name=None):
    """Groups of 16 rows that span shards, and the microbatches of an update twice as large."""
    size = x.shape[0]
    part = {"axis_name": axis_name, "group_size": 16, "microbatch": (step, 2)}
    return jnp.stack(
        [
            jaxmix.bernoulli_sources(KEY, step, GAMMA, size, **part),
            jaxmix.systematic_sources(KEY, step, THREE, size, **part),
        ],
        axis=1,
    )


def _uniform(step, x, axis_name=None):
    lengths = jnp.full(x.shape, 1000)
    return jaxmix.uniform_rows(KEY, step, lengths, axis_name=axis_name)


DRAWS = {
    "bernoulli": _drawn(jaxmix.bernoulli_sources, GAMMA),
    "bernoulli, 3 sources": _drawn(jaxmix.bernoulli_sources, THREE),
    "bernoulli, groups": _drawn(jaxmix.bernoulli_sources, GAMMA, group_size=3),
    "bernoulli, 70 sources": _drawn(jaxmix.bernoulli_sources, np.full(70, 1 / 70)),
    "systematic, 70 sources": _drawn(jaxmix.systematic_sources, np.full(70, 1 / 70)),
    "systematic": _drawn(jaxmix.systematic_sources, GAMMA),
    "systematic, 3 sources": _drawn(jaxmix.systematic_sources, THREE),
    "systematic, groups": _drawn(jaxmix.systematic_sources, THREE, group_size=3),
    "counted": _counted,
    "microbatches and groups over shards": _grouped,
    "uniform rows": _uniform,
}


def test_a_draw_is_the_same_everywhere():
    def run(step, x, axis_name=None):
        return {name: draw(step, x, axis_name) for name, draw in DRAWS.items()}

    assert_same_everywhere(run, jnp.zeros(24))


def test_mixed_and_pooled_rows_are_the_same_everywhere():
    pool = jaxmix.RowPool(_batch(0, 5), _batch(1, 300))

    def run(step, *batches, axis_name=None):
        def mixed(draw, weights):
            args = (KEY, step, weights, *batches[: 2 if weights is GAMMA else 3])
            return jaxmix.mix_rows(*args, draw=draw, axis_name=axis_name)[:2]

        def pooled(draw):
            size = batches[0]["id"].shape[0]
            return jaxmix.draw_rows(
                KEY, step, GAMMA, pool, size, draw=draw, axis_name=axis_name, group_size=3
            )[:2]

        draws = (jaxmix.bernoulli_sources, jaxmix.systematic_sources)
        return [(mixed(d, GAMMA), mixed(d, THREE), pooled(d)) for d in draws]

    assert_same_everywhere(run, *(_batch(k, 24) for k in range(3)))
