"""The weights of a block of steps in whole units: here the host evaluates a plan's schedule."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import is_concrete, need, shown
from jaxmix._plan.counts import MAX_STEPS, to_units
from jaxmix._schedules.evaluate import (
    call_each,
    compiled,
    float32_of,
    plain_values,
)
from jaxmix._schedules.schedule_errors import check_schedule
from jaxmix._schedules.weights import are_weights, check_simplex, numbers_of
from jaxmix._types import Array, Schedule, Weights

KEPT_BLOCKS = 4
"""How many blocks of values are kept for a schedule in plain Python."""

MAX_SOURCES = 2**16
"""The most sources in a plan: the counts of a block of steps then fit 512 MB."""

RUN_BLOCKS, RUN_NUMBERS = 16, 2**15
"""The most blocks and numbers of one compiled call. To start a call costs as much as 10,000 values.

For more numbers NumPy would get new memory from the system at each call.
"""

REMEDY = "divide by the sum, or pass normalize=True"


def constant_units(weights: Weights) -> np.ndarray:
    """A number or an array [K] as int64 units [1, K], computed in float64."""
    array = numbers_of(weights)
    need(is_concrete(array), "weights", "known on the host, not traced", weights, TypeError)
    array = np.asarray(array)
    wide = array.astype(np.float64) if array.dtype.itemsize >= 4 else float32_of(array)
    _check_number(wide.size)
    check_simplex("weights", wide, REMEDY)
    return to_units(_on_simplex(wide.astype(np.float64)[None]))


EXACT = 2.0**-29
"""Float32 numbers of at least this are multiples of 2^-52: sums below 2 are exact in any order."""


class TooManySources(ValueError):
    """An error for weights of more sources than a plan can hold."""


def _check_number(num_sources: int) -> None:
    many = num_sources > MAX_SOURCES
    wanted = f"of at most {MAX_SOURCES} sources in a plan (the draws in a step take 2^24)"
    need(not many, "weights", wanted, num_sources, TooManySources)


def _check_value(value: Array) -> None:
    _check_number(value.size)


class PlannedSchedule:
    """A schedule as one plan reads it: a run of whole blocks of MAX_STEPS steps at a time.

    It is compiled once per plan. A schedule that can't be traced is called step by step, one block
    at a time.
    """

    def __init__(self, schedule: Schedule):
        check_schedule(schedule, "weights")
        self.schedule = schedule
        self._kept: tuple[
            tuple[int, np.ndarray], ...
        ] = ()  # each with its first step, the newest first
        self._function = compiled(_run_values, schedule)
        self._is_plain = False

    def __call__(self, step: Any) -> Any:
        return self.schedule(step)

    def __getstate__(self) -> dict[str, Any]:
        return {"schedule": self.schedule}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["schedule"])

    def values(self, first_step: int, stop: int) -> np.ndarray:
        """The float32 values from a step to `stop` or the end of its run, as float64.

        The whole run is evaluated every time, so that a value doesn't depend on the step that was
        asked for. It is evaluated on the CPU, even while a step is traced for another device. At a
        step at which a schedule in plain Python raises, the value is NaN.
        """
        for first, values in self._kept:  # read once: threads may share a plan
            if first <= first_step < first + len(values):
                break
        else:
            first, values = self._run(first_step)
            self._kept = ((first, values), *self._kept[: KEPT_BLOCKS - 1 if self._is_plain else 0])
        return values[first_step - first : stop - first].astype(np.float64)

    def value(self, step: int) -> np.ndarray:
        """The value at a step; an error of a schedule in plain Python is raised."""
        if self._is_plain:
            with _on_cpu():
                return plain_values(self.schedule, np.array([step]))[0].astype(np.float64)
        return self.values(step, step + 1)[0]

    def _run(self, step: int) -> tuple[int, np.ndarray]:
        """The first step of the run that holds a step, and its float32 values."""
        with _on_cpu():
            if not self._is_plain:
                try:
                    values = np.asarray(self._function(np.int32(step)))
                    return step - step % len(values), values
                except TooManySources:
                    raise
                except Exception:
                    self._is_plain = True
            first = step - step % MAX_STEPS
            return first, plain_values(self.schedule, first + np.arange(MAX_STEPS), lenient=True)


def _run_values(schedule: Schedule, step: Array) -> Array:
    """The values [T, ...] of the run of blocks that holds a step, to be compiled.

    They are computed block by block, with the same compiled function for every step.
    """
    # One trace serves the shape and the values.
    each = jax.jit(functools.partial(call_each, schedule, check=_check_value))
    block = jnp.arange(MAX_STEPS, dtype=jnp.int32)
    size = jax.eval_shape(each, block).size
    num_steps = MAX_STEPS * (1 << (min(max(RUN_NUMBERS // size, 1), RUN_BLOCKS).bit_length() - 1))
    firsts = step - step % num_steps + jnp.arange(0, num_steps, MAX_STEPS, dtype=jnp.int32)
    values = jax.lax.map(lambda first: each(first + block), firsts)
    return values.reshape(num_steps, *values.shape[2:])


def schedule_units(schedule: PlannedSchedule, first_step: int, stop: int) -> np.ndarray:
    """The units [T, K] of a schedule from a step to `stop` or the end of its run of blocks.

    They end before the first step at which the value is not valid: see `raise_bad_weights`.
    """
    values = schedule.values(first_step, stop)
    need(values.ndim <= 2, "a schedule's weights", "a number or an array [K]", values.shape[1:])
    total = None
    if values.ndim == 2 and not values[values < EXACT].any():
        total = np.einsum("tk->t", values)  # a sum along a short axis is slow
    fine = are_weights(values, total)
    count = len(fine) if fine.all() else int(fine.argmin())
    if total is not None:
        return to_units(values[:count], total[:count])
    return to_units(_on_simplex(values[:count]))


def raise_bad_weights(schedule: PlannedSchedule, step: int) -> NoReturn:
    """Raise the error for a step at which the value of a schedule is not valid weights."""
    label, value = f"a schedule's weights at step {step}", schedule.value(step)
    check_simplex(label, value, REMEDY)
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
