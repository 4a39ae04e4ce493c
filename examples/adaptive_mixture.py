"""Adaptive weights: a small classifier on four sets of digits, mixed in four ways.

The sources are MNIST and scikit-learn's digits, each clean and with noise; the model is too small
to be good at all four. "adaptive" gives more rows to sources of higher training loss (group DRO);
"replayed" reads the mean of its logged weights from a table, which needs no mixer. In each seed all
ways start from the same parameters and train on the same images. Prints the accuracy of the mean
and of the worst source:

    python examples/adaptive_mixture.py
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from support.domains import load_domains, split
from support.figures import mean_se
from tqdm import tqdm

import jaxmix
from jaxmix import exponentiated_gradient, floor_weights, smooth_weights

SOURCES = ["MNIST", "digits", "noisy MNIST", "noisy digits"]
K, BATCH, HIDDEN, NOISE, NUM_TEST = len(SOURCES), 64, 16, 0.3, 500
FIRST_SEED = 1000  # the learning rate was chosen on seeds 0 to 11
OPTIMIZER = optax.adam(2e-3)

# The heart: in each jitted step the mixer sees the loss of each source, and gives the next weights.

MIXER = floor_weights(smooth_weights(exponentiated_gradient(K, 0.005), decay=0.9), minimum=0.05)


def adaptive_step(key, pool, carry, now):
    (step, _), (params, moments, state) = now, carry
    mixed = jaxmix.draw_rows(key, step, MIXER(state), pool, BATCH)
    params, moments, losses = train(params, moments, mixed.rows)
    sums = jaxmix.source_sums(losses, mixed.source, K)
    state = MIXER.update(state, sums.mean(), sums.count)  # the count says which sources had rows
    return (params, moments, state), mixed.weights


def planned_step(key, pool, carry, now):
    (step, weights), (params, moments, state) = now, carry
    mixed = jaxmix.draw_rows(key, step, weights, pool, BATCH)
    params, moments, _ = train(params, moments, mixed.rows)
    return (params, moments, state), mixed.weights


def planned_mixes(num_steps: int) -> dict[str, Any]:
    """The weights that are known before the run: an array, and a schedule from clean to noisy."""
    gamma = jaxmix.cosine_schedule(1.0, 0.0, num_steps)
    groups = jaxmix.nest_schedules(gamma, [0.4, 0.4, 0.1, 0.1], [0.1, 0.1, 0.4, 0.4])
    return {
        "uniform": np.full(K, 1 / K),
        "anneal": lambda step: groups(step).reshape(2, K).sum(axis=0),
    }


# The model and the data.


def start(key):
    first, second = jax.random.split(key)
    params = {
        "first": jax.random.normal(first, (64, HIDDEN)) / 8.0,
        "second": jax.random.normal(second, (HIDDEN, 10)) / HIDDEN**0.5,
    }
    return params, OPTIMIZER.init(params), MIXER.init()


def logits(params, image):
    return jax.nn.relu(image @ params["first"]) @ params["second"]


def train(params, moments, rows):
    """One update; returns the loss of each row as well."""

    def loss_fn(params):
        outputs = logits(params, rows["image"])
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, rows["label"])
        return losses.mean(), losses

    grads, losses = jax.grad(loss_fn, has_aux=True)(params)
    updates, moments = OPTIMIZER.update(grads, moments)
    return optax.apply_updates(params, updates), moments, losses


def accuracies(params, tests):
    right = [logits(params, test["image"]).argmax(axis=-1) == test["label"] for test in tests]
    return jnp.stack([rows.mean() for rows in right])


def load_sources(domains, seed: int) -> tuple[list[Any], list[Any]]:
    """Test and training rows of the four sources; no image is in both, not even with noise."""
    rng = np.random.default_rng(seed)
    parts = zip(*(split(rng, domain, NUM_TEST, None) for domain in domains), strict=True)

    def noisy(part):
        noise = rng.normal(0.0, NOISE, part["image"].shape).astype(np.float32)
        return part | {"image": part["image"] + noise}

    tests, trains = ([*clean, *map(noisy, clean)] for clean in parts)
    return tests, trains


# The experiment.


class Run(NamedTuple):
    """What became of one way to mix: S seeds, T steps."""

    weights: np.ndarray  # [S, T, K]
    accuracy: np.ndarray  # [S, K] on held-out images after the last step


@partial(jax.jit, static_argnums=0)
@partial(jax.vmap, in_axes=(None, 0, 0, 0, None))
def some_steps(step_fn, carry, key, trains, steps):
    return jax.lax.scan(partial(step_fn, key, jaxmix.RowPool(*trains)), carry, steps)


def run(step_fn, mix, num_steps: int, keys, tests, trains, bar) -> Run:
    steps = np.arange(num_steps, dtype=np.int32)
    planned = jax.vmap(lambda step: jaxmix.weights_at(step, mix))(steps)
    carry, weights = jax.vmap(start)(keys[:, 0]), []
    for part in np.split(steps, 10):  # equally long, so compiled once
        carry, some = some_steps(step_fn, carry, keys[:, 1], trains, (part, planned[part]))
        weights.append(np.asarray(some))
        bar.update(len(part))
    accuracy = jax.jit(jax.vmap(accuracies))(carry[0], tests)
    return Run(np.concatenate(weights, axis=1), np.asarray(accuracy))


def report(runs: dict[str, Run]) -> str:
    """The table, and no claim that its own numbers do not show."""
    columns = [*SOURCES, "mean", "worst"]
    lines = ["accuracy, %" + "".join(f"{name:>15}" for name in columns)]
    scores = {name: np.column_stack(_scores(run)) for name, run in runs.items()}
    for name, score in scores.items():
        cells = ["{:.2f} ± {:.2f}".format(*mean_se(100 * column)) for column in score.T]
        lines.append(f"{name:11}" + "".join(f"{cell:>15}" for cell in cells))
    lines.append("adaptive leads by, points (paired by seed)")
    for name in (name for name in runs if name != "adaptive"):
        leads = [mean_se(100 * column) for column in (scores["adaptive"] - scores[name]).T]
        stars = ["*" if abs(lead) > 3 * error else " " for lead, error in leads]
        cells = [f"{lead:+.2f} ± {error:.2f}" for lead, error in leads]
        marked = [f"{cell + star:>15}" for cell, star in zip(cells, stars, strict=True)]
        lines.append(f"{name:11}" + "".join(marked))
    lines.append("share of rows, % (last step in brackets)")
    for name, run in runs.items():
        shares = 100 * run.weights.mean(axis=(0, 1)), 100 * run.weights[:, -1].mean(axis=0)
        cells = [f"{mean:.1f} ({last:.1f})" for mean, last in zip(*shares, strict=True)]
        lines.append(f"{name:11}" + "".join(f"{cell:>15}" for cell in cells))
    lines.append("Mean over seeds ± standard error; worst: of each seed; *: over 3 errors.")
    return "\n".join(lines)


def _scores(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Accuracy by source [S, K], the mean and the worst of the sources [S]."""
    return run.accuracy, run.accuracy.mean(axis=1), run.accuracy.min(axis=1)


