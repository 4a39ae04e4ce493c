"""Errors for what is not a schedule, or not a value of one: which, and what to do instead."""

from __future__ import annotations

import functools
import inspect
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmix._checks import need, printable, shown, unwrapped
from jaxmix._types import Array, Schedule

UNTRACED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
"""What JAX raises where plain Python needs the number of a traced step."""


def check_schedule(schedule: Any, name: str = "schedule") -> None:
    """Raise TypeError for what can't be a schedule, before it is called."""
    need(callable(schedule), name, "callable", schedule, TypeError)
    if isinstance(schedule, type):
        needed = f"{name} must be a function of the step, got the class {schedule.__name__}"
        raise TypeError(f"{needed}: pass an instance of it")
    if all(callable(getattr(schedule, method, None)) for method in ("init", "update")):
        raise TypeError(
            f"{name} must be a function of the step, got {name_of(schedule)}, which keeps a state "
            "(it has init and update): pass the schedule inside it, or call it with its state and "
            "pass the weights"
        )
    if isinstance(schedule, types.FunctionType) and _is_factory(schedule):
        raise TypeError(
            f"{name} must be a function of the step, got {name_of(schedule)} itself: "
            "call it and pass the schedule that it returns"
        )


def ask(schedule: Schedule, step: Any) -> Any:
    """`schedule(step)`; its errors get a note that names the schedule, or say what to change."""
    try:
        return schedule(step)
    except Exception as error:
        name = name_of(schedule)
        if not _takes_one(schedule):
            arguments = printable(str(inspect.signature(schedule)))[:200]
            raise TypeError(
                f"schedule must take one argument, the step, got {name}{arguments}: "
                "bind the others with functools.partial, or call it if it returns a schedule"
            ) from None
        if isinstance(step, Tracer) and _is_untraced(error):
            raise TypeError(
                "schedule must be written with jax.numpy to run inside jit, got plain Python in "
                f"{name}: use jnp.where, jaxmix.staged_schedule or jaxmix.table_schedule "
                "(a MixPlan takes it as it is)"
            ) from error
        where = "" if isinstance(step, Tracer) else f" at step {step}"
        error.add_note(f"raised by the schedule {name}{where}")
        raise


def read_value(value: Any, schedule: Schedule, on_host: bool) -> Array | np.ndarray:
    """What a schedule returned as a float32 array, NumPy's with `on_host`."""
    if callable(value):
        raise TypeError(
            f"a schedule's value must be a number or an array [K], got a function from "
            f"{name_of(schedule)}: call that first and pass the schedule it returns"
        )
    deep = isinstance(value, list | tuple) and any(
        isinstance(item, list | tuple | str | bytes) for item in value
    )
    if deep:  # NumPy would make an array of texts as wide as the longest
        raise TypeError(f"{_VALUE}, got {shown(value)} from {name_of(schedule)}")
    try:
        array = np.asarray(value) if on_host else jnp.asarray(unwrapped(value))
        ok = any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer))
    except (TypeError, ValueError):
        array, ok = np.zeros(0), False
    if not ok:
        raise TypeError(f"{_VALUE}, got {shown(value)} from {name_of(schedule)}")
    if array.size == 0:
        raise ValueError(f"{_VALUE}, got one of shape {array.shape} from {name_of(schedule)}")
    return array


_VALUE = "a schedule's value must be a real number or an array [K]"


def name_of(schedule: Any) -> str:
    """What a schedule is called in messages: `<lambda> (train.py:12)`, `Model`."""
    while isinstance(schedule, functools.partial):
        schedule = schedule.func
    name = getattr(schedule, "__qualname__", None) or type(schedule).__qualname__
    name = name.rpartition("<locals>.")[2]
    code = getattr(schedule, "__code__", None)
    if "<lambda>" in name and code is not None:
        file = code.co_filename.replace("\\", "/").rpartition("/")[2]
        name = f"{name} ({file}:{code.co_firstlineno})"
    return printable(name)[:200]


def _is_untraced(error: Exception) -> bool:
    """True if plain Python got a traced step: JAX's own errors, or a traced key of a dict."""
    return isinstance(error, UNTRACED) or (isinstance(error, TypeError) and "Tracer" in str(error))


def _is_factory(function: types.FunctionType) -> bool:
    """True for a function of optax or jaxmix that returns a schedule, as `cosine_schedule`."""
    package = (function.__module__ or "").partition(".")[0]
    return package in ("optax", "jaxmix") and "<locals>" not in function.__qualname__


def _takes_one(schedule: Schedule) -> bool:
    try:
        inspect.signature(schedule).bind(0)
    except TypeError:
        return False
    except ValueError:  # some built-in functions have none
        return True
    return True
