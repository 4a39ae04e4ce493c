"""The example of weights that learn: real data, planned ways as planned, a table as measured."""

import contextlib
import io
import re

import adaptive_mixture as example
import jax
import numpy as np
import pytest

SEEDS, STEPS, K = 2, 60, 4  # of --fast


@pytest.fixture(scope="module")
def fast():
    standard = jax.numpy_dtype_promotion("standard")  # optax's adam knows no strict promotion
    with standard, contextlib.redirect_stdout(io.StringIO()) as text:
        runs = example.main(["--fast"])
    return runs, text.getvalue()


def test_every_way_trains_to_the_end_on_weights_of_the_simplex(fast):
    runs, _ = fast
    assert list(runs) == ["uniform", "anneal", "adaptive", "replayed"]
    for run in runs.values():
        assert run.weights.shape == (SEEDS, STEPS, K) and run.accuracy.shape == (SEEDS, K)
        np.testing.assert_allclose(run.weights.sum(axis=-1, dtype=np.float64), 1, atol=2**-19)
        sigma = np.sqrt(0.1 * 0.9 / (SEEDS * K * example.NUM_TEST))
        assert run.accuracy.mean() > 0.1 + 10 * sigma


def test_the_planned_ways_have_the_weights_of_their_formulas(fast):
    runs, _ = fast
    assert (runs["uniform"].weights == 0.25).all()
    clean = (1 + np.cos(np.pi * np.arange(STEPS) / STEPS)) / 2
    share = 0.1 + 0.3 * clean
    want = np.stack([share, share, 0.5 - share, 0.5 - share], axis=1)
    np.testing.assert_allclose(runs["anneal"].weights[1], want, atol=1e-6)


def test_the_mixer_starts_uniform_stays_above_its_floor_and_learns(fast):
    weights = fast[0]["adaptive"].weights
    np.testing.assert_allclose(weights[:, 0], 0.25, rtol=1e-6)
    assert weights.min() >= 0.05 and np.abs(weights[:, -1] - 0.25).max() > 1e-4
    assert (weights[0] != weights[1]).any()  # each seed has a mixer of its own


def test_the_replayed_weights_are_the_mean_of_the_log(fast):
    runs, _ = fast
    log = runs["adaptive"].weights.mean(axis=0)
    np.testing.assert_allclose(runs["replayed"].weights, np.stack([log, log]), rtol=1e-6)


def test_the_table_prints_what_was_measured(fast):
    runs, text = fast
    lines = text.splitlines()
    for name, run in runs.items():
        line = next(line for line in lines if line.startswith(name))
        want = [*run.accuracy.mean(axis=0), run.accuracy.mean(), run.accuracy.min(axis=1).mean()]
        got = [float(number) for number in re.findall(r"\d+\.\d+", line)][::2]
        np.testing.assert_allclose(got, 100 * np.array(want), rtol=0, atol=0.00501)
    lead = next(line for line in lines[6:] if line.startswith("uniform"))
    paired = runs["adaptive"].accuracy.mean(axis=1) - runs["uniform"].accuracy.mean(axis=1)
    numbers = [float(number) for number in re.findall(r"[+-]?\d+\.\d+", lead)]
    want = [100 * paired.mean(), 100 * paired.std(ddof=1) / SEEDS**0.5]
    np.testing.assert_allclose(numbers[8:10], want, rtol=0, atol=0.00501)


def test_a_lead_is_starred_only_beyond_3_standard_errors():
    def run(lead, spread):
        accuracy = np.full((2, K), 0.5) + np.array([[lead - spread], [lead + spread]])
        return example.Run(np.full((2, 1, K), 0.25), accuracy)

    runs = {"near": run(-0.029, 0.01), "far": run(-0.031, 0.01), "adaptive": run(0.0, 0.0)}
    text = example.report(runs)
    near, far = ([ln for ln in text.splitlines() if ln.startswith(n)][1] for n in ("near", "far"))
    assert "*" not in near and far.count("*") == 6 and "+3.10 ± 1.00*" in far


def test_noise_is_added_to_the_same_images_and_no_test_image_is_trained_on():
    ids = np.arange(1000, dtype=np.float32)
    domain = {"image": np.stack([ids] * 64, axis=1), "label": (ids % 10).astype(np.int32)}
    tests, trains = example.load_sources((domain, domain), seed=0)
    for parts in (tests, trains):
        assert len(parts) == K
        for clean, noisy in zip(parts[:2], parts[2:], strict=True):
            assert (clean["label"] == noisy["label"]).all()
            gap = noisy["image"] - clean["image"]
            assert abs(gap.std() - example.NOISE) < 0.01
    for test, train in zip(tests, trains, strict=True):
        rows = [set(np.rint(part["image"].mean(axis=1)).tolist()) for part in (test, train)]
        assert len(rows[0]) == example.NUM_TEST and not rows[0] & rows[1]


@pytest.mark.parametrize("argument", ["--seeds=1", "--steps=5", "--steps=15"])
def test_sizes_that_make_no_sense_are_refused(argument, capsys):
    with pytest.raises(SystemExit):
        example.main([argument])
    assert "--seeds must be >= 2, --steps a multiple of 10" in capsys.readouterr().err
