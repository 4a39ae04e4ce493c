"""The wrappers against their formulas, and in any order: on the simplex, above floors, limited."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmix import (
    exp3,
    exponentiated_gradient,
    floor_weights,
    limit_change,
    smooth_weights,
    update_every,
)
from jaxmix._adaptive.mixer import Mixer

SUM = 2.0**-19


def run(mixer, scores, seen):
    """The weights [T + 1, K], from the first ones on, as float64."""

    def body(state, now):
        state = mixer.update(state, *now)
        return state, mixer(state)

    def whole(scores, seen):
        first = mixer.init()
        return mixer(first), jax.lax.scan(body, first, (scores, seen))[1]

    first, rest = jax.jit(whole)(scores, seen)
    return np.concatenate([np.asarray(first)[None], np.asarray(rest)]).astype(np.float64)


def several(mixer, count):
    """A mixer of `count` runs at once, each with scores of its own."""

    def init():
        return jax.vmap(lambda _: mixer.init())(jnp.arange(count))

    return Mixer(init, jax.vmap(mixer.update), jax.vmap(mixer))


def random_scores(num_steps, num_sources, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(1.0, 2.0, (num_steps, num_sources)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = np.nan
    return scores, rng.integers(0, 3, (num_steps, num_sources))


EG = exponentiated_gradient(5, 0.3, [0.4, 0.3, 0.2, 0.1, 0.0])
SCORES = random_scores(300, 5)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_smoothed_weights_are_the_running_mean(decay):
    plain = run(EG, *SCORES)
    want = plain.copy()
    for t in range(1, len(want)):
        want[t] = want[t - 1] + np.float64(np.float32(1 - decay)) * (plain[t] - want[t - 1])
    smooth = run(smooth_weights(EG, decay), *SCORES)
    np.testing.assert_allclose(smooth, want, rtol=0, atol=2.0**-23)
    if decay == 0.0:
        assert (smooth == plain).all()


def test_a_slow_mean_arrives_though_its_steps_are_below_the_rounding_of_a_weight():
    """In one float32 word it would stop where (1 - decay) times the rest is below half an ulp."""
    inner = exponentiated_gradient(3, 100.0, [0.2, 0.5, 0.3])
    mixer = smooth_weights(inner, 0.99999)
    start = inner.update(inner.init(), [0.0, 1.0, 0.0])  # all weight to source 1
    state = mixer.init()._replace(inner=start)
    none = jnp.full(3, jnp.nan)
    update = jax.jit(
        lambda s: jax.lax.fori_loop(0, 10**6, lambda _, state: mixer.update(state, none), s)
    )
    state = update(state)
    left = np.exp(10**6 * np.log1p(-np.float64(np.float32(1e-5))))
    want = np.array([0, 1, 0]) + left * (np.array([0.2, 0.5, 0.3]) - [0, 1, 0])
    np.testing.assert_allclose(mixer(state), want, rtol=1e-6, atol=1e-9)
    assert abs(np.asarray(mixer(state), np.float64).sum() - 1) < 1e-7


def test_floored_weights_are_the_formula_and_never_below():
    for minimum in (0.0, 0.01, 0.1, 0.2):
        plain, floored = run(EG, *SCORES), run(floor_weights(EG, minimum), *SCORES)
        np.testing.assert_allclose(floored, minimum + (1 - 5 * minimum) * plain, rtol=3e-7)
        assert floored.min() >= minimum
        assert np.abs(floored.sum(axis=1) - 1).max() <= SUM


@pytest.mark.parametrize("num_sources", [1, 3, 7, 168, 1000])
def test_a_floor_of_exactly_1_over_k_is_the_uniform_mix(num_sources):
    mixer = floor_weights(exponentiated_gradient(num_sources, 1.0), 1.0 / num_sources)
    state = mixer.update(mixer.init(), np.arange(float(num_sources)))
    weights = np.asarray(mixer(state), np.float64)
    np.testing.assert_allclose(weights, 1 / num_sources, rtol=1e-6)
    assert (weights >= 1 / num_sources).all()


@pytest.mark.parametrize("limit", [1e-6, 1e-4, 0.03, 1.0])
def test_no_weight_moves_by_more_than_the_limit_and_the_move_keeps_its_direction(limit):
    plain, limited = run(EG, *SCORES), run(limit_change(EG, limit), *SCORES)
    moves = np.diff(limited, axis=0)
    assert np.abs(moves).max() <= limit
    assert np.abs(limited.sum(axis=1) - 1).max() <= SUM
    left = plain[1:] - limited[:-1]
    longest = np.abs(left).max(axis=1, keepdims=True)
    share = np.minimum(1.0, limit / np.maximum(longest, 1e-30))
    np.testing.assert_allclose(moves, share * left, rtol=0, atol=2.0**-22)
    if limit == 1.0:
        assert (limited == plain).all()


def test_a_limited_mixer_arrives_in_as_many_updates_as_the_limit_needs():
    inner = exponentiated_gradient(2, 100.0)
    mixer = limit_change(inner, 0.01)
    scores = np.tile(np.array([1.0, 0.0], np.float32), (60, 1))
    weights = run(mixer, scores, np.ones((60, 2), bool))
    np.testing.assert_allclose(weights[:51, 0], 0.5 + 0.01 * np.arange(51), atol=1e-5)
    assert (weights[51:] == [1.0, 0.0]).all()


def test_a_million_limited_steps_stay_on_the_simplex():
    inner = exponentiated_gradient(3, 1.0)
    mixer = limit_change(inner, 1e-5)

    def body(carry, step):
        state, error = carry
        best = (step // 3000) % 3  # the target jumps before it is reached
        scores = jnp.where(jnp.arange(3) == best, 5.0, 0.0)
        state = mixer.update(state, scores)
        return (state, jnp.maximum(error, jnp.abs(mixer(state).sum() - 1.0))), None

    start = (mixer.init(), jnp.float32(0.0))
    steps = jnp.arange(10**6, dtype=jnp.int32)
    (state, error), _ = jax.jit(lambda: jax.lax.scan(body, start, steps))()
    assert float(error) <= SUM and np.isfinite(np.asarray(mixer(state))).all()


@pytest.mark.parametrize("n", [1, 3, 50])
def test_every_nth_update_takes_the_mean_scores_weighted_by_their_rows(n):
    scores, rows = SCORES
    got = run(update_every(EG, n), scores, rows)
    used = np.where(np.isfinite(scores), rows, 0).reshape(-1, n, 5).astype(np.float64)
    total = (np.nan_to_num(scores).reshape(-1, n, 5) * used).sum(axis=1)
    counts = used.sum(axis=1)
    means = np.divide(total, counts, out=np.full_like(total, np.nan), where=counts > 0)
    want = run(EG, means.astype(np.float32), counts)
    np.testing.assert_allclose(got[n::n], want[1:], rtol=1e-5)
    for t in range(n, len(got)):
        assert (got[t] == got[t - t % n]).all()


def test_a_source_seen_once_in_n_updates_has_its_score_and_one_never_seen_keeps_its_weight():
    inner = exponentiated_gradient(3, 1.0)
    mixer = update_every(inner, 4)
    state = mixer.init()
    for scores in (
        [1.0, np.nan, np.nan],
        [np.nan] * 3,
        [np.nan, 2.0, np.nan],
        [3.0, np.nan, np.nan],
    ):
        state = mixer.update(state, scores)
    want = inner(inner.update(inner.init(), [2.0, 2.0, np.nan]))
    np.testing.assert_allclose(mixer(state), want, rtol=1e-6)
    assert mixer(state)[2] == mixer(mixer.init())[2]


def test_rows_are_counted_right_past_2_to_the_24():
    inner = exponentiated_gradient(2, 1.0)
    mixer = update_every(inner, 5)
    state = mixer.init()
    for rows in (2**24, 1, 1, 1, 1):
        state = mixer.update(state, [2.0, 1.0], np.array([rows, rows]))
    np.testing.assert_allclose(
        mixer(state), inner(inner.update(inner.init(), [2.0, 1.0])), rtol=1e-6
    )


FLOOR, LIMIT = 0.03, 0.02
WRAPPERS = {
    "smooth": lambda mixer: smooth_weights(mixer, 0.7),
    "every": lambda mixer: update_every(mixer, 3),
    "floor": lambda mixer: floor_weights(mixer, FLOOR),
    "limit": lambda mixer: limit_change(mixer, LIMIT),
}
ORDERS = [  # each wrapper directly around each other one, once
    ("smooth", "every", "limit", "floor"),
    ("every", "floor", "smooth", "limit"),
    ("floor", "limit", "every", "smooth"),
    ("limit", "smooth", "floor", "every"),
]
BASES = {
    "exponentiated_gradient": exponentiated_gradient(4, 0.5, [0.7, 0.1, 0.1, 0.1]),
    "exp3": exp3(4, 0.1, 0.5),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_in_any_order_the_weights_keep_every_bound(base, order):
    mixer = BASES[base]
    for name in order:
        mixer = WRAPPERS[name](mixer)
    many = [random_scores(100, 4, seed) for seed in range(50)]
    scores, rows = (np.stack(arrays, axis=1) for arrays in zip(*many, strict=True))
    weights = run(several(mixer, 50), 3 * scores, rows)
    assert weights.min() >= FLOOR
    assert np.abs(np.diff(weights, axis=0)).max() <= LIMIT
    assert np.abs(weights.sum(axis=-1) - 1).max() <= SUM
    assert (np.abs(weights[-1] - weights[0]).max(axis=-1) > 0.01).all()  # it does learn


@pytest.mark.parametrize("order", [ORDERS[0], ORDERS[-1]], ids=" ".join)
def test_when_nothing_is_seen_any_more_the_weights_come_to_rest(order):
    mixer = BASES["exponentiated_gradient"]
    for name in order:
        mixer = WRAPPERS[name](mixer)
    scores, rows = random_scores(300, 4)
    rows[100:] = 0
    weights = run(mixer, scores, rows)
    assert np.abs(np.diff(weights[-3:], axis=0)).max() == 0


def test_a_mixer_of_the_users_own_can_be_wrapped():
    class Fixed:
        def init(self):
            return {"weights": jnp.array([0.5, 0.25, 0.25])}

        def update(self, state, scores, seen=None, **_):
            return {"weights": state["weights"][::-1]}

        def __call__(self, state):
            return state["weights"]

    mixer = limit_change(update_every(Fixed(), 2), 0.05)
    weights = run(mixer, np.zeros((4, 3), np.float32), np.ones((4, 3), bool))
    np.testing.assert_allclose(weights[:, 0], [0.5, 0.5, 0.45, 0.4, 0.45], atol=1e-6)
