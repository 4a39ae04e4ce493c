"""The weights of losses: on the simplex or additive, and NaN if traced weights are not valid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmix._checks import is_concrete, need
from jaxmix._schedules.evaluate import call_schedule
from jaxmix._schedules.weights import TOLERANCE, numbers_of, raw_weights, to_simplex
from jaxmix._types import Array, ArrayLike, Schedule, Weights

LossWeights = Sequence[float | Array | Schedule] | np.ndarray | Array | Schedule
"""K weights `>= 0`: an array [K], a schedule of [K], or a sequence of numbers and schedules."""


def simplex_weights(step: ArrayLike, weights: Weights, num_sources: int) -> Array:
    """`weights_at(step, weights, num_sources)`, but all NaN if traced weights are off the simplex.

    `weights_at` moves such weights onto the simplex: the sum of losses would be silently wrong.
    """
    raw, label = raw_weights(step, weights)
    shares = to_simplex(raw, label, num_sources)
    if is_concrete(raw):
        return shares
    inside = jnp.all((raw >= -TOLERANCE) & (raw <= 1.0 + TOLERANCE))
    is_whole = jnp.abs(raw.sum() - 1.0) <= TOLERANCE if raw.ndim else True
    return jnp.where(inside & is_whole, shares, jnp.nan)


def additive_weights(step: ArrayLike, weights: LossWeights, num_losses: int) -> Array:
    """The weights of a sum of losses, float32 [K]; a weight below 0 or not finite is refused.

    A known weight raises, a traced one becomes NaN.
    """
    need(np.ndim(step) == 0, "step", "a scalar (vmap over many)", np.shape(step))
    if isinstance(weights, list | tuple):
        raw = [_one_weight(k, weight, step) for k, weight in enumerate(weights)]
        raw = jnp.stack(raw) if raw else jnp.zeros(0)
    else:
        raw = call_schedule(weights, step) if callable(weights) else numbers_of(weights)
    needed = f"of shape ({num_losses},), one per loss"
    need(raw.shape == (num_losses,), "weights", needed, raw.shape)
    raw = jnp.asarray(raw, jnp.float32)
    usable = (raw >= 0) & (raw < jnp.inf)
    if is_concrete(raw):
        need(bool(usable.all()), "weights", "finite and >= 0 (negate a loss instead)", raw.tolist())
    return jnp.where(usable, raw, jnp.nan)


def _one_weight(k: int, weight: Any, step: ArrayLike) -> Array:
    raw = call_schedule(weight, step) if callable(weight) else numbers_of(weight)
    need(raw.shape == (), f"weights[{k}]", "a number or a schedule of numbers", raw.shape)
    return jnp.asarray(raw, jnp.float32)
