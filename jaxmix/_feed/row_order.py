"""The row of a source that a feed reads at a position: in order, or as a shuffle puts it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmix._checks import need
from jaxmix._mixing.block_shuffle import BlockShuffle
from jaxmix._mixing.shuffle import shuffle_index
from jaxmix._types import ArrayLike


class RowOrder(NamedTuple):
    """The order of the rows in each epoch: `seeds` [K] of a shuffle, or None without a shuffle.

    `block`: a `BlockShuffle`, or None for a shuffle of single rows.
    """

    seeds: tuple[int, ...] | None
    block: BlockShuffle | None = None

    def need_length(self, length: int, name: str) -> None:
        """Raise for a source that is too long to be shuffled."""
        most = 2**32 - 1 - (self.block.block_rows if self.block else 0)
        wanted = f"of at most {most} rows to be shuffled (a grain dataset without `.repeat()`)"
        need(self.seeds is None or length <= most, name, wanted, length)

    def rows_at(self, place: Any, length: Any, seed: Any, epoch: ArrayLike = 0) -> Any:
        """The row at a place counted from the start of an epoch; arrays of NumPy or of JAX."""
        if self.seeds is None:
            return place % length
        return shuffle_index(place, length, seed, epoch=epoch, block=self.block)


def row_order(shuffle: bool | BlockShuffle, seed: int, names: Sequence[str]) -> RowOrder:
    """The order for the `shuffle` of a feed.

    The seed of each source is made from the plan's seed and the source's name. So two sources with
    equal data have different orders, and a source keeps its order if an edited plan moves it.
    """
    is_block = isinstance(shuffle, BlockShuffle)
    wanted = "a bool or a BlockShuffle (the seed is `MixPlan(seed=)`)"
    need(is_block or isinstance(shuffle, bool), "shuffle", wanted, shuffle)
    if shuffle is False:
        return RowOrder(None)
    hashes = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in names]
    seeds = tuple(int.from_bytes(digest[:4], "little") for digest in hashes)
    return RowOrder(seeds, shuffle if is_block else None)


def host_index(
    order: RowOrder, source: np.ndarray, position: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """The rows, int64 [b], at positions [b] of sources [b] with lengths [K]."""
    if order.seeds is None:
        return position % lengths.take(source)
    seeds = np.asarray(order.seeds)  # one call for all sources: most of its cost is fixed
    return order.rows_at(position, lengths.take(source), seeds.take(source))
