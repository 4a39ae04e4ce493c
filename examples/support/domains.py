"""Two domains for a shift: MNIST and scikit-learn's digits, 8 x 8 and made comparable."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from support.digits import mnist, small_digits


def load_domains() -> tuple[dict[str, Any], dict[str, Any]]:
    """MNIST (5,000 images) and digits (1,797), both 8 x 8 and flat.

    MNIST's middle is shrunk, and every image is divided by its brightest pixel, so that strokes
    are about as wide and as bright in one set as in the other.
    """
    middle, labels = mnist()
    small = jax.image.resize(middle, (len(middle), 8, 8), "linear", antialias=True)
    return _as_domain(small, labels), _as_domain(*small_digits())


def _as_domain(images: Any, labels: Any) -> dict[str, Any]:
    flat = np.asarray(images).reshape(-1, 64)
    return {"image": flat / flat.max(axis=1, keepdims=True), "label": labels}


def split(rng: Any, domain: dict[str, Any], num_test: int, num_train: int | None) -> tuple:
    """A test set and a training buffer that share no image; the buffer has the classes in turn."""
    rows = rng.permutation(len(domain["label"]))
    test, rest = rows[:num_test], rows[num_test:]
    one_hot = np.eye(10, dtype=int)[domain["label"][rest]]
    nth_of_its_class = (one_hot.cumsum(axis=0) * one_hot).sum(axis=1)
    train = rest[np.argsort(nth_of_its_class, kind="stable")][:num_train]
    return tuple({name: array[part] for name, array in domain.items()} for part in (test, train))


def to_device(splits: list) -> Any:
    """The test sets and the buffers of all seeds, stacked and moved to the device once."""
    return jax.tree.map(lambda *arrays: jnp.asarray(np.stack(arrays)), *splits)
