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
    """Mix K loss functions into one: ``loss_fn(step, *args) = sum_k w_k(step) loss_k(*args)``.

    A loss of weight exactly 0 is not evaluated (`lax.cond`), neither forward nor backward. So its
    inf or NaN reaches neither the value nor the gradient. Under `vmap` over steps or weights every
    loss is evaluated; the result is the same.

    The gradient is computed together with the value, one loss at a time, so that the activations of
    only one loss are in memory. Therefore:

    - Only reverse mode works (`jax.grad`, `jax.vjp`, forward over reverse), not `jax.jvp`.
    - No gradient flows through aux.
    - A loss scale for float16 belongs inside each loss, not on the sum.
    - A forward pass that losses share is computed once per loss. To share it, pass the values of
      the losses to `interpolate`.
    - Inside `shard_map` a differentiated value must be an argument of the losses, not a closure.

    Pass Flax NNX modules as arguments, as to `nnx.value_and_grad`. Losses run in the order
    0 .. K - 1. An evaluated loss updates variables (statistics, counts of `nnx.Rngs`), and later
    losses see this. A skipped loss changes nothing. No gradient flows through updated values.

    Args:
      weights: gamma, the weight of the first of two losses; an array [K]; or a schedule returning
        either. Their sum is 1; for ``recon + beta * kl`` use `add_loss_fns`.
      *loss_fns: K functions of `*args`, pure except for variables of modules in `args`. Each
        returns a float scalar, or `(scalar, aux)` with `has_aux`; aux is a tree of arrays.
      has_aux: True if the losses return `(scalar, aux)` (static).

    Returns:
      A function `loss_fn(step, *args)` that returns a scalar, float32 or wider; with `has_aux`
      `(scalar, (aux_0, ...))`, with zeros in the aux of a skipped loss. The scalar is NaN if traced
      weights are off the simplex.

    Raises:
      ValueError, TypeError: no losses, or one that is not a function. When `loss_fn` is called: a
        loss that does not return what `has_aux` says; a loss that changes anything in a module but
        values of variables, or changes a variable that is differentiated; known weights off the
        simplex, and as for `weights_at`. Flax raises if a loss changes a module that is a closure.

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
    """Add K weighted loss functions: ``loss_fn(step, *args) = sum_k w_k(step) loss_k(*args)``.

    The weights are `>= 0` and may have any sum. Use it for penalties and regularizers, such as
    ``recon + beta(step) * kl``. For weights with the sum 1 use `mix_loss_fns`: it checks the sum.

    Args:
      weights: a sequence of K numbers or schedules `step -> weight`, one per loss; an array [K]; or
        one schedule `step -> [K]`. All weights are `>= 0`.
      *loss_fns: K functions, as for `mix_loss_fns`.
      has_aux: True if the losses return `(scalar, aux)` (static).

    Returns:
      A function `loss_fn(step, *args)`, as for `mix_loss_fns`. It does not evaluate a loss of
      weight 0. It returns NaN if a traced weight is negative or not finite.

    Raises:
      ValueError, TypeError: as for `mix_loss_fns`, except for the sum of the weights; a number of
        weights other than K; known weights that are negative or not finite, when `loss_fn` is
        called.

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
    """sum_k shares[k] loss_k(*args), with `has_aux` also the aux trees; modules are updated."""
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
    """What a loss returned: a scalar in float32 or wider, and aux or None."""
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
