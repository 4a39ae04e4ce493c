"""The peers: each mixes arrays into batches the way its documentation says.

A mix takes sources, fixed weights [K], a batch size and a seed; those that can ramp also take
weights by step [T, K]. A peer that is not installed is left out.
"""

import importlib
import importlib.util
import itertools
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

Sources = Sequence[np.ndarray] | Sequence[range]
Batches = Iterator[Any]


def load(name: str) -> Any:
    """A module of a peer. Triton, a part of torch, crashes if TensorFlow was imported before it."""
    if name == "tensorflow" and importlib.util.find_spec("triton"):
        importlib.import_module("triton")
    return importlib.import_module(name)


class Peer(NamedTuple):
    """A mix of another library, and how much of it a round can bear."""

    package: str
    mix: Callable[[Sources, np.ndarray, int, int], Batches]
    most_rows: int
    ramps: bool = False


def mix_weights(num_sources: int) -> np.ndarray:
    """1/rank in a fixed shuffled order; 0.7 and 0.3 for two sources."""
    if num_sources == 2:
        return np.array([0.7, 0.3])
    weights = 1.0 / (1.0 + np.random.default_rng(0).permutation(num_sources))
    return weights / weights.sum()


def ramp(num_sources: int) -> Callable[[Any], Any]:
    """A schedule that goes from these weights to even ones and back."""
    first = jnp.asarray(mix_weights(num_sources), jnp.float32)

    def schedule(step: Any) -> Any:
        share = 0.5 - 0.5 * jnp.cos(jnp.asarray(step, jnp.float32) / 1000.0)
        return (1.0 - share) * first + share / num_sources

    return schedule


def grain_dataset(sources: Sources, weights: np.ndarray) -> Any:
    """The mix of grain, row by row."""
    import grain

    datasets: list[Any] = [
        grain.MapDataset.range(len(source))
        if isinstance(source, range)
        # An array is a source of grain, though its types don't say so.
        else grain.MapDataset.source(typing.cast(Any, source))
        for source in sources
    ]
    return grain.MapDataset.mix([dataset.repeat() for dataset in datasets], weights.tolist())


def grain_mix(sources: Sources, weights: np.ndarray, batch_size: int, seed: int = 0) -> Batches:
    """It has no seed: the order of the sources is fixed."""
    batches = grain_dataset(sources, weights).batch(batch_size)
    return (batches[step] for step in itertools.count())


def hf_stream(
    sources: Sources, weights: np.ndarray, seed: int = 0, format: str | None = None
) -> Any:
    """The mix of HuggingFace's streams, row by row."""
    import datasets

    parts = [
        datasets.Dataset.from_dict({"x": source}).with_format(format).to_iterable_dataset()
        for source in sources
    ]
    return datasets.interleave_datasets(
        parts, probabilities=weights.tolist(), seed=seed, stopping_strategy="all_exhausted"
    )


def hf_mix(sources: Sources, weights: np.ndarray, batch_size: int, seed: int = 0) -> Batches:
    return iter(hf_stream(sources, weights, seed, "numpy").batch(batch_size))


def torchdata_loader(sources: Sources, weights: np.ndarray, batch_size: int, seed: int = 0) -> Any:
    nodes = load("torchdata.nodes")
    parts = {
        str(k): nodes.IterableWrapper(itertools.cycle(source)) for k, source in enumerate(sources)
    }
    shares = {str(k): float(weight) for k, weight in enumerate(weights)}
    mixed = nodes.MultiNodeWeightedSampler(parts, shares, seed=seed)
    return nodes.Loader(nodes.Batcher(mixed, batch_size))


def torchdata_mix(sources: Sources, weights: np.ndarray, batch_size: int, seed: int = 0) -> Batches:
    return iter(torchdata_loader(sources, weights, batch_size, seed))


def tf_mix(sources: Sources, weights: np.ndarray, batch_size: int, seed: int = 0) -> Batches:
    tf = load("tensorflow")
    parts = [tf.data.Dataset.from_tensor_slices(source).repeat() for source in sources]
    shares: Any = weights.tolist()
    if weights.ndim == 2:  # one element for each row
        shares = tf.data.Dataset.from_tensor_slices(np.repeat(weights, batch_size, axis=0))
    mixed = tf.data.Dataset.sample_from_datasets(parts, shares, seed=seed).batch(batch_size)
    options = tf.data.Options()
    options.autotune.enabled = False  # on few cores it costs ten times the work
    return mixed.with_options(options).as_numpy_iterator()


def levanter_dataset(
    sources: Sources, weights: np.ndarray, batch_size: int = 1, seed: int = 0
) -> Any:
    """The mix of Levanter; weights by step are averaged over its blocks of 2,048 rows."""
    data = load("levanter.data.mixture")
    lists = load("levanter.data.dataset").ListAsyncDataset
    parts = {str(k): lists(source) for k, source in enumerate(sources)}
    block, by_step = 2048, np.atleast_2d(weights)
    length = max(1, block // batch_size)
    stages = [
        (first * batch_size, dict(zip(parts, by_step[first : first + length].mean(0), strict=True)))
        for first in range(0, len(by_step), length)
    ]
    return data.MixtureDataset(parts, stages, block, key=seed).as_sync_dataset()


def levanter_mix(sources: Sources, weights: np.ndarray, batch_size: int, seed: int = 0) -> Batches:
    mixed = levanter_dataset(sources, weights, batch_size, seed)
    return (
        np.asarray(mixed.get_batch(range(first, first + batch_size)))
        for first in itertools.count(0, batch_size)
    )


PEERS = {
    "grain mix + batch": Peer("grain", grain_mix, 4096),
    "datasets interleave + batch": Peer("datasets", hf_mix, 512),
    "torchdata weighted + batch": Peer("torchdata", torchdata_mix, 8192),
    "tf.data sample + batch": Peer("tensorflow", tf_mix, 8192, ramps=True),
    "Levanter mixture": Peer("levanter", levanter_mix, 4096, ramps=True),
}
PACKAGES = [*(peer.package for peer in PEERS.values()), "megatron"]
HERE = [package for package in PACKAGES if importlib.util.find_spec(package)]


def blending_index(weights: np.ndarray, rows: int) -> np.ndarray:
    """Megatron's table of source ids, built whole in C++."""
    helpers = load("megatron.core.datasets.helpers_cpp")
    sources, places = np.zeros(rows, np.int16), np.zeros(rows, np.int64)
    helpers.build_blending_indices(sources, places, weights, len(weights), rows, False)
    return sources
