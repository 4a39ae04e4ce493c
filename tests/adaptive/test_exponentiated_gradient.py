"""Exponentiated gradient against its formula in float64: for many sources and many updates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxmix
from jaxmix import exponentiated_gradient

NAN, INF = float("nan"), float("inf")
SUM = 2.0**-19  # how far from 1 the sum of the weights may be: some roundings of float32


def reference(prior, rate, scores, seen):
    """The weights [T, K] after each update, in float64, from the formula of the docstring."""
    weights, rows = np.asarray(prior, np.float64), []
    for score, used in zip(np.asarray(scores, np.float64), seen, strict=True):
        used = used & np.isfinite(score) & (weights > 0)
        if used.any():
            new = weights[used] * np.exp(np.float32(rate) * (score[used] - score[used].max()))
            weights = weights.copy()
            weights[used] = new * (weights[used].sum() / new.sum())
        rows.append(weights)
    return np.stack(rows)


def run(mixer, scores, seen):
    """The weights [T, K] after each update and the last state, from one scan."""

    def body(state, now):
        state = mixer.update(state, *now)
        return state, mixer(state)

    return jax.jit(lambda *xs: jax.lax.scan(body, mixer.init(), xs)[::-1])(scores, seen)


@pytest.mark.parametrize("num_sources", [1, 2, 3, 168, 1000])
def test_weights_are_the_formula_in_float64(num_sources):
    rng = np.random.default_rng(num_sources)
    prior = rng.dirichlet(np.ones(num_sources))
    scores = rng.normal(2.0, 3.0, (200, num_sources)).astype(np.float32)
    seen = rng.random((200, num_sources)) < 0.7
    seen[::7] = False  # nobody
    scores[rng.random(scores.shape) < 0.05] = NAN
    weights, _ = run(exponentiated_gradient(num_sources, 0.05, prior), scores, seen)
    want = reference(prior, 0.05, scores, seen)
    np.testing.assert_allclose(weights, want, rtol=5e-6, atol=0)
    np.testing.assert_allclose(np.asarray(weights, np.float64).sum(axis=1), 1, rtol=0, atol=SUM)


@pytest.mark.parametrize("num_sources", [4, 1000])
def test_up_to_a_million_updates_neither_drift_nor_overflow(num_sources):
    """Scores and masks are made in the scan, so that nothing of it has to be stored."""
    num_steps = 10**6 if num_sources == 4 else 2 * 10**4
    mixer = exponentiated_gradient(num_sources, 0.1)

    def body(carry, step):
        state, worst = carry
        word = (step * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        source = jnp.arange(num_sources, dtype=jnp.int32)
        scores = ((word >> (source % 16)) & 0xFF).astype(jnp.float32) / 256.0
        scores = jnp.where(source == 1, 0.75, scores)
        state = mixer.update(state, scores, (source != 0) & ((source + step) % 3 != 0))
        error = jnp.abs(mixer(state).sum() - 1.0)
        return (state, jnp.maximum(worst, error)), None

    start = (mixer.init(), jnp.float32(0.0))
    steps = jnp.arange(num_steps, dtype=jnp.int32)
    (state, error), _ = jax.jit(lambda: jax.lax.scan(body, start, steps))()
    weights = np.asarray(mixer(state))
    assert float(error) <= SUM
    assert weights[0] == mixer(mixer.init())[0]  # never seen: not a bit has changed
    assert np.isfinite(weights).all() and (weights >= 0).all()
    assert (weights[1:] < 1e-30).any()  # it went far
    jaxmix.weights_at(0, weights)


def test_200_000_partial_updates_are_the_formula_in_float64():
    """Sources take part in turns; as all have the mean score 1/2 the weights stay comparable."""
    rng = np.random.default_rng(0)
    scores = rng.random((1000, 4), np.float32)
    scores = np.concatenate([scores, 1 - scores])  # a cycle that ends where it began
    seen = rng.random((1000, 4)) < 0.6
    seen = np.concatenate([seen, seen])
    mixer = exponentiated_gradient(4, 0.01)

    def one(state, now):
        return mixer.update(state, *now), None

    def cycle(state, _):
        return jax.lax.scan(one, state, (jnp.asarray(scores), jnp.asarray(seen)))[0], None

    state = jax.jit(lambda: jax.lax.scan(cycle, mixer.init(), None, length=100)[0])()
    weights = np.full(4, 0.25)
    factors = np.exp(np.float64(np.float32(0.01)) * scores)
    turns = [(np.flatnonzero(u), f[u]) for u, f in zip(seen, factors, strict=True) if u.any()]
    for _ in range(100):
        for used, factor in turns:
            old = weights[used]
            new = old * factor
            weights[used] = new * (old.sum() / new.sum())
    np.testing.assert_allclose(mixer(state), weights, rtol=1e-5, atol=0)


def test_a_sum_that_rounding_moved_is_mended_by_those_that_hold_it():
    mixer = exponentiated_gradient(3, 1.0, [0.6, 0.399999, 0.000001])
    logs = mixer.init().log_weights
    state = mixer.init()._replace(log_weights=logs._replace(high=logs.high + 1e-5))
    none, one = jnp.zeros(3), jnp.array([False, False, True])

    def updated(state, seen, times):
        state = jax.lax.fori_loop(0, times, lambda _, s: mixer.update(s, none, seen), state)
        return np.asarray(mixer(state), np.float64)

    few = updated(state, one, 10**5)  # a small source can't mend it, and must not grow by trying
    assert abs(few.sum() - 1) > 9e-6
    np.testing.assert_allclose(few[2], mixer(state)[2], rtol=2e-6)
    assert abs(updated(state, jnp.array([True, True, False]), 3).sum() - 1) < 2.0**-21


def test_constant_scores_give_the_softmax_of_their_sum():
    scores = np.array([0.3, -0.2, 0.1], np.float32)
    mixer = exponentiated_gradient(3, 0.1, [0.2, 0.5, 0.3])
    state = jax.lax.fori_loop(0, 1000, lambda _, state: mixer.update(state, scores), mixer.init())
    logs = np.log([0.2, 0.5, 0.3]) + 1000 * np.float64(np.float32(0.1)) * scores.astype(np.float64)
    want = np.exp(logs - np.logaddexp.reduce(logs))
    rounding = 1000 * 2 * 2.0**-24 * 0.1 * 0.5  # of each push: a product and a difference
    np.testing.assert_allclose(mixer(state), want, rtol=rounding)


def test_a_weight_that_was_0_in_float32_comes_back_when_its_scores_do():
    mixer = exponentiated_gradient(2, 1.0)
    state = mixer.init()
    for sign in (1.0, -1.0):
        for _ in range(4):
            state = mixer.update(state, [sign * 50.0, 0.0])
        if sign > 0:
            assert mixer(state).tolist() == [1.0, 0.0]
    np.testing.assert_allclose(mixer(state), [0.5, 0.5], rtol=SUM)


@given(st.lists(st.sampled_from([NAN, INF, -INF, 0.5, 2.0, -3.0]), min_size=4, max_size=4))
def test_sources_without_a_finite_score_keep_their_weight_to_the_bit(scores):
    prior = np.array([0.4, 0.3, 0.2, 0.1])
    mixer = exponentiated_gradient(4, 0.7, prior)
    state = mixer.update(mixer.init(), [1.0, 0.5, 0.25, 2.0])
    before = np.asarray(mixer(state))
    after = np.asarray(mixer(mixer.update(state, scores)))
    used = np.isfinite(scores)
    assert (after[~used] == before[~used]).all()
    np.testing.assert_allclose(after[used].sum(), before[used].sum(), rtol=1e-6)
    marked = mixer.update(state, np.nan_to_num(scores, posinf=7, neginf=7), used)
    assert np.asarray(mixer(marked)).tolist() == after.tolist()
    counted = mixer.update(state, np.nan_to_num(scores, posinf=7, neginf=7), 32 * used)
    assert np.asarray(mixer(counted)).tolist() == after.tolist()


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=3, max_size=3),
    st.sampled_from([0.0, 1e-30, 1.0, 1e30]),
)
def test_no_finite_score_leads_off_the_simplex(scores, rate):
    mixer = exponentiated_gradient(3, rate, [0.5, 0.5, 0.0])
    state = mixer.init()
    for sign in (1.0, 1.0, -1.0, 1.0):
        state = mixer.update(state, sign * np.asarray(scores, np.float32))
        weights = np.asarray(mixer(state), np.float64)
        assert (weights >= 0).all() and abs(weights.sum() - 1) <= SUM
        assert weights[2] == 0.0


def test_a_higher_score_gains_and_a_common_offset_changes_nothing():
    mixer = exponentiated_gradient(3, 1.0)
    weights = np.asarray(mixer(mixer.update(mixer.init(), [3.0, 1.0, 2.0])))
    assert weights[0] > weights[2] > weights[1]
    shifted = np.asarray(mixer(mixer.update(mixer.init(), [103.0, 101.0, 102.0])))
    np.testing.assert_allclose(shifted, weights, rtol=2e-6)


def test_the_first_weights_are_the_prior_and_without_a_rate_they_stay():
    prior = np.random.default_rng(1).dirichlet(np.ones(35))
    mixer = exponentiated_gradient(35, 0.0, prior)
    state = mixer.init()
    np.testing.assert_allclose(mixer(state), prior, rtol=2e-7)
    later = mixer.update(state, np.arange(35.0))
    assert mixer(later).tolist() == mixer(state).tolist()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_scores_of_any_real_dtype_and_lists_of_device_scalars(dtype):
    mixer = exponentiated_gradient(2, 1.0)
    want = mixer(mixer.update(mixer.init(), [2.0, 1.0])).tolist()
    assert mixer(mixer.update(mixer.init(), jnp.asarray([2, 1], dtype))).tolist() == want
    scalars = jax.jit(lambda a, b: mixer(mixer.update(mixer.init(), [a, b])))
    np.testing.assert_allclose(scalars(jnp.float32(2), jnp.float32(1)), want, rtol=2e-7)
