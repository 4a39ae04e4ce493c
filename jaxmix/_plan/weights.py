"""The weights that a user passes to a plan: numbers, schedules, or either by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmix._checks import is_concrete, need, real_number, source_names
from jaxmix._plan.exact_weights import PlannedSchedule, constant_units
from jaxmix._plan.names import by_name
from jaxmix._schedules.evaluate import Formula
from jaxmix._schedules.weights import numbers_of
from jaxmix._types import Array, Schedule, Weights

PlanWeights = Weights | Mapping[str, float | Schedule]
"""The weights of a `MixPlan`: `Weights`, or a dict with a number or a schedule for each name."""


def read_weights(
    weights: PlanWeights, names: Sequence[str] | None, normalize: bool
) -> tuple[np.ndarray | PlannedSchedule, Sequence[str] | None]:
    """The units [1, K] of fixed weights, or a schedule; and the names of the sources, if any.

    The sources of a dict are sorted by name, so that the order of the dict changes no row.
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
        join = _joined_and_normalised if normalize else _joined
        given = Formula(join, tuple(parts)) if any(map(callable, parts)) else parts
    elif callable(weights) and normalize:
        given = Formula(_normalised, (weights,))
    if callable(given):
        return PlannedSchedule(given), names
    return _fixed_units(given, normalize), names


def _fixed_units(weights: Any, normalize: bool) -> np.ndarray:
    need(is_concrete(weights), "weights", "known on the host, not traced", weights, TypeError)
    if not normalize:
        return constant_units(weights)
    values = np.asarray(numbers_of(weights)).astype(np.float64)
    array = values.ndim == 1
    need(array, "weights", "an array [K] or a dict by name, to be normalised", values.tolist())
    fine = values.size > 0 and np.isfinite(values).all() and values.min() >= 0.0
    need(bool(fine), "weights", "finite and >= 0", values.tolist())
    need(float(values.sum()) > 0.0, "weights", "of a positive sum", 0.0)
    return constant_units(values / values.sum())


def _joined(step: Array, *values: Array | float) -> Array:
    for value in values:
        shape = np.shape(value)
        need(shape == (), "the schedule of a source", "a schedule of scalars", shape)
    return jnp.stack([jnp.asarray(value, jnp.float32) for value in values])


def _joined_and_normalised(step: Array, *values: Array | float) -> Array:
    return _normalised(step, _joined(step, *values))


def _normalised(step: Array, weights: Array) -> Array:
    """Weights divided by their sum; NaN, which a plan refuses, if one is negative or all are 0."""
    need(weights.ndim == 1, "a schedule's weights", "an array [K], to be normalised", weights.shape)
    return jnp.where((weights >= 0.0).all(), weights, jnp.nan) / weights.sum()
