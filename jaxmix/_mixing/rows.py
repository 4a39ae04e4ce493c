"""Rows picked from batches of equal shape, each from the batch of its source."""

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
    """A mixed batch: `rows`, a tree [B, ...]; `source`, int32 [B]; `weights`, float32 [K]."""

    rows: PyTree
    source: Array
    weights: Array

    def __repr__(self) -> str:
        """Dtypes and shapes; the numbers stay where they are."""
        shown = [f"{name}={jax.tree.map(_Shown, part)}" for name, part in self._asdict().items()]
        return f"MixedBatch({', '.join(shown)})"


jax.export.register_namedtuple_serialization(MixedBatch, serialized_name="jaxmix.MixedBatch")


def select_rows(source: Array, *batches: PyTree) -> PyTree:
    """Pick row i of the batch from `batches[source[i]]`.

    Every row stays in its place, so no row crosses devices and the batch's sharding is kept. A NaN
    in a row that is not taken reaches neither the result nor its gradient.

    Args:
      source: int [B], the source of each row in [0, K).
      *batches: K trees of equal structure, shapes [B, ...] and dtypes.

    Returns:
      A tree like the batches, with their dtypes and weak types.

    Raises:
      ValueError, TypeError: at trace time, naming the leaf and the source, where the batches
        differ.

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
    """Mix batches row by row: `B_t = gamma_t X + (1 - gamma_t) Y` as a choice of rows.

    Args:
      key: the root key, the same at every step. Step and global row are folded in, after a constant
        of jaxmix's own: the rest of the program may use the key, too.
      step: the optimizer update, a scalar int of any dtype; may be traced. With
        `optax.MultiSteps` it is `gradient_step` of its state; `nnx.Optimizer.step` counts
        microsteps there.
      weights: gamma, the share of the first batch of two; an array [K]; or a schedule returning
        either.
      *batches: K trees of equal structure, shapes [b, ...] and dtypes, where b is the part of the
        global batch B that this call has.
      draw: "bernoulli", "systematic" or a function that is called as `bernoulli_sources` is
        (static): with `axis_name` and `group_size`, and with `microbatch` where one is given.
      axis_name: inside `pmap` or `shard_map`, the axis, or axes in the order in which they split
        the rows (static); `()` gives every device the same draw.
      microbatch: `(index, count)` where the rows of one update come in `count` (static) calls: this
        is part `index` of B, a scalar int that may be traced, taken modulo `count`. No row of the
        update has another one's draw, and systematic counts hold over all its parts together.
      group_size: neighbouring rows that share a draw (static); divides B. A group may span shards
        and microbatches.

    Returns:
      MixedBatch(rows, source, weights).

    Raises:
      ValueError, TypeError: batches that differ, or as many as there are no weights for; and as the
        draw does.

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
    """Raise unless `numbers` is an array of integers of rank 1."""
    dtype = getattr(numbers, "dtype", None)
    whole = dtype is not None and jnp.issubdtype(dtype, jnp.integer)
    need(whole, name, "an array of integers", numbers if dtype is None else dtype, TypeError)
    need(numbers.ndim == 1, name, "of rank 1", numbers.shape)


def num_rows_of(name: str, batch: PyTree) -> int:
    """The length of the leading axis, the same for every leaf of the tree."""
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(batch)}
    need(len(sizes) == 1 and () not in sizes, name, "of as many rows in every leaf", sizes)
    return sizes.pop()[0]


def align_to(source: Array, leaf: Array) -> Array:
    """`source` with trailing axes of size 1 to meet the leaf, split over devices as its rows are.

    A mesh with explicit axes refuses a replicated operand beside a sharded one of the same rank.
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
