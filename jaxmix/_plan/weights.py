"""The weights of a plan as a user gives them: numbers, schedules, or either by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jax.numpy as jnp
import numpy as np

from jaxmix._checks import is_concrete, need, real_number, source_names
from jaxmix._plan.counts import to_units
from jaxmix._plan.exact_weights import _values, constant_units
from jaxmix._plan.names import by_name
from jaxmix._schedules.evaluate import call_schedule
from jaxmix._schedules.weights import TOLERANCE, check_simplex, numbers_of
from jaxmix._types import Array, ArrayLike, Schedule, Weights

PlanWeights = Weights | Mapping[str, float | Schedule]
"""What `MixPlan` takes: as `Weights`, or a number or a schedule by the name of each source."""


@dataclasses.dataclass(frozen=True, eq=False)
class JoinedWeights:
    """A schedule of weights [K] from one number or schedule a source, or from a schedule of [K].

    With `normalize` its values are divided by their sum.
    """

    parts: tuple[float | Schedule, ...] | Schedule
    normalize: bool

    def __call__(self, step: ArrayLike) -> Array:
        if callable(self.parts):
            values = call_schedule(self.parts, step)
        else:
            found = [call_schedule(p, step) if callable(p) else p for p in self.parts]
            values = jnp.stack([jnp.asarray(value, jnp.float32) for value in found])
        return values / values.sum() if self.normalize else values


def read_weights(
    weights: PlanWeights, names: Sequence[str] | None, normalize: bool
) -> tuple[np.ndarray | Schedule, Sequence[str] | None]:
    """The units [1, K] of fixed weights, or a schedule; and the names of the sources, if any.

    A dict's sources are in the order of their names, so that its own order changes no row.
    """
    need(isinstance(normalize, bool), "normalize", "True or False", normalize, TypeError)
    given: Any = weights
    if isinstance(weights, Mapping):
        need(len(weights) > 0, "weights", "of at least one source", dict(weights))
        texts = all(isinstance(name, str) for name in weights)
        need(texts, "the names of weights", "strings", list(weights), TypeError)
        names = sorted(weights) if names is None else names
        names = source_names(names, len(names))
        named = zip(names, by_name("weights", weights, names), strict=True)
        parts = [w if callable(w) else real_number(f"weights[{n!r}]", w, 0.0) for n, w in named]
        given = JoinedWeights(tuple(parts), normalize) if any(map(callable, parts)) else parts
    elif callable(weights) and normalize:
        given = JoinedWeights(weights, normalize)
    if callable(given):
        return given, names
    return _fixed_units(given, normalize), names


def _fixed_units(weights: Any, normalize: bool) -> np.ndarray:
    need(is_concrete(weights), "weights", "known on the host, not traced", weights, TypeError)
    values = np.asarray(numbers_of(weights)).astype(np.float64)
    if values.ndim != 1:
        need(not normalize, "weights", "an array [K] or by name, to be normalised", weights)
        return constant_units(values)
    total = float(values.sum())
    if values.size and np.isfinite(values).all() and values.min() >= 0.0:
        if normalize:
            need(total > 0.0, "weights", "of a positive sum", total)
            values = values / total
        elif abs(total - 1.0) > TOLERANCE:
            raise ValueError(
                f"weights must be of sum 1 (within {TOLERANCE:g}), or used with normalize=True, "
                f"got the sum {total!r}"
            )
    return constant_units(values)


def units_of(schedule: Schedule, first_step: int) -> np.ndarray:
    """The units [T, K] of a schedule from a step to the end of its block of MAX_STEPS steps.

    Only those before the first step at which its value is no weights: see `raise_bad_weights`.
    """
    values = values_of(schedule, first_step)
    need(values.ndim <= 2, "a schedule's weights", "a number or an array [K]", values.shape[1:])
    flat = values.reshape(len(values), -1)
    fine = np.all((flat >= -TOLERANCE) & (flat <= 1.0 + TOLERANCE), axis=1)
    if values.ndim == 2:
        fine &= np.abs(flat.sum(axis=1) - 1.0) <= TOLERANCE
        weights = np.maximum(values, 0.0)
    else:
        gamma = np.clip(values, 0.0, 1.0)
        weights = np.stack([gamma, 1.0 - gamma], axis=1)
    return to_units(weights if fine.all() else weights[: int(fine.argmin())])


def raise_bad_weights(schedule: Schedule, step: int) -> NoReturn:
    """Raise the ValueError of a step at which a schedule's value is no weights."""
    label, value = f"a schedule's weights at step {step}", values_of(schedule, step)[0]
    check_simplex(label, value, TOLERANCE)
    raise ValueError(f"{label} must be on the simplex, got {value.tolist()}")


def values_of(schedule: Schedule, first_step: int) -> np.ndarray:
    """The values [T] or [T, K] of a schedule from a step to the end of its block, in float64."""
    if not isinstance(schedule, JoinedWeights):
        return _values(schedule, first_step)
    if callable(schedule.parts):
        values = _values(schedule.parts, first_step)
        one = values.ndim == 2
        need(one, "a schedule's weights", "an array [K], to be normalised", values.shape[1:])
    else:
        columns: list[Any] = [_values(p, first_step) if callable(p) else p for p in schedule.parts]
        shapes = {np.shape(column) for column in columns} - {()}
        scalars = len(shapes) == 1 and len(max(shapes)) == 1
        need(scalars, "the schedule of a source", "one of scalars", sorted(shapes))
        values = np.stack(np.broadcast_arrays(*columns), axis=1)
    if not schedule.normalize:
        return values
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(values >= 0.0, values, np.nan) / values.sum(axis=1, keepdims=True)
