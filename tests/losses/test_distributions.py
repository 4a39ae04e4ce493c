"""mix_log_probs and mix_logits: mixtures in logs, safe at probability 0 and at weight 0."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmix import mix_log_probs, mix_logits

INF, NAN = np.inf, np.nan
WEIGHTS = np.array([0.5, 0.25, 0.25])
UNIT = 2.0**-24


def exact_mixture(weights, log_probs):
    """log sum_k w_k p_k in float64 with 80 bits of exponent to spare."""
    terms = np.exp(np.asarray(log_probs, np.longdouble)) * weights[:, None]
    return np.log(terms.sum(0)).astype(np.float64)


@pytest.mark.parametrize("shift", [0.0, -80.0, -1000.0, 500.0], ids=str)
def test_log_probabilities_of_the_mixture_are_right_at_any_scale(shift):
    log_probs = jax.random.normal(jax.random.key(0), (3, 50)) * 3 + shift
    got = jax.jit(mix_log_probs, static_argnums=1)(0, tuple(WEIGHTS), *log_probs)
    want = exact_mixture(WEIGHTS, log_probs)
    # Two roundings at the size of the terms, a log and an exp right to some units.
    assert np.abs(got - want).max() <= 8 * UNIT * (np.abs(want).max() + 1)


def test_tiny_weights_and_probabilities_do_not_vanish():
    got = mix_log_probs(0, 1e-30, jnp.float32(0.0), jnp.float32(-300.0))
    assert abs(float(got) - np.log(1e-30)) < 1e-5
    got = mix_log_probs(0, 1e-30, jnp.float32(-300.0), jnp.float32(-100.0))
    assert float(got) == -100.0


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("mix", [mix_log_probs, mix_logits])
@pytest.mark.parametrize("poison", [INF, -INF, NAN])
@pytest.mark.parametrize("weights", ["gamma", "weights", "schedule"])
def test_a_source_of_weight_zero_reaches_neither_value_nor_gradient(weights, poison, mix, jit):
    given = {"gamma": 1.0, "weights": [1.0, 0.0], "schedule": lambda step: jnp.float32(1.0)}[
        weights
    ]
    good = jax.nn.log_softmax(jnp.array([[1.0, 2.0, 4.0]]))
    bad = jnp.full_like(good, poison)

    def loss(x, y):
        mixed = mix(0, given, x, y)
        return (mixed * jnp.array([[1.0, 2.0, 3.0]])).sum(), mixed

    run = jax.grad(loss, argnums=(0, 1), has_aux=True)
    (grad_good, grad_bad), mixed = (jax.jit(run) if jit else run)(good, bad)
    alone = jax.nn.log_softmax(good) if mix is mix_logits else good
    np.testing.assert_array_equal(mixed, alone)
    np.testing.assert_array_equal(grad_bad, jnp.zeros_like(bad))
    assert np.isfinite(grad_good).all() and grad_good.any()
    if mix is mix_log_probs:
        np.testing.assert_array_equal(grad_good, [[1.0, 2.0, 3.0]])


def test_probabilities_of_zero_are_exact_and_their_gradients_finite():
    x, y = jnp.array([0.0, -INF, -INF, -1e5]), jnp.array([-INF, 0.0, -INF, -INF])
    got = mix_log_probs(0, 0.5, x, y)
    half = np.log(np.float32(0.5))
    np.testing.assert_array_equal(got, np.float32([half, half, -INF, -1e5 + half]))
    with jax.debug_nans(True):  # no NaN on the way either
        grads = jax.grad(lambda x, y: mix_log_probs(0, 0.5, x, y).sum(), argnums=(0, 1))(x, y)
    np.testing.assert_array_equal(grads, [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]])


def test_a_nan_weight_or_probability_in_use_stays_visible():
    mix = jax.jit(mix_log_probs)
    assert np.isnan(mix(0, jnp.float32(NAN), jnp.zeros(2), jnp.zeros(2))).all()
    got = mix(0, jnp.float32(0.5), jnp.array([NAN, 0.0]), jnp.zeros(2))
    np.testing.assert_array_equal(got, [NAN, 0.0])


def test_logits_are_normalised_before_they_are_mixed():
    logits = jax.random.normal(jax.random.key(1), (3, 4, 5)) * 3
    logits = logits.at[2, 1].set(-INF)
    want = sum(w * jax.nn.softmax(row, axis=0) for w, row in zip(WEIGHTS, logits, strict=True))
    shifted = logits + jnp.array([100.0, -50.0, 7.0])[:, None, None]
    got = mix_logits(0, WEIGHTS, *shifted, axis=0)
    assert np.abs(np.exp(got) - want).max() < 2e-5  # shifts of 100 leave steps of 2^-17
    assert np.abs(np.exp(got).sum(0) - 1.0).max() < 2e-5
    assert np.abs(mix_logits(0, WEIGHTS, *jnp.swapaxes(shifted, 1, 2)).T - got).max() < 2e-6


@pytest.mark.parametrize("mix", [mix_log_probs, mix_logits])
def test_gradients_equal_finite_differences_in_float64(mix):
    with jax.enable_x64(True):
        logits = jax.random.normal(jax.random.key(2), (2, 5), jnp.float64)
        logits = logits.at[1, 3].set(-INF)
        schedule, direction = optax.linear_schedule(0.2, 0.6, 10), jnp.arange(5.0)

        @jax.jit
        def loss(logits):
            return (mix(4, schedule, *logits) * direction).sum()

        nudges = 1e-6 * jnp.eye(10).reshape(10, 2, 5)
        slopes = [(loss(logits + nudge) - loss(logits - nudge)) / 2e-6 for nudge in nudges]
        # Truncation h^2 and rounding 2^-52 |loss|/h, with |loss| < 40, are both below 1e-8.
        assert np.abs(np.array(slopes).reshape(2, 5) - jax.grad(loss)(logits)).max() < 2e-8


@pytest.mark.parametrize("mix", [mix_log_probs, mix_logits])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_dtypes_are_kept_and_rounded_once(mix, dtype):
    logits = [jax.nn.log_softmax(jnp.arange(4.0) * k).astype(dtype) for k in (1, 2, 3)]
    got = mix(0, WEIGHTS, *logits)
    wide = mix(0, WEIGHTS, *(row.astype(jnp.float32) for row in logits))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, wide.astype(dtype))


def test_trees_are_mixed_leaf_by_leaf_and_their_differences_refused_by_name():
    x, y = {"head": jnp.zeros(2)}, {"head": jnp.full(2, -INF)}
    np.testing.assert_array_equal(
        mix_log_probs(0, 0.25, x, y)["head"], np.full(2, np.log(np.float32(0.25)))
    )
    for mix in (mix_log_probs, mix_logits):
        with pytest.raises(
            ValueError, match=r"leaf \['head'\] of source 1 must be of shape \(2,\)"
        ):
            mix(0, 0.25, x, {"head": jnp.zeros(3)})
        with pytest.raises(TypeError, match=r"leaf \['head'\] must be of a float dtype"):
            mix(0, 0.25, *[{"head": jnp.zeros(2, int)}] * 2)
