"""Smoothing of weights: the running mean over the updates of a mixer."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmix._adaptive.mixer import Mixer, State, check_state, count_sources
from jaxmix._adaptive.two_words import Pair, approach, pair_of
from jaxmix._checks import need, real_number
from jaxmix._types import Array, ArrayLike


class SmoothWeightsState(NamedTuple):
    """The state of the wrapped mixer, and the mean [K] of its weights in two words."""

    inner: State
    mean: Pair


def smooth_weights(mixer: Mixer, decay: float) -> Mixer:
    """Return a mixer whose weights are the running mean of another mixer's weights.

    An update adds ``(1 - decay) (w - m)`` to the mean m, where w are the weights of the wrapped
    mixer. The first mean is its first weights. Half of a change is reached after
    ``log(0.5) / log(decay)`` updates. The weight of a source that is not seen any more still moves
    to the wrapped mixer's.

    Args:
      mixer: the mixer to smooth, a `Mixer`.
      decay: in [0, 1). At 0 there is no smoothing.

    Returns:
      A `Mixer`.

    Raises:
      ValueError, TypeError: a `decay` outside [0, 1); a `mixer` that is not one.

    Example:
      >>> import jaxmix
      >>> mixer = jaxmix.exponentiated_gradient(num_sources=2, learning_rate=100.0)
      >>> mixer = jaxmix.smooth_weights(mixer, decay=0.9)
      >>> state = mixer.update(mixer.init(), [1.0, 0.0])
      >>> [round(float(w), 3) for w in mixer(state)]
      [0.55, 0.45]
    """
    num_sources = count_sources(mixer)
    kept = real_number("decay", decay, 0.0, 1.0)
    need(kept < 1.0, "decay", "below 1", decay)
    share = 1.0 - kept

    def init() -> SmoothWeightsState:
        inner = mixer.init()
        return SmoothWeightsState(inner, pair_of(mixer(inner)))

    def update(
        state: Any,
        scores: ArrayLike,
        seen: ArrayLike | None = None,
        *,
        weights: ArrayLike | None = None,
    ) -> SmoothWeightsState:
        drawn_by = weights_at(state) if weights is None else weights
        inner = mixer.update(state.inner, scores, seen, weights=drawn_by)
        return SmoothWeightsState(inner, approach(state.mean, mixer(inner), jnp.float32(share)))

    def weights_at(state: Any) -> Array:
        check_state(state, SmoothWeightsState, (num_sources,))
        return state.mean.high

    return Mixer(init, update, weights_at)
