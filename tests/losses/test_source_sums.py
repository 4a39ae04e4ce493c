"""source_sums: counts and sums by source, under accumulation, on shards, and what is refused."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmix import SourceSums, interpolate, source_sums

UNIT = 2.0**-24  # half the spacing of float32 at 1: the rounding error of one operation


def whole_counts(sums):
    words = np.asarray(sums.count_low, np.int64), np.asarray(sums.count_high, np.int64)
    return (words[0] + 2**16 * words[1]).tolist()


def test_source_sums_count_each_value_for_the_source_of_its_row():
    values = jnp.array([[1.0, 2.0], [4.0, jnp.nan], [8.0, 16.0], [32.0, 64.0]])
    where = jnp.array([[True, True], [True, False], [True, True], [True, True]])
    source = jnp.array([0, 2, 2, -1])
    sums = source_sums(values, source, 4, where=where)
    assert sums.total.tolist() == [3.0, 0.0, 28.0, 0.0]
    assert sums.count.tolist() == [2, 0, 3, 0] and sums.count.dtype == jnp.float32
    np.testing.assert_array_equal((sums + sums).mean(), np.float32([1.5, 0, 28 / 3, 0]))
    grad = jax.grad(lambda v: source_sums(v, source, 4, where=where).mean().sum())(values)
    third = np.float32(1 / 3)
    np.testing.assert_array_equal(grad, [[0.5, 0.5], [third, 0], [third, third], [0, 0]])


def test_a_nan_stays_in_the_sum_of_its_own_source():
    sums = source_sums(jnp.array([1.0, jnp.nan, 2.0]), jnp.array([0, 1, 0]), 2)
    assert float(sums.total[0]) == 3.0 and math.isnan(sums.total[1])


def test_counts_are_exact_and_sums_wide_for_narrow_values():
    sums = source_sums(jnp.ones((1, 2**24 + 1), jnp.bfloat16), jnp.array([1]), 2)
    assert whole_counts(sums) == [0, 2**24 + 1] and sums.total.dtype == jnp.float32
    assert abs(float(sums.total[1]) - 2**24) <= 1


def test_numpy_arrays_are_summed_as_jax_arrays_are():
    values, source = np.float32([[1.0, 2.0], [4.0, 8.0]]), np.array([1, 0])
    sums = source_sums(values, source, 2, where=values > 1)
    assert sums.total.tolist() == [12.0, 2.0] and sums.count.tolist() == [2, 1]
    with pytest.raises(ValueError, match="num_sources must be >= 1, got 0"):
        source_sums(values, source, 0)


@pytest.mark.parametrize(
    ("values", "source", "where", "message"),
    [
        (jnp.zeros(3, int), jnp.zeros(3, int), None, "values must be of a float dtype"),
        (jnp.zeros(3), jnp.zeros(3), None, "source must be of an integer dtype"),
        (jnp.zeros((3, 2)), jnp.zeros(2, int), None, r"source must be of shape \(3,\), got \(2,\)"),
        (
            jnp.zeros((3, 2)),
            jnp.zeros(3, int),
            jnp.ones(3, bool),
            r"where must be of shape \(3, 2\)",
        ),
        (jnp.zeros(3), jnp.zeros(3, int), jnp.ones(3), "where must be of dtype bool"),
    ],
)
def test_values_sources_and_masks_that_do_not_fit_are_refused(values, source, where, message):
    with pytest.raises((ValueError, TypeError), match=message):
        source_sums(values, source, 2, where=where)


def test_counts_and_means_stay_right_over_500_steps_of_4_million_tokens():
    step = source_sums(jnp.full((4, 2**20), 0.25), jnp.array([0, 1, 1, 1]), 2)
    assert whole_counts(step) == [2**20, 3 * 2**20]

    @jax.jit
    def add_up(sums):
        return lax.fori_loop(0, 500, lambda _, sums: sums + step, sums)

    sums = add_up(add_up(SourceSums.empty(2)))
    assert whole_counts(sums) == [1000 * 2**20, 3000 * 2**20]  # past 2^31
    assert sums.mean().tolist() == [0.25, 0.25]
    np.testing.assert_array_equal(sums.count, np.float32([1000 * 2**20, 3000 * 2**20]))
    past = sums
    for _ in range(5):
        past = past + past
    assert whole_counts(past)[1] == 32 * 3000 * 2**20 and past.mean()[1] == 0.25  # past 2^32


def test_totals_are_right_to_a_rounding_after_a_million_additions():
    value, num_steps = np.float32(0.1), 1_000_000
    step = source_sums(jnp.array([value, 3 * value]), jnp.array([0, 1]), 2)

    @jax.jit
    def add_up(sums):
        return lax.fori_loop(0, num_steps, lambda _, sums: sums + step, sums)

    sums = add_up(SourceSums.empty(2))
    want = num_steps * np.float64(np.asarray(step.total))
    assert np.abs(sums.total / want - 1).max() <= 1.01 * UNIT  # plain float32 sums are 1 % off
    both = np.float64(np.asarray(sums.total)) + np.float64(np.asarray(sums.rest))
    assert np.abs(both / want - 1).max() <= num_steps * UNIT**2
    assert np.abs(sums.mean() / (want / num_steps) - 1).max() <= 3 * UNIT


def test_sums_of_devices_and_of_stacked_steps_are_sums_leaf_by_leaf():
    parts = [source_sums(TOKENS[k : k + 1], BATCH[1][k : k + 1], 2) for k in range(8)]
    many = SourceSums(
        jnp.zeros(2), jnp.zeros(2), jnp.full(2, 2**16 - 1, jnp.uint32), jnp.full(2, 7, jnp.uint32)
    )
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[part + many for part in parts])
    want = functools.reduce(lambda a, b: a + b, [part + many for part in parts])
    sums = [jax.tree.map(lambda a: a.sum(0, dtype=a.dtype), stacked)]
    over = jax.pmap(lambda part: lax.psum(part, "data"), "data")(stacked)
    sums.append(jax.tree.map(lambda a: a[0], over))
    for got in sums:
        assert whole_counts(got) == whole_counts(want)
        assert whole_counts(got + SourceSums.empty(2)) == whole_counts(want)
        assert int((got + SourceSums.empty(2)).count_low.max()) < 2**16
        np.testing.assert_array_equal(got.mean(), want.mean())


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int64])
def test_narrow_source_numbers_count_for_no_other_source(dtype):
    source = np.array([0, 3, 100, -1 if dtype != np.uint8 else 255]).astype(dtype)
    num_sources = 2**16 if dtype == np.int16 else 300  # more than the dtype has numbers
    sums = source_sums(np.float32([1, 2, 4, 8]), source, num_sources)
    want = np.zeros(num_sources)
    want[[0, 3, 100]] = [1, 2, 4]
    want[255] = 8 * (dtype == np.uint8)
    np.testing.assert_array_equal(sums.total, want)
    assert float(sums.count.sum()) == 3 + (dtype == np.uint8)


def test_infinite_and_nan_totals_stay_visible_and_sums_of_other_sources_are_refused():
    bad = source_sums(jnp.array([jnp.inf, jnp.nan, 1.0]), jnp.array([0, 1, 2]), 3)
    np.testing.assert_array_equal((bad + bad + bad).mean(), [np.inf, np.nan, 1.0])
    with pytest.raises(ValueError, match=r"the other sums must be of shape \(3,\), got \(1,\)"):
        bad + SourceSums.empty(1)


def test_the_gradient_passes_through_sums_that_were_added_up():
    def loss(values):
        parts = [source_sums(values[rows], BATCH[1][rows], 2) for rows in ROWS.reshape(4, 4)]
        return functools.reduce(lambda a, b: a + b, parts).mean().sum()

    counts = np.bincount(BATCH[1], minlength=2) * NUM_TOKENS
    want = np.float32(1) / np.float32(counts)[np.asarray(BATCH[1])]
    np.testing.assert_allclose(jax.grad(loss)(TOKENS), want[:, None].repeat(NUM_TOKENS, 1))


# Token losses of a model with one parameter, in small whole numbers, of rows of 1 to 4 tokens.
NUM_ROWS, NUM_TOKENS = 16, 4
ROWS = jnp.arange(NUM_ROWS)
TOKENS = jnp.reshape(jnp.arange(NUM_ROWS * NUM_TOKENS) % 7 - 3, (NUM_ROWS, -1)).astype(jnp.float32)
BATCH = (TOKENS, ROWS % 5 % 2, jnp.arange(NUM_TOKENS)[None, :] <= (ROWS * ROWS % 7 % 4)[:, None])
COUNTS = source_sums(
    TOKENS, BATCH[1], 2, where=BATCH[2]
).count  # of the whole batch, before the model
GAMMA = optax.linear_schedule(1.0, 0.0, 4)
PARAM = jnp.float32(2.0)


def part_of_loss(param, step, tokens, source, where, axis_name=None):
    """What some rows add to sum_k w_k (mean token loss of source k over the whole batch)."""
    losses = (tokens * param - 1.0) ** 2
    sums = source_sums(losses, source, 2, where=where, axis_name=axis_name)
    return interpolate(step, GAMMA, *(sums.total / COUNTS))


loss_and_grad = jax.jit(jax.value_and_grad(part_of_loss))


def whole_batch(step, param=PARAM):
    """The loss and gradient in float64, from the definition."""
    tokens, source, where = (np.asarray(a, np.float64) for a in BATCH)
    weights = (
        np.array([1 - step / 4, step / 4])[source.astype(int)]
        / np.asarray(COUNTS)[source.astype(int)]
    )
    error = tokens * float(param) - 1.0
    loss = (weights[:, None] * where * error**2).sum()
    return loss, (weights[:, None] * where * 2 * error * tokens).sum()


def assert_rounded(got, want):
    """Equal but for the rounding of two quotients, two weights and the sums over 16 rows."""
    assert abs(float(got) - want) <= 2 * NUM_ROWS * UNIT * abs(want), (got, want)


@pytest.mark.parametrize("step", [0, 1, 4])
def test_microbatches_of_unequal_token_counts_give_the_loss_and_gradient_of_the_batch(step):
    parts = [tuple(a[rows] for a in BATCH) for rows in jnp.split(ROWS, [1, 3, 10])]
    sums = [source_sums(*part[:2], 2, where=part[2]) for part in parts]
    assert sum(sums[1:], sums[0]).count.tolist() == COUNTS.tolist()
    assert len({int(part.count.sum()) for part in sums}) == 4
    values, grads = zip(
        *(loss_and_grad(PARAM, jnp.int32(step), *part) for part in parts), strict=True
    )
    assert_rounded(sum(values), whole_batch(step)[0])
    assert_rounded(sum(grads), whole_batch(step)[1])


def test_multi_steps_takes_its_gamma_from_the_optimizer_step():
    tx = optax.MultiSteps(optax.sgd(2.0**-6), every_k_schedule=4, use_grad_mean=False)
    param, state, want, steps = PARAM, tx.init(PARAM), float(PARAM), []

    @jax.jit
    def microstep(param, state, rows):
        part = tuple(a[rows] for a in BATCH)
        grad = jax.grad(part_of_loss)(param, state.gradient_step, *part)
        with jax.numpy_dtype_promotion("standard"):  # optax multiplies an int by a bool
            updates, new_state = tx.update(grad, state, param)
        return optax.apply_updates(param, updates), new_state

    for step in range(3):
        for rows in ROWS.reshape(4, 4):
            steps.append(int(state.gradient_step))
            param, state = microstep(param, state, rows)
        want -= 2.0**-6 * whole_batch(step, want)[1]
    assert steps == [0] * 4 + [1] * 4 + [2] * 4
    assert abs(float(param) - want) <= 3 * 2 * NUM_ROWS * UNIT * want


@pytest.mark.parametrize("step", [0, 1, 4])
def test_microbatching_adds_up_to_the_gradient_of_the_batch(step):
    run = optax.microbatching.microbatch(
        jax.value_and_grad(part_of_loss), argnums=(2, 3, 4), microbatch_size=4
    )
    value, grad = jax.jit(run)(PARAM, jnp.int32(step), *BATCH)
    assert_rounded(value, whole_batch(step)[0])
    assert_rounded(grad, whole_batch(step)[1])


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_sums_over_shards_equal_sums_over_the_global_batch(kind):
    mesh = jax.make_mesh((4, 2), ("outer", "inner"), axis_types=(kind, kind))
    spec = PartitionSpec(("outer", "inner"))
    values, source, where = (jax.device_put(a, NamedSharding(mesh, spec)) for a in BATCH)

    def sums(values, source, where, axis_name=None):
        return source_sums(values, source, 2, where=where, axis_name=axis_name)

    def per_shard(*args):
        return sums(*args, axis_name=("outer", "inner"))

    alone = sums(*BATCH)
    shard_map = jax.shard_map(per_shard, mesh=mesh, in_specs=(spec,) * 3, out_specs=PartitionSpec())
    for run in (jax.jit(sums), jax.jit(shard_map)):
        got = run(values, source, where)
        jax.tree.map(np.testing.assert_array_equal, got, alone)
    pmapped = jax.pmap(lambda *args: sums(*args, axis_name="data"), "data")
    got = pmapped(*(a.reshape(8, 2, *a.shape[1:]) for a in BATCH))
    np.testing.assert_array_equal(got.total[5], alone.total)
    grads = loss_and_grad(PARAM, jnp.int32(1), values, source, where)
    assert_rounded(grads[0], whole_batch(1)[0])
    assert_rounded(grads[1], whole_batch(1)[1])
