"""Schedules made from tables of values, and tables made from schedules."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmix._checks import need, real_number, whole_number
from jaxmix._schedules.arithmetic import elapsed_and_left, linear, transition
from jaxmix._schedules.evaluate import Formula, call_schedule_each
from jaxmix._types import Array, ArrayLike, Schedule


def staged_schedule(
    stages: Mapping[int, ArrayLike | Sequence[float]], ramp_steps: float = 0
) -> Schedule:
    """Hold one value per stage: `stages[s]` from step s on.

    With `ramp_steps` R, the value at step s is still the old one. It changes in a straight line and
    reaches the new value at step s + R. Step s - 1 always has exactly the old value.

    Args:
      stages: `{first_step: value}` in any order, with a stage at step 0. The values are all numbers
        (gamma) or all arrays [K] (weights).
      ramp_steps: R, in steps, `>= 0`. A ramp ends at the first step of the next stage or before.

    Returns:
      A schedule of float32 scalars, or of float32 [K].

    Raises:
      ValueError, TypeError: no stage at step 0, a first step that is negative or not an int, values
        that are not finite or differ in shape, a ramp that is longer than its stage.

    Example:
      >>> import jaxmix
      >>> gamma = jaxmix.staged_schedule({0: 1.0, 100: 0.5}, ramp_steps=10)
      >>> [float(gamma(t)) for t in (0, 100, 105, 110, 500)]
      [1.0, 1.0, 0.75, 0.5, 0.5]
    """
    need(isinstance(stages, Mapping), "stages", "a dict {first_step: value}", stages, TypeError)
    starts = sorted(whole_number("a first step of stages", start, 0) for start in stages)
    need(starts[:1] == [0], "stages", "a dict with a stage at step 0", starts)
    shapes = {np.shape(value) for value in stages.values()}
    need(len(shapes) == 1, "values of stages", "of one shape", shapes)
    values = _finite("values of stages", [stages[start] for start in starts])
    ramp = real_number("ramp_steps", ramp_steps, 0.0)
    for start, following in itertools.pairwise(starts[1:]):
        needed = f"at most {following - start} (a stage at {start}, the next at {following})"
        need(start + ramp <= following, "ramp_steps", needed, ramp_steps)
    return Formula(_staged, (tuple(starts), values, ramp))


def table_schedule(
    values: ArrayLike | Sequence[float] | Sequence[Sequence[float]],
) -> Schedule:
    """Read one value per step from a table; steps after its end have the last value.

    A float step is rounded down to a whole step.

    Args:
      values: [T], or [T, K] for weights.

    Returns:
      A schedule of float32 scalars, or of float32 [K].

    Raises:
      ValueError: an empty table, a table of another rank, entries that are not finite.

    Example:
      >>> import jaxmix
      >>> gamma = jaxmix.table_schedule([0.25, 0.5, 0.75])
      >>> [float(gamma(t)) for t in range(5)]
      [0.25, 0.5, 0.75, 0.75, 0.75]
    """
    table = _finite("values", values)
    return Formula(_table, (table,))


def tabulate(schedule: Schedule, num_steps: int) -> Array:
    """Return the values of a schedule at steps 0 .. num_steps - 1, from one compiled call.

    Args:
      schedule: any schedule, optax's included.
      num_steps: T, `>= 1`.

    Returns:
      float32 [T], or [T, K] for a schedule of weights.

    Raises:
      ValueError, TypeError: `num_steps < 1`, a schedule that is not a function of the step.

    Example:
      >>> import jaxmix
      >>> jaxmix.tabulate(jaxmix.make_schedule(5), 6).tolist()
      [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return call_schedule_each(schedule, np.arange(whole_number("num_steps", num_steps, 1)))


def _staged(step: Array, starts: tuple[int, ...], values: np.ndarray, ramp: float) -> Array:
    whole = jnp.issubdtype(step.dtype, jnp.integer)
    most = jnp.iinfo(step.dtype).max if whole else math.inf
    firsts = np.asarray([start for start in starts if start <= most], step.dtype)
    stage = jnp.sum(step >= firsts, dtype=jnp.int32) - 1
    new, old = jnp.asarray(values)[stage], jnp.asarray(values)[jnp.maximum(stage - 1, 0)]
    if ramp == 0:
        return new
    elapsed, left = elapsed_and_left(step - jnp.asarray(firsts)[stage], 0.0, ramp)
    return transition(old, new, elapsed, left, linear)


def _table(step: Array, table: np.ndarray) -> Array:
    return jnp.asarray(table)[jnp.minimum(step, len(table) - 1).astype(jnp.int32)]


def _finite(name: str, values: Any) -> np.ndarray:
    """The values as a new float32 table, checked: at least one entry, all finite."""
    table = np.array(values, np.float32)
    need(table.ndim in (1, 2) and table.size > 0, name, "[T] or [T, K], not empty", table.shape)
    bad = table[~np.isfinite(table)]
    need(bad.size == 0, name, "finite", bad[:1].tolist())
    table.setflags(write=False)
    return table
