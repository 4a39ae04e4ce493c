"""Mixing inside a pmap training step: a classifier moves from clean digits to noisy ones.

pmap maps one program over the devices. Each mixes its own part of the batch: from `axis_name`
`mix_rows` reads which rows of the global batch a device has. So one device and eight choose the
same rows, as the script shows. For new code, `examples/language_model.py` has such a step with jit
on a mesh.

    JAX_NUM_CPU_DEVICES=8 python examples/pmap_step.py
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from support.digits import class_loss, classifier, small_digits
from tqdm import tqdm

import jaxmix

KEY = jax.random.key(0)  # the same root key at every step and on every device


def train_step(gamma, graph, state, clean, noisy):
    """One update on one device's rows; `state` is the same on all devices."""
    model, optimizer = nnx.merge(graph, state)
    step = optimizer.step[...]
    mixed = jaxmix.mix_rows(KEY, step, gamma, clean, noisy, axis_name="devices")
    loss, grads = nnx.value_and_grad(class_loss)(model, mixed.rows)
    loss, grads = jax.lax.pmean((loss, grads), axis_name="devices")
    optimizer.update(model, grads)
    return nnx.state((model, optimizer)), loss, mixed.source


def start():
    model = classifier(nnx.Rngs(0))
    return nnx.split((model, nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)))


def domains() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """scikit-learn's digits, clean and with noise of half their brightness."""
    images, label = small_digits()
    clean = images / 16
    noise = np.random.default_rng(0).normal(0.0, 0.5, clean.shape)
    noisy = np.asarray(clean + noise, np.float32)
    return {"image": clean, "label": label}, {"image": noisy, "label": label}


def run(num_devices: int, num_steps: int, batch_size: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The source of every row [T, B], the losses [T], and the accuracy on noisy digits."""
    clean, noisy = domains()
    test, num_train = {name: array[1500:] for name, array in noisy.items()}, 1500
    devices = jax.devices()[:num_devices]
    gamma = jaxmix.cosine_schedule(1.0, 0.0, num_steps)  # the share of clean digits
    graph, _ = start()
    pmap = partial(jax.pmap, axis_name="devices", devices=devices)
    state = pmap(lambda _: start()[1])(jnp.arange(num_devices))
    step_fn = pmap(partial(train_step, gamma, graph))

    sources, losses = [], []
    for step in tqdm(range(num_steps), f"{num_devices} devices", unit="step"):
        rows = (step * batch_size + np.arange(batch_size)) % num_train
        rows = rows.reshape(num_devices, -1)  # device d has the d-th part of the batch
        batch = [{name: array[rows] for name, array in side.items()} for side in (clean, noisy)]
        state, loss, source = step_fn(state, *batch)
        losses.append(float(loss[0]))
        sources.append(np.asarray(source).reshape(-1))
    model, _ = nnx.merge(graph, jax.tree.map(lambda leaf: leaf[0], state))
    accuracy = float(jnp.mean(model(test["image"]).argmax(axis=-1) == test["label"]))
    return np.stack(sources), np.array(losses), accuracy


def main(argv: Sequence[str] | None = None) -> dict[int, Any]:
    """Run on one device and on all, and compare."""
    parser = argparse.ArgumentParser(description="From clean to noisy digits under pmap.")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--fast", action="store_true", help="30 steps, for tests")
    args = parser.parse_args(argv)
    counts = sorted({1, jax.device_count()})
    if args.batch_size % counts[-1]:
        parser.error(f"--batch-size must be a multiple of the {counts[-1]} devices")
    runs = {n: run(n, 30 if args.fast else args.steps, args.batch_size) for n in counts}
    for count, (sources, losses, accuracy) in runs.items():
        same = (sources == runs[1][0]).all()
        print(
            f"{count} devices: loss {losses[-1]:.4f}, accuracy on noisy digits {accuracy:.3f}, "
            f"clean rows {np.mean(sources == 0):.3f}, rows as on one device: {same}"
        )
    return runs


if __name__ == "__main__":
    main()
