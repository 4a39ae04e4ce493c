"""The type of a mixer, in optax's stateful form, and checks of its arguments."""

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
"""A pytree of arrays: a NamedTuple, a different one for each kind of mixer."""


class Update(Protocol):
    """The type of `Mixer.update`."""

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
    """Weights that follow scores, in the form of `optax.schedules.StatefulSchedule`.

    A mixer is used by three calls, which all work inside jit, scan, vmap, pmap and shard_map:

    - ``mixer.init()`` returns the first state, a pytree of arrays whose shapes and dtypes never
      change. Keep the state in the train state.
    - ``mixer.update(state, scores, seen=None, *, weights=None)`` returns the next state.

      - `scores`, [K]: one number for each source, a loss or a reward. A score that is NaN or
        infinite is ignored, as if its source was not seen.
      - `seen`, [K]: the number of rows behind each score, or bool. None: every source with a finite
        score was seen. Always pass it with `SourceSums`, whose mean is 0 for a source without rows:
        ``mixer.update(state, sums.mean(), sums.count)``.
      - `weights`, [K]: the weights with which the rows were drawn. None: ``mixer(state)``.

    - ``mixer(state)`` returns the weights, float32 [K] on the simplex.

    On several devices reduce the scores first, with `source_sums(..., axis_name=...)`. From equal
    scores every device computes equal weights, bit for bit.

    Functions such as `exponentiated_gradient` make a `Mixer`. The wrappers, such as
    `floor_weights`, also take any other object with these three calls.

    Args:
      init, update: the first two calls, as functions.
      weights_of: the third call, as a function of the state.

    Example:
      >>> import jaxmix
      >>> mixer = jaxmix.exponentiated_gradient(num_sources=2, learning_rate=1.0)
      >>> state = mixer.update(mixer.init(), scores=[1.0, 0.0], seen=[8, 8])
      >>> [round(float(w), 3) for w in mixer(state)]
      [0.731, 0.269]
    """

    init: Callable[[], State]
    update: Update
    weights_of: Callable[[State], Array]

    def __call__(self, state: State) -> Array:
        return self.weights_of(state)


def count_sources(mixer: Any) -> int:
    """The number of sources of a mixer; TypeError or ValueError if it is not a mixer."""
    parts = [getattr(mixer, name, None) for name in ("init", "update", "__call__")]
    ok = all(map(callable, parts)) and not isinstance(mixer, type)
    need(ok, "mixer", "a mixer, with `init`, `update` and `__call__`", mixer, TypeError)
    weights = jax.eval_shape(lambda: mixer(mixer.init()))
    shape = getattr(weights, "shape", None)
    is_vector = shape is not None and len(shape) == 1
    need(is_vector, "mixer", "a mixer whose weights are an array [K]", weights)
    return weights.shape[0]


def check_state(state: Any, kind: type, shape: tuple[int, ...]) -> None:
    """Raise unless the state has the type and the size of a state from the mixer's `init`."""
    needed = f"of type {kind.__name__}, as from `init` (restore a checkpoint into that)"
    need(isinstance(state, kind), "state", needed, type(state).__name__, TypeError)
    for field in state:
        if isinstance(field, Pair):
            came = np.shape(field.high)
            need(came == shape, "state", f"of arrays {shape}, as from `init`", came)


def observed(scores: Any, seen: Any, num_sources: int) -> tuple[Array, Array]:
    """Scores [K] and the rows [K] behind each, float32; both are 0 for a source that is left out.

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
    """True if `seen` has numbers of rows; False if it only marks sources, or is None."""
    return seen is not None and jnp.asarray(seen).dtype != bool


def as_vector(name: str, values: Any, num_sources: int, *, bools: bool = False) -> Array:
    """Real numbers [K] as float32; with `bools` also bool [K], and no number below 0."""
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
