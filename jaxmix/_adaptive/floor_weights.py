"""A floor: no source's weight falls below a minimum."""

import numpy as np

from jaxmix._adaptive.mixer import Mixer, State, count_sources
from jaxmix._checks import need, real_number
from jaxmix._types import Array, ArrayLike


def floor_weights(mixer: Mixer, minimum: float) -> Mixer:
    """Return a mixer none of whose weights is below a minimum.

    `minimum + (1 - K minimum) w_k`: each source is given the minimum, and the rest is shared out by
    the wrapped mixer's weights. This is DoReMi's smoothing with the uniform mix, of strength
    `K minimum`. It changes all weights, also where none is below the minimum; in return a weight
    depends on no other source's, so one that is kept stays kept, and no increment grows. A source
    of weight 0 is given the minimum as well.

    Args:
      mixer: the mixer to bound.
      minimum: in [0, 1 / K].

    Returns:
      A mixer with the states of the wrapped one.

    Raises:
      ValueError, TypeError: a minimum below 0 or above 1 / K, something that is no mixer.

    Example:
      >>> import jaxmix
      >>> mixer = jaxmix.exponentiated_gradient(num_sources=2, learning_rate=100.0)
      >>> mixer = jaxmix.floor_weights(mixer, minimum=0.1)
      >>> state = mixer.update(mixer.init(), [1.0, 0.0])
      >>> [round(float(w), 3) for w in mixer(state)]
      [0.9, 0.1]
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
