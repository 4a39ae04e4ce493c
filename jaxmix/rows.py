"""Rows moved: picked from batches of equal shape, or taken from buffers of different lengths."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmix._checks import check_alike, is_concrete, need
from jaxmix._types import Array, ArrayLike, AxisName, PRNGKey, PyTree, ScalarOrSchedule
from jaxmix.draws import bernoulli_sources, uniform_rows
from jaxmix.weights import weights_at


class MixedBatch(NamedTuple):
    """A mixed batch: `rows`, a tree [B, ...]; `source`, int32 [B]; `weights`, float32 [K]."""

    rows: PyTree
    source: Array
    weights: Array

    def __repr__(self) -> str:
        """Dtypes and shapes; the numbers stay where they are."""
        shown = [f"{name}={jax.tree.map(_Shown, part)}" for name, part in self._asdict().items()]
        return f"MixedBatch({', '.join(shown)})"


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
    need(source.ndim == 1, "source", "of rank 1", source.shape)
    need(jnp.issubdtype(source.dtype, jnp.integer), "source", "integers", source.dtype, TypeError)
    num_rows = _num_rows("a batch", batches[0])
    need(source.shape[0] == num_rows, "source", f"of {num_rows} rows", source.shape[0])

    def pick(*leaves: Any) -> Any:
        which = _beside(source, leaves[-1])
        chosen = leaves[-1]
        for k, leaf in reversed(list(enumerate(leaves[:-1]))):
            chosen = jnp.where(which == k, leaf, chosen)
        return chosen

    return jax.tree.map(pick, *batches)


def mix_rows(
    key: PRNGKey,
    step: ArrayLike,
    weights: ScalarOrSchedule,
    *batches: PyTree,
    draw: Callable[..., Array] = bernoulli_sources,
    axis_name: AxisName | None = None,
    group_size: int = 1,
) -> MixedBatch:
    """Mix batches row by row: B_t = gamma_t X + (1 - gamma_t) Y as a choice of rows.

    Args:
      key: the root key, the same at every step; step and global row are folded in.
      step: the optimizer step, a scalar int of any dtype; may be traced.
      weights: gamma, the share of the first batch of two; an array [K]; or a schedule returning
        either.
      *batches: K trees of equal structure, shapes [B, ...] and dtypes; B is the local size inside
        `pmap` or `shard_map`.
      draw: `bernoulli_sources`, `systematic_sources` or a function of the same signature (static).
      axis_name: inside `pmap` or `shard_map`, the axis or axes that split the rows (static).
      group_size: neighbouring rows that share a draw (static); must divide B.

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
    check_alike(batches)
    simplex = weights_at(step, weights, num_sources=len(batches))
    num_rows = _num_rows("a batch", batches[0])
    source = draw(key, step, simplex, num_rows, axis_name=axis_name, group_size=group_size)
    return MixedBatch(select_rows(source, *batches), source, simplex)


