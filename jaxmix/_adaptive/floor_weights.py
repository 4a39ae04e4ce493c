"""A floor for weights: none falls below a minimum."""

import numpy as np

from jaxmix._adaptive.mixer import Mixer, State, count_sources
from jaxmix._checks import need, real_number
from jaxmix._types import Array, ArrayLike


def floor_weights(mixer: Mixer, minimum: float) -> Mixer:
    """Return a mixer whose weights are all at least a minimum.

    The weights are ``minimum + (1 - K minimum) w_k``, where w_k are the weights of the wrapped
    mixer. So all weights change, even if none is below the minimum. In return, a weight depends on
    its own w_k only: if w_k stays the same, so does the weight, and increments never grow. A source
    of weight 0 gets the minimum too. DoReMi calls this smoothing with the uniform mix, of strength
    ``K minimum``.

    Args:
      mixer: the mixer to wrap, a `Mixer`.
      minimum: the smallest weight, in [0, 1 / K].

    Returns:
      A `Mixer` with the states of the wrapped one.

    Raises:
      ValueError, TypeError: a `minimum` below 0 or above 1 / K; a `mixer` that is not one.

    Example:
      >>> import jaxmix
      >>> mixer = jaxmix.exponentiated_gradient(num_sources=2, learning_rate=100.0)
      >>> mixer = jaxmix.floor_weights(mixer, minimum=0.1)
      >>> state = mixer.update(mixer.init(), [1.0, 0.0])
      >>> [round(float(w), 3) for w in mixer(state)]
      [0.9, 0.1]

    Source: Xie et al. 2023, arXiv:2305.10429 (DoReMi).
    """
    num_sources = count_sources(mixer)
    floor = real_number("minimum", minimum, 0.0)
    needed = f"at most 1 / {num_sources}, as there are {num_sources} sources"
    need(floor * num_sources <= 1.0 + 1e-9, "minimum", needed, minimum)
    low = np.float32(floor)
    if float(low) < floor:
        low = np.nextafter(low, np.float32(1.0))
    rest = np.float32(max(0.0, 1.0 - num_sources * float(low)))

    def update(
        state: State,
        scores: ArrayLike,
        seen: ArrayLike | None = None,
        *,
        weights: ArrayLike | None = None,
    ) -> State:
        drawn_by = weights_at(state) if weights is None else weights
        return mixer.update(state, scores, seen, weights=drawn_by)

    def weights_at(state: State) -> Array:
        return low + rest * mixer(state)

    return Mixer(mixer.init, update, weights_at)
