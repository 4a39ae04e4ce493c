"""The weights of a block of steps in whole units: where the host asks a schedule for its values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import numpy as np

from jaxmix._checks import is_concrete, need, shown
from jaxmix._plan.counts import MAX_STEPS, to_units
from jaxmix._schedules.evaluate import (
    call_each,
    compiled,
    compiled_values,
    float32_of,
    plain_values,
)
from jaxmix._schedules.schedule_errors import check_schedule
from jaxmix._schedules.weights import are_weights, check_simplex, numbers_of
from jaxmix._types import Schedule, Weights

KEPT_BLOCKS = 4
"""The blocks whose values are kept of a schedule in plain Python."""


def constant_units(weights: Weights) -> np.ndarray:
    """A number or an array [K] as int64 units [1, K], taken as float64."""
    array = numbers_of(weights)
    need(is_concrete(array), "weights", "known on the host, not traced", weights, TypeError)
    array = np.asarray(array)
    wide = array.astype(np.float64) if array.dtype.itemsize >= 4 else float32_of(array)
    check_simplex("weights", wide)
    return to_units(_on_simplex(wide.astype(np.float64)[None]))


class PlannedSchedule:
    """A schedule as one plan reads it, a block of MAX_STEPS steps at a time.

    It is compiled once, for the plan. A schedule that can't be traced is called step by step.
    """

    def __init__(self, schedule: Schedule):
        check_schedule(schedule, "weights")
        self.schedule = schedule
        self._kept: dict[int, np.ndarray] = {}
        self._function = compiled(call_each, schedule)
        self._is_plain = False

    def __call__(self, step: Any) -> Any:
        return self.schedule(step)

    def __getstate__(self) -> dict[str, Any]:
        return {"schedule": self.schedule}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["schedule"])

    def values(self, first_step: int) -> np.ndarray:
        """The float32 values from a step to the end of its block, as float64.

        Always evaluated for the whole block, so that a value doesn't depend on which step was asked
        for; on the CPU, also while a step is traced for another device. A step at which a schedule
        in plain Python raises has NaN.
        """
        line = first_step % MAX_STEPS
        block = first_step - line
        values = self._kept.get(block)
        if values is None:
            values = self._values(block + np.arange(MAX_STEPS))
            if self._is_plain:
                self._kept[block] = values
                if len(self._kept) > KEPT_BLOCKS:
                    self._kept.pop(next(iter(self._kept)), None)
        return values[line:].astype(np.float64)

    def value(self, step: int) -> np.ndarray:
        """The value at a step: what a schedule in plain Python raises there is raised."""
        if self._is_plain:
            with _on_cpu():
                return plain_values(self.schedule, np.array([step]))[0].astype(np.float64)
        return self.values(step)[0]

    def _values(self, steps: np.ndarray) -> np.ndarray:
        with _on_cpu():
            if not self._is_plain:
                try:
                    return compiled_values(self._function, steps)
                except Exception:
                    self._is_plain = True
            return plain_values(self.schedule, steps, lenient=True)


def schedule_units(schedule: PlannedSchedule, first_step: int) -> np.ndarray:
    """The units [T, K] of a schedule from a step to the end of its block of MAX_STEPS steps.

    Only those before the first step at which its value is no weights: see `raise_bad_weights`.
    """
    values = schedule.values(first_step)
    need(values.ndim <= 2, "a schedule's weights", "a number or an array [K]", values.shape[1:])
    fine = are_weights(values)
    count = len(fine) if fine.all() else int(fine.argmin())
    return to_units(_on_simplex(values[:count]))


def raise_bad_weights(schedule: PlannedSchedule, step: int) -> NoReturn:
    """Raise the error of a step at which a schedule's value is no weights."""
    label, value = f"a schedule's weights at step {step}", schedule.value(step)
    check_simplex(label, value)
    raise ValueError(f"{label} must be on the simplex, as at other steps, got {shown(value)}")


@contextlib.contextmanager
def _on_cpu() -> Iterator[None]:
    cpu = jax.local_devices(backend="cpu")[0]
    allowed = jax.transfer_guard("allow")
    with jax.ensure_compile_time_eval(), jax.default_device(cpu), allowed:
        yield


def _on_simplex(values: np.ndarray) -> np.ndarray:
    """Gamma [T] or weights [T, K] as float64 [T, K], none negative."""
    if values.ndim == 1:
        gamma = np.clip(values, 0.0, 1.0)
        return np.stack([gamma, 1.0 - gamma], axis=1)
    return np.maximum(values, 0.0)
