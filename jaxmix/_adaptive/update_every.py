"""Updates of a mixer at every n-th call only, with the mean of the scores since the last one."""

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


class UpdateEveryState(NamedTuple):
    """The state of the wrapped mixer, and what came since its last update.

    `calls`: int32 scalar. The others are [K], in two words: `total`, the scores times their rows;
    `rows`; and `expected`, the rows that the weights led to expect.
    """

    inner: State
    calls: Array
    total: Pair
    rows: Pair
    expected: Pair


def update_every(mixer: Mixer, n: int) -> Mixer:
    """Return a mixer that updates another one at every n-th update, and is still between.

    The wrapped mixer is given the mean score of each source over the n updates, weighted by the
    rows in `seen`. A source that was not seen in any of them counts as not seen.

    Args:
      mixer: the mixer to update.
      n: updates in one update of the mixer, `>= 1` (static).

    Returns:
      A mixer, as `exponentiated_gradient` is.

    Raises:
      ValueError, TypeError: `n < 1`, something that is no mixer.

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

    def none() -> Pair:
        return pair_of(jnp.zeros(num_sources, jnp.float32))

    def init() -> UpdateEveryState:
        return UpdateEveryState(mixer.init(), jnp.zeros((), jnp.int32), none(), none(), none())

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
        total = add(state.total, values * came)
        rows = add(state.rows, came)
        expected = add(state.expected, drawn_by * came.sum())
        means = total.high / jnp.maximum(rows.high, np.float32(1e-30))
        asked = expected.high / jnp.maximum(expected.high.sum(), np.float32(1e-30))
        given = rows.high if counts_rows(seen) else rows.high > 0
        due = UpdateEveryState(
            mixer.update(state.inner, means, given, weights=asked),
            jnp.zeros((), jnp.int32),
            *(none(), none(), none()),
        )
        waiting = UpdateEveryState(state.inner, state.calls + 1, total, rows, expected)
        is_due = waiting.calls >= n
        return jax.tree.map(lambda new, old: jnp.where(is_due, new, old), due, waiting)

    def weights_at(state: Any) -> Array:
        check_state(state, UpdateEveryState)
        return mixer(state.inner)

    return Mixer(init, update, weights_at)
