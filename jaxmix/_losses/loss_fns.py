"""K loss functions mixed into one, of which only those of non-zero weight are evaluated."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmix._checks import need
from jaxmix._losses.interpolate import wide_dtype
from jaxmix._losses.skipping import skipping_sum
from jaxmix._schedules.weights import weights_at
from jaxmix._types import Array, ArrayLike, PyTree, Weights


def mix_loss_fns(
    weights: Weights, *loss_fns: Callable[..., Any], has_aux: bool = False
) -> Callable[..., Any]:
    """Mix K loss functions into one, `loss_fn(step, *args)` = sum_k w_k(step) loss_k(*args).

    A loss of weight exactly 0 is not evaluated (`lax.cond`), neither forward nor backward, so its
    inf or NaN reaches neither the value nor the gradient. Under `vmap` over steps or weights
    `lax.cond` evaluates every loss and selects: nothing is saved, the result is the same.

    The gradient is worked out next to the value, one loss after the other: the activations of one
    loss only are alive at a time, and a skipped loss costs no zeros. It follows that
    - the loss has reverse mode only (`jax.grad`, `jax.vjp`, forward over reverse; no `jax.jvp`);
    - no gradient flows through aux, as through the aux of `jax.value_and_grad`;
    - a loss scale for float16 belongs inside the losses, not on their sum;
    - losses that share a forward pass work it out once each: with both weights above 0, hand their
      values to `interpolate` instead;
    - inside `shard_map` what is differentiated is an argument, not a closure of a loss (it raises).

    Args:
      weights: gamma, the share of the first loss of two; an array [K]; or a schedule returning
        either.
      *loss_fns: K pure functions of `*args`, each returning a float scalar, or `(scalar, aux)` with
        `has_aux`, aux a tree of arrays. With `nnx`, split the module and merge it inside.
      has_aux: the losses return `(scalar, aux)` (static).

    Returns:
      `loss_fn(step, *args)`: the scalar, float32 or wider; with `has_aux` `(scalar, (aux_0, ...))`,
      zeros in the aux of a loss that was skipped.

    Raises:
      ValueError, TypeError: no losses, or one that is no function. When `loss_fn` is called: a loss
        that is no float scalar, and as `weights_at` does.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmix, optax
      >>> gamma = optax.linear_schedule(1.0, 0.0, transition_steps=4)
      >>> loss_fn = jaxmix.mix_loss_fns(gamma, lambda x: x**2, lambda x: jnp.sqrt(x))
      >>> value, grad = jax.value_and_grad(loss_fn, argnums=1)(0, 0.0)
      >>> float(value), float(grad)
      (0.0, 0.0)
    """
    need(len(loss_fns) > 0, "the number of losses", ">= 1", 0)
    for k, fn in enumerate(loss_fns):
        need(callable(fn), f"loss_fns[{k}]", "a function", fn, TypeError)

    def loss_fn(step: ArrayLike, *args: Any) -> Any:
        shares = weights_at(step, weights, num_sources=len(loss_fns))
        leaves, structure = jax.tree.flatten(args)
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

        def as_function_of_arrays(k: int, arrays: list[Array]) -> tuple[Array, PyTree]:
            filled = list(leaves)
            for i, array in zip(places, arrays, strict=True):
                filled[i] = array
            out = loss_fns[k](*structure.unflatten(filled))
            value, aux = out if has_aux else (out, None)
            _check_loss(f"the value of loss_fns[{k}]", value)
            return jnp.asarray(value, wide_dtype(jnp.result_type(value))), aux

        losses = [functools.partial(as_function_of_arrays, k) for k in range(len(loss_fns))]
        total, auxes = skipping_sum(shares, losses, [leaves[i] for i in places])
        return (total, auxes) if has_aux else total

    return loss_fn


def _check_loss(name: str, value: Any) -> None:
    dtype, shape = jnp.result_type(value), jnp.shape(value)
    need(jnp.issubdtype(dtype, jnp.floating), name, "a float", dtype, TypeError)
    need(shape == (), name, "a scalar", shape)
