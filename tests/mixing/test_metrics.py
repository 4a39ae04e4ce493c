"""MixMetrics: exact counts in jit, scan and shard_map, past 2^32 rows; writers; checks."""

import struct

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorboardX
from flax import nnx
from jax.experimental import checkify
from jax.sharding import AxisType, PartitionSpec
from tensorboardX.proto.event_pb2 import Event

from jaxmix import MixMetrics, checkify_weights, mix_rows, weights_at

NUM_ROWS, NUM_STEPS = 16, 5
GAMMA = optax.linear_schedule(0.25, 0.75, 4)
SPEC = PartitionSpec("data")


def batch(source, weights):
    return jnp.asarray(source), jnp.asarray(weights, jnp.float32)


def words(rows):
    low, high = [n % 2**16 for n in rows], [n >> 16 for n in rows]
    return jnp.array(low, jnp.uint32), jnp.array(high, jnp.uint32)


def of_rows(*rows):
    """Metrics of a run, all in one window, of so many rows and equal weights."""
    shares = jnp.full(len(rows), 1 / len(rows))
    planned = jnp.float32(sum(rows)) * shares
    return MixMetrics(*words(rows), *words(rows), planned, jnp.zeros(len(rows)), shares)


def counted_step(key, metrics, step, axis_name=None):
    x = jnp.zeros(NUM_ROWS if axis_name is None else NUM_ROWS // 8)
    mixed = mix_rows(key, step, GAMMA, x, x + 1, axis_name=axis_name)
    return metrics.update(mixed.source, mixed.weights, axis_name=axis_name), mixed.source


def test_a_run_is_reported_under_flat_names():
    metrics = MixMetrics.empty(3).update(*batch([0, 0, 1, 1], [0.5, 0.5, 0.0]))
    metrics = metrics.update(*batch([1, 1, 1, 2], [0.25, 0.5, 0.25]))
    assert metrics.compute(names=["web", "code", "math"], lengths=[1, 10, 4]) == {
        "mix/weight/web": 0.25, "mix/weight/code": 0.5, "mix/weight/math": 0.25,
        "mix/planned/web": 0.375, "mix/planned/code": 0.5, "mix/planned/math": 0.125,
        "mix/share/web": 0.25, "mix/share/code": 0.625, "mix/share/math": 0.125,
        "mix/rows/web": 2, "mix/rows/code": 5, "mix/rows/math": 1,
        "mix/epochs/web": 2.0, "mix/epochs/code": 0.5, "mix/epochs/math": 0.25,
    }  # fmt: skip


def test_two_sources_report_gamma_and_numbers_for_names():
    report = MixMetrics.empty(2).update(*batch([0, 1, 1, 1], [0.25, 0.75])).compute()
    assert report == {
        "mix/gamma": 0.25, "mix/weight/0": 0.25, "mix/weight/1": 0.75, "mix/planned/0": 0.25,
        "mix/planned/1": 0.75, "mix/share/0": 0.25, "mix/share/1": 0.75, "mix/rows/0": 1,
        "mix/rows/1": 3,
    }  # fmt: skip


def test_before_the_first_update_everything_is_zero():
    report = MixMetrics.empty(2).compute(lengths=[5, 5])
    assert len(report) == 11 and set(report.values()) == {0}


def test_the_window_has_shares_and_plan_of_its_own_steps_and_rows_are_of_the_run():
    metrics = MixMetrics.empty(2).update(*batch([0, 0, 0, 0], [1.0, 0.0])).new_window()
    before = metrics.compute()
    assert [before[f"mix/{name}/0"] for name in ("rows", "weight", "share", "planned")] == [
        4, 1.0, 0.0, 0.0,
    ]  # fmt: skip
    for source, gamma in (([0, 1], 0.5), ([1, 1, 1, 1, 0, 1], 0.25)):  # batches of unequal size
        metrics = metrics.update(*batch(source, [gamma, 1 - gamma]))
    for run in (metrics.compute, jax.jit(lambda: metrics.compute(lengths=[3, 100]))):
        report = {name: float(value) for name, value in run().items()}
        # Over 8 rows: 2 planned by a half and 6 by a quarter, as a share of rows is.
        assert report["mix/planned/0"] == (2 * 0.5 + 6 * 0.25) / 8
        assert report["mix/share/0"] == 2 / 8 and report["mix/share/1"] == 6 / 8
        assert report["mix/rows/0"] == 6 and report["mix/rows/1"] == 6
        assert report["mix/gamma"] == 0.25
    assert report["mix/epochs/0"] == 2.0


def test_the_plan_of_a_long_window_does_not_drift():
    @jax.jit
    def long_run(metrics):
        def body(_, metrics):
            return metrics.update(jnp.zeros(8, int), jnp.array([0.1, 0.9]))

        return jax.lax.fori_loop(0, 300_000, body, metrics)

    report = long_run(MixMetrics.empty(2)).compute()
    assert report["mix/planned/0"] == pytest.approx(np.float32(0.1), rel=2e-8)
    assert report["mix/rows/0"] == 8 * 300_000  # well past the low word


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_narrow_source_numbers_count_for_no_other_source(dtype):
    update = jax.jit(MixMetrics.empty(300).update)
    metrics = update(np.array([0, 3, 100, 100], dtype), np.full(300, 1 / 300, np.float32))
    rows = np.zeros(300)
    rows[[0, 3, 100]] = [1, 1, 2]
    np.testing.assert_array_equal(metrics.rows_low, rows)
    assert not np.isnan(metrics.weights).any()


def test_metrics_can_be_donated_from_the_start_and_from_a_new_window():
    update = jax.jit(lambda metrics: metrics.update(*batch([0], [0.5, 0.5])), donate_argnums=0)
    metrics = MixMetrics.empty(2)
    for _ in range(2):
        metrics = update(update(metrics)).new_window()
        addresses = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(metrics)]
        assert len(set(addresses)) == len(addresses)
    assert update(metrics).compute()["mix/rows/0"] == 5
    inside = jax.jit(lambda: MixMetrics.empty(2).new_window())()
    assert update(inside).compute()["mix/rows/0"] == 1


