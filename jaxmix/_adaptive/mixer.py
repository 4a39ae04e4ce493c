"""What a mixer is, and how its arguments are checked: optax's stateful form, with scores."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._adaptive.two_words import Pair
from jaxmix._checks import is_concrete, need
from jaxmix._types import Array, ArrayLike

State = Any
"""A pytree of arrays: a NamedTuple that belongs to one kind of mixer."""


class Update(Protocol):
    """How a mixer takes in scores."""

    def __call__(
        self,
        state: State,
        scores: ArrayLike,
        seen: ArrayLike | None = None,
        *,
        weights: ArrayLike | None = None,
    ) -> State: ...


@dataclasses.dataclass(frozen=True)
class Mixer:
    """Weights that learn, in the form of `optax.schedules.StatefulSchedule`.

    `init() -> state`; `update(state, scores, seen=None, *, weights=None) -> state`;
    `mixer(state) -> weights`, float32 [K] on the simplex. All three work inside jit, scan, vmap,
    pmap and shard_map. A state is a pytree of arrays whose shapes and dtypes never change: keep it
    in the train state. An object of your own with these three methods is a mixer as well.

    Arguments of `update`:
      scores: [K], one number for each source: a loss or a reward. A score that is NaN or infinite
        is left out, like a source that was not seen.
      seen: [K], the number of rows of each source behind its score, or bool. By default every
        source with a finite score was seen. Pass it with `SourceSums`, whose mean is 0 for a source
        without rows: `mixer.update(state, sums.mean(), sums.count)`.
      weights: [K], the weights with which the rows were drawn, if they were not `mixer(state)`.

    On several devices reduce the scores first, by `source_sums(..., axis_name=...)`: from equal
    scores every device computes equal weights, bit for bit.
    """

    init: Callable[[], State]
    update: Update
    weights_of: Callable[[State], Array]

    def __call__(self, state: State) -> Array:
        return self.weights_of(state)


def count_sources(mixer: Any) -> int:
    """K of a mixer; TypeError or ValueError if it is none."""
    parts = [getattr(mixer, name, None) for name in ("init", "update", "__call__")]
    ok = all(map(callable, parts)) and not isinstance(mixer, type)
    need(ok, "mixer", "a mixer, with `init`, `update` and `__call__`", mixer, TypeError)
    weights = jax.eval_shape(lambda: mixer(mixer.init()))
    shape = getattr(weights, "shape", None)
    is_vector = shape is not None and len(shape) == 1
    need(is_vector, "mixer", "a mixer whose weights are an array [K]", weights)
    return weights.shape[0]


def check_state(state: Any, kind: type, shape: tuple[int, ...]) -> None:
    """Raise unless the state is of the kind and size that the mixer's `init` gives."""
    needed = f"of type {kind.__name__}, as `init` gives (restore a checkpoint into that)"
    need(isinstance(state, kind), "state", needed, type(state).__name__, TypeError)
    for field in state:
        if isinstance(field, Pair):
            came = np.shape(field.high)
            need(came == shape, "state", f"of arrays {shape}, as `init` gives", came)


def observed(scores: Any, seen: Any, num_sources: int) -> tuple[Array, Array]:
    """Scores [K] in float32 with 0 for those left out, and the rows [K] behind each, 0 likewise.

    A source that is only marked as seen counts as one row.
    """
    values = as_vector("scores", scores, num_sources)
    used = jnp.isfinite(values)
    if seen is None:
        rows = used.astype(jnp.float32)
    else:
        given = as_vector("seen", seen, num_sources, bools=True)
        rows = jnp.where(used & (given > 0), given, 0.0)
    return jnp.where(rows > 0, values, 0.0), rows


def counts_rows(seen: Any) -> bool:
    """Whether `seen` has numbers of rows, and doesn't only mark sources."""
    return seen is not None and jnp.asarray(seen).dtype != bool


def as_vector(name: str, values: Any, num_sources: int, *, bools: bool = False) -> Array:
    """Real numbers [K] as float32; with `bools` also [K] of bool, and no number below 0."""
    if isinstance(values, list | tuple) and any(isinstance(value, jax.Array) for value in values):
        values = jnp.stack([jnp.asarray(value, jnp.float32) for value in values])
    array = values if isinstance(values, jax.Array) else np.asarray(values)
    real = jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)
    needed = f"{num_sources} numbers, one for each source"
    need(real or (bools and array.dtype == bool), name, needed, values, TypeError)
    need(array.shape == (num_sources,), name, f"of shape ({num_sources},)", array.shape)
    if bools and is_concrete(array):
        need(bool((np.asarray(array) >= 0).all()), name, ">= 0", np.asarray(array).tolist())
    return jnp.asarray(array, jnp.float32)
