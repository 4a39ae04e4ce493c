"""mix_loss_fns: losses of weight 0 are not evaluated; the gradient is that of the plain sum."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmix import add_loss_fns, interpolate, mix_log_probs, mix_logits, mix_loss_fns

GAMMA = optax.linear_schedule(1.0, 0.0, 4)
PARAMS = {"w": jnp.array([2.0, 3.0, 5.0]), "b": jnp.float32(1.0)}
DATA = jnp.reshape(jnp.arange(24.0), (8, 3))
LABELS = jnp.arange(8)


def square(params, data, labels):
    outputs = (data * params["w"][None]).sum(1) + params["b"]
    return ((outputs - labels.astype(jnp.float32)) ** 2).mean()


def cubes(params, data, labels):
    return (params["w"] ** 3).sum() + data.mean() * params["b"]


def plain(step, *args):
    """The same sum in the plain way: exact for the whole numbers above and gamma in quarters."""
    gamma = 1.0 - jnp.asarray(step).astype(jnp.float32) / 4.0
    return gamma * square(*args) + (1.0 - gamma) * cubes(*args)


mixed = mix_loss_fns(GAMMA, square, cubes)


MESHES = [AxisType.Auto, AxisType.Explicit]
SPECS = (PartitionSpec(), PartitionSpec(), PartitionSpec("data"), PartitionSpec("data"))


def on_mesh(kind):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    return mesh, jax.device_put(DATA, rows), jax.device_put(LABELS, rows)


def assert_trees_equal(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def over_closure(step, params, data, labels):
    return mix_loss_fns(
        GAMMA, lambda data: square(params, data, labels), lambda data: cubes(params, data, labels)
    )(step, data)


def hessian_product(loss):
    def product(step, params, *args):
        return jax.jvp(jax.grad(lambda p: loss(step, p, *args)), (params,), (params,))[1]

    return product


# name: what is done, under jit, with a loss function `loss(step, params, data, labels)`
WAYS = {
    "value": lambda loss: loss,
    "gradient": lambda loss: jax.value_and_grad(loss, argnums=(1, 2)),
    "gradient of jit": lambda loss: jax.grad(jax.jit(loss), argnums=(1, 2)),
    "remat": lambda loss: jax.grad(jax.checkpoint(loss), argnums=1),
    "forward over reverse": hessian_product,
    "vmap over labels": lambda loss: jax.vmap(
        jax.grad(loss, argnums=1), in_axes=(None, None, None, 1)
    ),
    "vmap over steps": lambda loss: jax.vmap(
        jax.grad(loss, argnums=1), in_axes=(0, None, None, None)
    ),
    "gradient of vmap over steps": lambda loss: (
        lambda steps, params, *args: jax.grad(
            lambda params: jax.vmap(lambda step: loss(step, params, *args))(steps).sum()
        )(params)
    ),
    "scan over steps": lambda loss: (
        lambda step, params, *args: jax.grad(
            lambda params: lax.scan(
                lambda total, step: (total + loss(step, params, *args), None), 0.0, jnp.arange(4)
            )[0]
        )(params)
    ),
}


def run_way(way, loss, steps):
    """What a way gives at each step, traced once."""
    labels = jnp.stack([LABELS, LABELS + 1], axis=1) if way == "vmap over labels" else LABELS
    pairs = "vmap over steps" in way
    run = jax.jit(WAYS[way](loss))
    return [run(jnp.array([t, t]) if pairs else jnp.int32(t), PARAMS, DATA, labels) for t in steps]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loss", [mixed, over_closure], ids=["arguments", "closures"])
def test_values_and_gradients_are_those_of_the_plain_sum(loss, way):
    assert_trees_equal(run_way(way, loss, [0, 1, 4]), run_way(way, plain, [0, 1, 4]))


@pytest.mark.parametrize("step", [0, 1])
def test_eager_values_and_gradients_are_those_of_the_plain_sum(step):
    args = step, PARAMS, DATA, LABELS
    got = jax.value_and_grad(mixed, argnums=(1, 2))(*args)
    assert_trees_equal(got, jax.value_and_grad(plain, argnums=(1, 2))(*args))


def test_gradients_equal_finite_differences_in_float64():
    losses = [lambda p: jnp.sin(p).sum(), lambda p: (p**3).sum(), lambda p: jnp.exp(p).mean()]
    with jax.enable_x64(True):
        loss = jax.jit(mix_loss_fns(jnp.array([0.2, 0.3, 0.5]), *losses))
        params = jax.random.normal(jax.random.key(0), (4,), jnp.float64)
        slopes = [(loss(0, params + h) - loss(0, params - h)) / 2e-6 for h in 1e-6 * jnp.eye(4)]
        # Truncation h^2 and rounding 2^-52 |loss|/h are both below 1e-9.
        assert np.abs(np.array(slopes) - jax.grad(loss, argnums=1)(0, params)).max() < 2e-9


def test_the_derivative_in_the_weights_is_the_loss():
    grad = jax.grad(lambda gamma: mix_loss_fns(gamma, square, cubes)(0, PARAMS, DATA, LABELS))
    want = square(PARAMS, DATA, LABELS) - cubes(PARAMS, DATA, LABELS)
    assert float(grad(jnp.float32(0.25))) == float(want)


def counted(name, log, loss):
    """`loss` with its forward and its backward passes written down in `log` as they run."""

    @jax.custom_vjp
    def seen(x):
        jax.debug.callback(lambda: log.update([f"{name} forward"]))
        return x

    def backward(_, cotangent):
        jax.debug.callback(lambda: log.update([f"{name} backward"]))
        return (cotangent,)

    seen.defvjp(lambda x: (seen(x), None), backward)
    return lambda params, *args: loss(params | {"b": seen(params["b"])}, *args)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("weights", [[1, 0, 0], [0, 1, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
def test_only_losses_of_non_zero_weight_are_evaluated_forward_and_backward(weights, jit):
    log = collections.Counter()
    losses = [counted(name, log, square) for name in "abc"]
    loss = mix_loss_fns(lambda step: jnp.array(weights, jnp.float32), *losses)
    used = [name for name, weight in zip("abc", weights, strict=True) if weight]
    for run, passes in ((loss, ["forward"]), (jax.grad(loss, argnums=1), ["forward", "backward"])):
        (jax.jit(run) if jit else run)(jnp.int32(0), PARAMS, DATA, LABELS)
        jax.effects_barrier()
        assert log == {f"{name} {way}": 1 for name in used for way in passes}
        log.clear()


def bad_value(params, data, labels):
    return jnp.inf * jnp.log((params["w"] - PARAMS["w"]).sum())


def bad_derivative(params, data, labels):
    return jnp.sqrt((params["w"] - PARAMS["w"]).sum())


@pytest.mark.parametrize("bad", [bad_value, bad_derivative])
@pytest.mark.parametrize("way", [way for way in WAYS if way != "scan over steps"])
def test_a_loss_of_weight_zero_reaches_neither_value_nor_gradient(way, bad):
    got = run_way(way, mix_loss_fns(GAMMA, square, bad), [0, 4])
    assert_trees_equal(got[0], run_way(way, plain, [0])[0])
    if way != "value" or bad is bad_value:
        assert not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(got[1]))


@pytest.mark.parametrize("bad", [bad_value, bad_derivative])
def test_an_eager_loss_of_weight_zero_reaches_neither_value_nor_gradient(bad):
    args = 0, PARAMS, DATA, LABELS
    got = jax.value_and_grad(mix_loss_fns([1, 0], square, bad), argnums=1)(*args)
    assert_trees_equal(got, jax.value_and_grad(plain, argnums=1)(*args))


def test_a_nan_weight_stays_visible_in_value_and_gradient():
    run = jax.jit(
        jax.value_and_grad(lambda p, w: mix_loss_fns(w, square, cubes)(0, p, DATA, LABELS))
    )
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(run(PARAMS, jnp.float32(np.nan))))


def test_aux_is_one_tree_a_source_with_zeros_where_it_was_skipped():
    def first(params):
        return params["b"], {"rows": 8, "seen": params["w"] > 0}

    def second(params):
        return params["b"], params["w"]

    loss = mix_loss_fns(GAMMA, first, second, has_aux=True)
    run = jax.jit(jax.value_and_grad(loss, argnums=1, has_aux=True))
    (value, aux), grad = run(jnp.int32(0), PARAMS)
    assert float(value) == 1.0 and float(grad["b"]) == 1.0
    assert_trees_equal(aux, ({"rows": np.int32(8), "seen": np.ones(3, bool)}, np.zeros(3)))
    (_, aux), _ = run(jnp.int32(4), PARAMS)
    assert_trees_equal(aux, ({"rows": np.int32(0), "seen": np.zeros(3, bool)}, PARAMS["w"]))


@pytest.mark.parametrize("kind", MESHES)
def test_aux_with_the_rows_first_keeps_its_sharding_when_it_is_skipped(kind):
    _, data, _ = on_mesh(kind)
    losses = [lambda data: (data.sum(), data + 1), lambda data: (data.sum(), data + 2)]
    run = jax.jit(mix_loss_fns(GAMMA, *losses, has_aux=True))
    first, second = run(jnp.int32(0), data)[1]
    np.testing.assert_array_equal(first, DATA + 1)
    np.testing.assert_array_equal(second, jnp.zeros_like(DATA))
    for shape in jax.eval_shape(run, jnp.int32(0), data)[1]:
        assert kind is AxisType.Auto or shape.sharding.spec[0] == "data"


def test_forward_mode_is_refused_by_jax():
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda params: mixed(1, params, DATA, LABELS), (PARAMS,), (PARAMS,))


def test_keys_whole_numbers_and_plain_python_values_pass_through_as_arguments():
    def noisy(params, key, scale, name):
        assert name == "train" and scale == 2
        return (params["w"] * jax.random.normal(key, (3,)) * scale).sum()

    loss = mix_loss_fns(0.5, noisy, lambda params, key, scale, name: params["b"])
    grad = jax.grad(lambda params, key: loss(0, params, key, 2, "train"))
    key = jax.random.key(3)
    np.testing.assert_array_equal(jax.jit(grad)(PARAMS, key)["w"], jax.random.normal(key, (3,)))


def test_bfloat16_losses_are_summed_in_float32_and_gradients_keep_their_dtype():
    params = jnp.full(3, 1.5, jnp.bfloat16)
    loss = mix_loss_fns([0.5, 0.5], lambda p: p.sum(), lambda p: (p * p).sum().astype(jnp.float32))
    value, grad = jax.value_and_grad(loss, argnums=1)(0, params)
    assert value.dtype == jnp.float32 and float(value) == 0.5 * 4.5 + 0.5 * 6.75
    assert grad.dtype == jnp.bfloat16 and grad.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("kind", MESHES)
def test_a_global_batch_under_jit_gives_the_same_on_every_kind_of_mesh(kind):
    _, data, labels = on_mesh(kind)
    run, want = (jax.jit(jax.value_and_grad(loss, argnums=1)) for loss in (mixed, plain))
    for step in jnp.array([0, 1, 4]):
        assert_trees_equal(run(step, PARAMS, data, labels), want(step, PARAMS, DATA, LABELS))


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("kind", MESHES)
def test_shards_of_unequal_importance_give_the_gradient_of_the_plain_sum(kind, check_vma):
    mesh, data, labels = on_mesh(kind)

    def over_shards(loss):
        def per_shard(step, *args):
            importance = (lax.axis_index("data") + 1).astype(jnp.float32)
            return lax.psum(importance * loss(step, *args), "data")

        sharded = jax.shard_map(
            per_shard, mesh=mesh, in_specs=SPECS, out_specs=PartitionSpec(), check_vma=check_vma
        )
        return jax.jit(jax.value_and_grad(sharded, argnums=1))

    run, want = over_shards(mixed), over_shards(plain)
    for step in jnp.array([0, 1, 4]):
        args = step, PARAMS, data, labels
        assert_trees_equal(jax.block_until_ready(run(*args)), jax.block_until_ready(want(*args)))


def penalty(params, data, labels):
    return (params["w"] ** 2).sum()


def of_all_shards(params, data, labels):
    return lax.pmean((data * params["w"][None]).sum(), "data")


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize(
    "losses",
    [(penalty, square), (square, lambda *args: jnp.float32(3.0)), (of_all_shards, square)],
    ids=["parameters alone", "constant", "pmean"],
)
def test_a_loss_that_is_equal_on_all_shards_mixes_with_one_that_is_not(losses, check_vma):
    mesh, data, labels = on_mesh(AxisType.Explicit)

    def over_shards(loss):
        def per_shard(step, *args):
            value, grad = jax.value_and_grad(loss, argnums=1)(step, *args)
            grad = grad if check_vma else lax.psum(grad, "data")  # with it, JAX sums
            return lax.pmean(value, "data"), grad

        return jax.jit(
            jax.shard_map(
                per_shard, mesh=mesh, in_specs=SPECS, out_specs=PartitionSpec(), check_vma=check_vma
            )
        )

    def plain(step, *args):
        gamma = 1.0 - step.astype(jnp.float32) / 4.0
        return gamma * losses[0](*args) + (1.0 - gamma) * losses[1](*args)

    run, want = over_shards(mix_loss_fns(GAMMA, *losses)), over_shards(plain)
    for step in jnp.array([0, 1, 4]):
        args = step, PARAMS, data, labels
        assert_trees_equal(jax.block_until_ready(run(*args)), jax.block_until_ready(want(*args)))


@pytest.mark.parametrize("kind", MESHES)
def test_only_losses_of_non_zero_weight_are_evaluated_inside_shard_map(kind):
    mesh, data, labels = on_mesh(kind)
    log = collections.Counter()
    loss = mix_loss_fns(GAMMA, counted("a", log, square), counted("b", log, cubes))

    def per_shard(step, params, data, labels):
        value, grad = jax.value_and_grad(loss, argnums=1)(step, params, data, labels)
        return lax.pmean(value, "data"), grad

    run = jax.jit(jax.shard_map(per_shard, mesh=mesh, in_specs=SPECS, out_specs=PartitionSpec()))
    for step, name in ((0, "a"), (4, "b")):
        jax.block_until_ready(run(jnp.int32(step), PARAMS, data, labels))
        jax.effects_barrier()
        assert log == {f"{name} forward": 8, f"{name} backward": 8}
        log.clear()


def test_a_closure_that_is_differentiated_inside_shard_map_is_refused():
    mesh, data, labels = on_mesh(AxisType.Explicit)

    def per_shard(params, data, labels):
        return lax.pmean(over_closure(1, params, data, labels), "data")

    sharded = jax.shard_map(per_shard, mesh=mesh, in_specs=SPECS[1:], out_specs=PartitionSpec())
    with pytest.raises(ValueError, match="must be an argument of the loss"):
        jax.grad(sharded)(PARAMS, data, labels)


def test_nothing_leaks_out_of_a_trace():
    with jax.check_tracer_leaks(True):
        for loss in (mixed, over_closure):
            run_way("gradient", loss, [1])
        run_way("value", mixed, [1])
        run_way("scan over steps", mixed, [1])


RECON, KL = jnp.float32(3.0), jnp.float32(5.0)
BETA = optax.linear_schedule(0.0, 100.0, 50)
OFF = {
    "too much": lambda step: jnp.stack([1.0, BETA(step)]),
    "too little": lambda step: jnp.stack([0.5, 0.5 - BETA(step) / 1000.0]),
    "below 0": lambda step: jnp.stack([1.0 + BETA(step), -BETA(step)]),
    "gamma": BETA,
    "an array": lambda step: jnp.stack([1.0, BETA(step)]),
}


@pytest.mark.parametrize("case", OFF)
@pytest.mark.parametrize(
    "mix",
    [
        lambda step, weights: mix_loss_fns(weights, lambda: RECON, lambda: KL)(step),
        lambda step, weights: interpolate(step, weights, RECON, KL),
        lambda step, weights: mix_log_probs(step, weights, RECON, KL),
        lambda step, weights: mix_logits(step, weights, RECON[None], KL[None])[0],
    ],
    ids=["mix_loss_fns", "interpolate", "mix_log_probs", "mix_logits"],
)
def test_weights_off_the_simplex_are_refused_if_they_are_known_and_give_nan_in_jit(mix, case):
    """All are on it at step 0; where they are not, the trace raises: see `test_weights.py`."""

    def run(step):
        return mix(step, OFF[case](step) if case == "an array" else OFF[case])

    with pytest.raises(ValueError, match="weights must be"):
        run(30)
    assert np.isnan(jax.jit(run)(30))


def test_weights_that_rounding_moved_off_the_simplex_mix_as_if_on_it_and_no_others():
    def run(weights):
        return mix_loss_fns(weights, lambda: RECON, lambda: KL)(0)

    for gamma, want in ((1.0 + 1e-6, 3.0), (-1e-6, 5.0)):
        assert float(jax.jit(run)(jnp.float32(gamma))) == want
    assert float(jax.jit(run)(jnp.float32([0.5, 0.50004]))) == pytest.approx(4.0, abs=1e-4)
    for off in (1.001, -0.001, [0.5, 0.501], [1.001, -0.001]):
        assert np.isnan(jax.jit(run)(jnp.float32(off)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_weights_mix_alike_eager_and_traced(dtype):
    """Thirds are rounded by more than float32 weights may be off the simplex."""
    weights, values = jnp.full(3, 1 / 3, dtype), [jnp.float32(v) for v in (1.0, 2.0, 6.0)]
    losses = [lambda v=v: v for v in values]
    for mix in (
        lambda w: interpolate(0, w, *values),
        lambda w: mix_loss_fns(w, *losses)(0),
        lambda w: mix_logits(0, w, *(v[None] for v in values))[0],
    ):
        assert float(jax.jit(mix)(weights)) == pytest.approx(float(mix(weights)), rel=1e-6)


ADDED = {  # name: weights that are 1 and 2 * step
    "array": lambda step: jnp.stack([jnp.float32(1.0), 2.0 * jnp.float32(step)]),
    "schedule": lambda step: lambda t: jnp.stack([1.0, 2.0 * t]),
    "numbers and schedules": lambda step: [1, lambda t: 2.0 * t],
    "numbers and traced": lambda step: (np.float32(1.0), 2.0 * jnp.float32(step)),
}


@pytest.mark.parametrize("kind", ADDED)
def test_added_losses_have_weights_of_any_size(kind):
    def loss(step, params):
        step = jnp.asarray(step, jnp.float32)
        return add_loss_fns(ADDED[kind](step), square, cubes)(step, params, DATA, LABELS)

    def want(step, params):
        return square(params, DATA, LABELS) + 2.0 * step * cubes(params, DATA, LABELS)

    run = jax.jit(jax.value_and_grad(loss, argnums=1))
    for step in (0.0, 1.0, 64.0):
        assert_trees_equal(run(step, PARAMS), jax.value_and_grad(want, argnums=1)(step, PARAMS))


@pytest.mark.parametrize("kind", ADDED)
def test_an_added_loss_of_weight_zero_reaches_neither_value_nor_gradient(kind):
    def loss(step, params):
        return add_loss_fns(ADDED[kind](step), square, bad_value)(step, params, DATA, LABELS)

    got = jax.jit(jax.value_and_grad(loss, argnums=1))(jnp.float32(0.0), PARAMS)
    assert_trees_equal(got, jax.value_and_grad(square)(PARAMS, DATA, LABELS))


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_added_weights_below_zero_or_not_finite_are_refused_or_give_nan_in_jit(bad):
    for weights in ([1.0, bad], np.array([1.0, bad]), [1.0, lambda step: bad + 0.0 * step]):
        with pytest.raises(ValueError, match=r"weights must be finite and >= 0 .*, got \[1.0"):
            add_loss_fns(weights, lambda: RECON, lambda: KL)(0)
    for weights in (lambda w: w, lambda w: [w[0], w[1]]):
        run = jax.jit(lambda w, f=weights: add_loss_fns(f(w), lambda: RECON, lambda: KL)(0))
        assert np.isnan(run(jnp.array([1.0, bad])))


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (0.5, ValueError, r"weights must be of shape \(2,\), one per loss, got \(\)"),
        ([1.0], ValueError, r"weights must be of shape \(2,\), one per loss, got \(1,\)"),
        ([], ValueError, r"weights must be of shape \(2,\), one per loss, got \(0,\)"),
        (BETA, ValueError, r"weights must be of shape \(2,\), one per loss, got \(\)"),
        ([1.0, [1.0]], ValueError, r"weights\[1\] must be a number or a schedule of numbers"),
        ([1.0, lambda t: jnp.ones(2)], ValueError, r"weights\[1\] must be a number or a sched"),
        (["1", 2.0], TypeError, "weights must be a number"),
    ],
)
def test_added_weights_that_do_not_fit_are_refused(weights, error, message):
    with pytest.raises(error, match=message):
        add_loss_fns(weights, lambda: RECON, lambda: KL)(0)


@pytest.mark.parametrize("make", [mix_loss_fns, add_loss_fns])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0)])
def test_a_skipped_loss_leaves_minus_zero_as_it_is(make, weights):
    losses = [lambda p: p * 1.0, lambda p: p * 1.0]
    run = jax.jit(lambda w, p: jax.value_and_grad(make(w, *losses), argnums=1)(0, p))
    value, grad = run(jnp.array(weights), jnp.float32(-0.0))
    assert np.signbit(value) and float(value) == 0.0 and float(grad) == 1.0


def test_gradients_of_arguments_that_are_minus_zero_stay_minus_zero():
    # d/dp of -0.0 * p is -0.0: adding zeros of a skipped loss would make it 0.0.
    losses = [lambda p: jnp.float32(-0.0) * p, lambda p: p**2]
    for weights, order in (([1.0, 0.0], losses), ([0.0, 1.0], losses[::-1])):
        grad = jax.jit(jax.grad(mix_loss_fns(lambda t, w=weights: jnp.array(w), *order), argnums=1))
        assert np.signbit(grad(0, jnp.float32(2.0)))


@pytest.mark.parametrize(
    ("loss", "has_aux", "message"),
    [
        (lambda: (RECON, 1), False, r"returns a scalar \(pass has_aux=True .*got 'a tuple of 2'"),
        (lambda: RECON, True, r"returns \(loss, aux\), as has_aux=True says, got 'an array'"),
        (lambda: (RECON, 1, 2), True, r"\(loss, aux\), as has_aux=True says, got 'a tuple of 3'"),
        (lambda: [RECON, 1], True, r"\(loss, aux\), as has_aux=True says, got 'a list'"),
        (lambda: None, False, r"value of loss_fns\[1\] must be a float scalar, got 'a NoneType'"),
        (lambda: {"loss": RECON}, False, r"must be a float scalar, got 'a dict'"),
        (lambda: ({"loss": RECON}, 1), True, r"must be a float scalar, got 'a dict'"),
    ],
)
@pytest.mark.parametrize("make", [mix_loss_fns, add_loss_fns])
def test_a_forgotten_has_aux_is_a_type_error_that_says_so(make, loss, has_aux, message):
    first = (lambda: (RECON, None)) if has_aux else (lambda: RECON)
    with pytest.raises(TypeError, match=message):
        make([0.5, 0.5], first, lambda: loss(), has_aux=has_aux)(0)


@pytest.mark.parametrize(
    ("losses", "error", "message"),
    [
        ((), ValueError, "the number of losses must be >= 1, got 0"),
        ((square, 3.0), TypeError, r"loss_fns\[1\] must be a function, got 3.0"),
        (
            (square, cubes, cubes),
            ValueError,
            "must be 3, one per source, got one number, the gamma",
        ),
        ((square, lambda *args: args[1]), ValueError, r"value of loss_fns\[1\] must be a scalar"),
        ((square, lambda *args: 1), TypeError, r"value of loss_fns\[1\] must be a float, got"),
    ],
)
def test_losses_that_cannot_be_mixed_are_refused(losses, error, message):
    with pytest.raises(error, match=message):
        jax.jit(mix_loss_fns(GAMMA, *losses))(0, PARAMS, DATA, LABELS)


@pytest.mark.parametrize("make", [mix_loss_fns, add_loss_fns])
def test_a_loss_that_is_called_without_the_step_first_says_so(make):
    with pytest.raises(TypeError, match=r"step must be a number: call `loss_fn\(step, \*args\)`"):
        make(GAMMA, square, cubes)(PARAMS, DATA, LABELS)
