"""Steps in other units, such as epochs or rows: in floats inside jit, exact on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmix._checks import need, plain_number
from jaxmix._types import Array

Units = float | Callable[[int], Any] | None
"""The steps in one unit; or a function that returns the units before a known step; or None."""


def in_units(step: Array, units: Units) -> Array:
    """A step, traced or not, in units, as float32."""
    if units is None:
        return step
    if callable(units):
        raise TypeError(_HOST_ONLY)
    count = step.astype(jnp.float32)
    if units < 1.0:
        return count * np.float32(1.0 / units)
    # XLA multiplies by the reciprocal of a constant; epoch 3 would then begin one step late.
    return count / jnp.where(count > 0, np.float32(units), 1.0)


def known_units(steps: np.ndarray, units: Units, lenient: bool) -> tuple[np.ndarray, np.ndarray]:
    """Known steps in units; with `lenient` also at which of them the function failed."""
    missing = np.zeros(len(steps), bool)
    if units is None:
        return steps, missing
    if not callable(units):
        count = steps.astype(np.float32)
        scaled = count * np.float32(1.0 / units) if units < 1.0 else count / np.float32(units)
        return scaled, missing
    found: list[Any] = []
    for line, step in enumerate(steps.tolist()):
        try:
            found.append(plain_number(units(step)))
        except Exception:
            if not lenient or (missing[:line].all() and line == len(steps) - 1):
                raise
            missing[line] = True
            found.append(0)
    array = np.asarray(found)
    need(array.dtype.kind in "if", "steps_per_unit(step)", "a number", found[0], TypeError)
    need(bool((array >= 0).all()), "steps_per_unit(step)", ">= 0", array.min())
    return array.astype(np.int64 if array.dtype.kind == "i" else np.float32), missing


_HOST_ONLY = (
    "steps_per_unit must be a number inside jit, got a function, which only runs on the host: "
    "pass jaxmix.table_schedule(jaxmix.tabulate(schedule, num_steps)), or use a MixPlan"
)
