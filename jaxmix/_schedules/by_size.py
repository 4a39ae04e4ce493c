"""Weights that follow from the sizes of the sources: temperature sampling and UniMax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import need, real_number
from jaxmix._schedules.arithmetic import normalize
from jaxmix._schedules.evaluate import Formula
from jaxmix._schedules.schedule_errors import check_schedule
from jaxmix._types import Array, ArrayLike, Schedule

COLDEST = 1e-6
"""The lowest temperature of a schedule; there the largest source has all the weight."""


def temperature_schedule(
    sizes: Sequence[float] | np.ndarray,
    temperature: float | Schedule,
    max_size: float | None = None,
) -> Schedule:
    """Make weights proportional to ``min(size, max_size)^(1 / temperature)``.

    At temperature 1 every row is equally likely, at infinity every source. Near 0 the largest
    source has all the weight. It is computed from logarithms, so no size is too large.

    Args:
      sizes: [K], rows or tokens of each source, `> 0`.
      temperature: a number in (0, inf], or a schedule of such numbers. Below 1e-6 it counts as
        1e-6.
      max_size: a larger size counts as `max_size`. None for no limit.

    Returns:
      A schedule of float32 [K] with sum 1.

    Raises:
      ValueError, TypeError: a size, `max_size` or `temperature` that is not positive.

    Example:
      >>> import jaxmix
      >>> weights = jaxmix.temperature_schedule([1e12, 1e10], temperature=2.0)
      >>> [round(float(w), 3) for w in weights(0)]
      [0.909, 0.091]

    Source: Arivazhagan et al. 2019, Massively Multilingual Neural Machine Translation in the Wild;
    with `max_size`, Raffel et al. 2020 (T5).
    """
    counts = _sizes(sizes)
    if max_size is not None:
        counts = np.minimum(counts, real_number("max_size", max_size, 0.0, open_low=True))
    logs = np.log(counts)
    relative = (logs - logs.max()).astype(np.float32)
    relative.setflags(write=False)
    if callable(temperature):
        check_schedule(temperature, "temperature")
    elif temperature != np.inf:
        temperature = real_number("temperature", temperature, 0.0, open_low=True)
    return Formula(_temperature, (relative, temperature))


def unimax_weights(
    sizes: Sequence[float] | np.ndarray, budget: float, max_epochs: float
) -> np.ndarray:
    """Return the most even weights that repeat no source more than `max_epochs` times.

    The budget is split evenly. A source whose part would be more than `max_epochs` epochs gets
    exactly `max_epochs`, and the rest of its part is split among the others.

    Args:
      sizes: [K], rows or tokens of each source, `> 0`.
      budget: rows or tokens of the whole run, `> 0`.
      max_epochs: the most epochs of a source, `> 0`.

    Returns:
      float64 [K] with sum 1, on the host. A budget of more than `max_epochs` epochs of all sources
      counts as exactly that many.

    Raises:
      ValueError, TypeError: a number that is not positive.

    Example:
      >>> import jaxmix
      >>> jaxmix.unimax_weights([1000, 1000, 10], budget=1000, max_epochs=4).tolist()
      [0.48, 0.48, 0.04]

    Source: Chung et al. 2023, UniMax: Fairer and More Effective Language Sampling for Large-Scale
    Multilingual Pretraining.
    """
    counts = _sizes(sizes)
    remaining = real_number("budget", budget, 0.0, open_low=True)
    caps = counts * real_number("max_epochs", max_epochs, 0.0, open_low=True)
    shares = np.zeros_like(caps)
    for done, source in enumerate(np.argsort(caps, kind="stable")):
        shares[source] = min(caps[source], remaining / (len(caps) - done))
        remaining -= shares[source]
    return shares / shares.sum()


def _temperature(step: Array, relative: np.ndarray, temperature: ArrayLike) -> Array:
    del step
    heat = jnp.maximum(jnp.asarray(temperature, jnp.float32), COLDEST)
    need(heat.ndim == 0, "temperature", "a schedule of scalars", heat.shape)
    # Without barriers, the rounding of `exp` of a short array depends on what XLA fuses it with.
    powers = jnp.exp(jax.lax.optimization_barrier(relative * (1.0 / heat)))
    return normalize(jax.lax.optimization_barrier(powers))


def _sizes(sizes: Any) -> np.ndarray:
    counts = np.asarray(sizes, np.float64)
    need(counts.ndim == 1 and counts.size > 0, "sizes", "[K], not empty", counts.shape)
    need(bool(np.all((counts > 0) & np.isfinite(counts))), "sizes", "> 0", counts.tolist())
    return counts
