"""Weights stored as logarithms: after any number of updates they are finite and on the simplex."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmix._adaptive.two_words import Pair, add, select
from jaxmix._checks import is_concrete, need
from jaxmix._types import Array

FAR = 1e30
"""The bound of every logarithm and push. `exp(-FAR)` is 0, and sums of a few stay finite."""

SLACK = 2.0**-22
"""How far the sum may be from 1 before it is corrected; a correction per update would add noise."""

TOLERANCE = 1e-4
"""How far the sum of a prior may be from 1, as for all known weights."""


def read_prior(prior: Any, num_sources: int) -> np.ndarray:
    """The prior as float64 [K] with the sum 1, uniform for None; ValueError off the simplex."""
    if prior is None:
        return np.full(num_sources, 1.0 / num_sources)
    need(is_concrete(prior), "prior", "known on the host, not traced", prior, TypeError)
    array = np.asarray(prior)
    is_real = array.dtype.kind in "fiu" or jnp.issubdtype(array.dtype, jnp.floating)
    need(is_real, "prior", "numbers on the simplex", prior, TypeError)
    array = array.astype(np.float64)
    need(array.shape == (num_sources,), "prior", f"of shape ({num_sources},)", array.shape)
    inside = bool(np.all(np.isfinite(array) & (array >= 0)))
    need(inside, "prior", "finite and >= 0, with the sum 1", array.tolist())
    total = float(array.sum())
    need(abs(total - 1.0) <= TOLERANCE, "prior", f"of sum 1 (within {TOLERANCE:g})", total)
    return array / total


def log_of(prior: np.ndarray) -> Pair:
    """The logarithms of a prior, -FAR for 0."""
    logs = np.log(prior, out=np.full_like(prior, -FAR), where=prior > 0)
    high = logs.astype(np.float32)
    return Pair(jnp.asarray(high), jnp.asarray((logs - high).astype(np.float32)))


def weights_of(logs: Pair) -> Array:
    """The weights [K]; their sum is 1 except for rounding, see `reweigh`."""
    return jnp.exp(logs.high) * (1.0 + logs.low)


def reweigh(logs: Pair, push: Array, among: Array) -> Pair:
    """Multiply weights by `exp(push)`, and scale them to the sum that they had before.

    Only the weights in `among` (bool [K]) take part; the others keep their bits. If rounding moved
    the sum of all weights away from 1, the weights that take part correct their part of the error.
    """
    push = jnp.where(among, jnp.clip(push, -FAR, FAR), -FAR)
    less = jnp.where(among, push - jnp.max(push), 0.0)  # a common offset changes nothing
    pushed = add(logs, less)
    # All maxima in one reduction and all sums in another: a reduction costs more than arithmetic.
    highs = jnp.stack([logs.high, pushed.high])
    top, top_pushed = jnp.max(highs, axis=1, initial=-jnp.inf, where=among[None])
    any_takes_part = top > -jnp.inf
    share = jnp.where(among, jnp.exp(logs.high - top), 0.0)
    grown = jnp.where(among, jnp.exp(pushed.high - top_pushed), 0.0)
    weights = weights_of(logs)
    ours = jnp.where(among, weights, 0.0)
    terms = jnp.stack([weights, ours, share, grown, share * jnp.expm1(less)])
    total, our_total, shares, growns, differences = jnp.sum(terms, axis=1)
    # The growth of the sum of those that take part. For small pushes a difference of two logarithms
    # would be mostly rounding errors, which add up over updates.
    mean = differences / shares
    is_near = mean > -0.5
    fall = jnp.where(any_takes_part & ~is_near, top - top_pushed, 0.0)
    growth = jnp.where(is_near, jnp.log1p(mean), jnp.log(growns / shares))
    missing = jnp.where(jnp.abs(1.0 - total) > SLACK, (1.0 - total) * our_total, 0.0)
    moved = add(add(pushed, fall), jnp.where(any_takes_part, missing - growth, 0.0))
    bounded = Pair(jnp.maximum(moved.high, -FAR), moved.low)
    return select(among, bounded, logs)
