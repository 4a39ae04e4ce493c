"""A classifier moves from MNIST to another set of digits: five ways to mix the two.

X is MNIST with 4,000 labels; Y, the target, is scikit-learn's digits with 20. Every mix starts from
the same weights and reads the same buffers; only gamma, the share of X in the batch, differs.
Prints the accuracy on both test sets and draws the course of each mix:

    python examples/anneal_digits.py
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from support import figures
from support.digits import class_loss, classifier, next_batch
from support.domains import load_domains, split, to_device
from support.figures import mean_se
from tqdm import tqdm

import jaxmix

BATCH, MNIST_TEST, DIGITS_TEST = 64, 1000, 600
COLOURS = {
    "MNIST only": figures.BLUE,
    "digits only": figures.ORANGE,
    "half and half": figures.GREEN,
    "hard switch": figures.PINK,
    "anneal": figures.BLACK,
}


def mixes(num_steps: int) -> dict[str, Any]:
    """Gamma, the share of MNIST rows, of each way to mix: a number or a schedule."""
    return {
        "MNIST only": 1.0,
        "digits only": 0.0,
        "half and half": 0.5,
        "hard switch": jaxmix.staged_schedule({0: 1.0, num_steps // 2: 0.0}),
        "anneal": jaxmix.cosine_schedule(1.0, 0.0, num_steps),
    }


# The method: in each jitted step, mix_rows picks from two pre-fetched buffers on the device.


def mixed_batch(gamma, key, step, x_buffer, y_buffer):
    """Each row is X's with probability gamma(step), else Y's; one key serves all steps."""
    x, y = next_batch(x_buffer, step, BATCH), next_batch(y_buffer, step, BATCH)
    return jaxmix.mix_rows(key, step, gamma, x, y)


def train_step(gamma, model, optimizer, key, x_buffer, y_buffer):
    """One update; returns the share of X that the batch really had."""
    mixed = mixed_batch(gamma, key, optimizer.step[...], x_buffer, y_buffer)
    grads = nnx.grad(class_loss)(model, mixed.rows)
    optimizer.update(model, grads)  # counts optimizer.step up, which is all the state a mix has
    return jnp.mean(mixed.source == 0)


# The model, written for one seed and mapped over all.


@nnx.jit
@nnx.vmap
def start(key):
    model = classifier(nnx.Rngs(key))
    return model, nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)


@nnx.jit
@nnx.vmap
def accuracy(model, batch):
    return jnp.mean(model(batch["image"]).argmax(axis=-1) == batch["label"])


# The experiment.


class Run(NamedTuple):
    """The results of one mix: T steps, S seeds, E evaluations."""

    planned: np.ndarray  # [T] gamma
    share: np.ndarray  # [T, S] share of MNIST rows in each batch
    updates: np.ndarray  # [E] updates done before each evaluation
    digits: np.ndarray  # [E, S] accuracy on held-out digits
    mnist: np.ndarray  # [E, S] accuracy on held-out MNIST images


def run(gamma, num_steps, model_keys, mix_keys, mnist, digits, bar) -> Run:
    train_all = nnx.jit(nnx.vmap(partial(train_step, gamma)))
    model, optimizer = start(model_keys)
    share, updates, scores = [], [], []
    for step in range(num_steps + 1):
        if step % max(1, num_steps // 40) == 0 or step == num_steps:
            updates.append(step)
            scores.append([accuracy(model, digits[0]), accuracy(model, mnist[0])])
        if step < num_steps:
            share.append(train_all(model, optimizer, mix_keys, mnist[1], digits[1]))
            bar.update()
    planned = jax.vmap(lambda step: jaxmix.weights_at(step, gamma)[0])(jnp.arange(num_steps))
    return Run(*map(np.asarray, (planned, share, updates)), *np.asarray(scores).swapaxes(0, 1))


def report(runs: dict[str, Run]) -> str:
    """The table, with no claim that its own numbers do not show."""
    lines = [
        "                    accuracy, %             MNIST rows, %       anneal leads by, points",
        "mix             digits       MNIST       planned  realised       digits        MNIST",
    ]
    row = "{:14}{:>11}{:>13}{:>11}{:>10}{:>15}{:>14}".format
    for name, run in runs.items():
        scores = (100 * run.digits[-1], 100 * run.mnist[-1])
        cells = ["{:.1f} ± {:.1f}".format(*mean_se(score)) for score in scores]
        cells += [f"{100 * share.mean():.2f}" for share in (run.planned, run.share)]
        for score, of_anneal in zip(run[-2:], runs["anneal"][-2:], strict=True):
            lead, error = mean_se(100 * (of_anneal[-1] - score[-1]))
            cells += [f"{lead:+.1f} ± {error:.1f}{'*' if abs(lead) > 3 * error else ' '}"]
        lines.append(row(name, *cells))
    best = [max(runs, key=lambda name: runs[name][of][-1].mean()) for of in (-2, -1)]
    lines.append("Mean over seeds ± standard error; leads are paired by seed; *: over 3 errors.")
    lines.append(f"Highest mean on digits: {best[0]}; on MNIST: {best[1]}.")
    return "\n".join(lines)


def draw(runs: dict[str, Run], images, source, title: str, path: Path) -> None:
    """The mix and both accuracies over the updates, and where every mix ends."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, weight="bold")
    tall = [0.13, 1, 1, 1]
    panels = figure.subplot_mosaic("i.;xe;de;me", width_ratios=[1.4, 1], height_ratios=tall)
    titles = {
        "i": "First row of the batch during the anneal (blue: MNIST, orange: digits)",
        "x": "MNIST rows in the batch, % (dots: each batch of one annealed run)",
        "d": "Accuracy on digits, %",
        "m": "Accuracy on MNIST, %",
        "e": "After the last update (bars: ± s.e.)",
    }
    for name, panel in panels.items():
        figures.style(panel, titles[name])
        panel.margins(y=0.2)
    panels["m"].set_xlabel("update")
    panels["e"].set(xlabel="accuracy on MNIST, %", ylabel="accuracy on digits, %")

    ink = np.array([to_rgb(list(COLOURS.values())[k]) for k in source])[:, None, None]
    tiles = np.ones((len(source), 8, 10, 3))
    tiles[:, :, 1:9] -= images.reshape(-1, 8, 8, 1) * (1 - ink)
    panels["i"].imshow(np.concatenate(tiles, axis=1), aspect="auto")
    panels["i"].axis("off")
    panels["x"].plot(100 * runs["anneal"].share[:, 0], ".", color="0.7", markersize=4)
    ends = {"x": [], "d": [], "m": []}
    for name, run in runs.items():
        colour, width = COLOURS[name], 2.5 if name == "anneal" else 1.5
        curves = [(range(len(run.planned)), 100 * run.planned, 0.0)]
        curves += [(run.updates, *mean_se(100 * scores)) for scores in (run.digits, run.mnist)]
        for key, (updates, mean, error) in zip(ends, curves, strict=True):
            panels[key].plot(updates, mean, color=colour, linewidth=width)
            panels[key].fill_between(updates, mean - error, mean + error, color=colour, alpha=0.2)
            ends[key].append((mean[-1], name, colour))
        (x, x_error), (y, y_error) = mean_se(100 * run.mnist[-1]), mean_se(100 * run.digits[-1])
        panels["e"].errorbar(x, y, y_error, x_error, fmt="o", color=colour, linewidth=width)
        side = "left" if x < 50 else "right"
        panels["e"].text(x, y, f"   {name}   ", color=colour, ha=side, va="top", fontsize=11)
    for key, names in ends.items():
        figures.name_lines(panels[key], names, gap=0.1)
    figures.save(figure, path)


