"""Interpolation of values, parameters and distributions, weighted by a schedule."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmix._checks import check_alike, leaf_name, need
from jaxmix._losses.shares import simplex_weights
from jaxmix._types import Array, ArrayLike, PyTree, Weights


def interpolate(step: ArrayLike, weights: Weights, *trees: PyTree) -> PyTree:
    """Interpolate trees of arrays: ``B_t = sum_k w_k(t) tree_k``.

    Args:
      step: the step, a scalar int of any dtype; may be traced.
      weights: gamma, the weight of the first of two trees; an array [K]; or a schedule returning
        either.
      *trees: K trees (losses, parameters, targets) of equal structure, shapes and float dtypes.

    Returns:
      A tree like the first, with its dtypes. bfloat16 and narrower floats are summed in float32.

      - A tree of weight exactly 0 adds nothing, not even inf or NaN, and its gradient is exactly 0.
        If the code that computed it has an infinite derivative, ``0 * inf`` still gives NaN there:
        see `mix_loss_fns`.
      - A tree of weight exactly 1 is returned bit for bit.
      - The derivative with respect to a weight that is exactly 0 is 0.
      - The result is NaN if traced weights are off the simplex.

    Raises:
      ValueError, TypeError: at trace time, if the trees differ or are not of floats; the message
        names the leaf and the source. Known weights off the simplex, and as for `weights_at`.

    Example:
      >>> import jax.numpy as jnp, jaxmix
      >>> gamma = jaxmix.cosine_schedule(0.0, 1.0, transition_steps=100)
      >>> x, y = {"loss": jnp.float32(3.0)}, {"loss": jnp.float32(1.0)}
      >>> round(float(jaxmix.interpolate(50, gamma, x, y)["loss"]), 5)
      2.0
    """
    arrays = tuple(jax.tree.map(jnp.asarray, tree) for tree in trees)
    check_floats(arrays)
    shares = simplex_weights(step, weights, len(arrays))
    return jax.tree.map(lambda *leaves: _weighted_sum(shares, leaves), *arrays)


def mix_log_probs(step: ArrayLike, weights: Weights, *log_probs: PyTree) -> PyTree:
    """Mix distributions given as log-probabilities: return ``log sum_k w_k(step) p_k``.

    Args:
      step: the step, a scalar int of any dtype; may be traced.
      weights: gamma, the weight of the first of two; an array [K]; or a schedule returning either.
      *log_probs: ``log p_k``: K float arrays of equal shape and dtype, or K trees of them.

    Returns:
      An array (or tree) like the first. bfloat16 and narrower floats are summed in float32.

      - -inf is a probability of 0. Where all sources have -inf, the result is -inf.
      - A source of weight exactly 0 adds nothing to the value or the gradient, not even inf or NaN.
      - A source of weight exactly 1 is returned as it is.
      - The result is NaN if traced weights are off the simplex.

    Raises:
      ValueError, TypeError: at trace time, if the arrays differ or are not of floats; the message
        names the leaf and the source. Known weights off the simplex, and as for `weights_at`.

    Example:
      >>> import jax.numpy as jnp, jaxmix
      >>> x, y = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([1.0, 0.0]))
      >>> jnp.exp(jaxmix.mix_log_probs(0, 0.5, x, y)).tolist()
      [0.75, 0.25]
    """
    check_floats(log_probs)
    shares = simplex_weights(step, weights, len(log_probs))
    return jax.tree.map(lambda *leaves: _mixed(shares, *leaves), *log_probs)


def mix_logits(step: ArrayLike, weights: Weights, *logits: PyTree, axis: int = -1) -> PyTree:
    """Mix distributions given as logits: return ``log sum_k w_k(step) softmax(logits_k)``.

    Each source is normalised first, so a constant added to its logits changes nothing. The result
    is normalised too. (`interpolate` of logits gives a product of the distributions instead.)

    Args:
      step, weights: as for `mix_log_probs`.
      *logits: K float arrays of equal shape and dtype, or K trees of them. A logit of -inf is a
        probability of 0. If all logits along `axis` are -inf, the result there is NaN.
      axis: the axis of the classes (static).

    Returns:
      An array (or tree) like the first, as for `mix_log_probs`.

    Raises:
      ValueError, TypeError: as for `mix_log_probs`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmix
      >>> x, y = jnp.array([9.0, 9.0]), jnp.array([0.0, -jnp.inf])
      >>> [round(float(p), 4) for p in jax.nn.softmax(jaxmix.mix_logits(0, 0.5, x, y))]
      [0.75, 0.25]
    """
    check_floats(logits)
    shares = simplex_weights(step, weights, len(logits))

    def mixed(*leaves: Array) -> Array:
        wide = [leaf.astype(wide_dtype(leaf.dtype)) for leaf in leaves]
        known = [jnp.where(w != 0, leaf, 0) for w, leaf in zip(shares, wide, strict=True)]
        log_probs = [jax.nn.log_softmax(leaf, axis=axis) for leaf in known]
        return _mixed(shares, *log_probs).astype(leaves[0].dtype)

    return jax.tree.map(mixed, *logits)


def check_floats(trees: Sequence[PyTree]) -> None:
    """Raise unless the trees, one per source, are alike and of floats."""
    check_alike(tuple(trees))
    for path, leaf in jax.tree.leaves_with_path(trees[0]):
        name, ok = leaf_name(path), jnp.issubdtype(leaf.dtype, jnp.inexact)
        need(ok, name, "of a float dtype (whole numbers have no mean)", leaf.dtype, TypeError)


def wide_dtype(dtype: Any) -> Any:
    """The dtype to compute in: float32 for narrower floats, any other dtype itself."""
    return dtype if jnp.dtype(dtype).itemsize >= 4 else jnp.dtype(jnp.float32)


def _weighted_sum(shares: Array, leaves: Sequence[Array]) -> Array:
    """sum_k w_k leaf_k; a skipped term is -0.0, since adding 0.0 would turn -0.0 into 0.0."""
    wide = wide_dtype(leaves[0].dtype)
    terms = []
    for share, leaf in zip(shares, leaves, strict=True):
        known = jnp.where(share != 0, leaf.astype(wide), 0)
        terms.append(jnp.where(share != 0, share.astype(wide) * known, -0.0))
    return functools.reduce(jnp.add, terms).astype(leaves[0].dtype)


def _mixed(shares: Array, *log_probs: Array) -> Array:
    """log sum_k w_k p_k; sources of weight 0 are left out, and no log of 0 is computed."""
    wide = wide_dtype(log_probs[0].dtype)
    terms = []
    for share, leaf in zip(shares, log_probs, strict=True):
        log_share = jnp.log(jnp.where(share != 0, share, 1)).astype(wide)
        terms.append(jnp.where(share != 0, leaf.astype(wide) + log_share, -jnp.inf))
    peak = jax.lax.stop_gradient(functools.reduce(jnp.maximum, terms))
    peak = jnp.where(jnp.isfinite(peak), peak, 0)
    total = functools.reduce(jnp.add, [jnp.exp(term - peak) for term in terms])
    log_total = jnp.log(jnp.where(total == 0, 1, total))
    return jnp.where(total == 0, -jnp.inf, peak + log_total).astype(log_probs[0].dtype)
