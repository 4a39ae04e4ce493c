"""The draws: exact probabilities, exact counts, zero weights, spread, keys and errors."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxmix
from jaxmix._mixing.draws import RARE
from jaxmix._mixing.interleave import slot_multiplier
from jaxmix._mixing.keys import step_key

KEY = jax.random.key(7)
SIGMAS = 4.5  # a bound that one right test in 150,000 breaks; the keys are fixed


def _picks(draw, weights, num_rows, num_steps, num_sources=2):
    """How often each source is drawn in `num_steps` steps of `num_rows` rows, [T, K]."""

    def counts(step):
        source = draw(KEY, step, weights, num_rows)
        return jnp.sum(source[None] == jnp.arange(num_sources)[:, None], axis=1)

    return np.asarray(jax.jit(lambda steps: jax.lax.map(counts, steps))(jnp.arange(num_steps)))


def _within(total, expected, variance):
    assert abs(total - expected) <= SIGMAS * math.sqrt(variance) + 1e-9, (total, expected)


@pytest.mark.parametrize("gamma", [0.3, 0.6, 1 - 2.0**-10])
def test_two_sources_are_drawn_by_jax_random_bernoulli_on_a_key_per_row(gamma):
    step, num_rows = 11, 4096
    words = jax.random.key_data(step_key(KEY, step, "bernoulli"))
    row_words = jnp.tile(words, (num_rows, 1)).at[:, 1].add(jnp.arange(num_rows, dtype=jnp.uint32))
    keys = jax.random.wrap_key_data(row_words, impl="threefry2x32")
    rare = gamma if gamma < 1 - RARE else 1 - gamma
    hit = jax.vmap(lambda key: jax.random.bernoulli(key, rare, mode="high"))(keys)
    want = ~hit if rare == gamma else hit
    got = jaxmix.bernoulli_sources(KEY, step, gamma, num_rows)
    assert got.tolist() == want.astype(jnp.int32).tolist()


def test_a_rounding_of_gamma_about_a_half_moves_no_row():
    draw = jax.jit(lambda gamma: jaxmix.bernoulli_sources(KEY, 3, gamma, 4096))
    half = np.float32(0.5)
    for near in (np.nextafter(half, np.float32(0)), np.nextafter(half, np.float32(1))):
        assert draw(near).tolist() == draw(half).tolist()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("gamma", [1e-6, 1e-3, 0.01, 0.5, 0.999])
def test_a_source_is_drawn_with_its_weight_whatever_dtype_the_schedule_returns(gamma, dtype):
    value = jnp.asarray(gamma, dtype)
    share, rows, steps = float(value), 2**17, 16 if gamma >= 1e-3 else 200
    total = _picks(jaxmix.bernoulli_sources, lambda step: value, rows, steps)[:, 0].sum()
    _within(total, rows * steps * share, rows * steps * share * (1 - share))


@pytest.mark.parametrize("sources", [2, 3])
def test_a_weight_below_the_grid_of_float32_uniforms_is_right(sources):
    share, rows, steps = 2.0**-25, 2**18, 1000  # a plain uniform would draw four times as many
    # Of two it is the second: what is left to the first, 1 - share, is 1 in float32.
    weights = [1.0 - share, share] if sources == 2 else [0.5, share, 0.5 - share]
    counts = _picks(jaxmix.bernoulli_sources, np.asarray(weights), rows, steps, sources)
    _within(counts[:, 1].sum(), rows * steps * share, rows * steps * share)
    assert counts[:, 1].sum() > 0


@pytest.mark.parametrize("draw", [jaxmix.bernoulli_sources, jaxmix.systematic_sources])
@pytest.mark.parametrize("num_sources", [2, 5, 70])
def test_a_source_of_weight_zero_is_never_drawn_and_of_weight_one_always(draw, num_sources):
    for alone in {0, 1, num_sources // 2, num_sources - 1}:
        only = np.eye(num_sources)[alone]
        counts = _picks(draw, only, 1000, 20, num_sources)
        assert counts[:, alone].sum() == 20_000, alone
        without = (1.0 - only) / (num_sources - 1)
        counts = _picks(draw, without, 1000, 20, num_sources)
        assert counts[:, alone].sum() == 0 and (counts.sum(axis=0)[without > 0] > 0).all(), alone


sizes = st.sampled_from([1, 7, 300])  # few shapes, as each compiles once
simplices = st.sampled_from([2, 3, 8]).flatmap(
    lambda size: st.lists(st.floats(0.0, 1.0, width=32), min_size=size, max_size=size)
)
systematic = jax.jit(functools.partial(jaxmix.systematic_sources, KEY), static_argnums=2)
counted = jax.jit(functools.partial(jaxmix.counted_sources, KEY), static_argnums=2)


@given(simplices.filter(lambda weights: sum(weights) > 0.1), sizes, st.integers(0, 2**31 - 1))
def test_systematic_counts_are_floor_or_ceil_of_the_share(raw, num_rows, step):
    weights = np.asarray(raw, np.float64) / np.sum(raw)
    source = systematic(step, jnp.asarray(weights, jnp.float32), num_rows)
    counts = np.bincount(source, minlength=len(raw))
    ideal = num_rows * np.asarray(jaxmix.weights_at(step, weights), np.float64)
    assert (np.abs(counts - ideal) < 1.0 + 1e-6 * num_rows).all()
    assert (counts[weights.astype(np.float32) == 0] == 0).all()


def test_two_sources_get_floor_or_ceil_of_b_gamma_exactly():
    for gamma in (0.1, 0.25, 1 / 3, 0.5, 0.999):
        counts = _picks(jaxmix.systematic_sources, gamma, 240, 200)[:, 0]
        share = 240 * float(np.float32(gamma))
        assert set(counts.tolist()) <= {math.floor(share), math.ceil(share)}, gamma


@pytest.mark.parametrize("weights", [[0.7, 0.3], [0.5, 0.3, 0.2], [0.9, 1e-4, 0.0999]])
def test_systematic_counts_have_the_expectation_b_times_weight(weights):
    num_rows, steps = 37, 40_000
    counts = _picks(jaxmix.systematic_sources, np.asarray(weights), num_rows, steps, len(weights))
    for k, weight in enumerate(weights):
        part = (num_rows * weight) % 1.0  # a count is floor + a Bernoulli(part)
        _within(counts[:, k].sum(), steps * num_rows * weight, steps * max(part * (1 - part), 1e-3))


@given(sizes, st.lists(st.floats(0.0, 1.0), min_size=7, max_size=7), st.integers(0, 1000))
def test_counted_sources_give_each_source_exactly_its_count(num_rows, cuts, step):
    ends = np.sort([int(cut * num_rows) for cut in cuts])
    counts = np.diff(ends, prepend=0, append=num_rows)
    source = counted(step, jnp.asarray(counts, jnp.int32), num_rows)
    assert np.bincount(source, minlength=8).tolist() == counts.tolist()


def test_rows_beyond_the_sum_of_traced_counts_get_no_source():
    draw = jax.jit(lambda counts: jaxmix.counted_sources(KEY, 0, counts, 10))
    assert np.bincount(np.asarray(draw(jnp.array([2, 3]))) + 1).tolist() == [5, 2, 3]


@pytest.mark.parametrize("num_rows", [8, 96, 512, 1000, 1024, 6144, 8192])
def test_every_shard_stays_within_four_rows_of_its_share(num_rows):
    slots = slot_multiplier(num_rows) * np.arange(num_rows) % num_rows
    assert sorted(slots.tolist()) == list(range(num_rows))
    for parts in (2, 4, 8, 16, 64, 256):
        if num_rows % parts:
            continue
        blocks = slots.reshape(parts, -1)
        for shard in (*blocks[:8], *slots.reshape(-1, parts).T[:8]):  # contiguous, then strided
            excess = np.cumsum(np.isin(np.arange(num_rows), shard) - 1 / parts)
            assert excess.max() - min(excess.min(), 0.0) <= 4.0 + 1e-9, parts


@pytest.mark.parametrize("num_rows", [2**16, 2**16 + 1, 10**6, 2**20])
def test_slots_are_a_permutation_beyond_16_bit_batches(num_rows):
    counts = np.array([num_rows // 3, num_rows - num_rows // 3])
    source = np.asarray(jaxmix.counted_sources(KEY, 5, counts, num_rows))
    word = int(jax.random.key_data(step_key(KEY, 5, "counted"))[1])
    slots = (slot_multiplier(num_rows) * np.arange(num_rows, dtype=np.int64) + word) % num_rows
    assert (source == (slots >= counts[0])).all()


@pytest.mark.parametrize("draw", [jaxmix.bernoulli_sources, jaxmix.systematic_sources])
def test_the_rows_of_a_group_share_their_draw(draw):
    source = draw(KEY, 3, 0.5, 96, group_size=4)
    assert (np.asarray(source).reshape(24, 4) == np.asarray(source)[::4, None]).all()
    assert (np.asarray(source)[::4] == np.asarray(draw(KEY, 3, 0.5, 24))).all()


@pytest.mark.parametrize("draw", [jaxmix.bernoulli_sources, jaxmix.uniform_rows])
def test_draws_are_uncorrelated_over_rows_and_steps(draw):
    num_rows, steps = 2**13, 64
    given = 0.5 if draw is jaxmix.bernoulli_sources else jnp.full(num_rows, 2)
    size = (num_rows,) if draw is jaxmix.bernoulli_sources else ()
    table = jax.jit(jax.vmap(lambda step: draw(KEY, step, given, *size)))(jnp.arange(steps))
    signs = 2.0 * np.asarray(table, np.float64) - 1.0
    even = np.full(4, 0.25)
    other = jax.jit(jax.vmap(lambda step: jaxmix.bernoulli_sources(KEY, step, 0.5, num_rows)))
    fours = jax.jit(jax.vmap(lambda step: jaxmix.bernoulli_sources(KEY, step, even, num_rows)))
    pairs = {
        "mean": signs,
        "next row": signs[:, 1:] * signs[:, :-1],
        "next step": signs[1:] * signs[:-1],
        "row above, step after": signs[1:, 1:] * signs[:-1, :-1],
    }
    if draw is jaxmix.uniform_rows:
        pairs["source of two"] = signs * (2.0 * np.asarray(other(jnp.arange(steps))) - 1.0)
        pairs["source of four"] = signs * (2.0 * (np.asarray(fours(jnp.arange(steps))) >= 2) - 1.0)
    for products in pairs.values():
        _within(products.sum(), 0.0, products.size)


def test_uniform_rows_are_uniform_in_their_buffer():
    num_rows = 2**20
    index = np.asarray(jaxmix.uniform_rows(KEY, 3, jnp.full(num_rows, 100)))
    counts = np.bincount(index, minlength=100)
    assert counts.size == 100
    excess = ((counts - num_rows / 100) ** 2 / (num_rows / 100)).sum()  # chi^2 of 99 degrees
    _within(excess, 99, 2 * 99)


def _keys():
    with jax.default_prng_impl("rbg"):
        under_rbg = jax.random.key(7)
    return {
        "old-style": jax.random.PRNGKey(7),
        "old-style NumPy": np.asarray(jax.random.PRNGKey(7)),
        "rbg": jax.random.key(7, impl="rbg"),
        "unsafe_rbg": jax.random.key(7, impl="unsafe_rbg"),
        "made under rbg as default": under_rbg,
    }


@pytest.mark.parametrize("kind", _keys())
@pytest.mark.parametrize("draw", [jaxmix.bernoulli_sources, jaxmix.systematic_sources])
def test_every_kind_of_key_of_one_seed_gives_the_same_rows(draw, kind):
    want, key = draw(KEY, 3, 0.4, 64), _keys()[kind]
    assert draw(key, 3, 0.4, 64).tolist() == want.tolist()
    with jax.default_prng_impl("rbg"):
        got = jax.jit(lambda step: draw(key, step, 0.4, 64))(3)
    assert got.tolist() == want.tolist()


def test_all_words_of_an_rbg_key_count():
    keys = jax.random.split(jax.random.key(7, impl="unsafe_rbg"), 8)
    data = np.array(jax.random.key_data(keys[0]))
    data[3] ^= 1
    changed = jax.random.wrap_key_data(jnp.asarray(data), impl="unsafe_rbg")
    rows = [jaxmix.bernoulli_sources(k, 3, 0.5, 64).tolist() for k in (keys[0], changed, *keys[1:])]
    assert len({tuple(row) for row in rows}) == len(rows)


@pytest.mark.parametrize("flag", [True, False])
def test_under_either_threefry_setting_a_shard_draws_its_part_of_the_global_batch(flag):
    with jax.threefry_partitionable(flag):
        whole = jaxmix.bernoulli_sources(KEY, 3, 0.5, 64)
        shard = jax.vmap(
            lambda _: jaxmix.bernoulli_sources(KEY, 3, 0.5, 8, axis_name="rows"), axis_name="rows"
        )(jnp.zeros(8))
    assert shard.reshape(-1).tolist() == whole.tolist()


@pytest.mark.parametrize("step", [0, 5, 2**31 - 1])
def test_every_integer_kind_of_step_gives_the_same_rows(step):
    want = jaxmix.bernoulli_sources(KEY, step, 0.5, 64).tolist()
    for kind in (np.int64, np.uint32, jnp.int32, jnp.uint32):
        assert jaxmix.bernoulli_sources(KEY, kind(step), 0.5, 64).tolist() == want, kind


def test_a_nan_weight_is_drawn_without_a_silent_change_of_the_weights():
    mixed = jax.jit(lambda g: jaxmix.mix_rows(KEY, 0, g, jnp.zeros(8), jnp.ones(8)))(jnp.nan)
    assert np.isnan(mixed.weights).all()


@pytest.mark.parametrize("draw", [jaxmix.bernoulli_sources, jaxmix.systematic_sources])
def test_bad_input_is_refused_by_name(draw):
    split = jax.random.split(KEY, 3)
    cases = [
        (lambda: draw(KEY, 0, 0.5, 0), ValueError, "num_rows must be >= 1, got 0"),
        (lambda: draw(KEY, 0, 0.5, 8.0), TypeError, "num_rows must be an integer"),
        (lambda: draw(KEY, 0, 0.5, 8, group_size=3), ValueError, "group_size must be a divisor"),
        (lambda: draw(KEY, 0.5, 0.5, 8), TypeError, "step must be an integer"),
        (lambda: draw(KEY, -1, 0.5, 8), ValueError, r"step must be in \[0, 2147483647\], got -1"),
        (lambda: draw(KEY, jnp.arange(3), 0.5, 8), ValueError, "step must be a scalar"),
        (lambda: draw(7, 0, 0.5, 8), TypeError, "key must be a JAX key"),
        (lambda: draw(split, 0, 0.5, 8), TypeError, "key must be one JAX key"),
        (lambda: draw(KEY, 0, math.nan, 8), ValueError, r"weights must be in \[0, 1\], got nan"),
        (lambda: draw(KEY, 0, [0.5, 0.4], 8), ValueError, "weights must be of sum 1"),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()


def test_bad_counts_are_refused_by_name():
    for counts, error, message in [
        ([3, 4], ValueError, r"counts must be >= 0 with the sum 8, got \[3, 4\]"),
        ([9, -1], ValueError, "counts must be >= 0"),
        ([4.0, 4.0], TypeError, "counts must be integers"),
        ([[8]], ValueError, "counts must be an array"),
    ]:
        with pytest.raises(error, match=message):
            jaxmix.counted_sources(KEY, 0, np.asarray(counts), 8)


def test_lengths_are_checked_and_traced_ones_give_a_row_in_any_case():
    for lengths, error, message in [
        ([5, -5], ValueError, r"lengths must be in \[1, 2\^31\), got .-5 to 5"),
        ([5, 0], ValueError, r"lengths must be in \[1, 2\^31\), got .0 to 5"),
        ([5, 2**31], ValueError, r"lengths must be in \[1, 2\^31\)"),
        ([5.0], TypeError, "lengths must be integers, got"),
        ([True], TypeError, "lengths must be integers, got"),
        ([[5]], ValueError, r"lengths must be an array \[num_rows\], got \(1, 1\)"),
        ([], TypeError, "lengths must be integers, got"),
        (np.zeros(0, int), ValueError, r"lengths must be an array \[num_rows\], got \(0,\)"),
    ]:
        with pytest.raises(error, match=message):
            jaxmix.uniform_rows(KEY, 0, lengths)
    draw = jax.jit(lambda lengths: jaxmix.uniform_rows(KEY, 0, lengths))
    for dtype in (jnp.int32, jnp.uint32, jnp.int8, jnp.uint8):
        wanted = jaxmix.uniform_rows(KEY, 0, [1, 7, 100]).tolist()
        assert draw(jnp.array([1, 7, 100], dtype)).tolist() == wanted
        assert jaxmix.uniform_rows(KEY, 0, np.array([1, 7, 100], dtype)).tolist() == wanted
    assert draw(jnp.array([-5, 0])).tolist() == [0, 0]
    most = draw(jnp.array([2**31 - 1, 5]))[0]
    assert draw(jnp.array([2**32 - 1, 5], jnp.uint32))[0] == most


def test_a_draw_is_given_by_name_or_as_a_function():
    x = jnp.zeros(8)
    for name in ("bernoulli", "systematic"):
        mixed = jaxmix.mix_rows(KEY, 3, 0.5, x, x + 1, draw=name)
        draw = getattr(jaxmix, f"{name}_sources")
        assert mixed.source.tolist() == draw(KEY, 3, 0.5, 8).tolist()
    for draw in ("exact", "Bernoulli", None, ["bernoulli"]):
        wanted = (
            r"draw must be 'bernoulli', 'systematic' or a function \(for exact counts: a MixPlan"
        )
        for call in (
            lambda draw=draw: jaxmix.mix_rows(KEY, 3, 0.5, x, x, draw=draw),
            lambda draw=draw: jaxmix.draw_rows(KEY, 3, 0.5, jaxmix.RowPool(x, x), 8, draw=draw),
        ):
            with pytest.raises(ValueError, match=wanted):
                call()
