"""interpolate: the formula and the bound, zero weights, dtypes, gradients, sharding, errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmix import (
    bernoulli_sources,
    cosine_schedule,
    interpolate,
    select_rows,
    sigmoid_schedule,
    weights_at,
)

UNIT = 2.0**-24  # half the spacing of float32 at 1: the rounding error of one operation
ONE_ZERO = {
    "gamma": (1.0, 0.0),
    "weights": ([1.0, 0.0], [0.0, 1.0]),
    "schedule": (lambda step: jnp.float32(1.0), lambda step: jnp.float32(0.0)),
    "schedule of weights": (lambda step: jnp.eye(2)[0], lambda step: jnp.eye(2)[1]),
}


def _plain(weights, *trees):
    return sum(w * tree for w, tree in zip(weights, trees, strict=True))


def test_interpolation_is_the_weighted_sum_of_every_leaf():
    weights = [0.5, 0.25, 0.25]
    trees = [{"a": jnp.full((2, 3), k + 1.0), "b": [jnp.float32(4.0 * k)]} for k in range(3)]
    mixed = interpolate(0, weights, *trees)
    np.testing.assert_array_equal(mixed["a"], np.full((2, 3), 0.5 + 0.5 + 0.75))
    assert float(mixed["b"][0]) == 0.25 * 4 + 0.25 * 8


@st.composite
def two_trees(draw):
    shapes = draw(st.lists(st.sampled_from([(), (3,), (2, 2)]), min_size=1, max_size=3))
    floats = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)

    def tree():
        sizes = [math.prod(shape) for shape in shapes]
        values = [draw(st.lists(floats, min_size=n, max_size=n)) for n in sizes]
        return [np.float32(v).reshape(shape) for v, shape in zip(values, shapes, strict=True)]

    return tree(), tree()


@st.composite
def schedules(draw):
    share = st.floats(0.0, 1.0)
    kind = draw(st.sampled_from([cosine_schedule, optax.linear_schedule, sigmoid_schedule]))
    return kind(draw(share), draw(share), draw(st.integers(1, 5)))


@settings(max_examples=30)
@given(two_trees(), schedules(), st.integers(0, 5))
def test_a_step_of_the_schedule_moves_the_mixture_by_at_most_its_increment(trees, schedule, step):
    gammas = [float(weights_at(step + t, schedule)[0]) for t in (0, 1)]
    now, after = (interpolate(step + t, schedule, *trees) for t in (0, 1))
    increment = gammas[1] - gammas[0]
    for a, b, x, y in zip(now, after, *trees, strict=True):
        a, b, x, y = (np.asarray(v, np.float64) for v in (a, b, x, y))
        # Rounding: 1 - gamma, two products and a sum for each of the two mixtures.
        slack = 8 * UNIT * (np.abs(x) + np.abs(y))
        assert np.all(np.abs(b - a) <= abs(increment) * np.abs(x - y) + slack)
        assert np.all(np.abs((b - a) - increment * (x - y)) <= slack)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("kind", ONE_ZERO)
@pytest.mark.parametrize("poison", [np.inf, -np.inf, np.nan])
def test_a_tree_of_weight_zero_reaches_neither_value_nor_gradient(poison, kind, jit):
    one, zero = ONE_ZERO[kind]
    good, bad = jnp.array([1.5, -0.0, -3.0]), jnp.full(3, poison, jnp.float32)

    for weights, order in ((one, (good, bad)), (zero, (bad, good))):

        def loss(x, y, weights=weights):
            mixed = interpolate(3, weights, x, y)
            return (mixed * mixed).sum(), mixed

        run = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        (value, mixed), grads = (jax.jit(run) if jit else run)(*order)
        grad_good, grad_bad = grads if weights is one else grads[::-1]
        np.testing.assert_array_equal(mixed.view(jnp.uint32), good.view(jnp.uint32))
        assert float(value) == 11.25
        np.testing.assert_array_equal(grad_good, [3.0, 0.0, -6.0])
        np.testing.assert_array_equal(grad_bad, [0.0, 0.0, 0.0])


@pytest.mark.parametrize("poison", [np.inf, np.nan])
def test_a_weight_of_zero_has_derivative_zero_whatever_its_tree(poison):
    def mixed(weights):
        return interpolate(0, weights, jnp.float32(4.0), jnp.float32(poison))

    grad = jax.grad(mixed)(jnp.array([1.0, 0.0]))
    assert np.isfinite(grad[0]) and float(grad[1]) == 0.0


def test_a_nan_weight_stays_visible():
    mixed = jax.jit(lambda gamma: interpolate(0, gamma, jnp.float32(1.0), jnp.float32(2.0)))
    assert math.isnan(mixed(jnp.float32(jnp.nan)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_leaves_keep_their_dtype_and_are_rounded_once(dtype):
    trees = [jnp.linspace(0.1, 0.9, 64).astype(dtype) * (k + 1) for k in range(3)]
    weights = np.array([0.2, 0.3, 0.5], np.float32)
    mixed = interpolate(0, weights, *trees)
    assert mixed.dtype == dtype
    exact = _plain(weights.astype(np.float64), *(np.asarray(t).astype(np.float64) for t in trees))
    half_step = float(jnp.finfo(dtype).eps) / 2
    assert np.all(
        np.abs(np.asarray(mixed).astype(np.float64) - exact) <= (half_step + 4 * UNIT) * exact
    )


def test_gradients_equal_finite_differences_in_float64():
    with jax.enable_x64(True):
        trees = jax.random.normal(jax.random.key(0), (3, 4), jnp.float64)
        nudges = 1e-6 * jnp.eye(12).reshape(12, 3, 4)

        @jax.jit
        def loss(trees):
            two = interpolate(4, optax.linear_schedule(0.2, 0.6, 10), *trees[:2])
            three = interpolate(4, jnp.array([0.2, 0.3, 0.5]), *trees)
            return jnp.sin(two).sum() + jnp.cos(three).sum()

        slopes = [(loss(trees + nudge) - loss(trees - nudge)) / 2e-6 for nudge in nudges]
        # Truncation h^2/6 and rounding 2^-52 |loss|/h are both below 1e-9.
        assert np.abs(np.array(slopes).reshape(3, 4) - jax.grad(loss)(trees)).max() < 2e-9


@pytest.mark.parametrize("gamma", [0.1, 0.7])
def test_rows_mixed_and_losses_mixed_have_the_same_expected_loss(key, gamma):
    num_rows, num_steps = 64, 2000
    x, y = (jax.random.normal(k, (num_rows, 3)) for k in jax.random.split(jax.random.key(1)))

    def row_losses(rows):
        return jnp.tanh(rows).sum(1) ** 2

    def row_mixed(step):
        source = bernoulli_sources(key, step, gamma, num_rows)
        return row_losses(select_rows(source, x, y)).mean()

    mean = jax.jit(lambda: jax.lax.map(row_mixed, jnp.arange(num_steps)).mean())()
    loss_mixed = interpolate(0, gamma, row_losses(x).mean(), row_losses(y).mean())
    gaps = np.asarray(row_losses(x) - row_losses(y), np.float64)
    sigma = math.sqrt(gamma * (1 - gamma) * np.sum(gaps**2) / num_rows**2 / num_steps)
    assert abs(float(mean) - float(loss_mixed)) < 4.5 * sigma


X = {"a": jnp.zeros(3), "b": [jnp.zeros((2, 2))]}
REFUSED = {
    "whole numbers": (
        (X | {"a": jnp.zeros(3, int)},) * 2,
        TypeError,
        r"leaf \['a'\] must be of a float",
    ),
    "structure": ((X, {"a": jnp.zeros(3)}), ValueError, "source 1 must be of the structure"),
    "shape": (
        (X, X | {"b": [jnp.zeros((2, 1))]}),
        ValueError,
        r"\['b'\]\[0\] of source 1 .* \(2, 1\)",
    ),
    "dtype": (
        (X, X | {"a": jnp.zeros(3, jnp.bfloat16)}),
        TypeError,
        r"\['a'\] of source 1 .*bfloat16",
    ),
    "number": ((X, X, X), ValueError, "the number of weights must be 3"),
    "none": ((), ValueError, "the number of sources must be >= 1, got 0"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_trees_that_cannot_be_mixed_are_refused_by_leaf_and_source(case, jit):
    trees, error, message = REFUSED[case]
    run = jax.jit(interpolate, static_argnums=1) if jit else interpolate
    with pytest.raises(error, match=message):
        run(0, 0.5, *trees)


def test_interpolation_keeps_the_sharding_on_every_kind_of_mesh():
    gamma = optax.linear_schedule(1.0, 0.0, 4)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
        sharding = NamedSharding(mesh, PartitionSpec("data"))
        x, y = (jax.device_put(jnp.arange(8.0) * k, sharding) for k in (1, 3))
        mixed = jax.jit(interpolate, static_argnums=1)(2, gamma, x, y)
        assert mixed.sharding.is_equivalent_to(sharding, 1)
        np.testing.assert_array_equal(mixed, np.arange(8.0) * 2)
