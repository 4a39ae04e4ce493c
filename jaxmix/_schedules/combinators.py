"""Schedules made of other schedules. Every schedule taken here may be optax's or a user's own."""

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
    """Return the schedule of the other source, `1 - schedule(step)`.

    Args:
      schedule: a schedule of gamma (scalars).

    Raises:
      TypeError: `schedule` can't be called. ValueError, at the first call: it returns no scalar.

    Example:
      >>> import jaxmix
      >>> eta = jaxmix.complement_schedule(jaxmix.cosine_schedule(0.0, 1.0, 100))
      >>> float(eta(0)), float(eta(50)), float(eta(100))
      (1.0, 0.5, 0.0)
    """
    check_schedule(schedule)
    return Formula(_complement, (schedule,))


def clip_schedule(schedule: Schedule, low: float, high: float) -> Schedule:
    """Keep a schedule inside [low, high], so that neither source ever disappears.

    Args:
      schedule: a schedule of gamma (scalars).
      low, high: numbers, `low <= high`.

    Raises:
      ValueError: `low > high`, one not finite; at the first call, a schedule of other than scalars.

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
      *schedules: for each source a schedule of scalars, or a number; a value below 0 counts as 0.

    Returns:
      A schedule of float32 [K]; a step at which all are 0 has no mixture and shows NaN.

    Raises:
      ValueError, TypeError: no schedule at all, a number below 0; at the first call, a schedule of
        other than scalars.

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
      outer: weights of the G groups, [G] or a schedule of it; for two groups also a gamma.
      *inner: for each group its weights, [K_g] or a schedule of it; a gamma (number or schedule of
        scalars) stands for two sources, `[1.0]` for one.

    Returns:
      A schedule of float32 [K_1 + ... + K_G] with sum 1, group after group.

    Raises:
      ValueError: no group, known weights that are not on the simplex; at the first call, `outer` of
        other than G weights.

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
    """Turn shares of tokens into shares of rows: `w_k / mean_tokens_k` over their sum.

    Args:
      schedule: shares of the tokens: [K] or a schedule of it, or a gamma for two sources.
      mean_tokens: [K], mean tokens in a row of each source, `> 0`.

    Returns:
      A schedule of float32 shares of the rows: a gamma for a gamma, [K] with sum 1 for [K].

    Raises:
      ValueError, TypeError: a mean that is not positive, known shares that are not on the simplex;
        at the first call, shares of other than K sources.

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
    """Drive a schedule that is written in other units (epochs, tokens) by steps.

    With a number it is given step / steps_per_unit as float32: for an epoch of 500 steps
    `steps_per_unit` is 500, for tokens it is 1 / tokens_per_step. A float has 24 bits: up to step
    2^23 an epoch of a whole number of steps begins on its exact step; beyond that, or where the
    steps make no whole epoch, a change may come early or late by 2^-23 of the steps so far.

    With a function `step -> units`, such as the `rows_before` of a `MixPlan` whose batch size
    grows, it is given those units. Whole units are exact to 2^62 in jaxmix's schedules. It is for
    the host: a `MixPlan`, `tabulate` and calls at a known step take it, jit needs a table,
    `table_schedule(tabulate(schedule, num_steps))`.

    Args:
      schedule: a schedule of units; its sizes are in units as well.
      steps_per_unit: steps that make one unit, `> 0`; or a function that gives the units before a
        step, `>= 0`: whole units as an int, others as a float. It is called with Python ints.

    Raises:
      ValueError, TypeError: `steps_per_unit` not positive, a schedule that can't be called; with a
        function, a traced step.

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
    """A schedule as it is, known weights as a float32 array of its own, checked."""
    if callable(weights):
        check_schedule(weights, name)
        return weights
    array = np.array(numbers_of(weights), np.float32)
    check_simplex(name, array)
    array.setflags(write=False)
    return array
