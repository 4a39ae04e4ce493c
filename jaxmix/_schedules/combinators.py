"""Schedules made of other schedules, which may be jaxmix's, optax's or a user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmix._checks import need, real_number
from jaxmix._schedules.arithmetic import clip, normalize
from jaxmix._schedules.evaluate import Formula
from jaxmix._schedules.schedule_errors import check_schedule
from jaxmix._schedules.weights import check_simplex, numbers_of, to_simplex
from jaxmix._types import Array, ArrayLike, Schedule, Weights


def complement_schedule(schedule: Schedule) -> Schedule:
    """Return the schedule of the other of two sources, ``1 - schedule(step)``.

    Args:
      schedule: a schedule of gamma (scalars).

    Returns:
      A schedule of float32 scalars.

    Raises:
      TypeError: `schedule` is not a function of the step.
      ValueError: at the first call, if the value of `schedule` is not a scalar.

    Example:
      >>> import jaxmix
      >>> eta = jaxmix.complement_schedule(jaxmix.cosine_schedule(0.0, 1.0, 100))
      >>> float(eta(0)), float(eta(50)), float(eta(100))
      (1.0, 0.5, 0.0)
    """
    check_schedule(schedule)
    return Formula(_complement, (schedule,))


def clip_schedule(schedule: Schedule, low: float, high: float) -> Schedule:
    """Clip a schedule to [low, high], so that neither of two sources disappears.

    Args:
      schedule: a schedule of gamma (scalars).
      low, high: numbers, `low <= high`.

    Returns:
      A schedule of float32 scalars.

    Raises:
      ValueError: `low > high`, or one that is not finite; at the first call, if the value of
        `schedule` is not a scalar.

    Example:
      >>> import jaxmix
      >>> gamma = jaxmix.clip_schedule(jaxmix.make_schedule(5), 0.1, 0.9)
      >>> [round(float(gamma(t)), 2) for t in range(5)]
      [0.1, 0.25, 0.5, 0.75, 0.9]
    """
    check_schedule(schedule)
    high = real_number("high", high)
    low = real_number("low", low, high=high)
    return Formula(_clip, (schedule, np.float32(low), np.float32(high)))


def stack_schedules(*schedules: float | Schedule) -> Schedule:
    """Join K schedules of relative weights into one schedule of weights [K] with sum 1.

    Args:
      *schedules: for each source a number, `>= 0`, or a schedule of scalars, whose values below 0
        count as 0.

    Returns:
      A schedule of float32 [K]. At a step at which all weights are 0 its value is NaN.

    Raises:
      ValueError, TypeError: no schedules, a number below 0; at the first call, if a schedule's
        value is not a scalar.

    Example:
      >>> import jaxmix
      >>> weights = jaxmix.stack_schedules(jaxmix.make_schedule(11, 0.0, 2.0), 1.0, 1.0)
      >>> weights(10).tolist()
      [0.5, 0.25, 0.25]
    """
    need(bool(schedules), "schedules", "at least one", schedules)
    for schedule in filter(callable, schedules):
        check_schedule(schedule)
    given = [s if callable(s) else np.float32(real_number("schedules", s, 0.0)) for s in schedules]
    return Formula(_stack, tuple(given))


def nest_schedules(outer: Weights, *inner: Weights) -> Schedule:
    """Make a mixture of mixtures: the weight of a group times the weights inside it.

    Args:
      outer: the weights of the G groups: an array [G] or a schedule of one. For two groups also
        gamma, the weight of the first.
      *inner: the weights inside each group, in order: an array [K_g] or a schedule of one. For two
        sources also gamma, for one source `[1.0]`.

    Returns:
      A schedule of float32 ``[K_1 + ... + K_G]`` with sum 1, group after group.

    Raises:
      ValueError: no group, known weights that are not on the simplex; at the first call, if `outer`
        does not have G weights.

    Example:
      >>> import jaxmix
      >>> code_share = jaxmix.make_schedule(11, 0.0, 1.0)
      >>> weights = jaxmix.nest_schedules(code_share, [0.75, 0.25], [1.0])
      >>> weights(5).tolist()
      [0.375, 0.125, 0.5]
    """
    need(bool(inner), "inner", "the weights of at least one group", inner)
    return Formula(_nest, (_known("outer", outer), *(_known("inner", w) for w in inner)))


def token_share_schedule(schedule: Weights, mean_tokens: Sequence[float] | np.ndarray) -> Schedule:
    """Convert weights of tokens into weights of rows: ``w_k / mean_tokens_k`` over their sum.

    Args:
      schedule: the weights of the tokens: an array [K], gamma for two sources, or a schedule of
        either.
      mean_tokens: [K], the mean number of tokens per row of each source, `> 0`.

    Returns:
      A schedule of the weights of the rows, float32: gamma if `schedule` is of gamma, else [K] with
      sum 1.

    Raises:
      ValueError, TypeError: a mean that is not positive, known weights that are not on the simplex;
        at the first call, a number of weights other than K.

    Example:
      >>> import jaxmix
      >>> rows = jaxmix.token_share_schedule(0.5, mean_tokens=[300.0, 100.0])
      >>> float(rows(0))
      0.25
    """
    means = np.asarray(mean_tokens, np.float64)
    need(means.ndim == 1 and means.size > 0, "mean_tokens", "[K], not empty", means.shape)
    positive = bool(np.all((means > 0) & np.isfinite(means)))
    need(positive, "mean_tokens", "> 0", means.tolist())
    rows_per_token = (means.min() / means).astype(np.float32)
    rows_per_token.setflags(write=False)
    return Formula(_token_share, (rows_per_token, _known("schedule", schedule)))


def rescale_schedule(
    schedule: Schedule, steps_per_unit: float | Callable[[int], float]
) -> Schedule:
    """Convert a schedule written in other units (epochs, rows, tokens) to a schedule of steps.

    With a number, the schedule is called with ``step / steps_per_unit`` as float32. For an epoch of
    500 steps `steps_per_unit` is 500, for tokens it is ``1 / tokens_per_step``. If an epoch is a
    whole number of steps, it begins on its exact step up to step 2^23. Otherwise a change may come
    early or late, by 2^-23 of the steps so far.

    With a function `step -> units`, the schedule is called with these units. Use it for
    `MixPlan.rows_before` where the batch size grows. Whole units are exact up to 2^62 in jaxmix's
    schedules. The result works on the host: in a `MixPlan`, in `tabulate` and at a known step.
    For `jit` make a table of it, ``table_schedule(tabulate(schedule, num_steps))``.

    Args:
      schedule: a schedule whose step and sizes are in units.
      steps_per_unit: the number of steps in one unit, `> 0`; or a function that returns the units
        before a step, `>= 0`: an int for whole units, else a float. It is called with Python ints.

    Returns:
      A schedule of steps.

    Raises:
      ValueError, TypeError: a `steps_per_unit` that is not positive, a schedule that is not a
        function of the step; with a function, a traced step.

    Example:
      >>> import jaxmix
      >>> by_epoch = jaxmix.staged_schedule({0: 1.0, 3: 0.5})
      >>> gamma = jaxmix.rescale_schedule(by_epoch, steps_per_unit=500)
      >>> float(gamma(1499)), float(gamma(1500))
      (1.0, 0.5)
      >>> by_row = jaxmix.staged_schedule({0: 1.0, 10**12: 0.5})
      >>> gamma = jaxmix.rescale_schedule(by_row, lambda step: 10**10 * step)
      >>> float(gamma(99)), float(gamma(100))
      (1.0, 0.5)
    """
    check_schedule(schedule)
    if not callable(steps_per_unit):
        steps_per_unit = real_number("steps_per_unit", steps_per_unit, 0.0, open_low=True)
    return Formula(_rescaled, (schedule,), units=steps_per_unit)


def _complement(step: Array, value: Array) -> Array:
    return 1.0 - _scalar(value)


def _clip(step: Array, value: Array, low: np.float32, high: np.float32) -> Array:
    return clip(_scalar(value), low, high)


def _stack(step: Array, *values: ArrayLike) -> Array:
    return normalize(jnp.stack([_scalar(value) for value in values]))


def _nest(step: Array, outer: ArrayLike, *inner: ArrayLike) -> Array:
    shares = to_simplex(outer, "a schedule's weights", len(inner))
    return jnp.concatenate([shares[g] * to_simplex(w) for g, w in enumerate(inner)])


def _token_share(step: Array, rows_per_token: np.ndarray, tokens: Array) -> Array:
    rows = normalize(to_simplex(tokens, "weights", rows_per_token.size) * rows_per_token)
    return rows if tokens.ndim else rows[0]


def _rescaled(step: Array, value: Array) -> Array:
    return value


def _scalar(value: ArrayLike) -> Array:
    """The value of a number or a schedule of scalars."""
    value = jnp.asarray(value, jnp.float32)
    need(value.ndim == 0, "a schedule's value", "a scalar", value.shape)
    return value


def _known(name: str, weights: Any) -> Any:
    """A schedule as it is; known weights, checked, as a new float32 array."""
    if callable(weights):
        check_schedule(weights, name)
        return weights
    array = np.array(numbers_of(weights), np.float32)
    check_simplex(name, array)
    array.setflags(write=False)
    return array
