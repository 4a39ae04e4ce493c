"""EXP3 against its formula in float64, and what it is for: finding the best source by drawing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmix import exp3, floor_weights, limit_change, smooth_weights, update_every


def reference(prior, exploration, rate, scores, counts):
    """The weights [T, K] after each update, in float64."""
    logs, rows = np.log(prior), []
    for score, count in zip(np.asarray(scores, np.float64), counts, strict=True):
        used = np.isfinite(score) & (count > 0)
        weights = (1 - exploration) * np.exp(logs) + exploration * prior
        logs = logs.copy()
        logs[used] += rate * (score * count)[used] / (count[used].sum() * weights[used])
        logs -= np.logaddexp.reduce(logs)
        rows.append((1 - exploration) * np.exp(logs) + exploration * prior)
    return np.stack(rows)


@pytest.mark.parametrize("num_sources", [1, 3, 168, 1000])
@pytest.mark.parametrize("drawn", ["one", "many"])
def test_weights_are_the_formula_in_float64(num_sources, drawn):
    rng = np.random.default_rng(num_sources)
    prior = rng.dirichlet(np.full(num_sources, 5.0))
    scores = rng.random((200, num_sources), np.float32)
    counts = rng.multinomial(1 if drawn == "one" else 64, prior, 200)
    scores[counts == 0] = np.nan
    mixer = exp3(num_sources, 0.2, prior=prior)

    def body(state, now):
        state = mixer.update(state, *now)
        return state, mixer(state)

    weights = jax.jit(lambda *xs: jax.lax.scan(body, mixer.init(), xs)[1])(scores, counts)
    want = reference(prior, 0.2, 0.2 / num_sources, scores, counts)
    np.testing.assert_allclose(weights, want, rtol=5e-6, atol=0)
    np.testing.assert_allclose(np.asarray(weights, np.float64).sum(axis=1), 1, rtol=0, atol=2**-19)
    assert (np.asarray(weights) >= 0.2 * prior * (1 - 1e-6)).all()


def test_sources_that_were_not_drawn_keep_the_ratios_of_their_weights_before_exploration():
    mixer = exp3(4, 0.4, learning_rate=1.0, prior=[0.4, 0.3, 0.2, 0.1])
    before = np.asarray(mixer(mixer.init())) - 0.4 * np.array([0.4, 0.3, 0.2, 0.1])
    state = mixer.update(mixer.init(), [np.nan, 0.8, np.inf, 5.0], seen=[0, 3, 2, 0])
    after = np.asarray(mixer(state)) - 0.4 * np.array([0.4, 0.3, 0.2, 0.1])
    assert after[1] / after[0] > before[1] / before[0] * 1.5
    np.testing.assert_allclose(after[[2, 3]] / after[0], before[[2, 3]] / before[0], rtol=1e-5)


def test_it_finds_the_best_of_its_sources_by_drawing_one_at_a_time():
    means = jnp.array([0.2, 0.5, 0.8, 0.4])
    mixer = exp3(4, 0.2)

    def body(state, key):
        weights = mixer(state)
        draw, reward = jax.random.split(key)
        source = jax.random.categorical(draw, jnp.log(weights))
        scores = jnp.where(jax.random.bernoulli(reward, means), 1.0, 0.0)
        state = mixer.update(state, scores, jax.nn.one_hot(source, 4, dtype=jnp.int32))
        return state, weights

    keys = jax.random.split(jax.random.key(0), 3000)
    weights = np.asarray(jax.jit(lambda: jax.lax.scan(body, mixer.init(), keys)[1])())
    late = weights[1500:].mean(axis=0)
    assert late.argmax() == 2 and late[2] > 0.7
    assert (weights >= 0.05 * (1 - 1e-6)).all()


def test_the_estimated_gain_is_right_on_average_however_seldom_a_source_is_drawn():
    """E[n_k / (N p_k)] is 1: over many draws the log weight grows by rate times the reward."""
    rng = np.random.default_rng(3)
    prior = np.array([0.9, 0.09, 0.01])
    mixer = exp3(3, 1.0, learning_rate=1.0, prior=prior)  # always drawn by the prior
    counts = jnp.asarray(rng.multinomial(32, prior, 4000))
    grow = jax.jit(jax.vmap(lambda n: mixer.update(mixer.init(), jnp.ones(3), n).log_weights.high))
    logs = np.asarray(grow(counts), np.float64) - np.log(prior)
    gain = logs - np.log((prior * np.exp(logs)).sum(axis=1, keepdims=True))
    estimate = np.asarray(counts) / (32 * prior)  # what it should have added, but for a shift
    np.testing.assert_allclose(gain - gain[:, :1], estimate - estimate[:, :1], atol=2e-5)
    sigma = np.sqrt((1 - prior) / prior / 32 / 4000)
    assert (np.abs(estimate.mean(axis=0) - 1) < 4 * sigma).all()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda mixer: floor_weights(mixer, 0.2),
        lambda mixer: smooth_weights(mixer, 0.9),
        lambda mixer: limit_change(mixer, 0.01),
    ],
    ids=["floor_weights", "smooth_weights", "limit_change"],
)
def test_wrapped_it_divides_by_the_weights_that_rows_were_really_drawn_with(wrap):
    inner = exp3(3, 0.3, learning_rate=0.5)
    mixer = wrap(inner)
    state, plain = mixer.init(), inner.init()
    for scores in ([1.0, 0.0, 0.5], [0.9, 0.2, 0.1], [1.0, 0.3, 0.2]):
        plain = inner.update(plain, scores, [3, 2, 1], weights=mixer(state))
        state = mixer.update(state, scores, [3, 2, 1])
    kept = getattr(state, "inner", state)
    np.testing.assert_array_equal(kept.log_weights.high, plain.log_weights.high)
    biased = inner.init()
    for scores in ([1.0, 0.0, 0.5], [0.9, 0.2, 0.1], [1.0, 0.3, 0.2]):
        biased = inner.update(biased, scores, [3, 2, 1])
    assert np.abs(biased.log_weights.high - plain.log_weights.high).max() > 1e-3


def test_updated_every_n_it_divides_by_the_rows_that_were_to_be_expected():
    inner = exp3(2, 0.5, learning_rate=1.0)
    mixer = update_every(inner, 2)
    state = mixer.update(mixer.init(), [1.0, 0.5], [3, 1], weights=np.array([0.75, 0.25]))
    state = mixer.update(state, [0.5, np.nan], [4, 0], weights=np.array([0.5, 0.5]))
    gains = np.array([(3 * 1.0 + 4 * 0.5) / (3 + 2), 1 * 0.5 / (1 + 2)])
    gap = state.inner.log_weights.high[0] - state.inner.log_weights.high[1]
    np.testing.assert_allclose(gap, gains[0] - gains[1], rtol=1e-6)


@pytest.mark.parametrize("seen", [None, [True, False], jnp.array([True, True])])
def test_it_needs_the_number_of_rows_of_each_source(seen):
    for mixer in (exp3(2, 0.1), update_every(floor_weights(exp3(2, 0.1), 0.1), 3)):
        with pytest.raises(TypeError, match="seen must be the rows drawn from each source"):
            mixer.update(mixer.init(), [1.0, 0.5], seen)


def test_a_row_that_no_weight_allows_teaches_nothing():
    mixer = exp3(2, 0.1, learning_rate=1.0)
    state = mixer.update(mixer.init(), [1.0, 1.0], [1, 1], weights=np.array([1.0, 0.0]))
    assert float(mixer(state)[0]) > 0.5