def test_a_nan_weight_stays_visible():
    metrics = MixMetrics.empty(2).update(*batch([0, 1], [np.nan, np.nan]))
    assert np.isnan(metrics.compute()["mix/gamma"])
    assert np.isnan(metrics.merge(MixMetrics.empty(2)).compute()["mix/gamma"])


def test_a_row_of_an_unknown_source_shows():
    # A plan that was edited to three sources, and a step that still counts two.
    metrics = MixMetrics.empty(2).update(*batch([0, 1, 1, 0], [0.5, 0.5]))
    assert not np.isnan(metrics.compute()["mix/gamma"])
    for source in ([0, 1, 2, 0], [0, -1, 1, 0]):
        report = jax.jit(metrics.update)(*batch(source, [0.5, 0.5])).compute()
        assert np.isnan(report["mix/gamma"]) and np.isnan(report["mix/weight/1"])
    bad = metrics.update(*batch([0, 2], [0.5, 0.5]))
    assert np.isnan(bad.update(*batch([0, 1], [0.5, 0.5])).compute()["mix/gamma"])  # it stays
    assert np.isnan(metrics.merge(bad).merge(metrics).compute()["mix/gamma"])
    assert np.isnan(bad.compute()["mix/planned/0"]) and np.isnan(bad.new_window().weights).all()


def test_jit_scan_and_shards_count_the_rows_that_were_drawn(key):
    eager, sources = MixMetrics.empty(2), []
    for step in range(NUM_STEPS):
        eager, source = counted_step(key, eager, step)
        sources.append(source)
    rows = np.bincount(np.concatenate(sources), minlength=2).tolist()
    assert eager.rows_low.tolist() == rows and eager.weights.tolist() == [0.75, 0.25]
    assert eager.planned.tolist() == [40.0, 40.0]  # a half of 5 batches of 16 on average

    def scanned(key, axis_name=None):
        def body(metrics, step):
            return counted_step(key, metrics, step, axis_name)[0], None

        return jax.lax.scan(body, MixMetrics.empty(2), jnp.arange(NUM_STEPS))[0]

    results = [jax.jit(scanned)(key)]
    pmapped = jax.pmap(lambda _: scanned(key, "data"), "data")(jnp.arange(8))
    results.append(jax.tree.map(lambda a: a[3], pmapped))
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
        shards = jax.shard_map(
            lambda key: scanned(key, "data"),
            mesh=mesh,
            in_specs=PartitionSpec(),
            out_specs=PartitionSpec(),
        )
        results.append(jax.block_until_ready(jax.jit(shards)(key)))

        @jax.jit
        def on_global_batch(metrics, source, step):
            return metrics.update(source, weights_at(step, GAMMA))

        metrics = MixMetrics.empty(2)
        for step, source in enumerate(sources):
            source = jax.device_put(source, jax.NamedSharding(mesh, SPEC))
            metrics = on_global_batch(metrics, source, step)
        results.append(metrics)
    for metrics in results:
        jax.tree.map(np.testing.assert_array_equal, metrics, eager)


