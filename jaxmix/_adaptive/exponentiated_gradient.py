"""Exponentiated gradient: the weight of a source is multiplied by the exponential of its score."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmix._adaptive.log_weights import log_of, read_prior, reweigh, weights_of
from jaxmix._adaptive.mixer import Mixer, check_state, observed
from jaxmix._adaptive.two_words import Pair
from jaxmix._checks import real_number, whole_number
from jaxmix._types import Array, ArrayLike


class ExponentiatedGradientState(NamedTuple):
    """The logarithm of each weight, in two words."""

    log_weights: Pair


def exponentiated_gradient(
    num_sources: int, learning_rate: float, prior: ArrayLike | None = None
) -> Mixer:
    """Return a mixer that gives more weight to sources with higher scores.

    An update multiplies w_k by ``exp(learning_rate score_k)``, for the sources that were seen with
    a finite score. These weights are then scaled back to the sum that they had before. The weights
    of all other sources stay the same, bit for bit. Scores are relative: a number added to all of
    them changes nothing.

    With losses as scores this is the update of group DRO. With the excess of losses over a
    reference model's it is DoReMi. If one source always has the highest score, its weight
    approaches 1: see `floor_weights`.

    Args:
      num_sources: K (static).
      learning_rate: the factor of the scores, `>= 0`.
      prior: [K] on the simplex, the first weights; by default uniform. A source with prior 0 keeps
        weight 0.

    Returns:
      A `Mixer`.

    Raises:
      ValueError, TypeError: a `num_sources` below 1, a negative `learning_rate`, a `prior` off the
        simplex; in `update`, scores that are not [K].

    Example:
      >>> import jaxmix
      >>> mixer = jaxmix.exponentiated_gradient(num_sources=3, learning_rate=1.0)
      >>> state = mixer.update(mixer.init(), [1.5, 0.5, float("nan")])
      >>> [round(float(w), 3) for w in mixer(state)]
      [0.487, 0.179, 0.333]

    Source: Sagawa et al. 2020, arXiv:1911.08731 (group DRO); Xie et al. 2023, arXiv:2305.10429
    (DoReMi).
    """
    num_sources = whole_number("num_sources", num_sources, 1)
    rate = np.float32(real_number("learning_rate", learning_rate, 0.0))
    start = read_prior(prior, num_sources)

    def init() -> ExponentiatedGradientState:
        return ExponentiatedGradientState(log_of(start))

    def update(
        state: Any,
        scores: ArrayLike,
        seen: ArrayLike | None = None,
        *,
        weights: ArrayLike | None = None,
    ) -> ExponentiatedGradientState:
        del weights  # only the scores matter
        check_state(state, ExponentiatedGradientState, (num_sources,))
        values, rows = observed(scores, seen, num_sources)
        among = (rows > 0) & jnp.asarray(start > 0)
        return ExponentiatedGradientState(reweigh(state.log_weights, rate * values, among))

    def weights(state: Any) -> Array:
        check_state(state, ExponentiatedGradientState, (num_sources,))
        return weights_of(state.log_weights)

    return Mixer(init, update, weights)
