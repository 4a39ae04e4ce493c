"""Which rows of the global batch a call draws: one shard's and one microbatch's."""

from __future__ import annotations

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp

from jaxmix._checks import need, whole_number
from jaxmix._types import Array, AxisName, Microbatch


def global_rows(
    num_rows: int,
    axis_name: AxisName | None,
    microbatch: Microbatch | None,
    group_size: int = 1,
) -> tuple[Array, int, int]:
    """The numbers of this call's rows, or groups of rows, in the global batch.

    Microbatch m is the m-th part of the global batch, and a shard is a part of the microbatch. So a
    microbatch has the same rows whether `jit` splits it over a mesh or `shard_map` does.

    Returns:
      The numbers of the groups, uint32 [num_rows / r]; the number of groups in the global batch;
      and r, the number of neighbouring rows of this call in one group. r is below `group_size` if
      groups span calls.
    """
    num_rows = whole_number("num_rows", num_rows, 1)
    group_size = whole_number("group_size", group_size, 1)
    shard, shards = _shard(axis_name)
    index, count = _part(microbatch)
    total = num_rows * shards * count
    need(total < 2**31, "the global batch", "below 2^31 rows", total)
    even = total % group_size == 0
    need(even, "group_size", f"a divisor of the {total} rows of the global batch", group_size)
    # A call starts at a multiple of `num_rows`, so each run of `repeat` rows lies in one group.
    repeat = math.gcd(num_rows, group_size)
    rows = jnp.arange(num_rows // repeat, dtype=jnp.uint32)
    if shards * count > 1:
        part = index * jnp.uint32(shards) + shard
        rows += part * jnp.uint32(num_rows // repeat)
    if repeat < group_size:
        rows //= jnp.uint32(group_size // repeat)
    return rows, total // group_size, repeat


def _shard(axis_name: AxisName | None) -> tuple[Array, int]:
    """The index of this shard, uint32, and the number of shards."""
    mapped = jax.sharding.get_abstract_mesh().manual_axes
    need(
        axis_name is not None or not mapped,
        "axis_name",
        f"the axis or axes among {mapped} that split the rows, or () for the same draw everywhere",
        axis_name,
    )
    if not axis_name:
        return jnp.uint32(0), 1
    return jax.lax.axis_index(axis_name).astype(jnp.uint32), jax.lax.axis_size(axis_name)


def _part(microbatch: Microbatch | None) -> tuple[Array, int]:
    """The index of this microbatch, uint32, and the number of microbatches."""
    if microbatch is None:
        return jnp.uint32(0), 1
    is_pair = isinstance(microbatch, tuple | list) and len(microbatch) == 2
    need(is_pair, "microbatch", "a pair (index, count)", microbatch, TypeError)
    count = whole_number("the count of `microbatch`", microbatch[1], 1)
    need(count < 2**31, "the count of `microbatch`", "below 2^31", count)
    return _index(microbatch[0], count), count


def _index(index: Any, count: int) -> Array:
    """A microbatch's index modulo the count, uint32."""
    name, needed = "the index of `microbatch`", "an integer"
    if hasattr(index, "dtype"):
        array = jnp.asarray(index)
        whole = jnp.issubdtype(array.dtype, jnp.integer)
        need(whole, name, needed, array.dtype, TypeError)
        need(array.ndim == 0, name, "a scalar", array.shape)
        if array.dtype.itemsize < 4:
            array = array.astype(jnp.int32)
        return (array % jnp.asarray(count, array.dtype)).astype(jnp.uint32)
    need(hasattr(index, "__index__"), name, needed, index, TypeError)
    return jnp.uint32(operator.index(index) % count)
