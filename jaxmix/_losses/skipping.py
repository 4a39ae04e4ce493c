"""A weighted sum of losses that skips losses of weight 0, forward and backward."""

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

Updates = dict[int, Array]
"""New values of inputs, by their number."""

Evaluate = Callable[[int, list[Array]], tuple[Array, tuple[PyTree, Updates]]]
"""`evaluate(k, inputs)`: value, aux and updates of loss k. No traced value is a closure of it."""


def skipping_sum(
    shares: Array, losses: Sequence[Callable[[list[Array]], Any]], arrays: list[Array]
) -> tuple[Array, tuple[PyTree, ...], Updates]:
    """sum_k shares[k] value_k, the aux trees, and the new values of the arrays that losses update.

    `losses[k](arrays)` returns `(value_k, aux_k, updates_k)`. A loss gets the arrays as updated by
    the losses before it.

    The gradient is computed in the forward pass, loss by loss. A plain `lax.cond` would keep the
    parameters and activations of every loss, or as many zeros, for the backward pass. Here only one
    gradient is kept, and each evaluated loss adds to it.
    """

    def trace() -> list[Any]:
        return [jax.make_jaxpr(fn, return_shape=True)(arrays) for fn in losses]

    traced = trace()
    updated = sorted(set().union(*(shapes[2] for _, shapes in traced)))
    varying = frozenset[str]().union(*(_varying(shapes[0]) for _, shapes in traced))
    if varying:  # inside a shard_map
        shares, arrays = as_device_varying(shares, varying), list(arrays)
        for i, array in enumerate(arrays):
            if i not in updated and jnp.issubdtype(array.dtype, jnp.inexact):
                arrays[i] = as_device_varying(array, varying)
        for _, (_, _, updates) in trace():
            for i, shape in updates.items():
                arrays[i] = as_device_varying(arrays[i], _varying(shape))
        traced = trace()
    inputs, pieces, num_arrays = list(arrays), [], len(arrays)
    for jaxpr, shapes in traced:  # traced values that a loss closes over become inputs as well
        captured = slice(len(inputs), len(inputs) + len(jaxpr.consts))
        pieces.append((jaxpr.jaxpr, captured, jax.tree.structure(shapes)))
        inputs += jaxpr.consts

    def evaluate(k: int, inputs: list[Array]) -> tuple[Array, tuple[PyTree, Updates]]:
        jaxpr, captured, structure = pieces[k]
        flat = jaxpr_as_fun(ClosedJaxpr(jaxpr, inputs[captured]))(*inputs[:num_arrays])
        value, aux, updates = structure.unflatten(flat)
        return as_device_varying(value, varying), (aux, updates)

    value, auxes, updates = _with_gradient(evaluate, updated, varying)(shares, inputs)
    return value, *lax.stop_gradient((auxes, updates))


def _with_gradient(
    evaluate: Evaluate, updated: list[int], varying: frozenset[str]
) -> Callable[[Array, list[Array]], Any]:
    """`_run` as a function of shares and inputs that can be differentiated."""

    @jax.custom_vjp
    def total(shares: Array, inputs: list[Array]) -> Any:
        return _run(evaluate, updated, shares, inputs, [])[0]

    def forward(shares: Any, inputs: list[Any]) -> Any:
        wrt = [i for i, array in enumerate(inputs) if array.perturbed]
        values = [array.value for array in inputs]
        for i in wrt:
            kind, what = jax.typeof(values[i]), "a variable that a loss changes"
            no_gradient = "one without a gradient (nnx.value_and_grad differentiates nnx.Param)"
            need(i not in updated, what, no_gradient, kind)
            what = "a value with a gradient"
            needed = "an argument of the loss inside shard_map"
            need(varying <= _varying(kind), what, needed, "a closure")
        out, (losses, grads) = _run(evaluate, updated, shares.value, values, wrt)
        by_input = dict(zip(wrt, grads, strict=True))
        return out, (losses, [by_input.get(i) for i in range(len(inputs))])

    def backward(residuals: Any, cotangents: Any) -> Any:
        (losses, grads), (slope, _, _) = residuals, cotangents
        in_shares = jnp.stack([(slope * loss).astype(jnp.float32) for loss in losses])
        return in_shares, jax.tree.map(lambda grad: slope.astype(grad.dtype) * grad, grads)

    total.defvjp(forward, backward, symbolic_zeros=True)
    return total


def _run(
    evaluate: Evaluate, updated: list[int], shares: Array, inputs: list[Array], wrt: list[int]
) -> tuple[Any, Any]:
    """(total, aux trees, updates), (values, gradient of the total with respect to `wrt`)."""

    def add(k: int, share: Array, latest: Updates, grads: list[Array] | None) -> Any:
        def loss(varied: list[Array]) -> tuple[Array, Any]:
            filled = list(inputs)
            for i, array in [*latest.items(), *zip(wrt, varied, strict=True)]:
                filled[i] = array
            return evaluate(k, filled)

        value, pull_back, (aux, updates) = jax.vjp(loss, [inputs[i] for i in wrt], has_aux=True)
        (new,) = pull_back(share.astype(value.dtype) * jnp.ones_like(value))
        for i, update in updates.items():
            latest = latest | {i: as_device_varying(update, _varying(jax.typeof(latest[i])))}
        return value, aux, latest, new if grads is None else jax.tree.map(jnp.add, grads, new)

    def skip(k: int, share: Array, latest: Updates, grads: list[Array] | None) -> Any:
        shapes = jax.eval_shape(functools.partial(add, k), share, latest, grads)
        value, aux, _, new = shapes
        if grads is None:
            grads = jax.tree.map(lambda like: _full(like, -0.0), new)  # adds nothing, not to -0.0
        return *jax.tree.map(lambda like: _full(like, 0), (value, aux)), latest, grads

    latest, grads = {i: inputs[i] for i in updated}, None
    terms, values, auxes = [], [], []
    for k, share in enumerate(shares):
        branches = functools.partial(add, k), functools.partial(skip, k)
        value, aux, latest, grads = lax.cond(share != 0, *branches, share, latest, grads)
        terms.append(jnp.where(share != 0, share.astype(value.dtype) * value, -0.0))
        values.append(value)
        auxes.append(aux)
    return (functools.reduce(jnp.add, terms), tuple(auxes), latest), (values, grads)


def _full(like: Any, fill: float) -> Array:
    """An array of one number, of the shape, dtype and sharding of a `jax.ShapeDtypeStruct`."""
    full = lax.full_like(like, fill)
    full = full if like.sharding is None else jax.reshard(full, like.sharding)
    return as_device_varying(full, _varying(like))


def _varying(aval: Any) -> frozenset[str]:
    """The axes of the enclosing `shard_map` along which a value differs between devices."""
    return aval.manual_axis_type.varying if aval.manual_axis_type else frozenset()


def as_device_varying(array: Array, varying: frozenset[str]) -> Array:
    """An array with a separate copy per device, so that gradients are scaled, then summed."""
    missing = tuple(varying - _varying(jax.typeof(array)))
    return lax.pcast(array, missing, to="varying") if missing else array
