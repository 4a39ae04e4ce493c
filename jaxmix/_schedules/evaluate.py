"""A step made safe to use, and the only place where a schedule is called."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import need
from jaxmix._types import Array, ArrayLike, Schedule

MAX_STEP = 2**31 - 1


def as_step(step: ArrayLike) -> Array:
    """The step as int32, or float32 where it is a float (units of `rescale_schedule`).

    Takes an int, a NumPy or JAX scalar, or an array of steps, of any integer or float dtype.
    Unsigned steps (`flax.nnx.Optimizer.step` is uint32) would wrap inside optax's schedules, so
    none is let through. Python and NumPy steps outside [0, 2^31 - 1] raise ValueError; JAX arrays,
    which may be traced, are clipped to it.
    """
    array = step if isinstance(step, jax.Array) else np.asarray(step)
    if jnp.issubdtype(array.dtype, jnp.floating):
        return jnp.asarray(array, jnp.float32)
    need(jnp.issubdtype(array.dtype, jnp.integer), "step", "an integer or a float", step, TypeError)
    if not isinstance(step, jax.Array):
        ok = array.size == 0 or (array.min() >= 0 and array.max() <= MAX_STEP)
        need(bool(ok), "step", f"in [0, {MAX_STEP}]", step)
        return jnp.asarray(array.astype(np.int32))
    if array.dtype.itemsize >= 4 and array.dtype != jnp.int32:  # wider than int32: saturate
        array = jnp.minimum(array, jnp.asarray(MAX_STEP, array.dtype))
    return jnp.maximum(array.astype(jnp.int32), 0)


def as_whole_step(step: ArrayLike) -> Array:
    """The step as an int32 scalar; a float or an array of steps raises."""
    whole = as_step(step)
    need(whole.dtype == jnp.int32, "step", "an integer", step, TypeError)
    need(whole.ndim == 0, "step", "a scalar (vmap over many)", whole.shape)
    return whole


def call_schedule(schedule: Schedule, step: ArrayLike) -> Array:
    """`schedule(step)` as float32, isolated so that its bits rarely depend on what surrounds it.

    The schedule runs as a compiled function of its own between two barriers, since a value that is
    one rounding off would be another row now and then. XLA may still drop the barriers: jaxmix's
    schedules keep their bits, another one may be off by a rounding in some contexts. Functions
    are compiled once, so they must be pure; any other callable (a module, an object with
    attributes) is traced anew at each call, since it may have changed.
    """
    need(callable(schedule), "schedule", "callable", schedule, TypeError)
    return _compiled(_call, schedule, as_step(step))


def call_schedule_each(schedule: Schedule, steps: ArrayLike) -> Array:
    """`call_schedule` at each of the steps [T], in one compiled call: [T] or [T, K]."""
    need(callable(schedule), "schedule", "callable", schedule, TypeError)
    return _compiled(_call_each, schedule, as_step(steps))


def _call(schedule: Schedule, step: Array) -> Array:
    with jax.numpy_dtype_promotion("standard"):  # optax's cosine mixes int32 and float32
        value: Any = jnp.asarray(schedule(jax.lax.optimization_barrier(step)))
    is_real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
    need(is_real, "a schedule's value", "real", value.dtype, TypeError)
    return jax.lax.optimization_barrier(value.astype(jnp.float32))


def _call_each(schedule: Schedule, steps: Array) -> Array:
    return jax.vmap(functools.partial(call_schedule, schedule))(steps)


def _compiled(body: Callable[[Schedule, Array], Array], schedule: Schedule, step: Array) -> Array:
    if isinstance(schedule, types.FunctionType):
        return _kept(body, schedule, step)
    return jax.jit(functools.partial(body, schedule))(step)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _kept(body: Callable[[Schedule, Array], Array], schedule: Schedule, step: Array) -> Array:
    return body(schedule, step)