def main(argv: Sequence[str] | None = None) -> dict[str, Run]:
    """Runs the experiment, prints the table and returns the runs."""
    parser = argparse.ArgumentParser(description="Weights that learn, against planned ones.")
    parser.add_argument("--seeds", type=int, default=12, help="splits, noise and starts")
    parser.add_argument("--steps", type=int, default=1000, help="updates")
    parser.add_argument("--fast", action="store_true", help="2 seeds, 60 updates: a smoke test")
    args = parser.parse_args(argv)
    if args.fast:
        args.seeds, args.steps = 2, 60
    if args.seeds < 2 or args.steps < 10 or args.steps % 10:
        parser.error("--seeds must be >= 2, --steps a multiple of 10")

    domains, seeds = load_domains(), range(FIRST_SEED, FIRST_SEED + args.seeds)
    splits = [load_sources(domains, seed) for seed in seeds]
    tests, trains = jax.tree.map(lambda *arrays: jnp.asarray(np.stack(arrays)), *splits)
    keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(jnp.asarray(seeds))
    runs: dict[str, Run] = {}
    with tqdm(total=4 * args.steps, unit="step") as bar:

        def add(name: str, step_fn, mix) -> None:
            bar.set_description(f"{name:8}")
            runs[name] = run(step_fn, mix, args.steps, keys, tests, trains, bar)

        for name, mix in planned_mixes(args.steps).items():
            add(name, planned_step, mix)
        add("adaptive", adaptive_step, MIXER(MIXER.init()))  # the first weights
        log = runs["adaptive"].weights.mean(axis=0)
        add("replayed", planned_step, jaxmix.table_schedule(log))
    print(report(runs))
    return runs


if __name__ == "__main__":
    main()
