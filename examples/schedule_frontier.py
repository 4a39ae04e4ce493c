"""What the order of the data does to each domain, under several learning rates.

A classifier moves from MNIST to scikit-learn's digits, of which 20 have labels. Mixes of one budget
have the same number of MNIST rows in another order, so what differs is the order alone. How much a
late row counts depends on the learning rate: each mix runs under three courses of it, each with
three peaks. In each seed all runs start from the same parameters and read the same buffers. Nothing
is left out or chosen by its result. Prints a table of all runs and draws them:

    python examples/schedule_frontier.py
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from matplotlib.figure import Figure
from support import figures
from support.digits import class_loss, classifier, next_batch
from support.domains import load_domains, split, to_device
from support.figures import mean_se
from tqdm import tqdm

import jaxmix

BATCH, MNIST_TEST, DIGITS_TEST = 64, 1000, 600
PEAKS = (1e-3, 3e-3, 1e-2)
COLOURS = {
    "half and half": figures.GREEN,
    "switch at 1/2": figures.PINK,
    "glide": figures.BLACK,
    "glide back": figures.RED,
    "nine tenths": figures.BLUE,
    "switch at 9/10": figures.ORANGE,
    "late glide": figures.SKY,
}


def mixes(num_steps: int) -> dict[str, Any]:
    """The share of MNIST rows. The first four have a mean of 1/2, the others of 9/10."""
    return {
        "half and half": optax.constant_schedule(0.5),
        "switch at 1/2": jaxmix.staged_schedule({0: 1.0, num_steps // 2: 0.0}),
        "glide": jaxmix.cosine_schedule(1.0, 0.0, num_steps),
        "glide back": jaxmix.cosine_schedule(0.0, 1.0, num_steps),
        "nine tenths": optax.constant_schedule(0.9),
        "switch at 9/10": jaxmix.staged_schedule({0: 1.0, 9 * num_steps // 10: 0.0}),
        "late glide": optax.linear_schedule(1.0, 0.0, num_steps // 5, 4 * num_steps // 5),
    }


def learning_rates(num_steps: int) -> dict[str, Any]:
    """Courses of the learning rate with a peak of 1."""
    fall = num_steps // 5
    stable_then_fall = optax.join_schedules(
        [optax.constant_schedule(1.0), optax.linear_schedule(1.0, 0.0, fall)], [num_steps - fall]
    )
    return {
        "constant": optax.constant_schedule(1.0),
        "cosine to 0": optax.cosine_decay_schedule(1.0, num_steps),
        "stable, then to 0": stable_then_fall,
    }


@jax.jit
@partial(jax.vmap, in_axes=(None, None, 0, 0, 0, 0, 0))
def train(share, rate, key, x_buffer, y_buffer, x_test, y_test):
    """One seed: T updates with `share` and `rate` of each step, both [T]; the two accuracies.

    A table of T shares, so that one compiled function serves all schedules.
    """
    model_key, mix_key = jax.random.split(key)
    graph, params = nnx.split(classifier(nnx.Rngs(model_key)))
    optimizer = optax.adam(lambda count: rate[count])

    def update(carry, step):
        params, moments = carry
        x, y = next_batch(x_buffer, step, BATCH), next_batch(y_buffer, step, BATCH)
        mixed = jaxmix.mix_rows(mix_key, step, share[step], x, y)
        grads = jax.grad(lambda params: class_loss(nnx.merge(graph, params), mixed.rows))(params)
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments), None

    steps = jnp.arange(len(share))
    (params, _), _ = jax.lax.scan(update, (params, optimizer.init(params)), steps)
    model = nnx.merge(graph, params)
    right = [model(test["image"]).argmax(axis=-1) == test["label"] for test in (y_test, x_test)]
    return tuple(jnp.mean(each) for each in right)


def run_all(num_seeds: int, num_steps: int, num_labels: int) -> dict[tuple, np.ndarray]:
    """The accuracy in percent on digits and MNIST, [2, S], of each (course, peak, mix)."""
    x, y = load_domains()
    rngs = [np.random.default_rng(seed) for seed in range(num_seeds)]
    x_test, x_buffer = to_device([split(rng, x, MNIST_TEST, None) for rng in rngs])
    y_test, y_buffer = to_device([split(rng, y, DIGITS_TEST, num_labels) for rng in rngs])
    keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))

    def table(schedule):
        return jax.vmap(lambda step: jnp.asarray(schedule(step), jnp.float32))(
            jnp.arange(num_steps)
        )

    rates = {name: table(rate) for name, rate in learning_rates(num_steps).items()}
    shares = {name: table(share) for name, share in mixes(num_steps).items()}
    plan = [(course, peak, mix) for course in rates for peak in PEAKS for mix in shares]
    runs = {}
    for course, peak, mix in tqdm(plan, unit="run"):
        rate = jnp.float32(peak) * rates[course]
        scores = train(shares[mix], rate, keys, x_buffer, y_buffer, x_test, y_test)
        runs[course, peak, mix] = 100 * np.stack(scores).astype(np.float64)
    return runs


def reference_of(mix: str) -> str:
    """The constant mix of the same budget."""
    names = list(COLOURS)
    return "half and half" if names.index(mix) < names.index("nine tenths") else "nine tenths"


def report(runs: dict[tuple, np.ndarray]) -> str:
    """Every run, and its lead over the constant mix of its budget, paired by seed."""
    row = "{:<19}{:<7}{:<16}{:>13}{:>13}{:>15}{:>15}".format
    lines = [
        " " * 42 + "accuracy, %               lead over constant mix",
        row("learning rate", "peak", "mix", "digits", "MNIST", "digits", "MNIST"),
    ]
    for (course, peak, mix), scores in runs.items():
        cells = ["{:.1f} ± {:.1f}".format(*mean_se(score)) for score in scores]
        for lead in scores - runs[course, peak, reference_of(mix)]:
            mean, error = mean_se(lead)
            clear = "*" if abs(mean) > 3 * error else " "
            same = mix == reference_of(mix)
            cells.append("-  " if same else f"{mean:+.2f} ± {error:.2f}{clear}")
        lines.append(row(course, f"{peak:g}", mix, *cells))
    lines.append("Mean over seeds ± standard error; *: over 3 standard errors.")
    return "\n".join(line.rstrip() for line in lines)


def draw(runs: dict[tuple, np.ndarray], title: str, path: Path) -> None:
    """A panel for each course of the learning rate: both accuracies, a line through the peaks."""
    courses = list(dict.fromkeys(course for course, _, _ in runs))
    figure = Figure(figsize=(13, 5), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, weight="bold")
    panels = figure.subplots(1, len(courses), sharex=True, sharey=True)
    for panel, course in zip(panels, courses, strict=True):
        figures.style(panel, f"Learning rate: {course}")
        panel.set_xlabel("accuracy on MNIST, %")
        for mix, colour in COLOURS.items():
            points = [(*map(mean_se, runs[course, peak, mix]),) for peak in PEAKS]
            (y, y_error), (x, x_error) = np.moveaxis(np.asarray(points), 0, -1)
            panel.errorbar(x, y, y_error, x_error, color=colour, linewidth=1, label=mix)
            panel.scatter(x, y, (20, 45, 90), color=colour)  # larger with the peak
    panels[0].set_ylabel("accuracy on digits, %")
    panels[0].legend(frameon=False, loc="lower left")
    figures.save(figure, path)


def main(argv: list[str] | None = None) -> dict[tuple, np.ndarray]:
    """Run all, print the table, write it and the picture, and return the accuracies."""
    parser = argparse.ArgumentParser(description="Mixes and learning rates, MNIST to digits.")
    parser.add_argument("--seeds", type=int, default=24, help="splits, label draws and starts")
    parser.add_argument("--steps", type=int, default=600, help="updates")
    parser.add_argument("--labels", type=int, default=20, help="labelled images of the target")
    parser.add_argument("--out", type=Path, default=Path("out/schedule_frontier.png"))
    parser.add_argument("--fast", action="store_true", help="2 seeds, 20 updates: a smoke test")
    args = parser.parse_args(argv)
    if args.fast:
        args.seeds, args.steps = 2, 20
    if args.seeds < 2 or args.steps < 10 or not 1 <= args.labels <= 1197:
        parser.error("--seeds must be >= 2, --steps >= 10, --labels in [1, 1197]")
    runs = run_all(args.seeds, args.steps, args.labels)
    title = (
        f"{args.seeds} seeds, {args.steps} updates of {BATCH} rows, {args.labels} labelled digits"
    )
    draw(runs, f"The order of the data: {title}", args.out)
    text = f"{title}\n\n{report(runs)}"
    args.out.with_suffix(".txt").write_text(text + "\n")
    print(f"{text}\npicture: {args.out}")
    return runs


if __name__ == "__main__":
    main()
