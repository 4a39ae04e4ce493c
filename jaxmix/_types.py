"""The types in jaxmix's signatures: schedules, arrays and trees of arrays. No logic."""

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
"""Gamma in [0, 1], the weight of source 0; an array [K]; or a schedule that returns either."""

AxisName = str | tuple[str, ...]
"""A mesh or pmap axis, or several in the order in which they split the rows."""

Microbatch = tuple[ArrayLike, int]
"""(index, count): which of `count` equal parts of the global batch of an update."""
