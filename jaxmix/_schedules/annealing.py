"""Check that a schedule anneals: 0 < gamma_0 < ... < gamma_N < 1 in small increments."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxmix._checks import need, real_number
from jaxmix._html import html_table
from jaxmix._schedules.tables import tabulate
from jaxmix._types import Schedule


@dataclasses.dataclass(frozen=True)
class AnnealingReport:
    """The values of gamma over steps 0 .. N in short, as plain Python numbers.

    `annealing_report` returns it.

    Attributes:
      first, last: gamma at step 0 and at step N.
      min, max: the smallest and the largest gamma.
      direction: "rising", "falling", "constant" or "mixed".
      strict: True if every step changes gamma, all in one direction.
      interior: True if gamma is inside (0, 1) at every step.
      max_increment: the largest `abs(gamma_{t+1} - gamma_t)`; 0 for a single step.
      max_increment_step: the first t at which it occurs.
    """

    first: float
    last: float
    min: float
    max: float
    direction: str
    strict: bool
    interior: bool
    max_increment: float
    max_increment_step: int

    def _repr_html_(self) -> str:
        return html_table("AnnealingReport", [], dataclasses.asdict(self).items())


def annealing_report(schedule: Schedule, num_steps: int) -> AnnealingReport:
    """Describe the float32 values of gamma at steps 0 .. num_steps - 1.

    They are the values that a training step sees.

    Args:
      schedule: a schedule of gamma (scalars), optax's included.
      num_steps: `>= 1`.

    Returns:
      An `AnnealingReport`.

    Raises:
      ValueError: a schedule whose value is not a scalar, or is not finite; the message names the
        step.

    Example:
      >>> import jaxmix
      >>> report = jaxmix.annealing_report(jaxmix.make_schedule(5, 0.25, 0.75), num_steps=5)
      >>> report.direction, report.strict, report.interior, report.max_increment
      ('rising', True, True, 0.125)
    """
    gamma = _values(schedule, num_steps)
    moves = np.diff(gamma)
    rises, falls = bool(np.any(moves > 0)), bool(np.any(moves < 0))
    sizes = np.abs(moves) if moves.size else np.zeros(1)
    largest = int(sizes.argmax())
    return AnnealingReport(
        first=float(gamma[0]),
        last=float(gamma[-1]),
        min=float(gamma.min()),
        max=float(gamma.max()),
        direction=_DIRECTIONS[rises, falls],
        strict=bool(np.all(moves > 0) or np.all(moves < 0)),
        interior=bool(np.all((gamma > 0) & (gamma < 1))),
        max_increment=float(sizes[largest]),
        max_increment_step=largest,
    )


def check_annealing(
    schedule: Schedule,
    num_steps: int,
    *,
    max_increment: float | None = None,
    strict: bool = True,
    interior: bool = True,
) -> None:
    """Raise unless gamma anneals over steps 0 .. num_steps - 1, rising or falling.

    Gamma must fall at every step if its last value is below its first, and rise otherwise.

    Args:
      schedule: a schedule of gamma (scalars), optax's included.
      num_steps: `>= 1`.
      max_increment: the bound of ``abs(gamma_{t+1} - gamma_t)``; None for no bound. Two units in
        the last place of the largest float32 gamma are allowed on top, for rounding.
      strict: True: gamma must change at every step. False: it may also stay the same.
      interior: True: gamma must be inside (0, 1) at every step. False: 0 and 1 are allowed.

    Raises:
      ValueError: a rule is broken; the message names the first such step. Also as for
        `annealing_report`.

    Example:
      >>> import jaxmix
      >>> gamma = jaxmix.make_schedule(11, start=0.1, end=0.9, kind="cosine")
      >>> jaxmix.check_annealing(gamma, 11, max_increment=0.2)
      >>> jaxmix.check_annealing(gamma, 12)
      Traceback (most recent call last):
      ...
      ValueError: schedule at step 11 must be strictly above the step before (0.9), got 0.9
    """
    gamma = _values(schedule, num_steps)
    check_gamma("schedule", gamma, 0, max_increment, strict, interior)


def check_gamma(
    name: str,
    gamma: np.ndarray,
    first_step: int,
    max_increment: float | None = None,
    strict: bool = True,
    interior: bool = True,
) -> None:
    """`check_annealing` for known values [T], the first of which is the value at `first_step`."""
    moves = np.diff(gamma)
    changes = [gamma[-1] - gamma[0], *moves]
    falls = next((change < 0 for change in changes if change != 0), False)
    side, sign = ("below", -1) if falls else ("above", 1)
    least = f"strictly {side}" if strict else f"equal to or {side}"
    rules = {f"{least} the step before ({{}})": sign * moves > 0 if strict else sign * moves >= 0}
    if interior:
        rules["inside (0, 1)"] = (gamma > 0) & (gamma < 1)
    else:
        rules["in [0, 1]"] = (gamma >= 0) & (gamma <= 1)
    if max_increment is not None:
        eps = real_number("max_increment", max_increment, 0.0)
        rounding = 2 * np.spacing(np.float32(np.abs(gamma).max()))
        rules[f"within {max_increment} of the step before ({{}})"] = np.abs(moves) <= eps + rounding
    # Rules about a step and the one before it start at step 1.
    first = {rule: _first_false(ok) + len(gamma) - len(ok) for rule, ok in rules.items()}
    rule = min(first, key=lambda rule: first[rule])
    line = first[rule]
    if line < len(gamma):
        needed, got = rule.format(_shown(gamma[line - 1])), _shown(gamma[line])
        raise ValueError(f"{name} at step {first_step + line} must be {needed}, got {got}")


_DIRECTIONS = {
    (False, False): "constant",
    (True, False): "rising",
    (False, True): "falling",
    (True, True): "mixed",
}


def _values(schedule: Schedule, num_steps: int) -> np.ndarray:
    """gamma at each step, float32 values in float64 so that their differences are exact."""
    gamma = np.asarray(tabulate(schedule, num_steps), np.float64)
    need(gamma.ndim == 1, "schedule", "a schedule of gamma (scalars)", f"shape {gamma.shape[1:]}")
    step = _first_false(np.isfinite(gamma))
    need(step == num_steps, f"schedule at step {step}", "finite", float(gamma[step - num_steps]))
    return gamma


def _first_false(ok: np.ndarray) -> int:
    """The index of the first False; the length if there is none."""
    return len(ok) if ok.all() else int(ok.argmin())


def _shown(value: np.float64) -> float:
    """The shortest number that is this float32: 0.9, not 0.8999999761581421."""
    return float(str(np.float32(value)))
