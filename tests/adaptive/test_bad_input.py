"""What is nearly right is refused: by name, with what is needed and what came."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmix import (
    exp3,
    exponentiated_gradient,
    floor_weights,
    limit_change,
    smooth_weights,
    update_every,
)

EG = exponentiated_gradient(3, 1.0)
EXP3 = exp3(3, 0.1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: exponentiated_gradient(0, 1.0), ValueError, "num_sources must be >= 1, got 0"),
        (lambda: exponentiated_gradient(2.0, 1.0), TypeError, "num_sources must be an integer"),
        (lambda: exponentiated_gradient(3, -0.1), ValueError, "learning_rate must be in .0, inf"),
        (lambda: exponentiated_gradient(3, np.nan), ValueError, "learning_rate must be in"),
        (lambda: exponentiated_gradient(3, "1"), TypeError, "learning_rate must be a number"),
        (lambda: exponentiated_gradient(3, optax.constant_schedule(1.0)), TypeError, "a number"),
        (lambda: exponentiated_gradient(3, 1.0, [0.5, 0.5]), ValueError, r"of shape \(3,\), got"),
        (lambda: exponentiated_gradient(2, 1.0, 0.5), ValueError, r"of shape \(2,\), got \(\)"),
        (
            lambda: exponentiated_gradient(3, 1.0, [0.6, 0.6, 0.6]),
            ValueError,
            "prior must be of su",
        ),
        (lambda: exponentiated_gradient(3, 1.0, [70, 20, 10]), ValueError, "prior must be of sum"),
        (lambda: exponentiated_gradient(2, 1.0, [1.5, -0.5]), ValueError, "prior must be finite"),
        (lambda: exponentiated_gradient(2, 1.0, [np.nan, 1.0]), ValueError, "prior must be finite"),
        (lambda: exponentiated_gradient(2, 1.0, {"a": 0.5}), TypeError, "prior must be numbers"),
        (lambda: exp3(0, 0.1), ValueError, "num_sources must be >= 1"),
        (lambda: exp3(3, 0.0), ValueError, r"exploration must be in \(0, 1\], got 0.0"),
        (lambda: exp3(3, 1.1), ValueError, r"exploration must be in \(0, 1\], got 1.1"),
        (lambda: exp3(3, 0.1, -1.0), ValueError, "learning_rate must be in"),
        (lambda: exp3(3, 0.1, prior=[0.2, 0.2, 0.2]), ValueError, "prior must be of sum 1"),
        (lambda: smooth_weights(EG, 1.0), ValueError, "decay must be below 1, got 1.0"),
        (lambda: smooth_weights(EG, -0.1), ValueError, r"decay must be in \[0, 1\], got -0.1"),
        (lambda: smooth_weights(0.9, EG), TypeError, "mixer must be a mixer, with `init`, `update"),
        (lambda: smooth_weights(optax.sgd(1.0), 0.9), TypeError, "mixer must be a mixer"),
        (lambda: smooth_weights([0.5, 0.5], 0.9), TypeError, r"must be a mixer.*got \[0.5, 0.5\]"),
        (lambda: smooth_weights(optax.constant_schedule(0.5), 0.9), TypeError, "must be a mixer"),
        (lambda: smooth_weights(type(EG), 0.9), TypeError, "mixer must be a mixer"),
        (lambda: smooth_weights(exponentiated_gradient, 0.9), TypeError, "mixer must be a mixer"),
        (lambda: update_every(EG, 0), ValueError, "n must be >= 1, got 0"),
        (lambda: update_every(EG, 2.5), TypeError, "n must be an integer"),
        (lambda: update_every(2, 3), TypeError, "mixer must be a mixer"),
        (
            lambda: floor_weights(EG, 0.34),
            ValueError,
            "minimum must be at most 1 / 3, as there are",
        ),
        (lambda: floor_weights(EG, -0.01), ValueError, "minimum must be in"),
        (lambda: floor_weights(EG, [0.1, 0.1, 0.1]), TypeError, "minimum must be a number"),
        (lambda: floor_weights(0.1, 0.1), TypeError, "mixer must be a mixer"),
        (
            lambda: limit_change(EG, 0.0),
            ValueError,
            r"max_increment must be in \[1e-06, 1\], got 0",
        ),
        (lambda: limit_change(EG, 2), ValueError, r"max_increment must be in \[1e-06, 1\], got 2"),
        (lambda: limit_change(0.1, 0.1), TypeError, "mixer must be a mixer"),
    ],
)
def test_a_mixer_is_refused_when_it_is_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("mixer", [EG, update_every(floor_weights(EG, 0.1), 2)])
@pytest.mark.parametrize(
    ("scores", "seen", "error", "message"),
    [
        ([1.0, 2.0], None, ValueError, r"scores must be of shape \(3,\), got \(2,\)"),
        (1.0, None, ValueError, r"scores must be of shape \(3,\), got \(\)"),
        (np.ones((3, 1)), None, ValueError, r"scores must be of shape \(3,\), got \(3, 1\)"),
        ({"web": 1.0}, None, TypeError, "scores must be 3 numbers, one for each source"),
        ("abc", None, TypeError, "scores must be 3 numbers"),
        (np.ones(3, complex), None, TypeError, "scores must be 3 numbers"),
        ([True, False, True], None, TypeError, "scores must be 3 numbers"),
        (np.ones(3), [True, False], ValueError, r"seen must be of shape \(3,\), got \(2,\)"),
        (np.ones(3), 5, ValueError, r"seen must be of shape \(3,\), got \(\)"),
        (np.ones(3), [1, -1, 2], ValueError, r"seen must be >= 0, got \[1, -1, 2\]"),
        (np.ones(3), ["a", "b", "c"], TypeError, "seen must be 3 numbers"),
    ],
)
def test_scores_of_another_form_are_refused_eagerly_and_in_jit(mixer, scores, seen, error, message):
    with pytest.raises(error, match=message):
        mixer.update(mixer.init(), scores, seen)
    with pytest.raises(error, match=message):
        jax.jit(lambda state: mixer.update(state, scores, seen))(mixer.init())


@pytest.mark.parametrize(
    "call", [lambda mixer, s: mixer(s), lambda mixer, s: mixer.update(s, [1] * 3)]
)
@pytest.mark.parametrize(
    "mixer",
    [EG, smooth_weights(EG, 0.5), update_every(EG, 2), limit_change(EG, 0.1)],
)
def test_the_state_of_another_mixer_is_refused(mixer, call):
    with pytest.raises(TypeError, match=r"state must be of type .*State, as from `init`"):
        call(mixer, EXP3.init())
    with pytest.raises(TypeError, match=r"state must be of type .*State, as from `init`"):
        call(mixer, jnp.ones(3))


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: smooth_weights(m, 0.5)])
def test_a_state_of_another_size_is_refused_and_not_broadcast(wrap):
    mixer, one = wrap(EG), wrap(exponentiated_gradient(1, 1.0))
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 8), mixer.init())  # as pmap has it
    for state, shape in ((one.init(), r"\(1,\)"), (stacked, r"\(8, 3\)")):
        with pytest.raises(ValueError, match=rf"state must be of arrays \(3,\).*got {shape}"):
            mixer(state)
        with pytest.raises(ValueError, match=rf"state must be of arrays \(3,\).*got {shape}"):
            mixer.update(state, np.ones(3))


def test_a_traced_prior_is_refused():
    with pytest.raises(TypeError, match="prior must be known on the host, not traced"):
        jax.jit(lambda prior: exponentiated_gradient(2, 1.0, prior).init())(jnp.ones(2) / 2)


def test_a_message_stays_short_whatever_came():
    with pytest.raises(ValueError) as caught:
        EG.update(EG.init(), np.ones(10**6))
    assert len(str(caught.value)) < 1500