def test_parts_of_devices_may_be_summed_leaf_by_leaf():
    stacked = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *[of_rows(2**20 - 1, k) for k in range(8)]
    )
    summed = jax.tree.map(lambda leaf: leaf.sum(0, dtype=leaf.dtype), stacked)
    for report in (summed.compute(), summed.update(*batch([1], [0.5, 0.5])).compute()):
        assert report["mix/rows/0"] == 8 * (2**20 - 1)
    assert report["mix/rows/1"] == sum(range(8)) + 1


def test_rows_past_2_to_the_32_are_counted_one_by_one():
    metrics = of_rows(2**32 - 1, 2**40 + 5).update(*batch([0, 0, 0, 1], [0.5, 0.5]))
    report = metrics.compute(lengths=[2**33 + 4, 2**50])
    assert [int(report[f"mix/rows/{k}"]) for k in range(2)] == [2**32 + 2, 2**40 + 6]
    assert report["mix/epochs/0"] == 0.5 and report["mix/epochs/1"] == (2**40 + 6) / 2**50
    assert report["mix/share/0"] == (2**32 + 2) / (2**32 + 2**40 + 8)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("one", [0, 1, 2**16 - 1, 2**32 - 1, 3 * 2**32 + 7])
@pytest.mark.parametrize("other", [0, 1, 2**16 - 1, 2**33 - 1])
def test_merging_adds_with_carry_in_either_order(one, other, jit):
    merge = jax.jit(MixMetrics.merge) if jit else MixMetrics.merge
    for a, b in ((one, other), (other, one)):
        report = merge(of_rows(a, 1), of_rows(b, 2)).compute()
        assert [int(report[f"mix/rows/{k}"]) for k in range(2)] == [a + b, 3]


def test_merging_takes_the_weights_of_the_later_part_that_saw_a_batch():
    early, late = (MixMetrics.empty(2).update(*batch([0], [w, 1 - w])) for w in (0.25, 0.5))
    assert early.merge(late).weights.tolist() == [0.5, 0.5]
    assert early.merge(MixMetrics.empty(2)).weights.tolist() == [0.25, 0.75]


def test_nothing_goes_to_or_from_the_host_before_compute(key):
    def step_fn(metrics, step):
        return counted_step(jax.random.key(7), metrics, step)[0], step + 1

    text = jax.jit(step_fn).lower(MixMetrics.empty(2), jnp.int32(0)).as_text()
    assert "callback" not in text
    run = jax.jit(step_fn)
    metrics, step = run(MixMetrics.empty(2), jnp.int32(0))
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            metrics, step = run(metrics, step)
    assert sum(metrics.compute()[f"mix/rows/{k}"] for k in range(2)) == 4 * NUM_ROWS


def test_the_report_inside_jit_is_float32_and_goes_into_nnx_multi_metric_unchanged():
    names = [f"mix/{name}" for name in ("gamma", "share/web", "rows/web", "epochs/web")]
    averages = nnx.MultiMetric(**{name: nnx.metrics.Average(name) for name in names})

    @nnx.jit
    def log(averages, metrics):
        averages.update(**metrics.compute(names=["web", "code"], lengths=[8, 2**40]))

    metrics = MixMetrics.empty(2)
    for gamma, source in ((0.5, [0, 0, 1, 1]), (1.0, [0, 0, 0, 0])):
        metrics = metrics.update(*batch(source, [gamma, 1 - gamma]))
        log(averages, metrics)
        report = metrics.compute(names=["web", "code"], lengths=[8, 2**40])
        averages.update(**report)  # from the host as well
    with jax.numpy_dtype_promotion("standard"):  # flax divides a float by an int
        values = {name: float(value) for name, value in averages.compute().items()}
    assert values == dict(zip(names, [0.75, 0.625, 4.0, 0.5], strict=True))