@jax.tree_util.register_pytree_node_class
class RowPool:
    """Pre-fetched buffers of different lengths, kept as one; only the rows taken are moved.

    Args:
      *buffers: K trees of equal structure and dtypes; the leaves of buffer k have shape [N_k, ...],
        equal but for N_k. They are copied once, at the call.

    A pool is a pytree: pass it to a jitted step as an argument, not as a constant. On a mesh keep
    it replicated, or one pool for each shard inside `shard_map`.

    Raises:
      ValueError, TypeError: naming the leaf and the source, where the buffers differ; an empty
        buffer; 2^31 rows and more.

    Example:
      >>> import jax.numpy as jnp, jaxmix
      >>> pool = jaxmix.RowPool(jnp.array([1, 2]), jnp.array([10, 20, 30]))
      >>> pool.take(jnp.array([0, 1, 1]), jnp.array([1, 2, 3])).tolist()
      [2, 30, 10]
    """

    def __init__(self, *buffers: PyTree):
        check_alike(buffers, skip_axes=1)
        lengths = [_num_rows(f"buffer {k}", buffer) for k, buffer in enumerate(buffers)]
        for k, length in enumerate(lengths):
            need(length > 0, f"buffer {k}", "of at least one row", 0)
        need(sum(lengths) < 2**31, "the pool", "below 2^31 rows", sum(lengths))
        self.lengths: tuple[int, ...] = tuple(lengths)
        self.rows: PyTree = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *buffers)

    def take(self, source: Array, index: Array | np.ndarray) -> PyTree:
        """The rows `index` of the buffers `source`, int [B] both; past its end one starts anew."""
        for name, given in (("source", source), ("index", index)):
            whole = hasattr(given, "dtype") and jnp.issubdtype(given.dtype, jnp.integer)
            need(whole, name, "an array of integers", given, TypeError)
            need(given.ndim == 1, name, "of rank 1", given.shape)
        need(index.shape == source.shape, "index", f"of shape {source.shape}", index.shape)
        lengths = np.asarray(self.lengths, np.int32)
        starts = jnp.asarray(np.cumsum(lengths) - lengths)
        if isinstance(index, np.ndarray):  # a plan's int64 index would not survive as int32
            if is_concrete(source):
                index = index % lengths[np.asarray(source)]
            small = index.size == 0 or (index.min() >= 0 and index.max() < 2**31)
            need(bool(small), "index", "in [0, 2^31) beside a traced source", index)
            index = index.astype(np.int32)
        places = jnp.asarray(index)
        places = places.astype(jnp.int32) if places.dtype.itemsize < 4 else places
        inside = places % jnp.asarray(lengths).astype(places.dtype)[source]
        position = starts[source] + inside.astype(jnp.int32)
        return jax.tree.map(lambda leaf: jnp.take(leaf, position, axis=0, mode="clip"), self.rows)

    def tree_flatten(self) -> tuple[tuple[PyTree], tuple[int, ...]]:
        return (self.rows,), self.lengths

    @classmethod
    def tree_unflatten(cls, lengths: tuple[int, ...], children: tuple[PyTree]) -> "RowPool":
        pool = object.__new__(cls)
        pool.lengths, (pool.rows,) = lengths, children
        return pool


def draw_rows(
    key: PRNGKey,
    step: ArrayLike,
    weights: ScalarOrSchedule,
    pool: RowPool,
    num_rows: int,
    *,
    draw: Callable[..., Array] = bernoulli_sources,
    axis_name: AxisName | None = None,
    group_size: int = 1,
) -> MixedBatch:
    """Draw a source for each row, then a row of that source's buffer, uniformly with replacement.

    Args:
      key, step, weights, draw, axis_name, group_size: as for `mix_rows`. Rows of a group share
        their source, not their row.
      pool: the buffers.
      num_rows: the rows to draw (static); inside `pmap` or `shard_map` those of one shard.

    Returns:
      MixedBatch(rows, source, weights), rows a tree of arrays [num_rows, ...].

    Raises:
      ValueError, TypeError: as `mix_rows`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmix
      >>> pool = jaxmix.RowPool(jnp.zeros((5, 2)), jnp.ones((900, 2)))
      >>> jaxmix.draw_rows(jax.random.key(0), 3, 0.5, pool, num_rows=16).rows.shape
      (16, 2)
    """
    need(isinstance(pool, RowPool), "pool", "a RowPool", type(pool), TypeError)
    simplex = weights_at(step, weights, num_sources=len(pool.lengths))
    source = draw(key, step, simplex, num_rows, axis_name=axis_name, group_size=group_size)
    lengths = jnp.asarray(np.asarray(pool.lengths, np.int32))[source]
    index = uniform_rows(key, step, lengths, axis_name=axis_name)
    return MixedBatch(pool.take(source, index), source, simplex)


class _Shown:
    """An array as it is shown in a MixedBatch: `float32[8, 3]`."""

    def __init__(self, array: Any):
        self.text = f"{getattr(array, 'dtype', type(array).__name__)}{list(np.shape(array))}"

    def __repr__(self) -> str:
        return self.text


def _num_rows(name: str, batch: PyTree) -> int:
    """The length of the leading axis, the same for every leaf of the tree."""
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(batch)}
    need(len(sizes) == 1 and () not in sizes, name, "of as many rows in every leaf", sizes)
    return sizes.pop()[0]


def _beside(source: Array, leaf: Array) -> Array:
    """`source` with trailing axes of size 1 to meet the leaf, split over devices as its rows are.

    A mesh with explicit axes refuses a replicated operand beside a sharded one of the same rank.
    """
    sharding = jax.typeof(leaf).sharding
    if AxisType.Explicit in sharding.mesh.axis_types:
        rows_only = PartitionSpec(sharding.spec[0] if sharding.spec else None)
        source = jax.reshard(source, NamedSharding(sharding.mesh, rows_only))
    return source.reshape(source.shape + (1,) * (leaf.ndim - 1))
