"""The weights of the sources: a number, an array or a schedule made float32 [K] on the simplex."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from jaxmix._checks import is_concrete, need
from jaxmix._schedules.arithmetic import clip, normalize
from jaxmix._schedules.evaluate import as_step, call_schedule
from jaxmix._types import Array, ArrayLike, Weights

TOLERANCE = 1e-4
"""How far known weights may be from the simplex before they are refused."""


def weights_at(step: ArrayLike, weights: Weights, num_sources: int | None = None) -> Array:
    """The weight of each source at a step.

    Args:
      step: the step, a scalar int of any dtype; may be traced.
      weights: gamma in [0, 1], the share of source 0 of two; or an array [K], `>= 0` with sum 1;
        or a schedule `step -> gamma` or `step -> [K]`, any optax schedule included.
      num_sources: K if it is known (static); weights of another length are refused.

    Returns:
      float32 [K] with sum 1. Two sources get exactly (gamma, 1 - gamma). Numbers that are known
      now are checked; traced ones are clipped to the simplex, and a NaN stays visible as NaN.

    Raises:
      ValueError, TypeError: known weights that are NaN, negative, above 1 or do not sum to 1 within
        1e-4; a rank other than 0 or 1; a length other than `num_sources`.

    Example:
      >>> import jaxmix
      >>> gamma = jaxmix.cosine_schedule(0.0, 1.0, transition_steps=100)
      >>> [round(float(w), 2) for w in jaxmix.weights_at(50, gamma)]
      [0.5, 0.5]
      >>> [round(float(w), 2) for w in jaxmix.weights_at(0, [0.5, 0.3, 0.2])]
      [0.5, 0.3, 0.2]
    """
    need(np.ndim(step) == 0, "step", "a scalar (vmap over many)", np.shape(step))
    if callable(weights):
        raw, slack, label = call_schedule(weights, step), TOLERANCE, "a schedule's weights"
    else:
        raw, slack, label = numbers_of(weights), 0.0, "weights"
    if is_concrete(raw):
        check_simplex(label, np.asarray(raw), slack)
    if raw.ndim == 0:
        gamma = clip(jnp.asarray(raw, jnp.float32), 0.0, 1.0)
        simplex = jnp.stack([gamma, 1.0 - gamma])
    else:
        need(raw.ndim == 1 and raw.size > 0, label, "a number or an array [K]", raw.shape)
        simplex = normalize(jnp.asarray(raw, jnp.float32))
    if num_sources is not None:
        count = simplex.shape[0]
        need(count == num_sources, f"the number of {label}", f"{num_sources}, one a source", count)
    return simplex


def checkify_weights(step: ArrayLike, weights: Weights) -> None:
    """Report weights that are NaN or off the simplex, with the step, under `checkify`.

    Traced weights are otherwise clipped to the simplex, and only a NaN stays visible. Call it
    beside `mix_rows` or a loss, inside a function that `checkify.checkify` transforms.

    Args:
      step: the step, a scalar int of any dtype; may be traced.
      weights: gamma in [0, 1]; an array [K], `>= 0` with sum 1 within 1e-4; or a schedule returning
        either. Numbers that are known at the call raise at once, as in `weights_at`.

    Raises:
      ValueError: from JAX, when it is traced without `checkify`. With it the error is in the
        returned `err`, and `err.throw()` raises `checkify.JaxRuntimeError`.

    `checkify` itself fails around a `shard_map` on a mesh with explicit axes (what `jax.make_mesh`
    makes by default), even where the check is outside the `shard_map`: use
    `axis_types=(AxisType.Auto,)`, or look at `mix/gamma` in `MixMetrics`, where a NaN shows.

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
        weights_at(step, weights)
        raw = jnp.asarray(weights, jnp.float32)
    inside = jnp.all((raw >= -TOLERANCE) & (raw <= 1.0 + TOLERANCE))
    is_whole = jnp.abs(raw.sum() - 1.0) <= TOLERANCE if raw.ndim else True
    label = "{raw}" if raw.ndim else "gamma = {raw}"
    checkify.check(
        inside & is_whole,
        f"weights must be >= 0 with the sum 1, got {label} at step {{step}}",
        raw=raw,
        step=as_step(step),
    )


def check_simplex(label: str, values: np.ndarray, slack: float = 0.0) -> None:
    """Raise unless the known numbers in `values`, gamma or [K], are on the simplex.

    `slack` is what a single entry may be outside [0, 1]; a sum may always be off by 1e-4.
    """
    need(values.ndim <= 1 and values.size > 0, label, "a number or an array [K]", values.shape)
    finite = bool(np.all(np.isfinite(values)))
    inside = finite and bool(np.all((values >= -slack) & (values <= 1.0 + max(slack, TOLERANCE))))
    if values.ndim == 0:
        inside = inside and float(values) <= 1.0 + slack
        need(inside, label, "in [0, 1]", float(values))
    else:
        need(inside, label, "finite and in [0, 1], with the sum 1", values.tolist())
        total = float(values.astype(np.float64).sum())
        need(abs(total - 1.0) <= TOLERANCE, label, f"of sum 1 (within {TOLERANCE:g})", total)


def numbers_of(weights: Any) -> Array | np.ndarray:
    """A number, a sequence or an array as an array of floats; anything else raises TypeError."""
    if isinstance(weights, list | tuple) and any(isinstance(w, jax.Array) for w in weights):
        weights = jnp.stack([jnp.asarray(weight, jnp.float32) for weight in weights])
    array = weights if isinstance(weights, jax.Array) else np.asarray(weights)
    ok = np.issubdtype(array.dtype, np.integer) or jnp.issubdtype(array.dtype, jnp.floating)
    need(ok, "weights", "a number, an array [K] or a schedule", weights, TypeError)
    return array
