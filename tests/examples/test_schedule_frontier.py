"""The experiment on schedules and learning rates: its budgets, its table, the text in the docs."""

import contextlib
import io
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import schedule_frontier as example

DOCS = Path(__file__).parents[2] / "docs" / "images" / "schedule_frontier.txt"
STEPS, SEEDS = 20, 2  # of --fast


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    out = tmp_path_factory.mktemp("frontier") / "new folder" / "picture.png"
    standard = jax.numpy_dtype_promotion("standard")  # optax's adam knows no strict promotion
    with standard, contextlib.redirect_stdout(io.StringIO()) as text:
        runs = example.main(["--fast", "--out", str(out)])
    return runs, text.getvalue(), out


def table_lines(text):
    return [line for line in text.splitlines() if "±" in line and not line.startswith("Mean")]


@pytest.mark.parametrize("num_steps", [20, 600])
def test_mixes_of_one_budget_have_the_same_number_of_rows(num_steps):
    for mix, share in example.mixes(num_steps).items():
        mean = np.mean([float(share(step)) for step in range(num_steps)])
        expected = 0.5 if example.reference_of(mix) == "half and half" else 0.9
        # A cosine over T steps starts at its first value and stops a step before its last.
        assert abs(mean - expected) <= 0.5 / num_steps + 1e-6, mix


def test_the_peak_multiplies_a_learning_rate_of_at_most_1():
    for course in example.learning_rates(600).values():
        rates = np.array([float(course(step)) for step in range(600)])
        assert rates.max() == 1.0 and rates.min() >= 0.0


def test_every_run_is_trained_and_scored(fast):
    runs, _, out = fast
    courses, mixes = example.learning_rates(STEPS), example.mixes(STEPS)
    assert set(runs) == {(c, p, m) for c in courses for p in example.PEAKS for m in mixes}
    assert set(mixes) == set(example.COLOURS)
    for scores in runs.values():
        assert scores.shape == (2, SEEDS) and np.all((scores >= 0) & (scores <= 100))
    assert len({scores.tobytes() for scores in runs.values()}) == len(runs)  # no run is another's
    assert out.exists()


def test_the_table_prints_what_was_measured(fast):
    runs, text, out = fast
    assert out.with_suffix(".txt").read_text().strip() in text
    lines = table_lines(text)
    assert len(lines) == len(runs)
    for line, ((course, peak, mix), scores) in zip(lines, runs.items(), strict=True):
        assert line.startswith(course) and f" {peak:g} " in line and mix in line
        printed = [float(n) for n in re.findall(r"([+-]?\d+\.\d+) ±", line)]
        leads = scores - runs[course, peak, example.reference_of(mix)]
        means = [*scores.mean(axis=1), *(leads.mean(axis=1) if len(printed) == 4 else ())]
        np.testing.assert_allclose(printed, means, rtol=0, atol=0.0501)
        assert (len(printed) == 2) == (mix == example.reference_of(mix))


def test_a_lead_is_starred_only_beyond_3_standard_errors():
    def scores(accuracy, lead, spread):  # two seeds: the standard error is the spread
        return np.full((2, 1), accuracy) + np.array([lead - spread, lead + spread])

    runs = {
        ("constant", 0.01, mix): scores(50.0, *lead)
        for mix, lead in (("half and half", (0, 0)), ("glide", (2.9, 1)), ("glide back", (3.1, 1)))
    }
    near, far = table_lines(example.report(runs))[1:]
    assert "+2.90 ± 1.00" in near and "*" not in near
    assert far.count("+3.10 ± 1.00*") == 2


def test_the_table_in_the_docs_is_a_whole_run_of_at_least_20_seeds():
    text = DOCS.read_text()
    assert int(re.match(r"(\d+) seeds, 600 updates", text)[1]) >= 20
    lines = table_lines(text)
    keys = {(c, p, m) for c in example.learning_rates(600) for p in example.PEAKS
            for m in example.mixes(600)}  # fmt: skip
    assert len(lines) == len(keys)


def leads(mix):
    """{(course, peak): [(lead, is clear) on digits, and on MNIST]} of a mix in the docs' table."""
    found = {}
    for line in table_lines(DOCS.read_text()):
        name = re.search(rf"^(.*?)\s+({'|'.join(f'{p:g}' for p in example.PEAKS)})\s+{mix}  ", line)
        if name:
            numbers = re.findall(r"([+-]\d+\.\d+) ± \d+\.\d+(\*?)", line)
            found[name[1], name[2]] = [(float(lead), star == "*") for lead, star in numbers]
    assert len(found) == 9
    return found


def spoken(count):
    return "none one two three four five six seven eight nine".split()[count]


def test_the_page_says_what_its_table_shows():
    text = " ".join((DOCS.parents[1] / "frontier.md").read_text().split())
    switch, glide, back, late_switch, late = (
        leads(mix)
        for mix in ("switch at 1/2", "glide", "glide back", "switch at 9/10", "late glide")
    )

    def digits(runs):
        return [run[0] for run in runs.values()]

    def clear(found):
        return spoken(sum(star for _, star in found))

    ahead = spoken(sum(lead > 0 for lead, _ in digits(switch)))
    most = max(lead for lead, _ in digits(switch))
    cost = sorted(-run[1][0] for run in switch.values())
    said = f"on digits in {ahead} of nine runs, clearly in {clear(digits(switch))}"
    assert f"{said}, by up to {most:.1f} points" in text
    assert f"It costs {cost[0]:.0f} to {cost[-1]:.0f} points on MNIST" in text

    gain = sorted(lead for lead, _ in digits(glide))
    cost = sorted(-run[1][0] for run in glide.values())
    said = (
        f"by {gain[0]:.1f} to {gain[-1]:.1f} points, clearly in {clear(digits(glide))} of nine runs"
    )
    assert said in text
    mnist = clear([run[1] for run in glide.values()])
    assert f"It costs {cost[0]:.1f} to {cost[-1]:.1f} points on MNIST, clearly in {mnist}." in text

    constant = sorted(run[0][0] for (course, _), run in late.items() if course == "constant")
    assert f"tenths by {constant[0]:.0f} to {constant[-1]:.0f} points on digits" in text
    cosine = [
        run[0]
        for runs in (late, late_switch)
        for (course, _), run in runs.items()
        if "cos" in course
    ]
    assert all(lead < 0 for lead, _ in cosine) and sum(not star for _, star in cosine) == 1
    assert "trail nine tenths on digits at each peak, all but one clearly" in text

    assert all(lead < 0 for lead, _ in digits(back))
    assert f"on digits in all nine runs, clearly in {clear(digits(back))}" in text
    (gain, is_clear), (loss, _) = glide["stable, then to 0", "0.01"]
    assert not is_clear and f"as good on digits as the glide, and {-loss:.1f} points better" in text


@pytest.mark.parametrize("argument", ["--seeds=1", "--steps=9", "--labels=0", "--labels=1198"])
def test_sizes_that_make_no_sense_are_refused(argument, capsys):
    with pytest.raises(SystemExit):
        example.main([argument])
    assert "must be >= 2" in capsys.readouterr().err
