"""EXP3: weights from rewards, where only the sources that were drawn have one."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmix._adaptive.log_weights import log_of, read_prior, reweigh, weights_of
from jaxmix._adaptive.mixer import Mixer, as_vector, check_state, counts_rows, observed
from jaxmix._adaptive.two_words import Pair
from jaxmix._checks import need, real_number, whole_number
from jaxmix._types import Array, ArrayLike


class Exp3State(NamedTuple):
    """The logarithm of each weight before exploration, in two words."""

    log_weights: Pair


def exp3(
    num_sources: int,
    exploration: float,
    learning_rate: float | None = None,
    prior: ArrayLike | None = None,
) -> Mixer:
    """Return a mixer for rewards that only the drawn sources have: sources as arms of a bandit.

    The weights are ``p_k = (1 - exploration) q_k + exploration prior_k``. An update multiplies q_k
    by ``exp(learning_rate r_k n_k / (N p_k))`` and then divides q by its sum, where n_k of the N
    rows came from source k, with the mean reward r_k. The division by p_k makes the reward of a
    rarely drawn source correct on average. A source that was not drawn, or whose reward is not
    finite, has no gain; its weight changes only through the division.

    Rewards are absolute: scale them to about [0, 1]. If all rewards are positive, a source gains
    by being drawn. With losses as rewards this is online data mixing.

    Args:
      num_sources: K (static).
      exploration: the part of the weights that always follows the prior, in (0, 1].
      learning_rate: the factor of the rewards, `>= 0`; by default ``exploration / K``, as in Auer
        et al.
      prior: [K] on the simplex, the first weights; by default uniform, as in Auer et al. A source
        with prior 0 keeps weight 0.

    Returns:
      A `Mixer`. Its `update` needs `seen`, the number of rows drawn from each source, such as
      ``jnp.bincount(source, length=K)``. If the rows were not drawn with ``mixer(state)``, pass
      their weights as `weights`; jaxmix's wrappers do so.

    Raises:
      ValueError, TypeError: a `num_sources` below 1, an `exploration` outside (0, 1], a negative
        `learning_rate`, a `prior` off the simplex; in `update`, scores that are not [K], no `seen`,
        or `seen` of bool.

    Example:
      >>> import jaxmix
      >>> mixer = jaxmix.exp3(num_sources=2, exploration=0.5, learning_rate=0.5)
      >>> state = mixer.update(mixer.init(), [1.0, float("nan")], seen=[1, 0])
      >>> [round(float(w), 3) for w in mixer(state)]
      [0.616, 0.384]

    Source: Auer et al. 2002, The Nonstochastic Multiarmed Bandit Problem; for data mixing Albalak
    et al. 2023, arXiv:2312.02406.
    """
    num_sources = whole_number("num_sources", num_sources, 1)
    explored = real_number("exploration", exploration, 0.0, 1.0, open_low=True)
    given = explored / num_sources if learning_rate is None else learning_rate
    rate = np.float32(real_number("learning_rate", given, 0.0))
    start = read_prior(prior, num_sources)
    base, kept = (explored * start).astype(np.float32), np.float32(1.0 - explored)

    def init() -> Exp3State:
        return Exp3State(log_of(start))

    def update(
        state: Any,
        scores: ArrayLike,
        seen: ArrayLike | None = None,
        *,
        weights: ArrayLike | None = None,
    ) -> Exp3State:
        values, rows = observed(scores, seen, num_sources)
        needed = "the rows drawn from each source, as numbers [K]"
        need(counts_rows(seen), "seen", needed, seen, TypeError)
        drawn_by = weights_at(state)
        if weights is not None:
            drawn_by = as_vector("weights", weights, num_sources)
        expected = drawn_by * rows.sum()
        estimate = jnp.where(expected > 0, values * rows / jnp.where(expected > 0, expected, 1), 0)
        return Exp3State(reweigh(state.log_weights, rate * estimate, jnp.asarray(start > 0)))

    def weights_at(state: Any) -> Array:
        check_state(state, Exp3State, (num_sources,))
        return kept * weights_of(state.log_weights) + jnp.asarray(base)

    return Mixer(init, update, weights_at)