def test_the_report_goes_to_tensorboard(tmp_path):
    metrics = MixMetrics.empty(2)
    with tensorboardX.SummaryWriter(str(tmp_path)) as writer:
        for step, source in enumerate(([0, 1, 1, 1], [0, 0, 0, 1])):
            metrics = metrics.update(*batch(source, [0.25, 0.75]))
            for name, value in metrics.compute(names=["web", "code"]).items():
                writer.add_scalar(name, value, step)
    seen = {}
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    while data:  # records: length, its checksum, the event, its checksum
        (size,) = struct.unpack("<Q", data[:8])
        event, data = Event.FromString(data[12 : 12 + size]), data[16 + size :]
        seen |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    assert seen["mix/gamma", 1] == 0.25 and seen["mix/rows/web", 0] == 1.0
    assert seen["mix/share/web", 0] == 0.25 and seen["mix/share/web", 1] == 0.5


def test_metrics_that_do_not_fit_are_refused():
    metrics = MixMetrics.empty(2)
    refused = [
        (lambda: MixMetrics.empty(0), "num_sources must be >= 1"),
        (
            lambda: metrics.update(*batch([0], [0.5, 0.25, 0.25])),
            r"weights must be of shape \(2,\)",
        ),
        (lambda: metrics.update(*batch([[0]], [0.5, 0.5])), r"source must be of shape \[B\]"),
        (
            lambda: metrics.update(*batch([0.0], [0.5, 0.5])),
            "source must be of an integer dtype",
        ),
        (lambda: metrics.compute(names=["a"]), "names must be 2 different names"),
        (lambda: metrics.compute(names=["a", "a"]), "names must be 2 different names"),
        (lambda: metrics.compute(lengths=[3]), "lengths must be 2 numbers, one per source"),
        (lambda: metrics.compute(lengths=[3, 0]), "a length must be >= 1"),
        (
            lambda: jax.tree.map(lambda a: a[None], metrics).compute(),
            "the metrics must be of rank 1",
        ),
    ]
    for call, message in refused:
        with pytest.raises((ValueError, TypeError), match=message):
            call()


CHECKED = {
    "nan": (lambda step: jnp.where(step == 2, jnp.nan, 0.5), "gamma = nan at step 2"),
    "above 1": (lambda step: 0.5 * step, "gamma = 1.5 at step 3"),
    "negative": (lambda step: 0.5 - 0.5 * step, "gamma = -0.5 at step 2"),
    "negative of K": (lambda step: jnp.stack([1.0 + step, -1.0 * step]), r"\[ ?2. -1.\] at step 1"),
    "sum of K": (lambda step: jnp.stack([0.5 + 0.25 * step, 0.5]), r"\[0.75 ?0.5 ?\] at step 1"),
}


@pytest.mark.parametrize("case", CHECKED)
@pytest.mark.parametrize("scan", [False, True], ids=["jit", "scan"])
def test_checkify_reports_weights_off_the_simplex_with_their_step(case, scan):
    schedule, message = CHECKED[case]

    def one(step):
        checkify_weights(step, lambda step: schedule(jnp.asarray(step, jnp.float32)))
        return step + 1

    def run(steps):
        return jax.lax.scan(lambda carry, step: (carry, one(step)), 0, steps)[1]

    checked = jax.jit(checkify.checkify(run if scan else one))
    errors = [checked(jnp.arange(4))[0]] if scan else [checked(step)[0] for step in jnp.arange(4)]
    first = next(error for error in errors if error.get())
    with pytest.raises(checkify.JaxRuntimeError, match="weights must be .*" + message):
        first.throw()


def test_checkify_passes_good_weights_under_grad_vmap_and_shard_map():
    def loss(x, step):
        checkify_weights(step, GAMMA)
        checkify_weights(step, jnp.array([0.5, 0.25, 0.25]))
        return (x * step.astype(jnp.float32)).sum()

    run = jax.vmap(jax.grad(loss), in_axes=(None, 0))
    assert checkify.checkify(run)(jnp.ones(2), jnp.arange(3))[0].get() is None
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def per_shard(x, step):
        return jax.lax.psum(loss(x, step), "data")

    specs = (SPEC, PartitionSpec())
    sharded = jax.shard_map(per_shard, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())
    error, _ = jax.jit(checkify.checkify(sharded))(jnp.ones(8), jnp.int32(1))
    assert error.get() is None


def test_weights_that_are_known_raise_at_once_and_a_check_needs_checkify():
    with pytest.raises(ValueError, match=r"weights must be in \[0, 1\], got 1.5"):
        checkify_weights(0, 1.5)
    with pytest.raises(ValueError, match="checkify"):
        jax.jit(lambda step: checkify_weights(step, GAMMA))(0)
