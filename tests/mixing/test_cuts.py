"""The cuts: exact shares for few sources and for very many, NaN, and what is never drawn."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix
from jaxmix._mixing.cuts import weight_cuts, wide_product

KEY = jax.random.key(7)
cuts = jax.jit(weight_cuts)
RANDOM = np.random.default_rng(0)


def _units(weights):
    """The units of 2^-32 that each source has."""
    below, whole = cuts(jnp.asarray(weights, jnp.float32))
    ends = np.where(whole, 2**32, np.asarray(below, np.int64))
    return np.diff(np.concatenate([[0], ends, [2**32]]))


def _pareto(size):
    raw = RANDOM.pareto(1.2, size) + 1.0
    return np.asarray(raw / raw.sum(), np.float32)


FEW = {
    "halves": [0.5, 0.5],
    "two": [0.1, 0.9],
    "thirds": np.full(3, 1 / 3),
    "a sum above 1": np.full(3, 1 / 3) * (1 + 2.0**-21),
    "a sum below 1": np.array([0.5, 0.25, 0.25]) * (1 - 2.0**-20.1),
    "eight": RANDOM.dirichlet(np.ones(8)),
    "alike": np.full(35, 1 / 35),
    "thirty-five": RANDOM.dirichlet(np.ones(35)),
    "two hundred": RANDOM.dirichlet(np.full(200, 5.0)),
}


@pytest.mark.parametrize("name", FEW)
def test_a_source_has_its_share_within_one_unit(name):
    weights = [Fraction(float(w)) for w in np.asarray(FEW[name], np.float32)]
    got = _units(FEW[name]).tolist()
    assert sum(got) == 2**32
    for units, weight in zip(got, weights, strict=True):
        assert abs(units - 2**32 * weight / sum(weights)) <= 1


@pytest.mark.parametrize("size", [2**11 + 1, 92_817])
@pytest.mark.parametrize("alike", [True, False])
def test_thousands_of_sources_have_their_shares_within_one_unit(size, alike):
    weights = np.full(size, 1 / size, np.float32) if alike else _pareto(size)
    whole = weights.astype(np.longdouble)  # 64 bits: right to 2^-40 units
    got = _units(weights)
    assert got.sum() == 2**32
    assert np.abs(got - 2**32 * whole / whole.sum()).max() <= 1 + 2.0**-12


def test_a_million_equal_sources_are_drawn_alike():
    size = 10**6
    got = _units(np.full(size, 1 / size))
    assert got.sum() == 2**32 and set(got.tolist()) == {2**32 // size, 2**32 // size + 1}
    even = jnp.full(size, 1 / size)
    source = np.asarray(jax.jit(lambda w: jaxmix.systematic_sources(KEY, 3, w, size))(even))
    drawn = np.bincount(source, minlength=size)
    assert drawn.size == size and drawn.max() <= 2
    # A source of a share of 4294.97 units has floor or ceil of 0.9998 to 1.00002 rows.
    assert (drawn == 1).mean() > 0.999


def test_more_sources_than_2_to_the_24_are_refused():
    with pytest.raises(ValueError, match="the number of weights must be <= 16777216"):
        jax.eval_shape(weight_cuts, jax.ShapeDtypeStruct((2**24 + 1,), jnp.float32))


@pytest.mark.parametrize(
    "weights",
    [
        [0, 1, 0], [0.5, 0, 0.5], [0, 0, 0.3, 0.7, 0], [1e-30, 1, 0], [1, 1e-30, 0, 1e-30],
        [1e-12, 1e-12, 0, 1e-12, 1], [0.5, 1e-20, 1e-20, 1e-20, 0.5], [1e-8, 0, 1 - 1e-8],
    ],
)  # fmt: skip
def test_a_weight_of_zero_has_no_unit_of_the_2_to_the_32_and_any_other_has_one(weights):
    units, weights = _units(weights), np.asarray(weights)
    assert ((units == 0) == (weights == 0)).all() and (units >= 0).all()
    low = (weights > 0) & (weights < 2.0**-32)
    assert (units[low] == 1).all() and units.sum() == 2**32


@pytest.mark.parametrize("draw", [jaxmix.bernoulli_sources, jaxmix.systematic_sources])
@pytest.mark.parametrize("nan", [[0.5, np.nan, 0.5], [np.inf, 0, 1], [0, 0, 0], [np.nan, 1]])
def test_weights_that_are_not_known_to_be_nan_draw_the_last_source(draw, nan):
    run = jax.jit(lambda weights: draw(KEY, 3, weights, 64))
    assert run(jnp.asarray(nan, jnp.float32)).tolist() == [len(nan) - 1] * 64


def test_the_wide_product_is_exact():
    factors = [0, 1, 2**16 - 1, 2**16, 0x12345678, 2**31, 2**32 - 2, 2**32 - 1]
    for other in factors:
        high, low = wide_product(jnp.asarray(np.array(factors, np.uint32)), np.uint32(other))
        for factor, top, rest in zip(factors, high.tolist(), low.tolist(), strict=True):
            assert (top << 32) + rest == factor * other
