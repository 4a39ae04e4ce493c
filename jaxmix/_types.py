"""The types that jaxmix speaks: schedules, arrays and trees of arrays. No logic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import numpy as np

Array = jax.Array
ArrayLike = chex.Numeric
"""A number or an array: NumPy, JAX, traced or not."""

PRNGKey = chex.PRNGKey
"""A plain JAX key, typed (`jax.random.key`) or old-style (`jax.random.PRNGKey`)."""

PyTree = Any
"""Any tree of arrays that `jax.tree` can walk."""

Schedule = Callable[[Any], Any]
"""`schedule(step) -> value`: exactly an `optax.Schedule`."""

Weights = float | Sequence[float] | np.ndarray | jax.Array | Schedule
"""A share of source 0 in [0, 1], an array [K] of weights, or a schedule that returns either."""

AxisName = str | tuple[str, ...]
"""A mesh or pmap axis, or several in the order in which they split the rows."""

Microbatch = tuple[ArrayLike, int]
"""(index, count): part `index` of the `count` equal parts of the global batch of an update."""
