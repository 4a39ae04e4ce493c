"""Rows picked from batches of equal shape: each row from the batch of its source."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmix._checks import check_alike, need
from jaxmix._mixing.draws import Draw, draw_sources
from jaxmix._mixing.keys import check_key
from jaxmix._schedules.weights import weights_at
from jaxmix._types import Array, ArrayLike, AxisName, Microbatch, PRNGKey, PyTree, Weights


class MixedBatch(NamedTuple):
    """A mixed batch, and how it was mixed.

    `mix_rows`, `draw_rows` and `PlannedPool.take` return it.

    Attributes:
      rows: a tree of arrays [B, ...], like the batches.
      source: int32 [B], the source of each row.
      weights: float32 [K], the weights of the step.
    """

    rows: PyTree
    source: Array
    weights: Array

    def __repr__(self) -> str:
        """Show dtypes and shapes; no array is copied from a device."""
        shown = [f"{name}={jax.tree.map(_Shown, part)}" for name, part in self._asdict().items()]
        return f"MixedBatch({', '.join(shown)})"


jax.export.register_namedtuple_serialization(MixedBatch, serialized_name="jaxmix.MixedBatch")


def select_rows(source: Array, *batches: PyTree) -> PyTree:
    """Pick row i of the result from ``batches[source[i]]``.

    Every row keeps its place, so no row moves between devices and the sharding stays the same. A
    NaN in a row that is not picked reaches neither the result nor its gradient.

    Args:
      source: int [B], the source of each row in [0, K).
      *batches: K trees of equal structure, shapes [B, ...] and dtypes.

    Returns:
      A tree like the batches, with their dtypes and weak types.

    Raises:
      ValueError, TypeError: at trace time, if the batches differ; the message names the leaf and
        the source.

    Example:
      >>> import jax.numpy as jnp, jaxmix
      >>> x, y = {"label": jnp.array([1, 2])}, {"label": jnp.array([10, 20])}
      >>> jaxmix.select_rows(jnp.array([0, 1]), x, y)["label"].tolist()
      [1, 20]
    """
    check_alike(batches)
    check_numbers("source", source)
    num_rows = num_rows_of("a batch", batches[0])
    need(source.shape[0] == num_rows, "source", f"of {num_rows} rows", source.shape[0])
    if source.dtype.itemsize < 4:  # int8 can't be compared with source 200
        source = source.astype(np.int32)

    def pick(*leaves: Any) -> Any:
        which = align_to(source, leaves[-1])
        chosen = leaves[-1]
        for k, leaf in reversed(list(enumerate(leaves[:-1]))):
            chosen = jnp.where(which == k, leaf, chosen)
        return chosen

    return jax.tree.map(pick, *batches)


def mix_rows(
    key: PRNGKey,
    step: ArrayLike,
    weights: Weights,
    *batches: PyTree,
    draw: Draw = "bernoulli",
    axis_name: AxisName | None = None,
    microbatch: Microbatch | None = None,
    group_size: int = 1,
) -> MixedBatch:
    """Mix batches row by row: ``B_t = gamma_t X + (1 - gamma_t) Y`` as a choice of rows.

    Each row is taken whole from one batch; rows are never averaged.

    Args:
      key: the root key. It is not consumed: pass the same key at every step. Other code may use it
        too, see `bernoulli_sources`.
      step: the optimizer update, a scalar int of any dtype; may be traced. With `optax.MultiSteps`
        pass `gradient_step` of its state, since `nnx.Optimizer.step` counts microsteps there.
      weights: gamma, the weight of the first of two batches; an array [K]; or a schedule returning
        either.
      *batches: K trees of equal structure, shapes [b, ...] and dtypes, where b is the number of
        rows of this call: ``B / shards / microbatches``.
      draw: "bernoulli", "systematic" or a function with the arguments of `bernoulli_sources`
        (static). It gets `microbatch` only if one is given.
      axis_name: inside `pmap` or `shard_map`, the axis that splits the rows, or several in the
        order in which they split them (static). With `()` every device has the same draw.
      microbatch: `(index, count)` if the rows of an update come in `count` calls (static): this
        call has part `index` of B, a scalar int that may be traced, modulo `count`. Each row of the
        update has its own draw, and systematic counts hold for all parts together.
      group_size: the number of neighbouring rows that share a draw (static). It divides B. A group
        may span shards and microbatches.

    Returns:
      `MixedBatch(rows, source, weights)`.

    Raises:
      ValueError, TypeError: batches that differ, a number of weights other than K; and as for
        `bernoulli_sources`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmix
      >>> gamma = jaxmix.cosine_schedule(0.0, 1.0, transition_steps=100)
      >>> x, y = jnp.zeros((8, 3)), jnp.ones((8, 3))
      >>> train_input = jax.jit(lambda step: jaxmix.mix_rows(jax.random.key(0), step, gamma, x, y))
      >>> float(train_input(0).rows.sum()), float(train_input(100).rows.sum())
      (24.0, 0.0)
    """
    check_key(key)
    check_alike(batches)
    simplex = weights_at(step, weights, num_sources=len(batches))
    num_rows = num_rows_of("a batch", batches[0])
    source = draw_sources(
        draw,
        key,
        step,
        simplex,
        num_rows,
        axis_name=axis_name,
        microbatch=microbatch,
        group_size=group_size,
    )
    return MixedBatch(select_rows(source, *batches), source, simplex)


def check_numbers(name: str, numbers: Any) -> None:
    """Raise unless `numbers` is an array of integers, of rank 1."""
    dtype = getattr(numbers, "dtype", None)
    whole = dtype is not None and jnp.issubdtype(dtype, jnp.integer)
    need(whole, name, "an array of integers", numbers if dtype is None else dtype, TypeError)
    need(numbers.ndim == 1, name, "of rank 1", numbers.shape)


def num_rows_of(name: str, batch: PyTree) -> int:
    """The length of the leading axis, the same for every leaf of the tree."""
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(batch)}
    need(len(sizes) == 1 and () not in sizes, name, "of equally many rows in every leaf", sizes)
    return sizes.pop()[0]


def align_to(source: Array, leaf: Array) -> Array:
    """`source` with trailing axes of size 1 up to the rank of the leaf, sharded like its rows.

    On a mesh with explicit axes JAX refuses a replicated and a sharded operand of the same rank.
    """
    sharding = jax.typeof(leaf).sharding
    if AxisType.Explicit in sharding.mesh.axis_types:
        rows_only = PartitionSpec(sharding.spec[0] if sharding.spec else None)
        source = jax.reshard(source, NamedSharding(sharding.mesh, rows_only))
    return source.reshape(source.shape + (1,) * (leaf.ndim - 1))


class _Shown:
    """An array as it is shown in a MixedBatch: `float32[8, 3]`."""

    def __init__(self, array: Any):
        self.text = f"{getattr(array, 'dtype', type(array).__name__)}{list(np.shape(array))}"

    def __repr__(self) -> str:
        return self.text
