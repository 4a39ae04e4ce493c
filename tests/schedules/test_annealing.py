"""The conditions on gamma: reported as they are, refused at the first step that breaks one."""

import dataclasses
import math

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmix import (
    AnnealingReport,
    annealing_report,
    check_annealing,
    complement_schedule,
    cosine_schedule,
    make_schedule,
    staged_schedule,
    table_schedule,
)

RISING = table_schedule([0.125, 0.25, 0.5, 0.625])


def test_the_report_is_plain_numbers():
    report = annealing_report(RISING, 4)
    assert report == AnnealingReport(
        first=0.125,
        last=0.625,
        min=0.125,
        max=0.625,
        direction="rising",
        strict=True,
        interior=True,
        max_increment=0.25,
        max_increment_step=1,
    )
    kinds = {field.name: type(getattr(report, field.name)) for field in dataclasses.fields(report)}
    assert set(kinds.values()) == {float, int, bool, str}
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.first = 0.0


@pytest.mark.parametrize(
    ("values", "direction", "strict", "interior", "increment", "at"),
    [
        ([0.5], "constant", True, True, 0.0, 0),
        ([0.5, 0.5], "constant", False, True, 0.0, 0),
        ([0.75, 0.5, 0.25], "falling", True, True, 0.25, 0),
        ([0.25, 0.25, 0.5], "rising", False, True, 0.25, 1),
        ([0.25, 0.5, 0.125], "mixed", False, True, 0.375, 1),
        ([0.0, 0.5], "rising", True, False, 0.5, 0),
        ([0.5, 1.0], "rising", True, False, 0.5, 0),
        ([-0.5, 1.5], "rising", True, False, 2.0, 0),
    ],
)
def test_every_field_follows_from_the_values(values, direction, strict, interior, increment, at):
    report = annealing_report(table_schedule(values), len(values))
    assert (report.first, report.last) == (values[0], values[-1])
    assert (report.min, report.max) == (min(values), max(values))
    assert (report.direction, report.strict, report.interior) == (direction, strict, interior)
    assert (report.max_increment, report.max_increment_step) == (increment, at)


@hypothesis.given(
    eighths=st.lists(st.integers(0, 8), min_size=1, max_size=6),
    strict=st.booleans(),
    interior=st.booleans(),
    eps=st.sampled_from([None, 0.25, 0.5]),
)
def test_the_report_and_the_check_agree(eighths, strict, interior, eps):
    gamma, steps = table_schedule(np.array(eighths) / 8), len(eighths)
    report = annealing_report(gamma, steps)
    good = report.strict if strict else report.direction != "mixed"
    good &= report.interior or not interior
    good &= eps is None or report.max_increment <= eps
    if good:
        check_annealing(gamma, steps, strict=strict, interior=interior, max_increment=eps)
    else:
        with pytest.raises(ValueError, match=r"^schedule at step \d must be"):
            check_annealing(gamma, steps, strict=strict, interior=interior, max_increment=eps)


@pytest.mark.parametrize(
    ("values", "rules", "message"),
    [
        ([0.25, 0.5, 0.5], {}, r"step 2 must be strictly above the step before \(0.5\), got 0.5"),
        ([0.5, 0.25, 0.3], {}, r"step 2 must be strictly below the step before \(0.25\), got 0.3"),
        ([0.5, 0.5], {}, r"step 1 must be strictly above the step before \(0.5\), got 0.5"),
        (
            [0.3, 0.3, 0.2, 0.2, 0.25],
            {"strict": False},
            r"step 4 must be equal to or below the step before \(0.2\), got 0.25",
        ),
        # It ends below its start, so it counts as falling, whatever its first change is.
        ([0.5, 0.6, 0.4], {}, r"step 1 must be strictly below the step before \(0.5\), got 0.6"),
        ([0.5, 1.5], {"interior": False}, r"step 1 must be in \[0, 1\], got 1.5"),
        ([1.5, 0.5], {"interior": False}, r"step 0 must be in \[0, 1\], got 1.5"),
        ([0.5, -0.25], {"interior": False}, r"step 1 must be in \[0, 1\], got -0.25"),
        ([0.0, 0.5], {}, r"step 0 must be inside \(0, 1\), got 0.0"),
        ([0.5, 0.9, 1.0], {}, r"step 2 must be inside \(0, 1\), got 1.0"),
        (
            [0.1, 0.2, 0.9],
            {"max_increment": 0.1},
            r"step 2 must be within 0.1 of the step before \(0.2\), got 0.9",
        ),
        # Of several broken rules the first step counts: here the jump, before the end at 1.
        ([0.1, 0.8, 0.7, 1.0], {"max_increment": 0.5}, r"step 1 must be within 0.5 .*"),
    ],
)
def test_the_first_step_that_breaks_a_rule_is_named(values, rules, message):
    with pytest.raises(ValueError, match=f"^schedule at {message}$"):
        check_annealing(table_schedule(values), len(values), **rules)


def test_rising_and_falling_pass_and_so_does_the_complement():
    gamma = cosine_schedule(0.01, 0.99, 99)
    for schedule in (gamma, complement_schedule(gamma), optax.linear_schedule(0.9, 0.1, 99)):
        check_annealing(schedule, 100, max_increment=0.017)


def test_rules_can_be_lifted_one_by_one():
    check_annealing(table_schedule([0.0, 0.5, 1.0]), 3, interior=False)
    check_annealing(table_schedule([1.0, 0.5, 0.0]), 3, interior=False)
    rest = staged_schedule({0: 0.0, 5: 0.5})
    check_annealing(rest, 10, strict=False, interior=False)
    with pytest.raises(ValueError, match="strictly above"):
        check_annealing(rest, 10, interior=False)
    with pytest.raises(ValueError, match="inside"):
        check_annealing(rest, 10, strict=False)


def test_an_increment_is_bounded_to_float32_rounding_and_no_further():
    for steps in (10, 1000, 10**6):
        linear = make_schedule(steps + 1)
        rules = {"strict": False, "interior": False}
        check_annealing(linear, steps + 1, max_increment=1 / steps, **rules)
    with pytest.raises(ValueError, match=r"within 0\.0999"):
        check_annealing(make_schedule(11), 11, max_increment=0.0999, interior=False)


def test_a_million_steps_are_looked_at_to_the_last():
    gamma = staged_schedule({0: 0.25, 999_999: 0.5})
    report = annealing_report(gamma, 10**6)
    assert (report.max_increment_step, report.last) == (999_998, 0.5)
    assert annealing_report(gamma, 999_999).direction == "constant"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: f(RISING, 0), ValueError, "num_steps must be >= 1"),
        (lambda f: f(RISING, 2.0), TypeError, "num_steps must be an integer"),
        (lambda f: f(0.5, 3), TypeError, "schedule must be callable"),
        (
            lambda f: f(table_schedule([[0.5, 0.5]]), 3),
            ValueError,
            "schedule must be a schedule of gamma",
        ),
        (
            lambda f: f(lambda step: jnp.where(step < 3, 0.5, jnp.nan), 9),
            ValueError,
            "schedule at step 3 must be finite, got nan",
        ),
    ],
)
def test_what_has_no_gamma_is_refused(call, error, message):
    for function in (annealing_report, check_annealing):
        with pytest.raises(error, match=message):
            call(function)


def test_a_negative_bound_is_refused():
    for bound in (-0.1, math.nan):
        with pytest.raises(ValueError, match="max_increment must be in"):
            check_annealing(RISING, 4, max_increment=bound)
