"""A weighted sum of losses that evaluates only those of non-zero weight, forward and backward."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from jaxmix._checks import need
from jaxmix._types import Array, PyTree


def skipping_sum(
    shares: Array, losses: Sequence[Callable[[list[Array]], Any]], arrays: list[Array]
) -> tuple[Array, tuple[PyTree, ...]]:
    """sum_k shares[k] value_k, and the aux trees, for (value_k, aux_k) = losses[k](arrays).

    The gradient is worked out in the forward pass, loss by loss. A plain `lax.cond` would keep the
    parameters and activations of every loss for the backward pass, or as many zeros; here one
    gradient is kept, to which each loss that is evaluated adds its part.
    """
    varying = frozenset().union(*(_varying(jax.eval_shape(fn, arrays)[0]) for fn in losses))
    shares, *arrays = (as_device_varying(array, varying) for array in (shares, *arrays))
    traced = [jax.make_jaxpr(fn, return_shape=True)(arrays) for fn in losses]
    inputs, captured = list(arrays), []
    for jaxpr, _ in traced:  # traced values that a loss closes over become inputs like the others
        captured.append(slice(len(inputs), len(inputs) + len(jaxpr.consts)))
        inputs += jaxpr.consts

    def evaluate(k: int, inputs: list[Array]) -> tuple[Array, PyTree]:
        jaxpr, shapes = traced[k]
        loss = jaxpr_as_fun(ClosedJaxpr(jaxpr.jaxpr, inputs[captured[k]]))
        return jax.tree.unflatten(jax.tree.structure(shapes), loss(*inputs[: len(arrays)]))

    def run(shares: Array, inputs: list[Array], wrt: list[int]) -> tuple[Any, Any]:
        """The total and the aux trees; the values and the total's gradient in the inputs `wrt`."""

        def add(k: int, share: Array, grads: list[Array] | None) -> Any:
            def loss(varied: list[Array]) -> tuple[Array, PyTree]:
                filled = list(inputs)
                for i, array in zip(wrt, varied, strict=True):
                    filled[i] = array
                return evaluate(k, filled)

            value, pull_back, aux = jax.vjp(loss, [inputs[i] for i in wrt], has_aux=True)
            (new,) = pull_back(share.astype(value.dtype) * jnp.ones_like(value))
            return value, aux, new if grads is None else jax.tree.map(jnp.add, grads, new)

        def skip(k: int, share: Array, grads: list[Array] | None) -> Any:
            shapes = jax.eval_shape(functools.partial(add, k), share, grads)
            value, aux, new = jax.tree.map(_zeros, shapes)
            return value, aux, new if grads is None else grads

        grads, terms, values, auxes = None, [], [], []
        for k, share in enumerate(shares):
            branches = functools.partial(add, k), functools.partial(skip, k)
            value, aux, grads = lax.cond(share != 0, *branches, share, grads)
            terms.append(jnp.where(share != 0, share.astype(value.dtype) * value, -0.0))
            values.append(value)
            auxes.append(aux)
        return (functools.reduce(jnp.add, terms), tuple(auxes)), (values, grads)

    @jax.custom_vjp
    def total(shares: Array, inputs: list[Array]) -> Any:
        return run(shares, inputs, [])[0]

    def forward(shares: Any, inputs: list[Any]) -> Any:
        wrt = [i for i, array in enumerate(inputs) if array.perturbed]
        values = [array.value for array in inputs]
        for i in wrt:
            known = varying <= _varying(jax.typeof(values[i]))
            need(
                known,
                "a value with a gradient, in a shard_map",
                "an argument of the loss",
                "a closure",
            )
        out, (losses, grads) = run(shares.value, values, wrt)
        by_input = dict(zip(wrt, grads, strict=True))
        return out, (losses, [by_input.get(i) for i in range(len(inputs))])

    def backward(residuals: Any, cotangents: Any) -> Any:
        (losses, grads), (slope, _) = residuals, cotangents
        in_shares = jnp.stack([(slope * loss).astype(shares.dtype) for loss in losses])
        return in_shares, jax.tree.map(lambda grad: slope.astype(grad.dtype) * grad, grads)

    total.defvjp(forward, backward, symbolic_zeros=True)
    value, auxes = total(shares, inputs)
    return value, lax.stop_gradient(auxes)


def _zeros(like: Any) -> Array:
    """Zeros of the shape, dtype and sharding of a `jax.ShapeDtypeStruct`."""
    zeros = lax.full_like(like, 0)
    return zeros if like.sharding is None else jax.reshard(zeros, like.sharding)


def _varying(aval: Any) -> frozenset[str]:
    """The axes of the enclosing `shard_map` on which a value differs from device to device."""
    return aval.manual_axis_type.varying if aval.manual_axis_type else frozenset()


def as_device_varying(array: Array, varying: frozenset[str]) -> Array:
    """Each device's own copy of an array, so that its gradient is scaled before it is summed."""
    missing = tuple(varying - _varying(jax.typeof(array)))
    is_float = jnp.issubdtype(array.dtype, jnp.inexact)
    return lax.pcast(array, missing, to="varying") if missing and is_float else array
