"""The pictures: their lines are the numbers, and their names can be read."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

import jaxmix
from jaxmix import MixPlan, plot_schedules, preview


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def texts(ax):
    return {text.get_text(): text for text in ax.texts}


def assert_readable(ax):
    """No two names overlap, none is outside the figure, none is tiny."""
    ax.figure.canvas.draw()
    found = (Text.get_window_extent(text) for text in ax.texts)  # without the leader
    boxes = sorted(found, key=lambda box: box.y0)
    for below, above in itertools.pairwise(boxes):
        assert above.y0 >= below.y0 + 0.7 * below.height
    for box in boxes:
        assert box.x1 <= ax.figure.bbox.x1 and box.x0 >= ax.bbox.x1
        assert box.y0 >= ax.bbox.y0 - box.height and box.y1 <= ax.bbox.y1 + box.height
    assert min(text.get_fontsize() for text in ax.texts) >= 5


def test_the_bands_are_the_planned_shares():
    weights = jaxmix.staged_schedule({0: [0.8, 0.2, 0.0], 400: [0.2, 0.2, 0.6]}, ramp_steps=100)
    seen = preview(MixPlan(weights, 8), 700, names=["web", "code", "maths"], lengths=[900, 2000, 9])
    ax = seen.plot()
    tops = {line.get_label(): line for line in ax.lines}
    steps = tops["web"].get_xdata()
    assert steps[0] == 0 and len(steps) == 500
    wanted = np.asarray(jaxmix.tabulate(weights, 700)).cumsum(axis=1)
    wanted = np.array([part.mean(axis=0) for part in np.split(wanted, steps[1:])])
    for k, name in enumerate(["web", "code", "maths"]):
        np.testing.assert_allclose(tops[name].get_ydata(), 100 * wanted[:, k], atol=1e-3)
    rings = [line for line in ax.lines if line.get_marker() == "o"]
    assert [int(ring.get_xdata()[0]) for ring in rings] == [seen.runs_out[0], seen.runs_out[2]]
    at = int(rings[0].get_xdata()[0])
    assert rings[0].get_ydata()[0] == pytest.approx(50 * np.interp(at, steps, wanted[:, 0]), abs=1)
    assert ax.get_xlabel() == "step" and ax.get_ylabel() == "share of the batch, %"
    assert "begin again" in ax.get_title(loc="right")
    counted = [f"{name}, {seen.epochs[k]:.4g} epochs" for k, name in ((0, "web"), (2, "maths"))]
    assert {"code", *counted} <= set(texts(ax)) and seen.epochs[2] > 100
    assert len({band.get_facecolor().tobytes() for band in ax.collections}) == 3


@pytest.mark.parametrize("num_sources", [1, 2, 8, 35])
def test_the_names_can_be_read_for_many_sources(num_sources):
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(num_sources, 0.3))
    names = [f"language {k}" for k in range(num_sources)]
    assert_readable(preview(MixPlan(weights, 64), 50, names=names).plot())
    assert_readable(plot_schedules({"w": weights}, 50))


def test_of_a_hundred_sources_the_largest_are_named():
    weights = np.arange(1, 101) / 5050
    names = [rf"$\no such {k}$" for k in range(100)]  # no formula, and no crash
    for ax in (
        preview(MixPlan(weights, 64), 50, names=names).plot(),
        plot_schedules(dict(zip(names, weights, strict=True)), 50),
    ):
        assert_readable(ax)
        shown = set(texts(ax))
        assert 30 < len(shown) < 100 and shown == set(names[-len(shown) :])


def test_the_lines_are_the_values_of_the_schedules():
    curves = {
        "cosine": jaxmix.cosine_schedule(0.1, 0.9, 3000),
        "fixed": 0.25,
        "switch": jaxmix.staged_schedule({0: 0.0, 2999: 1.0}),
    }
    ax = plot_schedules(curves, 3000)
    assert [line.get_label() for line in ax.lines] == list(curves)
    for line, schedule in zip(ax.lines, curves.values(), strict=True):
        steps = line.get_xdata()
        assert steps[0] == 0 and steps[-1] == 2999 and len(steps) == 1000
        values = np.asarray(jaxmix.tabulate(schedule, 3000))[steps] if callable(schedule) else 0.25
        np.testing.assert_array_equal(line.get_ydata(), np.broadcast_to(values, 1000))
    assert set(texts(ax)) == set(curves)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "gamma")
    assert_readable(ax)


def test_weights_have_a_line_a_source():
    ax = plot_schedules({"mix": jaxmix.staged_schedule({0: [0.7, 0.3], 5: [0.4, 0.6]})}, 10)
    assert [line.get_label() for line in ax.lines] == ["mix 0", "mix 1"]
    assert ax.lines[1].get_ydata()[-1] == np.float32(0.6)
    assert ax.get_ylabel() == "weight"
    assert plot_schedules({"one": [1.0]}, 10).get_ylabel() == "weight"


def test_they_are_drawn_where_one_wishes():
    figure, (left, right) = plt.subplots(1, 2, layout="constrained")
    assert plot_schedules({"a": 0.5}, 1, ax=left) is left
    assert preview(MixPlan(0.5, 4), 1).plot(ax=right) is right
    assert plt.get_fignums() == [figure.number]


def test_what_is_no_schedule_is_refused():
    for schedules in ({}, 0.5, [0.5]):
        with pytest.raises(TypeError, match="schedules must be a dict"):
            plot_schedules(schedules, 10)
    with pytest.raises(ValueError, match="num_steps must be >= 1"):
        plot_schedules({"a": 0.5}, 0)
    for value in (None, 1 + 2j, "x"):
        with pytest.raises(TypeError, match="weights must be a number"):
            plot_schedules({"a": value}, 10)
    for value in (np.nan, lambda step: step / 0.0):
        with pytest.raises(ValueError, match=r"schedules\['a'\] must be finite"):
            plot_schedules({"a": value}, 10)
    with pytest.raises(ValueError, match="schedules must be of different names in the picture"):
        plot_schedules({"mix": [0.5, 0.5], "mix 1": 0.3}, 10)
    with pytest.raises(ValueError, match=r"schedules\['a'\] must be of numbers or \[K\]"):
        plot_schedules({"a": np.zeros((2, 2))}, 10)