def main(argv: list[str] | None = None) -> dict[str, Run]:
    """Run the experiment, print the table, write the picture and return the runs."""
    parser = argparse.ArgumentParser(description="Five ways to mix MNIST and digits.")
    parser.add_argument("--seeds", type=int, default=10, help="splits, label draws and starts")
    parser.add_argument("--steps", type=int, default=600, help="updates")
    parser.add_argument("--labels", type=int, default=20, help="labelled images of the target")
    parser.add_argument("--out", type=Path, default=Path("out/anneal_digits.png"))
    parser.add_argument("--fast", action="store_true", help="2 seeds, 40 updates: a smoke test")
    args = parser.parse_args(argv)
    if args.fast:
        args.seeds, args.steps = 2, 40
    if min(args.seeds, args.steps) < 2 or not 1 <= args.labels <= 1197:
        parser.error("--seeds and --steps must be >= 2, --labels in [1, 1197]")

    x, y = load_domains()
    rngs = [np.random.default_rng(seed) for seed in range(args.seeds)]
    x = to_device([split(rng, x, MNIST_TEST, None) for rng in rngs])
    y = to_device([split(rng, y, DIGITS_TEST, args.labels) for rng in rngs])
    keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(jnp.arange(args.seeds))
    model_keys, mix_keys = keys.T
    gammas, runs = mixes(args.steps), {}
    with tqdm(total=len(gammas) * args.steps, unit="step") as bar:
        for name, gamma in gammas.items():
            bar.set_description(f"{name:13}")
            runs[name] = run(gamma, args.steps, model_keys, mix_keys, x, y, bar)
    print(report(runs))

    # No batch was kept. Each is a function of key and step, so the strip's are computed again.
    x_buffer, y_buffer = jax.tree.map(lambda array: array[0], (x[1], y[1]))
    steps = jnp.linspace(0, args.steps - 1, 24).astype(jnp.int32)
    replay = partial(mixed_batch, gammas["anneal"], mix_keys[0])
    again = jax.jit(jax.vmap(replay, in_axes=(0, None, None)))(steps, x_buffer, y_buffer)
    first = np.asarray(again.rows["image"][:, 0]), np.asarray(again.source[:, 0])
    title = f"From MNIST to {args.labels} labelled digits (mean ± s.e. of {args.seeds} seeds)"
    draw(runs, *first, title, args.out)
    print(f"picture: {args.out}")
    return runs


if __name__ == "__main__":
    main()
