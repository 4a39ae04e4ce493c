"""MixtureSampler: the one-example-at-a-time iterator."""

import collections
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix

X = [("X", i) for i in range(5)]
Y = [("Y", i) for i in range(7)]


def test_it_yields_step_and_example_and_indexes_the_same_pairs():
    schedule = [float(g) for g in jaxmix.tabulate(jaxmix.make_schedule(10, 0.1, 0.9, "cosine"), 10)]
    sampler = jaxmix.MixtureSampler(X, Y, schedule)
    pairs = list(sampler)
    assert len(sampler) == 10 and [t for t, _ in pairs] == list(range(10))
    assert all(example in X + Y for _, example in pairs)
    assert list(sampler) == pairs == [sampler[t] for t in range(10)]
    assert sampler[-1] == pairs[-1]
    with pytest.raises(IndexError):
        sampler[10]


def test_an_example_is_the_row_that_the_device_draws_for_one_row():
    gamma = jaxmix.sigmoid_schedule(0.1, 0.9, 3000)
    sampler = jaxmix.MixtureSampler(range(100), range(100, 150), gamma, num_steps=3000, seed=5)
    pool = jaxmix.RowPool(jnp.arange(100), jnp.arange(100, 150))
    draw = jax.jit(lambda step: jaxmix.draw_rows(jax.random.key(5), step, gamma, pool, 1).rows[0])
    for t in (0, 1, 1023, 1024, 2999):
        assert sampler[t] == (t, int(draw(t)))


def test_shares_follow_the_schedule_and_all_examples_come():
    sampler = jaxmix.MixtureSampler(X, Y, 0.3, num_steps=4000)
    seen = collections.Counter(example for _, example in sampler)
    assert set(seen) == set(X + Y)
    share = sum(n for (name, _), n in seen.items() if name == "X")
    assert abs(share - 1200) <= 4.5 * np.sqrt(4000 * 0.3 * 0.7)
    assert all(name == "Y" for _, (name, _) in jaxmix.MixtureSampler(X, Y, [0.0] * 50))


def test_another_seed_gives_other_examples_and_the_same_seed_the_same():
    def run(seed):
        return list(jaxmix.MixtureSampler(X, Y, 0.5, num_steps=100, seed=seed))

    assert run(3) == run(3) != run(4)


def test_it_travels_by_pickle():
    sampler = jaxmix.MixtureSampler(X, Y, 0.5, num_steps=20)
    assert list(pickle.loads(pickle.dumps(sampler))) == list(sampler)
    with pytest.raises(TypeError):
        sampler[1:3]


def test_bad_input_is_refused_by_name():
    for args, error, message in [
        (([], Y, 0.5, 3), ValueError, "X must be a sequence of at least one row"),
        ((X, [], 0.5, 3), ValueError, "Y must be a sequence of at least one row"),
        ((X, Y, 0.5), TypeError, "num_steps must be an integer"),
        ((X, Y, [0.5, 1.5]), ValueError, r"schedule must be in \[0, 1\] at every step"),
        ((X, Y, [0.5, 0.5], 3), ValueError, "num_steps must be at most 2, got 3"),
        ((X, Y, 0.5, 3, 2**32), ValueError, "seed must be below 4294967296, got 4294967296"),
        ((X, Y, 0.5, 3, -1), ValueError, "seed must be >= 0, got -1"),
        ((X, Y, 0.5, 3, 0.5), TypeError, "seed must be an integer"),
    ]:
        with pytest.raises(error, match=message):
            jaxmix.MixtureSampler(*args)
    assert list(jaxmix.MixtureSampler(X, Y, [])) == []
