"""The shuffle beside others: its cost on the host and in jit, and how random the orders are.

    python benchmarks/shuffles.py [--rounds 7] [--only host,device,quality,blocks] [--fast]

Quality: the worst correlation of the row at a position with the row some positions on, in percent
and in sigma, and the variance of class counts in batches of 256 of sorted data, 1.00 if random.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from in_jit import KEY, compare
from peers import HERE, load
from timing import in_turn, run_parts, table, turned

from jaxmix import BlockShuffle, shuffle_index
from jaxmix.testing import assert_shuffled

LENGTH = 1_000_003
NUM_ROWS = 65_536

Order = Callable[[np.ndarray], np.ndarray]
"""Positions to rows."""


def grain_order(length: int, seed: int) -> Order:
    """The shuffle of grain, row by row."""
    import grain

    shuffled = grain.MapDataset.range(length).shuffle(seed)
    return lambda positions: np.array([shuffled[int(p)] for p in positions])


def levanter_order(kind: str, length: int, seed: int) -> Order:
    """A permutation of Levanter: "feistel" or "linear"."""
    return load("levanter.data._prp").Permutation.make(kind, length, jax.random.key(seed))


def orders(length: int, seed: int) -> dict[str, Order]:
    """The shuffles that are compared, of the libraries that are installed."""
    found: dict[str, Order] = {
        "numpy permutation": np.random.default_rng(seed).permutation(length).__getitem__,
        "jaxmix": lambda positions: shuffle_index(positions, length, seed),
    }
    if "grain" in HERE:
        found["grain"] = grain_order(length, seed)
    if "levanter" in HERE:
        for kind in ("feistel", "linear"):
            found[f"Levanter, {kind}"] = levanter_order(kind, length, seed)
    return found


def host(rounds: int, fast: bool) -> Iterator[dict[str, Any]]:
    """Nanoseconds per row in NumPy, and microseconds per call of an int."""
    columns = {}
    positions_of = {
        count: np.arange(count) for count in ((1, 256) if fast else (1, 256, 4096, NUM_ROWS, 10**6))
    }
    for count, positions in positions_of.items():
        lengths, seeds = np.full(count, LENGTH), np.full(count, 3)
        variants: dict[str, Callable[[], Any]] = {
            "jaxmix, one source": lambda p=positions: shuffle_index(p, LENGTH, 3),
            "jaxmix, over an epoch's end": lambda p=positions: shuffle_index(
                p + LENGTH - len(p) // 2, LENGTH, 3
            ),
            "jaxmix, a source per row": lambda p=positions, n=lengths, s=seeds: shuffle_index(
                p, n, s
            ),
            "jaxmix, BlockShuffle": lambda p=positions: shuffle_index(
                p, LENGTH, 3, block=BlockShuffle()
            ),
        }
        if count == 1:
            variants["jaxmix, an int"] = lambda: shuffle_index(5, LENGTH, 3)
        for name, order in orders(LENGTH, 3).items():
            if name.startswith("Levanter") or (name == "grain" and count <= 4096):
                variants[name] = functools.partial(order, positions)
        if count == 10**6:
            variants["numpy permutation"] = lambda: np.random.default_rng(3).permutation(10**6)
            variants["jax.random.permutation"] = lambda: jax.random.permutation(KEY, 10**6)
        found = in_turn(variants, max(3, min(rounds, 10**7 // count)))
        columns[f"B = {count:,}"] = {name: 1e9 * took / count for name, took in found.items()}
    note = (
        "A call of jaxmix costs some hundred microseconds whatever its size. Levanter's linear "
        "permutation is one product and a sum, and so the fastest. Its Feistel has 5 rounds where "
        "jaxmix has 12. How random each is, see below."
    )
    yield table(f"A shuffle of {LENGTH:,} rows on the host, ns per row", columns, note)


def device(rounds: int, fast: bool) -> Iterator[dict[str, Any]]:
    """In jit, against one global `jax.random.bernoulli`."""
    bodies: dict[str, Any] = {
        "bernoulli(key, p, (B,))": lambda step, sums, _: (
            sums
            + jax.random.bernoulli(jax.random.fold_in(KEY, step), 0.3, sums.shape).astype(jnp.int32)
        ),
        "one source": lambda step, sums, _: sums + shuffle_index(_positions(step), LENGTH, 3),
        "one source, BlockShuffle": lambda step, sums, _: (
            sums + shuffle_index(_positions(step), LENGTH, 3, block=BlockShuffle())
        ),
    }
    for num_sources in (2,) if fast else (2, 8, 35):
        numbers = np.stack([np.arange(num_sources) * 999 + LENGTH, np.arange(num_sources)], axis=1)

        def rows(step: Any, sums: Any, _: Any, numbers: Any = numbers, k: int = num_sources) -> Any:
            positions = _positions(step)
            # One read of both numbers: two reads make XLA on a CPU compile slow scalar code.
            mine = jnp.asarray(numbers, jnp.uint32)[(positions + step) % k]
            return sums + shuffle_index(positions, mine[:, 0].astype(jnp.int32), mine[:, 1])

        bodies[f"K = {num_sources}, a source per row"] = rows
    found = compare(bodies, jnp.zeros(NUM_ROWS, jnp.int32), None, 16, rounds)
    title = "A shuffle in jit, ratio to one global `jax.random.bernoulli`"
    yield table(title, {f"B = {NUM_ROWS:,}": found})


def _positions(step: Any) -> jax.Array:
    return jnp.arange(NUM_ROWS, dtype=jnp.int32) + jnp.asarray(step, jnp.int32) * NUM_ROWS


def quality(_: int, fast: bool) -> Iterator[dict[str, Any]]:
    """What `assert_shuffled` measures, on the first 50,000 rows."""
    lines = {}
    for length in (50_000,) if fast else (50_000, 262_144, 10**6, 10**7):
        for name, order in orders(length, 42).items():
            rows = order(np.arange(50_000))
            lag, correlation = worst_lag(rows, length)
            try:
                assert_shuffled(rows, length)
                verdict = "passes"
            except AssertionError as error:
                verdict = f"fails: {error}"
            lines[f"n = {length:,}, {name}"] = {
                "worst lag": lag,
                "correlation there, %": 100 * correlation,
                "sigma": abs(correlation) * math.sqrt(len(rows)),
                "class variance": class_variance(rows, length, 256),
                "`assert_shuffled`": verdict,
            }
    note = (
        "A class variance of 1 is random: of the counts of 10 classes in batches of 256 rows of "
        "sorted data. The first 50,000 rows, seed 42."
    )
    yield table("How random a shuffle is", turned(lines), note)


def worst_lag(rows: np.ndarray, length: int) -> tuple[int, float]:
    """The lag to 4,096 with the largest correlation, and that correlation."""
    scaled = rows - (length - 1) / 2
    spectrum = np.abs(np.fft.rfft(scaled, 4 * len(rows))) ** 2
    correlations = np.fft.irfft(spectrum)[1:4097] / np.sum(scaled**2)
    worst = int(np.argmax(np.abs(correlations)))
    return worst + 1, float(correlations[worst])


def class_variance(rows: np.ndarray, length: int, batch: int) -> float:
    """The variance of the counts of 10 equal classes in batches, 1 for rows drawn at random."""
    classes = (rows * 10 // length)[: len(rows) // batch * batch].reshape(-1, batch)
    counts = np.stack([np.sum(classes == k, axis=1) for k in range(10)])
    return float(np.mean((counts - batch / 10) ** 2)) / (batch * 0.09)


def blocks(_: int, fast: bool) -> Iterator[dict[str, Any]]:
    """What a `BlockShuffle` costs in randomness where neighbouring rows are alike."""
    length, lines = 2**22, {}
    shapes = ((256, 512), (256, 64), (256, 2048), (64, 512), (1024, 512))
    for block_rows, window_blocks in shapes[:1] if fast else shapes:
        shape = BlockShuffle(block_rows, window_blocks)
        several = np.concatenate(
            [shuffle_index(np.arange(length), length, seed, block=shape) for seed in range(4)]
        )
        window = block_rows * window_blocks
        lines[f"block_rows {block_rows:,}, window_blocks {window_blocks:,}"] = {
            "batches of 256": class_variance(several, length, 256),
            "of 4,096": class_variance(several, length, 4096),
            "of a whole window": class_variance(several, length, window),
        }
    title = "`BlockShuffle` on 2^22 sorted rows: variance of class counts, 1 if random"
    yield table(title, turned(lines))


PARTS = {"host": host, "device": device, "quality": quality, "blocks": blocks}


if __name__ == "__main__":
    run_parts(__file__, __doc__, PARTS, rounds=7, peers=["grain", "levanter"])
