"""One check of the simplex with one tolerance, for numbers, schedules, plans and losses alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import jaxmix

STEP = jnp.int32(3)


def by_checkify(weights):
    checked = checkify.checkify(lambda step: jaxmix.checkify_weights(step, weights))
    jax.jit(checked)(STEP)[0].throw()


TAKERS = {
    "weights_at": lambda w: jaxmix.weights_at(0, w),
    "weights_at of a schedule": lambda w: jaxmix.weights_at(0, lambda t: jnp.asarray(w)),
    "plan": lambda w: jaxmix.MixPlan(w, 8),
    "plan of a schedule": lambda w: jaxmix.MixPlan(lambda t: jnp.asarray(w), 8),
    "plan of plain Python": lambda w: jaxmix.MixPlan(lambda t: [w, w][t % 2], 8),
    "checkify": by_checkify,
    "checkify of a schedule": lambda w: by_checkify(lambda t: jnp.asarray(w)),
    "a loss": lambda w: jaxmix.mix_loss_fns(w, *[jnp.sum] * np.size(w))(STEP, jnp.ones(2)),
    "nested": lambda w: jaxmix.nest_schedules(w, *[[1.0]] * np.size(w)),
}
TAKEN = [
    [1 - 0.9 - 0.1, 0.9, 0.1],  # -2.8e-17
    [1.00009, 0.0],
    [0.5, 0.50009],
    [-0.00009, 1.0],
    [1.00015, -0.00009, -0.00006],
]
REFUSED = [[1.00012, 0.0], [0.5, 0.50012], [0.5, 0.49988], [-0.00012, 1.0], [0.5, np.nan]]


@pytest.mark.parametrize("name", TAKERS)
def test_weights_are_taken_within_1e_4_and_refused_beyond(name):
    for weights in TAKEN:
        TAKERS[name](weights)
    for weights in REFUSED:
        with pytest.raises((ValueError, checkify.JaxRuntimeError), match=r"weights|outer"):
            TAKERS[name](weights)


def test_gamma_is_taken_within_1e_4_and_refused_beyond():
    for gamma in (1.00009, -0.00009):
        want = [round(gamma), 1 - round(gamma)]
        assert jaxmix.weights_at(0, gamma).tolist() == want
        assert jaxmix.MixPlan(gamma, 8).weights_at(0).tolist() == want
    for gamma in (1.00012, -0.00012):
        for call in (
            lambda g: jaxmix.weights_at(0, g),
            lambda g: jaxmix.MixPlan(g, 8),
            lambda g: jaxmix.MixPlan(lambda t: jnp.float32(g), 8),
        ):
            with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
                call(gamma)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("size", [2, 3, 35, 1000])
def test_weights_of_half_precision_are_the_same_known_and_traced(dtype, size):
    rng = np.random.default_rng(size)
    raw = [np.full(size, 1 / size), rng.dirichlet(np.ones(size)), rng.dirichlet(np.full(size, 0.1))]
    made = [jnp.asarray(w).astype(dtype) for w in raw]
    made.append(jax.nn.softmax(jnp.asarray(rng.normal(size=size)).astype(dtype)))
    at = jax.jit(lambda w: jaxmix.weights_at(0, w))
    for weights in made:
        known, traced = jaxmix.weights_at(0, weights), at(weights)
        np.testing.assert_allclose(known, traced, rtol=1e-6)
        assert abs(float(known.sum()) - 1) < 1e-6
        for plan in (jaxmix.MixPlan(weights, 8), jaxmix.MixPlan(lambda t, w=weights: w, 8)):
            np.testing.assert_allclose(plan.weights_at(0), known, rtol=1e-5, atol=1e-9)
    with pytest.raises(ValueError, match="must be of sum 1"):
        jaxmix.weights_at(0, jnp.asarray([0.5, 0.48], dtype))


def test_the_message_says_what_to_do_about_another_sum():
    for call in (lambda w: jaxmix.weights_at(0, w), lambda w: jaxmix.MixPlan(w, 8)):
        with pytest.raises(ValueError, match=r"sum 1 \(within 0.0001\), got 100.0: divide by"):
            call([70, 20, 10])
