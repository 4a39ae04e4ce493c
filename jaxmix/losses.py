"""Losses mixed by the schedule that mixes data: interpolated, skipped, summed by source."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from jaxmix._checks import check_alike, leaf_name, need, whole_number
from jaxmix._skipping import skipping_sum
from jaxmix._types import Array, ArrayLike, AxisName, PyTree, ScalarOrSchedule
from jaxmix.weights import weights_at


def interpolate(step: ArrayLike, weights: ScalarOrSchedule, *trees: PyTree) -> PyTree:
    """Interpolate trees of arrays: B_t = sum_k w_k(t) tree_k.

    Args:
      step: the step, a scalar int of any dtype; may be traced.
      weights: gamma, the share of the first tree of two; an array [K]; or a schedule returning
        either.
      *trees: K trees (losses, parameters, targets) of equal structure, shapes and float dtypes.

    Returns:
      A tree like the first, with its dtypes; bfloat16 and narrower are summed in float32. A tree of
      weight exactly 0 adds nothing, inf and NaN included, and its cotangent is exactly 0; what
      comes before it with an infinite derivative still makes NaN of that 0 (see `mix_loss_fns`). A
      tree of weight exactly 1 is returned bit for bit. A weight that is exactly 0 has derivative 0.

    Raises:
      ValueError, TypeError: at trace time, naming the leaf and the source, where the trees differ
        or are not of floats; and as `weights_at` does.

    Example:
      >>> import jax.numpy as jnp, jaxmix
      >>> gamma = jaxmix.cosine_schedule(0.0, 1.0, transition_steps=100)
      >>> x, y = {"loss": jnp.float32(3.0)}, {"loss": jnp.float32(1.0)}
      >>> round(float(jaxmix.interpolate(50, gamma, x, y)["loss"]), 5)
      2.0
    """
    arrays = tuple(jax.tree.map(jnp.asarray, tree) for tree in trees)
    check_floats(arrays)
    shares = weights_at(step, weights, num_sources=len(arrays))
    return jax.tree.map(lambda *leaves: _weighted_sum(shares, leaves), *arrays)


def mix_loss_fns(
    weights: ScalarOrSchedule, *loss_fns: Callable[..., Any], has_aux: bool = False
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


@flax.struct.dataclass
class SourceSums:
    """Sums by source that add up over microbatches, steps and devices: `total` [K], `count` [K].

    `a + b` adds both; divide last, by `mean()`.
    """

    total: Array
    count: Array

    def __add__(self, other: "SourceSums") -> "SourceSums":
        return SourceSums(self.total + other.total, self.count + other.count)

    def mean(self) -> Array:
        """The mean value of each source [K], 0 where the count is 0."""
        return self.total / jnp.maximum(self.count, 1).astype(self.total.dtype)


def source_sums(
    values: Array,
    source: Array,
    num_sources: int,
    *,
    where: Array | None = None,
    axis_name: AxisName | None = None,
) -> SourceSums:
    """Sum values, such as token losses, by the source of their row.

    Args:
      values: float [B, ...], one or more values a row.
      source: int [B], the source of each row; a row of another number than 0 .. K - 1 counts
        nowhere.
      num_sources: K (static).
      where: bool, of the shape of `values`; values where it is False don't count, NaN included.
      axis_name: inside `pmap` or `shard_map`, the axis or axes to sum over (static).

    Returns:
      SourceSums(total, count): total [K] in float32 or wider, count int32 [K]. NaN of one source
      stays in its own sum.

    Raises:
      ValueError, TypeError: at trace time, for shapes or dtypes other than these.

    Example:
      >>> import jax.numpy as jnp, jaxmix
      >>> losses, source = jnp.array([1.0, 2.0, 6.0]), jnp.array([0, 1, 1])
      >>> sums = jaxmix.source_sums(losses, source, num_sources=3)
      >>> sums.mean().tolist(), (sums + sums).count.tolist()
      ([1.0, 4.0, 0.0], [2, 4, 0])
    """
    num_sources = whole_number("num_sources", num_sources, 1)
    values, source = jnp.asarray(values), jnp.asarray(source)
    is_float = jnp.issubdtype(values.dtype, jnp.floating)
    need(is_float, "values", "of a float dtype", values.dtype, TypeError)
    is_int = jnp.issubdtype(source.dtype, jnp.integer)
    need(is_int, "source", "of an integer dtype", source.dtype, TypeError)
    need(source.shape == values.shape[:1], "source", f"of shape {values.shape[:1]}", source.shape)
    kept = jnp.ones_like(values, dtype=bool) if where is None else jnp.asarray(where)
    need(kept.dtype == bool, "where", "of dtype bool", kept.dtype, TypeError)
    need(kept.shape == values.shape, "where", f"of shape {values.shape}", kept.shape)
    wide = jnp.where(kept, values.astype(wide_dtype(values.dtype)), 0)
    trailing = tuple(range(1, values.ndim))
    row_totals, row_counts = wide.sum(trailing), kept.sum(trailing, dtype=jnp.int32)
    mine = source[:, None] == jnp.arange(num_sources, dtype=source.dtype)[None, :]
    total = jnp.where(mine, row_totals[:, None], 0).sum(0)
    count = jnp.where(mine, row_counts[:, None], 0).sum(0)
    sums = SourceSums(total, count)
    return sums if axis_name is None else lax.psum(sums, axis_name)


def check_floats(trees: Sequence[PyTree]) -> None:
    """Raise unless the trees, one a source, are alike and of floats."""
    check_alike(tuple(trees))
    for path, leaf in jax.tree.leaves_with_path(trees[0]):
        name, ok = leaf_name(path), jnp.issubdtype(leaf.dtype, jnp.inexact)
        need(ok, name, "of a float dtype (whole numbers have no mean)", leaf.dtype, TypeError)


def _weighted_sum(shares: Array, leaves: Sequence[Array]) -> Array:
    """sum_k w_k leaf_k; -0.0 is the number that changes no other when added."""
    wide = wide_dtype(leaves[0].dtype)
    terms = []
    for share, leaf in zip(shares, leaves, strict=True):
        known = jnp.where(share != 0, leaf.astype(wide), 0)
        terms.append(jnp.where(share != 0, share.astype(wide) * known, -0.0))
    return functools.reduce(jnp.add, terms).astype(leaves[0].dtype)


def wide_dtype(dtype: Any) -> Any:
    """The dtype to compute in: float32 for narrower floats, any other dtype itself."""
    return dtype if jnp.dtype(dtype).itemsize >= 4 else jnp.dtype(jnp.float32)


def _check_loss(name: str, value: Any) -> None:
    dtype, shape = jnp.result_type(value), jnp.shape(value)
    need(jnp.issubdtype(dtype, jnp.floating), name, "a float", dtype, TypeError)
    need(shape == (), name, "a scalar", shape)
