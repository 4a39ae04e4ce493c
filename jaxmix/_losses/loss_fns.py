"""K loss functions mixed into one; a loss of weight 0 is not evaluated."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import need, plain_number
from jaxmix._losses.interpolate import wide_dtype
from jaxmix._losses.modules import Arguments
from jaxmix._losses.shares import LossWeights, additive_weights, simplex_weights
from jaxmix._losses.skipping import skipping_sum
from jaxmix._types import Array, ArrayLike, PyTree, Weights


def mix_loss_fns(
    weights: Weights, *loss_fns: Callable[..., Any], has_aux: bool = False
) -> Callable[..., Any]:
    """Mix K loss functions into one: `loss_fn(step, *args) = sum_k w_k(step) loss_k(*args)`.

    A loss of weight exactly 0 is not evaluated (`lax.cond`), neither forward nor backward, so its
    inf or NaN reaches neither the value nor the gradient. Under `vmap` over steps or weights
    `lax.cond` evaluates every loss and selects: nothing is saved, the result is the same.

    The gradient is worked out next to the value, one loss after the other: the activations of one
    loss only are alive at a time, and a skipped loss costs no zeros. It follows that:

    - the loss has reverse mode only (`jax.grad`, `jax.vjp`, forward over reverse; no `jax.jvp`);
    - no gradient flows through aux, as through the aux of `jax.value_and_grad`;
    - a loss scale for float16 belongs inside the losses, not on their sum;
    - losses that share a forward pass work it out once each: with both weights above 0, hand their
      values to `interpolate` instead;
    - inside `shard_map` what is differentiated is an argument, not a closure of a loss (it raises).

    Modules of Flax NNX are passed as arguments, as to `nnx.value_and_grad`. A loss that is
    evaluated changes their variables (statistics, counts of `nnx.Rngs`), for the losses after it
    too, in the order 0 .. K - 1; one that is skipped changes nothing. Values that are written have
    no gradient. Modules that a loss closes over cannot be changed (Flax raises).

    Args:
      weights: gamma, the share of the first loss of two; an array [K]; or a schedule returning
        either. They are a mixture, with the sum 1: for recon + beta * kl see `add_loss_fns`.
      *loss_fns: K functions of `*args`, pure but for variables of modules in `args`, each returning
        a float scalar, or `(scalar, aux)` with `has_aux`, aux a tree of arrays.
      has_aux: the losses return `(scalar, aux)` (static).

    Returns:
      `loss_fn(step, *args)`: the scalar, float32 or wider; with `has_aux` `(scalar, (aux_0, ...))`,
      zeros in the aux of a loss that was skipped. It is NaN where traced weights, or a schedule's
      at a traced step, are off the simplex by more than the tolerance of `weights_at`.

    Raises:
      ValueError, TypeError: no losses, or one that is no function. When `loss_fn` is called: a loss
        that returns no float scalar, or a tuple without `has_aux`; a loss that changes more of a
        module than values of variables, or a variable that is differentiated; known weights off
        the simplex, and as `weights_at` does.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmix, optax
      >>> gamma = optax.linear_schedule(1.0, 0.0, transition_steps=4)
      >>> loss_fn = jaxmix.mix_loss_fns(gamma, lambda x: x**2, lambda x: jnp.sqrt(x))
      >>> value, grad = jax.value_and_grad(loss_fn, argnums=1)(0, 0.0)
      >>> float(value), float(grad)
      (0.0, 0.0)
    """
    _check_functions(loss_fns)

    def loss_fn(step: ArrayLike, *args: Any) -> Any:
        _check_step(step)
        return _weighted(simplex_weights(step, weights, len(loss_fns)), loss_fns, args, has_aux)

    return loss_fn


def add_loss_fns(
    weights: LossWeights, *loss_fns: Callable[..., Any], has_aux: bool = False
) -> Callable[..., Any]:
    """Add K loss functions with weights of any size: `loss_fn(step, *args)`, as `mix_loss_fns`.

    For penalties and regularizers: reconstruction + beta(step) * divergence. Where the weights are
    a mixture, with the sum 1, use `mix_loss_fns`, which holds them to it.

    Args:
      weights: an array [K] or a sequence of K, one weight per loss, `>= 0`; each of a sequence a
        number or a schedule `step -> weight`; or one schedule `step -> [K]`.
      *loss_fns: K functions, as for `mix_loss_fns`.
      has_aux: the losses return `(scalar, aux)` (static).

    Returns:
      `loss_fn(step, *args)`, as `mix_loss_fns` returns. A loss of weight 0 is not evaluated.

    Raises:
      ValueError, TypeError: as `mix_loss_fns`; a number of weights other than K; when `loss_fn` is
        called, known weights that are negative or not finite. Traced ones make the total NaN.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmix, optax
      >>> beta = optax.linear_schedule(0.0, 100.0, transition_steps=50)
      >>> recon, kl = lambda z: (z**2).sum(), lambda z: jnp.exp(z).sum()
      >>> loss_fn = jax.jit(jaxmix.add_loss_fns([1.0, beta], recon, kl))
      >>> float(loss_fn(0, jnp.zeros(3))), float(loss_fn(30, jnp.zeros(3)))
      (0.0, 180.0)
    """
    _check_functions(loss_fns)

    def loss_fn(step: ArrayLike, *args: Any) -> Any:
        _check_step(step)
        return _weighted(additive_weights(step, weights, len(loss_fns)), loss_fns, args, has_aux)

    return loss_fn


def _check_functions(loss_fns: Sequence[Any]) -> None:
    need(len(loss_fns) > 0, "the number of losses", ">= 1", 0)
    for k, fn in enumerate(loss_fns):
        need(callable(fn), f"loss_fns[{k}]", "a function", fn, TypeError)


def _check_step(step: Any) -> None:
    is_number = hasattr(plain_number(step), "__float__")
    need(is_number, "step", "a number: call `loss_fn(step, *args)`", step, TypeError)


def _weighted(
    shares: Array, loss_fns: Sequence[Callable[..., Any]], args: tuple[Any, ...], has_aux: bool
) -> Any:
    """sum_k shares[k] loss_k(*args), with the aux trees where there are; modules are updated."""
    arguments = Arguments(args)
    places = [i for i, leaf in enumerate(arguments.leaves) if isinstance(leaf, jax.Array)]

    def as_function_of_arrays(k: int, arrays: list[Array]) -> Any:
        leaves = list(arguments.leaves)
        for i, array in zip(places, arrays, strict=True):
            leaves[i] = array
        built, changes = arguments.build(leaves)
        value, aux = _value_and_aux(f"loss_fns[{k}]", loss_fns[k](*built), has_aux)
        changed = changes(f"loss_fns[{k}]")
        return value, aux, {places.index(i): array for i, array in changed.items()}

    losses = [functools.partial(as_function_of_arrays, k) for k in range(len(loss_fns))]
    total, auxes, changed = skipping_sum(shares, losses, [arguments.leaves[i] for i in places])
    arguments.store({places[i]: array for i, array in changed.items()})
    return (total, auxes) if has_aux else total


def _value_and_aux(name: str, out: Any, has_aux: bool) -> tuple[Array, PyTree]:
    """What a loss has returned, as a scalar of float32 or wider and its aux."""
    if has_aux:
        is_pair = isinstance(out, tuple) and len(out) == 2
        needed = "a function that returns (loss, aux), as has_aux=True says"
        need(is_pair, name, needed, _kind(out), TypeError)
        value, aux = out
    else:
        needed = "a function that returns a scalar (pass has_aux=True for (loss, aux))"
        need(not isinstance(out, tuple), name, needed, _kind(out), TypeError)
        value, aux = out, None
    name = f"the value of {name}"
    is_number = isinstance(value, jax.Array | np.ndarray | np.generic | bool | int | float)
    need(is_number, name, "a float scalar", _kind(value), TypeError)
    dtype, shape = jnp.result_type(value), jnp.shape(value)
    need(jnp.issubdtype(dtype, jnp.floating), name, "a float", dtype, TypeError)
    need(shape == (), name, "a scalar", shape)
    return jnp.asarray(value, wide_dtype(dtype)), aux


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "an array" if isinstance(value, jax.Array) else f"a {type(value).__name__}"
