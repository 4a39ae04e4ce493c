"""The weights of a step: a number, an array or a schedule as float32 [K] on the simplex."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from jaxmix._checks import is_concrete, need, plain_number, unwrapped
from jaxmix._schedules.arithmetic import clip, normalize
from jaxmix._schedules.evaluate import as_step, call_schedule, float32_of
from jaxmix._types import Array, ArrayLike, Schedule, Weights

TOLERANCE = 1e-4
"""How far a weight may be outside [0, 1], and the sum of the weights away from 1.

It covers float32 sums of 1,000 weights, and weights written with five decimals. The rounding of
half-precision weights is larger, so `float32_of` first divides those by their sum.
"""


def weights_at(step: ArrayLike, weights: Weights, num_sources: int | None = None) -> Array:
    """Return the weight of each source at a step.

    Args:
      step: the step, a scalar int of any dtype; may be traced.
      weights: gamma in [0, 1], the weight of source 0 of two; or an array [K], `>= 0` with sum 1;
        or a schedule `step -> gamma` or `step -> [K]`, any optax schedule included.
      num_sources: K (static), to check the number of weights; None for no check.

    Returns:
      float32 [K] with sum 1; for two sources exactly (gamma, 1 - gamma). Weights known at trace
      time are checked, and of a schedule at a traced step the weights at step 0. Other traced
      weights are clipped to the simplex, and a NaN stays NaN: see `checkify_weights`.

    Raises:
      ValueError, TypeError: known weights that are NaN, negative, above 1, or whose sum is not 1
        within 1e-4; a rank other than 0 or 1; a number of weights other than `num_sources`.

    Example:
      >>> import jaxmix
      >>> gamma = jaxmix.cosine_schedule(0.0, 1.0, transition_steps=100)
      >>> [round(float(w), 2) for w in jaxmix.weights_at(50, gamma)]
      [0.5, 0.5]
      >>> [round(float(w), 2) for w in jaxmix.weights_at(0, [0.5, 0.3, 0.2])]
      [0.5, 0.3, 0.2]
    """
    return to_simplex(*raw_weights(step, weights), num_sources)


def raw_weights(step: ArrayLike, weights: Weights) -> tuple[Array | np.ndarray, str]:
    """Gamma or weights [K] at a step as float32, and their name in messages; known ones checked."""
    step = plain_number(step)
    need(np.ndim(step) == 0, "step", "a scalar (vmap over many)", np.shape(step))
    if not callable(weights):
        return _checked(weights), "weights"
    raw, label = call_schedule(weights, step), "a schedule's weights"
    if is_concrete(raw):
        check_simplex(label, np.asarray(raw))
    else:
        _check_first(weights)
    return raw, label


def _check_first(schedule: Schedule) -> None:
    """Raise if the weights of a schedule at step 0 are off the simplex, such as per cent or counts.

    It is for a traced step, whose own weights can't be checked. A schedule that reads traced
    values, or that raises at step 0, is not checked.
    """
    try:
        with jax.ensure_compile_time_eval():
            first = call_schedule(schedule, 0)
    except Exception:
        return
    if is_concrete(first):
        check_simplex("a schedule's weights at step 0", np.asarray(first))


def to_simplex(
    raw: ArrayLike, label: str = "a schedule's weights", num_sources: int | None = None
) -> Array:
    """Gamma or weights [K], known or traced, as float32 [K], clipped and normalised."""
    raw = jnp.asarray(raw, jnp.float32)
    if raw.ndim == 0:
        gamma = clip(raw, 0.0, 1.0)
        simplex = jnp.stack([gamma, 1.0 - gamma])
    else:
        need(raw.ndim == 1 and raw.size > 0, label, _ARRAY, raw.shape)
        simplex = normalize(raw)
    if num_sources not in (None, simplex.shape[0]):
        got = f"{simplex.shape[0]} of them" if raw.ndim else "one number, the gamma of two sources"
        remedy = ": give each source as an argument of its own" if num_sources == 1 else ""
        needed = f"the number of {label} must be {num_sources}, one per source"
        raise ValueError(f"{needed}, got {got}{remedy}")
    return simplex


def checkify_weights(step: ArrayLike, weights: Weights) -> None:
    """Report weights that are NaN or off the simplex, with the step, under `checkify`.

    Call it beside `mix_rows` or a loss, in a function that `checkify.checkify` transforms. Without
    it, traced weights are clipped to the simplex, and only a NaN stays visible.

    Args:
      step: the step, a scalar int of any dtype; may be traced.
      weights: gamma in [0, 1]; an array [K], `>= 0` with sum 1 within 1e-4; or a schedule returning
        either.

    Raises:
      ValueError: known weights off the simplex, at once, as for `weights_at`. For traced weights
        the error is in the returned `err`, and `err.throw()` raises `checkify.JaxRuntimeError`. JAX
        raises ValueError if the function is traced without `checkify`.

    On a mesh with explicit axes, the default of `jax.make_mesh`, `checkify` fails around any
    `shard_map`. Use ``axis_types=(AxisType.Auto,)``, or look for a NaN in `mix/gamma` of
    `MixMetrics`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmix
      >>> from jax.experimental import checkify
      >>> def train_step(step):
      ...     jaxmix.checkify_weights(step, lambda step: 0.5 + step)
      ...     return step + 1
      >>> err, _ = jax.jit(checkify.checkify(train_step))(3)
      >>> err.get().splitlines()[0]
      'weights must be >= 0 with the sum 1, got gamma = 3.5 at step 3 (`check` failed)'
    """
    if callable(weights):
        raw = call_schedule(weights, step)
    else:
        raw = jnp.asarray(_checked(weights))
    low = jnp.all(raw >= -TOLERANCE)
    is_whole = jnp.abs(raw.sum() - 1.0) <= TOLERANCE if raw.ndim else raw <= 1.0 + TOLERANCE
    label = "{raw}" if raw.ndim else "gamma = {raw}"
    checkify.check(
        low & is_whole,
        f"weights must be >= 0 with the sum 1, got {label} at step {{step}}",
        raw=raw,
        step=as_step(step),
    )


def check_simplex(label: str, values: np.ndarray, remedy: str = "divide by the sum") -> None:
    """Raise unless the known numbers in `values`, gamma or [K], are on the simplex.

    `remedy`: what to do with weights of another sum.
    """
    need(values.ndim <= 1 and values.size > 0, label, _ARRAY, values.shape)
    if are_weights(values[None])[0]:
        return
    need(values.ndim == 1, label, "in [0, 1]", values.tolist())
    low = bool(np.all(np.isfinite(values) & (values >= -TOLERANCE)))
    need(low, label, "finite and in [0, 1], with the sum 1", values.tolist())
    total = float(values.sum(dtype=np.float64))
    raise ValueError(f"{label} must be of sum 1 (within {TOLERANCE:g}), got {total}: {remedy}")


def are_weights(values: np.ndarray, total: np.ndarray | None = None) -> np.ndarray:
    """At which of T steps the gamma [T] or the weights [T, K] are on the simplex.

    `total`: the sums [T] of the weights, where they are known.
    """
    if values.ndim == 1:
        return (values >= -TOLERANCE) & (values <= 1.0 + TOLERANCE)
    sums = total
    if sums is None:
        sums = np.einsum("tk->t", values, dtype=np.float64)  # a sum along a short axis is slow
    fine = abs(sums - 1.0) <= TOLERANCE
    if not values.min(initial=0.0) >= -TOLERANCE:  # NaN as well
        fine &= (values >= -TOLERANCE).all(axis=1)
    return fine


def numbers_of(weights: Any) -> Array | np.ndarray:
    """A number, a sequence or an array of numbers as an array; anything else raises TypeError."""
    weights = unwrapped(weights)
    if isinstance(weights, list | tuple) and any(isinstance(w, jax.Array) for w in weights):
        weights = jnp.stack([jnp.asarray(weight, jnp.float32) for weight in weights])
    try:
        array = weights if isinstance(weights, jax.Array) else np.asarray(weights)
    except ValueError:  # sequences of unequal lengths
        array = np.asarray(None)
    ok = any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer))
    needed = "a number, an array [K] or a schedule"
    if isinstance(weights, Mapping):
        needed += " (only a MixPlan takes names: list the weights in the order of the sources)"
    need(ok, "weights", needed, weights, TypeError)
    return array


def _checked(weights: Any) -> Array | np.ndarray:
    """Weights that are not a schedule, as float32; checked if they are known."""
    raw = numbers_of(weights)
    if is_concrete(raw):
        check_simplex("weights", float32_of(np.asarray(raw)))
    return float32_of(raw)


_ARRAY = "a number or an array [K]"
