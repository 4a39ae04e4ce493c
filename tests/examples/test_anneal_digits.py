"""The main example, end to end on its real data: what it prints and draws is what it measured."""

import contextlib
import io
import re
import socket
from pathlib import Path

import anneal_digits as example
import jax
import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest

MIXES = ["MNIST only", "digits only", "half and half", "hard switch", "anneal"]
STEPS, SEEDS = 40, 2  # of --fast


def run_fast(out: Path):
    """The runs and the printed text of one --fast run."""
    standard = jax.numpy_dtype_promotion("standard")  # optax's adam knows no strict promotion
    with standard, contextlib.redirect_stdout(io.StringIO()) as text:
        runs = example.main(["--fast", "--out", str(out)])
    return runs, text.getvalue()


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    def refuse(*args, **kwargs):
        raise AssertionError("the example reached for the network")

    out = tmp_path_factory.mktemp("example") / "new folder" / "picture.png"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        runs, text = run_fast(out)
    return runs, text, out


def test_every_mix_is_trained_and_scored_without_the_network(fast):
    runs, _, _ = fast
    assert list(runs) == MIXES
    for run in runs.values():
        assert run.planned.shape == (STEPS,) and run.share.shape == (STEPS, SEEDS)
        assert run.updates[0] == 0 and run.updates[-1] == STEPS
        for scores in (run.digits, run.mnist):
            assert scores.shape == (len(run.updates), SEEDS)
            assert np.all((scores >= 0) & (scores <= 1))  # NaN fails


def test_planned_share_is_the_closed_form(fast):
    runs, _, _ = fast
    step = np.arange(STEPS)
    expected = [
        0 * step + 1,
        0 * step,
        0 * step + 0.5,
        step < 20,
        (1 + np.cos(np.pi * step / 40)) / 2,
    ]
    for run, gamma in zip(runs.values(), expected, strict=True):
        np.testing.assert_allclose(run.planned, gamma, rtol=0, atol=2**-23)


@pytest.mark.parametrize("name", MIXES)
def test_realised_share_is_within_4_sigma_of_planned_in_each_quarter(fast, name):
    run = fast[0][name]
    for quarter in np.split(np.arange(STEPS), 4):
        gamma = run.planned[quarter].astype(np.float64)
        rows = example.BATCH * SEEDS
        sigma = np.sqrt(np.sum(gamma * (1 - gamma)) * rows)
        taken = run.share[quarter].sum() * example.BATCH
        assert abs(taken - gamma.sum() * rows) <= 4 * sigma + 1e-3  # rows; sigma is 0 at 0 and 1


def test_learning_on_one_domain_carries_over_to_the_other(fast):
    """Chance is 0.1, and each domain alone does better at home."""
    runs, _, _ = fast
    sigma = np.sqrt(0.1 * 0.9 / (SEEDS * example.DIGITS_TEST))
    assert runs["MNIST only"].digits[-1].mean() > 0.1 + 10 * sigma
    assert runs["MNIST only"].mnist[-1].mean() > runs["digits only"].mnist[-1].mean()
    assert runs["digits only"].digits[-1].mean() > runs["MNIST only"].digits[-1].mean()


def test_the_table_prints_what_was_measured(fast):
    runs, text, _ = fast
    lines = {
        name: next(line for line in text.splitlines() if line.startswith(name)) for name in MIXES
    }
    for name, line in lines.items():
        numbers = [float(n) for n in re.findall(r"[+-]?\d+\.\d+", line)]
        run, anneal = runs[name], runs["anneal"]
        means = [run.digits[-1], run.mnist[-1], run.planned, run.share]
        means += [anneal.digits[-1] - run.digits[-1], anneal.mnist[-1] - run.mnist[-1]]
        printed = [numbers[i] for i in (0, 2, 4, 5, 6, 8)]
        np.testing.assert_allclose(printed, [100 * m.mean() for m in means], rtol=0, atol=0.0501)


def test_a_lead_is_starred_only_beyond_3_standard_errors():
    def run(accuracy, lead, spread):  # two seeds, lead +- spread: the standard error is the spread
        scores = np.array([[accuracy - lead - spread, accuracy - lead + spread]])
        return example.Run(np.array([0.5]), np.array([[0.5, 0.5]]), np.array([1]), scores, scores)

    runs = {
        "anneal": run(0.5, 0.0, 0.0),
        "near": run(0.5, 0.029, 0.01),
        "far": run(0.5, 0.031, 0.01),
    }
    text = example.report(runs)
    near, far, anneal = (
        next(line for line in text.splitlines() if line.startswith(name))
        for name in ("near", "far", "anneal")
    )
    assert near.count("*") == 0 and far.count("*") == 2 and anneal.count("*") == 0
    assert "+2.9 ± 1.0" in near and "+3.1 ± 1.0*" in far
    assert "Highest mean on digits: anneal; on MNIST: anneal." in text


def test_the_picture_shows_every_mix_in_its_colour(fast):
    pixels = np.rint(matplotlib.image.imread(fast[2])[..., :3] * 255).astype(int)
    assert pixels.shape == (1040, 1690, 3)
    for colour in example.COLOURS.values():
        wanted = np.rint(255 * np.array(matplotlib.colors.to_rgb(colour))).astype(int)
        assert np.sum(np.all(pixels == wanted, axis=-1)) > 300


def test_a_second_run_is_bit_equal_also_with_fewer_mixes(fast, tmp_path, monkeypatch):
    gammas = example.mixes(STEPS)
    monkeypatch.setattr(example, "mixes", lambda num_steps: {"anneal": gammas["anneal"]})
    again, _ = run_fast(tmp_path / "again.png")
    for one, two in zip(fast[0]["anneal"], again["anneal"], strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_domains_are_real_and_comparable():
    mnist, digits = example.load_domains()
    assert np.bincount(mnist["label"]).tolist() == [500] * 10
    assert mnist["image"].shape == (5000, 64) and digits["image"].shape == (1797, 64)
    for domain in (mnist, digits):
        assert np.all(domain["image"].max(axis=1) == 1.0) and domain["image"].min() == 0.0
    assert abs(float(mnist["image"].mean()) - float(digits["image"].mean())) < 0.02


def test_split_shares_no_image_and_balances_the_labels():
    ids = np.arange(1000)
    rng = np.random.default_rng(0)
    test, train = example.split(rng, {"image": ids, "label": ids % 7}, 600, 21)
    assert not set(test["image"].tolist()) & set(train["image"].tolist())
    assert len(set(test["image"].tolist())) == 600 and len(set(train["image"].tolist())) == 21
    assert np.bincount(train["label"]).tolist() == [3] * 7


@pytest.mark.parametrize("argument", ["--seeds=1", "--steps=1", "--labels=0", "--labels=1198"])
def test_sizes_that_make_no_sense_are_refused(argument, capsys):
    with pytest.raises(SystemExit):
        example.main([argument])
    assert "must be >= 2" in capsys.readouterr().err
