"""How near the realised mix is to the schedule: jaxmix's plan and draws beside other libraries.

    python benchmarks/accuracy.py [--rounds 5] [--fast]

Three mixes in batches of 256 rows: a ramp of the first source from .1 to .9, fixed weights of .999
and .001, and 35 sources in proportion to 1/rank. Prints, over all steps and sources, the largest
difference in rows between what was drawn so far and the sum of the scheduled weights, and the
largest difference in any one batch. A round is another seed, for those that have one.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from peers import HERE, PACKAGES, PEERS, blending_index, mix_weights
from timing import run_parts, table

import jaxmix

BATCH = 256

Draws = Callable[[int], np.ndarray]
"""The source of each row of the run, of a seed."""


def mixes(num_steps: int) -> dict[str, Any]:
    """Weights that a plan takes: an array, or a schedule of the first source's share."""
    return {
        "ramp from .1 to .9": optax.linear_schedule(0.1, 0.9, num_steps - 1),
        "fixed, .999 and .001": np.array([0.999, 0.001]),
        "fixed, 35 sources": mix_weights(35),
    }


def by_step(weights: Any, num_steps: int) -> np.ndarray:
    """The weights [T, K] of all steps."""
    if callable(weights):
        share = np.asarray(jax.vmap(weights)(np.arange(num_steps)), np.float64)
        return np.stack([share, 1 - share], axis=1)
    return np.tile(weights, (num_steps, 1))


def plan(weights: Any, num_steps: int) -> Draws:
    one = jaxmix.MixPlan(weights, BATCH)
    return lambda seed: np.concatenate([one.rows(step).source for step in range(num_steps)])


def drawn(draw: Callable[..., jax.Array]) -> Callable[[Any, int], Draws]:
    """A draw in jit, whose batches are independent of each other."""

    def make(weights: Any, num_steps: int) -> Draws:
        steps = jax.jit(
            lambda key: jax.lax.map(lambda t: draw(key, t, weights, BATCH), np.arange(num_steps))
        )
        return lambda seed: np.asarray(steps(jax.random.key(seed))).reshape(-1)

    return make


OWN = {
    "jaxmix, plan": plan,
    "jaxmix, systematic draw": drawn(jaxmix.systematic_sources),
    "jaxmix, Bernoulli draw": drawn(jaxmix.bernoulli_sources),
}


def hf_table(weights: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """HuggingFace's mix of datasets in memory: the same draws as its streams, and faster."""
    import datasets

    lengths = (1.3 * rows * weights).astype(int) + 1000
    parts = [
        datasets.Dataset.from_dict({"x": np.full(n, k, np.int16)}) for k, n in enumerate(lengths)
    ]
    mixed = datasets.interleave_datasets(parts, probabilities=weights.tolist(), seed=seed)
    return np.asarray(mixed.with_format("numpy")[:rows]["x"])


def read(mix: Any, sources: Any, weights: np.ndarray, num_steps: int, seed: int) -> np.ndarray:
    """The rows of a peer's batches, of sources whose rows are their number."""
    batches = itertools.islice(mix(sources, weights, BATCH, seed), num_steps)
    return np.concatenate([np.asarray(batch) for batch in batches])


def peers(weights: Any, num_steps: int) -> Iterator[tuple[str, Draws | str]]:
    """The draws of the peers, or why there are none."""
    table, rows = by_step(weights, num_steps), num_steps * BATCH
    fixed, sources = table[0], [np.full(4096, k) for k in range(table.shape[1])]
    for name, peer in PEERS.items():
        if peer.package not in HERE:
            continue
        if callable(weights) and not peer.ramps:
            yield name, "takes no schedule"
        elif peer.package == "datasets":
            yield name, lambda seed: hf_table(fixed, rows, seed)
        else:
            shares = table if callable(weights) else fixed
            yield name, functools.partial(read, peer.mix, sources, shares, num_steps)
    if "megatron" in HERE:
        index = "takes no schedule" if callable(weights) else blending_index(fixed, rows)
        yield "Megatron blending index", index if isinstance(index, str) else lambda seed: index


def errors(source: np.ndarray, scheduled: np.ndarray) -> tuple[float, float]:
    """The largest error of all rows so far, and of one batch, in rows."""
    batches = source.reshape(len(scheduled), -1)
    counts = np.stack([np.sum(batches == k, axis=1) for k in range(scheduled.shape[1])], axis=1)
    apart = counts - batches.shape[1] * scheduled
    return float(np.abs(np.cumsum(apart, axis=0)).max()), float(np.abs(apart).max())


def realised(rounds: int, fast: bool) -> Iterator[dict[str, Any]]:
    num_steps = 40 if fast else 1000
    total: dict[str, dict[str, Any]] = {}
    batch: dict[str, dict[str, Any]] = {}
    for mix, weights in mixes(num_steps).items():
        scheduled = by_step(weights, num_steps)
        runs: Iterator[tuple[str, Any]] = itertools.chain(
            ((name, make(weights, num_steps)) for name, make in OWN.items()),
            peers(weights, num_steps),
        )
        total[mix], batch[mix] = {}, {}
        for name, draws in runs:
            if isinstance(draws, str):
                total[mix][name] = batch[mix][name] = draws
                continue
            found = np.array([errors(draws(seed), scheduled) for seed in range(rounds)])
            total[mix][name], batch[mix][name] = found.T
    note = (
        "grain, HuggingFace and torchdata take fixed weights only, and Levanter a ramp in stages "
        "of whole blocks. Independent draws of rows, such as the Bernoulli draw, err by "
        "the root of the number of rows. grain rounds weights to whole numbers."
    )
    of = f"{num_steps:,} batches of {BATCH} rows"
    yield table(f"The largest error of the rows so far, in rows, over {of}", total, note)
    yield table("The largest error of one batch, in rows", batch)


if __name__ == "__main__":
    run_parts(__file__, __doc__, {"realised": realised}, rounds=5, peers=PACKAGES)
