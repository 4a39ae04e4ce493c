"""Weights: a number, an array or a schedule made float32 [K] on the simplex."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxmix


@pytest.mark.parametrize(
    "gamma",
    [0.25, np.float64(0.25), jnp.float32(0.25), jnp.bfloat16(0.25), optax.constant_schedule(0.25)],
)
def test_gamma_of_any_kind_stands_for_gamma_and_its_complement(gamma):
    weights = jaxmix.weights_at(3, gamma)
    assert weights.dtype == jnp.float32 and weights.tolist() == [0.25, 0.75]
    assert jax.jit(lambda step: jaxmix.weights_at(step, gamma))(3).tolist() == [0.25, 0.75]


@given(
    st.lists(st.floats(0.0, 1.0, width=32), min_size=1, max_size=40).filter(lambda w: sum(w) > 0.01)
)
def test_arrays_are_brought_to_the_simplex_and_a_second_time_stay_as_they_are(raw):
    once = jaxmix.weights_at(0, np.asarray(raw) / np.sum(raw))
    assert abs(float(np.asarray(once, np.float64).sum()) - 1.0) < 2.0**-19
    assert jaxmix.weights_at(0, once).tolist() == once.tolist()
    assert ((np.asarray(raw, np.float32) == 0) <= (np.asarray(once) == 0)).all()


def test_traced_weights_are_clipped_and_nan_stays_visible():
    at = jax.jit(lambda w: jaxmix.weights_at(0, w))
    assert at(jnp.float32(1.5)).tolist() == [1.0, 0.0]
    assert at(jnp.float32(-0.5)).tolist() == [0.0, 1.0]
    assert at(jnp.array([3.0, -1.0, 1.0])).tolist() == [0.75, 0.0, 0.25]
    assert np.isnan(at(jnp.float32(jnp.nan))).all()
    assert np.isnan(at(jnp.array([0.5, jnp.nan, 0.5]))).all()
    assert np.isnan(at(jnp.zeros(3))).all()


PERCENT = optax.linear_schedule(90.0, 10.0, 200)
SHARES = jnp.array([2.0, 2.0, 1.0])
TRACES = {
    "jit": lambda at: jax.jit(at)(30),
    "vmap": lambda at: jax.vmap(at)(jnp.arange(3)),
    "scan": lambda at: jax.lax.scan(lambda c, step: (c, at(step)), 0, jnp.arange(3)),
    "grad": lambda at: jax.grad(lambda step: at(step).sum())(30.0),
}
USES = {
    "weights_at": lambda step, weights, x: jaxmix.weights_at(step, weights),
    "interpolate": lambda step, weights, x: jaxmix.interpolate(step, weights, *x),
    "mix_loss_fns": lambda step, weights, x: jaxmix.mix_loss_fns(
        weights, *(lambda each=each: each[0] for each in x)
    )(step),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("trace", TRACES)
def test_a_schedule_off_the_simplex_at_step_0_is_refused_while_its_step_is_traced(trace, use):
    x = jnp.ones((3, 1))
    for weights, count, got in ((PERCENT, 2, "90"), (lambda step: SHARES + 0.0 * step, 3, "5.0")):
        with pytest.raises(ValueError, match=f"a schedule's weights at step 0 must.*{got}"):
            TRACES[trace](lambda step, w=weights, n=count: USES[use](step, w, x[:n]))


def test_rows_refuse_it_too():
    x, y, key = jnp.zeros((8, 3)), jnp.ones((8, 3)), jax.random.key(0)
    pool = jaxmix.RowPool(x, y)
    for mix in (
        lambda step: jaxmix.mix_rows(key, step, PERCENT, x, y),
        lambda step: jaxmix.draw_rows(key, step, PERCENT, pool, 8),
        lambda step: jaxmix.bernoulli_sources(key, step, PERCENT, 8),
        lambda step: jaxmix.systematic_sources(key, step, PERCENT, 8),
    ):
        with pytest.raises(ValueError, match="a schedule's weights at step 0 must"):
            jax.jit(mix)(30)


def test_step_0_is_not_asked_where_a_schedule_reads_traced_values_or_has_none():
    @jax.jit
    def learned(step, gamma):
        return jaxmix.weights_at(step, lambda step: gamma + 0.0 * step)

    assert learned(3, 0.25).tolist() == [0.25, 0.75]
    assert learned(3, 1.5).tolist() == [1.0, 0.0]  # traced: clipped
    grad = jax.jit(jax.grad(lambda gamma: jaxmix.weights_at(3, lambda step: gamma)[0]))
    assert grad(0.25) == 1.0

    def from_step_1(step):
        if isinstance(step, jax.core.Tracer):
            return 0.5 + 0.0 * step
        raise KeyError(step)

    assert jax.jit(lambda step: jaxmix.weights_at(step, from_step_1))(3).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("count", [2, 3, 8, 35, 200])
def test_weights_have_the_same_bits_eager_jitted_mapped_and_scanned(count):
    rng = np.random.default_rng(count)
    table = jnp.asarray(rng.random((50, count)), jnp.float32)
    gammas = jaxmix.table_schedule(table if count > 2 else table[:, 0])

    def at(step):  # numbers that are traced, of any sum
        return jaxmix.weights_at(step, gammas(step))

    steps = jnp.arange(50)
    want = np.stack([jax.jit(at)(step) for step in range(50)])
    assert (np.asarray(jax.vmap(at)(steps)) == want).all()
    assert (np.asarray(jax.lax.scan(lambda c, s: (c, at(s)), 0, steps)[1]) == want).all()


@pytest.mark.parametrize("step", [np.uint32(3), jnp.uint32(3), jnp.int32(3), 3, np.int8(3)])
def test_optax_schedules_are_safe_with_every_kind_of_step(step):
    late = optax.linear_schedule(0.0, 1.0, 10, transition_begin=5)  # a bare uint32 step gives 1.0
    assert jaxmix.weights_at(step, late).tolist() == [0.0, 1.0]


def test_a_callable_that_changes_is_read_anew_and_need_not_be_hashable():
    @dataclasses.dataclass
    class Gamma:
        value: float

        def __call__(self, step):
            return jnp.float32(self.value)

    gamma = Gamma(0.25)
    assert jaxmix.weights_at(0, gamma).tolist() == [0.25, 0.75]
    assert jaxmix.tabulate(gamma, 2).tolist() == [0.25, 0.25]
    gamma.value = 0.5
    assert jaxmix.weights_at(0, gamma).tolist() == [0.5, 0.5]
    assert jaxmix.tabulate(gamma, 2).tolist() == [0.5, 0.5]
    at = jax.jit(lambda value: jaxmix.weights_at(0, Gamma(value)))
    assert at(0.75).tolist() == [0.75, 0.25]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_the_derivative_in_gamma_is_whole_at_its_ends_too(gamma):
    slope = jax.grad(lambda g: jaxmix.weights_at(0, g)[0])(gamma)
    assert float(slope) == 1.0
    assert jax.jit(lambda g: jaxmix.weights_at(0, [g, 1.0 - g]))(gamma).tolist() == [
        gamma,
        1 - gamma,
    ]


def test_several_steps_at_once_are_no_weights():
    with pytest.raises(ValueError, match=r"step must be a scalar \(vmap over many\), got \(2,\)"):
        jaxmix.weights_at(jnp.array([2, 8]), optax.linear_schedule(0.0, 1.0, 10))


def test_bad_weights_are_refused_by_name():
    cases = [
        (1.5, ValueError, r"weights must be in \[0, 1\], got 1.5"),
        (float("nan"), ValueError, r"weights must be in \[0, 1\], got nan"),
        ([0.6, 0.6], ValueError, r"weights must be of sum 1 \(within 0.0001\)"),
        ([70, 20, 10], ValueError, r"weights must be of sum 1 \(within 0.0001\), got 100.0"),
        ([1.1, -0.1], ValueError, r"weights must be finite and in \[0, 1\]"),
        ([[0.5], [0.5]], ValueError, r"weights must be a number or an array \[K\], got \(2, 1\)"),
        ([], ValueError, r"weights must be a number or an array \[K\]"),
        ("half", TypeError, "weights must be a number, an array"),
        (None, TypeError, "weights must be a number, an array"),
        ({"a": 0.5, "b": 0.5}, TypeError, r".*\(only a MixPlan takes names: list the weights"),
        (optax.constant_schedule(1.5), ValueError, r"a schedule's weights must be in \[0, 1\]"),
        (lambda step: jnp.complex64(0.5), TypeError, "a schedule's value must be a real number"),
        (
            lambda step: jnp.zeros((2, 2)),
            ValueError,
            "a schedule's weights must be a number or an array",
        ),
    ]
    for weights, error, message in cases:
        with pytest.raises(error, match=message):
            jaxmix.weights_at(0, weights)
    for weights, count, got in (
        (0.5, 3, "got one number, the gamma of two sources$"),
        ([0.5, 0.5], 3, "got 2 of them$"),
        (0.5, 1, "sources: give each source as an argument of its own"),  # a list of sources
    ):
        with pytest.raises(ValueError, match=f"weights must be {count}, one per source, .*{got}"):
            jaxmix.weights_at(0, weights, num_sources=count)
