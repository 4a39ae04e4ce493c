"""Updates of a mixer at every n-th call only, with the mean of the scores since the last update."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._adaptive.mixer import (
    Mixer,
    State,
    as_vector,
    check_state,
    count_sources,
    counts_rows,
    observed,
)
from jaxmix._adaptive.two_words import Pair, add, pair_of
from jaxmix._checks import whole_number
from jaxmix._types import Array, ArrayLike

TINY = np.float32(1e-30)


class UpdateEveryState(NamedTuple):
    """The state of the wrapped mixer, and the scores since its last update.

    `calls`: int32 scalar. `sums`: [3, K] in two words: the sums of the scores times their rows, of
    the rows, and of the rows expected from the weights.
    """

    inner: State
    calls: Array
    sums: Pair


def update_every(mixer: Mixer, n: int) -> Mixer:
    """Return a mixer that updates another one at every n-th update only.

    Between these updates the weights stay the same. The wrapped mixer gets the mean score of each
    source over the n updates, weighted by the rows in `seen`. A source that was seen in none of
    them counts as not seen.

    Args:
      mixer: the mixer to update, a `Mixer`.
      n: the number of updates per update of the wrapped mixer, `>= 1` (static).

    Returns:
      A `Mixer`.

    Raises:
      ValueError, TypeError: `n < 1`; a `mixer` that is not one.

    Example:
      >>> import jaxmix
      >>> mixer = jaxmix.exponentiated_gradient(num_sources=2, learning_rate=1.0)
      >>> mixer = jaxmix.update_every(mixer, n=2)
      >>> state = mixer.update(mixer.init(), [3.0, 0.0])
      >>> [round(float(w), 3) for w in mixer(state)]
      [0.5, 0.5]
      >>> state = mixer.update(state, [1.0, 0.0])
      >>> [round(float(w), 3) for w in mixer(state)]
      [0.881, 0.119]
    """
    num_sources = count_sources(mixer)
    n = whole_number("n", n, 1)

    def waiting_for(inner: State) -> UpdateEveryState:
        nothing = pair_of(jnp.zeros((3, num_sources), jnp.float32))
        return UpdateEveryState(inner, jnp.zeros((), jnp.int32), nothing)

    def init() -> UpdateEveryState:
        return waiting_for(mixer.init())

    def update(
        state: Any,
        scores: ArrayLike,
        seen: ArrayLike | None = None,
        *,
        weights: ArrayLike | None = None,
    ) -> UpdateEveryState:
        drawn_by = weights_at(state)
        if weights is not None:
            drawn_by = as_vector("weights", weights, num_sources)
        values, came = observed(scores, seen, num_sources)
        sums = add(state.sums, jnp.stack([values * came, came, drawn_by * came.sum()]))
        total, rows, expected = sums.high
        means = total / jnp.maximum(rows, TINY)
        asked = expected / jnp.maximum(expected.sum(), TINY)
        given = rows if counts_rows(seen) else rows > 0
        due = waiting_for(mixer.update(state.inner, means, given, weights=asked))
        waiting = UpdateEveryState(state.inner, state.calls + 1, sums)
        is_due = waiting.calls >= n
        return jax.tree.map(lambda new, old: jnp.where(is_due, new, old), due, waiting)

    def weights_at(state: Any) -> Array:
        check_state(state, UpdateEveryState, (3, num_sources))
        return mixer(state.inner)

    return Mixer(init, update, weights_at)
