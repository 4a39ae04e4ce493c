"""A limit on the change of weights in one update: the mix changes in small increments."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmix._adaptive.mixer import Mixer, State, check_state, count_sources
from jaxmix._adaptive.two_words import Pair, approach, pair_of
from jaxmix._checks import real_number
from jaxmix._types import Array, ArrayLike

SMALLEST = 1e-6
"""Smaller increments are lost in the rounding of float32 weights."""


class LimitChangeState(NamedTuple):
    """The state of the wrapped mixer, and the weights [K] reached so far in two words."""

    inner: State
    reached: Pair


def limit_change(mixer: Mixer, max_increment: float) -> Mixer:
    """Return a mixer that follows another one, with bounded steps.

    ``|w_k(t + 1) - w_k(t)| <= max_increment`` holds for every source. The change of all weights is
    scaled together, so they stay on the simplex. If the wrapped mixer's weights are within the
    limit, they are returned bit for bit. The weight of a source that is not seen any more still
    moves to the wrapped mixer's.

    Args:
      mixer: the mixer to follow, a `Mixer`.
      max_increment: the largest change of a weight in one update, in [1e-6, 1].

    Returns:
      A `Mixer`.

    Raises:
      ValueError, TypeError: a `max_increment` outside [1e-6, 1]; a `mixer` that is not one.

    Example:
      >>> import jaxmix
      >>> mixer = jaxmix.exponentiated_gradient(num_sources=2, learning_rate=100.0)
      >>> mixer = jaxmix.limit_change(mixer, max_increment=0.01)
      >>> state = mixer.update(mixer.init(), [1.0, 0.0])
      >>> [round(float(w), 3) for w in mixer(state)]
      [0.51, 0.49]
    """
    num_sources = count_sources(mixer)
    limit = real_number("max_increment", max_increment, SMALLEST, 1.0)
    usable = np.float32(limit - 2.0**-23)  # weights are rounded before the move and after it

    def init() -> LimitChangeState:
        inner = mixer.init()
        return LimitChangeState(inner, pair_of(mixer(inner)))

    def update(
        state: Any,
        scores: ArrayLike,
        seen: ArrayLike | None = None,
        *,
        weights: ArrayLike | None = None,
    ) -> LimitChangeState:
        drawn_by = weights_at(state) if weights is None else weights
        inner = mixer.update(state.inner, scores, seen, weights=drawn_by)
        target = mixer(inner)
        longest = jnp.max(jnp.abs(target - state.reached.high))
        share = usable / jnp.maximum(longest, usable)
        return LimitChangeState(inner, approach(state.reached, target, share))

    def weights_at(state: Any) -> Array:
        check_state(state, LimitChangeState, (num_sources,))
        return state.reached.high

    return Mixer(init, update, weights_at)
