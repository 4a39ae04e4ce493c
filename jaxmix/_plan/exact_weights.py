"""The weights of a block of steps in whole units: where the host asks a schedule for its values."""

from __future__ import annotations

import functools
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import is_concrete, need
from jaxmix._plan.counts import MAX_STEPS, to_units
from jaxmix._schedules.evaluate import call_schedule
from jaxmix._schedules.weights import TOLERANCE, check_simplex, numbers_of
from jaxmix._types import Array, ArrayLike, Schedule, Weights


def constant_units(weights: Weights) -> np.ndarray:
    """A number or an array [K] as int64 units [1, K], taken as float64."""
    need(is_concrete(weights), "weights", "known on the host, not traced", weights, TypeError)
    array = np.asarray(numbers_of(weights)).astype(np.float64)
    check_simplex("weights", array)
    return to_units(_on_simplex(array[None]))


def schedule_units(schedule: Schedule, first_step: int) -> np.ndarray:
    """The units [T, K] of a schedule from a step to the end of its block of MAX_STEPS steps.

    Only those before the first step at which its value is no weights: see `raise_bad_weights`.
    """
    values = _values(schedule, first_step)
    need(values.ndim <= 2, "a schedule's weights", "a number or an array [K]", values.shape[1:])
    flat = values.reshape(len(values), -1)
    fine = np.all((flat >= -TOLERANCE) & (flat <= 1.0 + TOLERANCE), axis=1)
    if values.ndim == 2:
        fine &= np.abs(flat.sum(axis=1) - 1.0) <= TOLERANCE
    count = len(fine) if fine.all() else int(fine.argmin())
    return to_units(_on_simplex(values[:count]))


def raise_bad_weights(schedule: Schedule, step: int) -> NoReturn:
    """Raise the ValueError of a step at which a schedule's value is no weights."""
    label, value = f"a schedule's weights at step {step}", _values(schedule, step)[0]
    check_simplex(label, value, TOLERANCE)
    raise ValueError(f"{label} must be on the simplex, got {value.tolist()}")


def _on_simplex(values: np.ndarray) -> np.ndarray:
    """Gamma [T] or weights [T, K] as float64 [T, K], none negative."""
    if values.ndim == 1:
        gamma = np.clip(values, 0.0, 1.0)
        return np.stack([gamma, 1.0 - gamma], axis=1)
    return np.maximum(values, 0.0)


def _values(schedule: Schedule, first_step: int) -> np.ndarray:
    """The schedule's float32 values from a step to the end of its block, as float64.

    Always evaluated for the whole block, by one compiled function, so that a value doesn't depend
    on which step was asked for; on the CPU, also while a step is traced for another device.
    """
    line = first_step % MAX_STEPS
    cpu = jax.local_devices(backend="cpu")[0]
    allowed = jax.transfer_guard("allow")
    with jax.ensure_compile_time_eval(), jax.default_device(cpu), allowed:
        values = np.asarray(_evaluate(schedule, np.int32(first_step - line)))
    return values[line:].astype(np.float64)


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(schedule: Schedule, first_step: ArrayLike) -> Array:
    steps = jnp.asarray(first_step) + jnp.arange(MAX_STEPS, dtype=jnp.int32)
    return jax.vmap(functools.partial(call_schedule, schedule))(steps)
