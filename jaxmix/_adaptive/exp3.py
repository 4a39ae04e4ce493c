"""EXP3: weights from the rewards of those sources only that rows were drawn from."""

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
    """Return a mixer that treats sources as the arms of a bandit: rewards only where rows came.

    The weights are `p_k = (1 - exploration) q_k + exploration prior_k`. With n_k of the N rows from
    source k and their mean reward r_k, `q_k <- q_k exp(learning_rate r_k n_k / (N p_k))`, brought
    back to the sum 1. Dividing by the share of rows that was to be expected makes the reward right
    on average for sources that are seldom drawn. A source that was not drawn, or whose reward is
    not finite, gains nothing; as the others gain, its weight changes, but all such sources keep the
    ratios of their q.

    From Auer et al. 2002 ("The nonstochastic multiarmed bandit problem"); with losses as rewards
    it is online data mixing (Albalak et al. 2023, arXiv:2312.02406). Rewards are absolute: bring
    them to about [0, 1], and remember that with rewards above 0 being drawn is a gain in itself.

    Args:
      num_sources: K (static).
      exploration: the share of rows that is always drawn by the prior, in (0, 1].
      learning_rate: the factor of the rewards, `>= 0`; by default exploration / K, as in Auer et
        al.
      prior: [K] on the simplex, the first weights; uniform by default, as in Auer et al. A source
        of prior 0 keeps weight 0.

    Returns:
      A mixer: `init() -> state`, `update(state, scores, seen) -> state`,
      `mixer(state) -> float32 [K]`. `seen` must be given: the rows drawn from each source, [K], as
      `jnp.bincount(source, length=K)` counts them. If the rows were drawn with other weights than
      `mixer(state)`, pass those as `weights=`; jaxmix's wrappers do.

    Raises:
      ValueError, TypeError: fewer than one source, an exploration outside (0, 1], a negative
        learning rate, a prior off the simplex; in `update`, scores of another shape than [K], no
        `seen` or one of bool.

    Example:
      >>> import jaxmix
      >>> mixer = jaxmix.exp3(num_sources=2, exploration=0.5, learning_rate=0.5)
      >>> state = mixer.update(mixer.init(), [1.0, float("nan")], seen=[1, 0])
      >>> [round(float(w), 3) for w in mixer(state)]
      [0.616, 0.384]
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
