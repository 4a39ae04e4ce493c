"""Rows taken from buffers of different lengths, which are stored as one buffer."""

from __future__ import annotations

import json

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import check_alike, is_concrete, need
from jaxmix._mixing.draws import Draw, draw_sources, uniform_rows
from jaxmix._mixing.keys import check_key
from jaxmix._mixing.rows import MixedBatch, check_numbers, num_rows_of
from jaxmix._schedules.weights import weights_at
from jaxmix._types import Array, ArrayLike, AxisName, Microbatch, PRNGKey, PyTree, Weights


@jax.tree_util.register_pytree_node_class
class RowPool:
    """Prefetched buffers of different lengths, stored as one; only the rows taken are moved.

    A pool is a pytree: pass it to a jitted step as an argument, not as a constant. On a mesh
    replicate it, or make one pool per shard inside `shard_map`.

    Args:
      *buffers: K trees of equal structure and dtypes. The leaves of buffer k have the shape
        ``[N_k, ...]`` and differ in N_k only. They are copied once, when the pool is made.

    Raises:
      ValueError, TypeError: buffers that differ; the message names the leaf and the source. An
        empty buffer; 2^31 rows or more in all.

    Example:
      >>> import jax.numpy as jnp, jaxmix
      >>> pool = jaxmix.RowPool(jnp.array([1, 2]), jnp.array([10, 20, 30]))
      >>> pool.take(jnp.array([0, 1, 1]), jnp.array([1, 2, 3])).tolist()
      [2, 30, 10]
    """

    def __init__(self, *buffers: PyTree):
        check_alike(buffers, skip_axes=1)
        lengths = [num_rows_of(f"buffer {k}", buffer) for k, buffer in enumerate(buffers)]
        for k, length in enumerate(lengths):
            need(length > 0, f"buffer {k}", "of at least one row", 0)
        need(sum(lengths) < 2**31, "the pool", "below 2^31 rows", sum(lengths))
        self.lengths: tuple[int, ...] = tuple(lengths)
        self.rows: PyTree = jax.tree.map(_joined, *buffers)

    def take(self, source: Array | np.ndarray, index: Array | np.ndarray) -> PyTree:
        """Take a row for each pair of `source` and `index`; indices wrap at the end of a buffer.

        Args:
          source: int [b], the buffer of each row.
          index: int [b], the row of that buffer. In a buffer of n rows index n is row 0, and index
            -1 is the last row. NumPy indices may have any size if `source` is known; otherwise
            indices fit 32 bits.

        Returns:
          A tree like the buffers, with leaves [b, ...].

        Raises:
          ValueError, TypeError: arrays that are not integers [b]; NumPy indices of 2^31 or more, or
            below 0, with a traced `source`; a pool that `shard_map` split over devices.
        """
        self._check_whole()
        check_numbers("source", source)
        check_numbers("index", index)
        need(index.shape == source.shape, "index", f"of shape {source.shape}", index.shape)
        lengths = np.asarray(self.lengths, np.int32)
        starts = jnp.asarray(np.cumsum(lengths, dtype=np.int32) - lengths)
        if isinstance(index, np.ndarray):  # a plan's int64 index may not fit int32
            wide = np.uint64 if index.dtype.kind == "u" else np.int64  # NumPy mixes them to float64
            index = index.astype(wide)
            if is_concrete(source):
                index %= lengths.astype(wide)[np.asarray(source)]
            small = index.size == 0 or (index.min() >= 0 and index.max() < 2**31)
            need(bool(small), "index", "in [0, 2^31) with a traced source", index)
            index = index.astype(np.int32)
        places = jnp.asarray(index)
        places = places.astype(jnp.int32) if places.dtype.itemsize < 4 else places
        inside = places % jnp.asarray(lengths).astype(places.dtype)[source]
        position = starts[source] + inside.astype(jnp.int32)
        return jax.tree.map(lambda leaf: jnp.take(leaf, position, axis=0, mode="clip"), self.rows)

    def _check_whole(self) -> None:
        """Raise for a part of a pool, whose rows are not where the lengths say."""
        size, kept = sum(self.lengths), num_rows_of("a pool", self.rows)
        needed = f"whole, {size} rows (replicate it, or make a RowPool of each shard's rows)"
        need(kept == size, "a pool", needed, f"{kept} rows")

    def tree_flatten(self) -> tuple[tuple[PyTree], tuple[int, ...]]:
        return (self.rows,), self.lengths

    @classmethod
    def tree_unflatten(cls, lengths: tuple[int, ...], children: tuple[PyTree]) -> RowPool:
        pool = object.__new__(cls)
        pool.lengths, (pool.rows,) = lengths, children
        return pool


jax.export.register_pytree_node_serialization(
    RowPool,
    serialized_name="jaxmix.RowPool",
    serialize_auxdata=lambda lengths: json.dumps(lengths).encode(),
    deserialize_auxdata=lambda data: tuple(json.loads(data)),
)


def _joined(first: Array, *others: Array) -> Array:
    """The leaves of all buffers as one new array; `concatenate` does not copy a single leaf."""
    joined = jnp.concatenate([first, *others]) if others else jnp.array(first, copy=True)
    return jax.block_until_ready(joined)  # or JAX may read a NumPy buffer after it was changed


def draw_rows(
    key: PRNGKey,
    step: ArrayLike,
    weights: Weights,
    pool: RowPool,
    num_rows: int,
    *,
    draw: Draw = "bernoulli",
    axis_name: AxisName | None = None,
    microbatch: Microbatch | None = None,
    group_size: int = 1,
) -> MixedBatch:
    """Draw a source for each row, then a row of its buffer, uniformly and with replacement.

    Args:
      key, step, weights, draw, axis_name, microbatch, group_size: as for `mix_rows`. The rows of a
        group share their source; each is drawn independently from its buffer.
      pool: the buffers, a `RowPool`.
      num_rows: the rows to draw in this call (static), ``B / shards / microbatches``.

    Returns:
      `MixedBatch(rows, source, weights)`; the leaves of `rows` are [num_rows, ...].

    Raises:
      ValueError, TypeError: as for `mix_rows`; a `pool` that is not a `RowPool`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmix
      >>> pool = jaxmix.RowPool(jnp.zeros((5, 2)), jnp.ones((900, 2)))
      >>> jaxmix.draw_rows(jax.random.key(0), 3, 0.5, pool, num_rows=16).rows.shape
      (16, 2)
    """
    need(isinstance(pool, RowPool), "pool", "a RowPool", type(pool), TypeError)
    check_key(key)
    simplex = weights_at(step, weights, num_sources=len(pool.lengths))
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
    lengths = jnp.asarray(np.asarray(pool.lengths, np.int32))[source]
    index = uniform_rows(key, step, lengths, axis_name=axis_name, microbatch=microbatch)
    return MixedBatch(pool.take(source, index), source, simplex)
