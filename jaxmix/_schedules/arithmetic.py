"""Arithmetic of schedules: ends met exactly, values in range, the same bits in every compilation.

XLA turns a division by a constant into a product. So the fraction of a transition is a quotient of
two numbers that both depend on the step. The second half is computed from the steps that are left,
not as one minus the first: the difference would keep few bits of a value near 0.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jaxmix._types import Array, ArrayLike

Value = Array | np.float32


def elapsed_and_left(step: Array, begin: float, steps: float) -> tuple[Array, Array]:
    """Steps since `begin` and steps left to `begin + steps`, float32, held at 0 beyond their ends.

    Whole numbers are subtracted as integers, so both are exact up to the last step, for
    any `begin` and `steps`. Their sum is never 0.
    """
    whole = jnp.issubdtype(step.dtype, jnp.integer)
    if whole and begin.is_integer() and steps.is_integer():
        end, most = int(begin) + int(steps), jnp.iinfo(step.dtype).max
        first, last = min(int(begin), most), min(end, most)
        now = jnp.clip(step, first, last)
        left = (last - now).astype(jnp.float32) + np.float32(end - last)
        return (now - first).astype(jnp.float32), left
    first = np.float32(begin)
    last = np.maximum(np.float32(begin + steps), np.nextafter(first, np.float32(np.inf)))
    now = clip(step.astype(jnp.float32), first, last)
    return now - first, last - now


def clip(value: ArrayLike, low: ArrayLike, high: ArrayLike) -> Array:
    """`value` in [low, high]; unlike in `jnp.clip`, the derivative on a bound is 1, not 1/2."""
    return jnp.where(value < low, low, jnp.where(value > high, high, value))


def transition(
    init: Value, end: Value, elapsed: Array, left: Array, rise: Callable[[Array], Array]
) -> Array:
    """From `init` to `end`: first `init + d rise(p)`, from half way on `end - d rise(1 - p)`.

    `rise` goes from 0 at 0 to 1/2 at 1/2; each half is as precise as floats near its own end are.
    """
    near = elapsed <= left
    part = rise(jnp.where(near, elapsed, left) / (elapsed + left))
    half = 0.5 * jnp.abs(end - init)
    # A bare product is fused into the sum after it by some compilations and not by others, which
    # changes its last bit; one that is compared with something as well is never fused.
    way = clip((end - init) * part, -half, half)
    middle = 0.5 * init + 0.5 * end
    return join(jnp.where(near, init + way, end - way), near, init, middle, end)


def linear(share: Array) -> Array:
    """The `rise` of a straight line."""
    return share


def join(value: Array, near: Array, init: Value, middle: Value, end: Value) -> Array:
    """`value` kept within init .. middle in the half that is near `init`, else middle .. end."""
    one, other = jnp.where(near, init, middle), jnp.where(near, middle, end)
    return clip(value, jnp.minimum(one, other), jnp.maximum(one, other))


def normalize(weights: Array) -> Array:
    """`weights / sum(weights)` of [K], where weights below 0 count as 0.

    Weights whose sum is 1 except for rounding are returned as they are, so a second call changes no
    bit. The weights are added in a fixed tree, since a plain sum has no fixed order. The divisor is
    the total, which is never below a weight. It is written as a maximum: XLA would multiply by the
    reciprocal of a single number.
    """
    weights = total = jnp.where(weights < 0, 0.0, weights)
    while total.shape[0] > 1:
        half = (total.shape[0] + 1) // 2
        total = total[:half] + jnp.pad(total[half:], (0, 2 * half - total.shape[0]))
    is_whole = jnp.abs(total - 1.0) <= 2.0**-20
    return jnp.where(is_whole, weights, weights / jnp.maximum(weights, total))
