"""A student is annealed from a teacher's soft targets to the labels: a mixture of three losses.

A teacher has seen 3,600 MNIST images. The student, 32 hidden units, has 200 others. Its loss is a
mixture of three: the teacher's soft targets, the labels, and an auxiliary loss that redraws the
image from the hidden units. Five ways to weigh them start from the same parameters and read the
same batches. Prints the accuracy on 1,000 held-out images and draws the course of each way:

    python examples/loss_interpolation.py
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen
from matplotlib.figure import Figure
from support import figures
from support.digits import mnist, next_batch
from support.figures import mean_se
from tqdm import tqdm

import jaxmix

BATCH, TEST, TEACHER_IMAGES, HEAT = 50, 1000, 3600, 3.0
LOSSES = {"soft targets": figures.BLUE, "labels": figures.RED, "redrawing": figures.GREEN}
WAYS = {
    "labels only": figures.RED,
    "teacher only": figures.BLUE,
    "half and half": figures.ORANGE,
    "hard switch": figures.PINK,
    "anneal": figures.BLACK,
}


def ways(num_steps: int) -> dict[str, Any]:
    """The weights [soft targets, labels, redrawing] of each way: numbers or a schedule."""
    eighth = max(1, num_steps // 8)
    soft, hard, both = np.eye(3)[0], np.eye(3)[1], np.array([0.5, 0.5, 0.0])
    stages = {0: np.array([0.7, 0.0, 0.3]), eighth: soft, 4 * eighth: hard}
    return {
        "labels only": hard,
        "teacher only": soft,
        "half and half": both,
        "hard switch": jaxmix.staged_schedule({0: soft, num_steps // 2: hard}),
        "anneal": jaxmix.staged_schedule(stages, ramp_steps=2 * eighth),
    }


# The method: three losses and one function that evaluates those whose weight is not 0.


class Student(linen.Module):
    hidden: int

    @linen.compact
    def __call__(self, image):
        hidden = linen.relu(linen.Dense(self.hidden)(image))
        return linen.Dense(10)(hidden), linen.Dense(image.shape[-1])(hidden)


STUDENT, TEACHER = Student(32), Student(512)


def outputs(params, batch, model=STUDENT) -> tuple[Any, Any]:
    """Logits and the image redrawn."""
    return model.apply(params, batch["image"])


def soft_targets(params, batch):
    """Cross-entropy with the teacher, both at a raised temperature, scaled back by its square."""
    targets = jax.nn.softmax(batch["teacher"] / HEAT)
    logits, _ = outputs(params, batch)
    return HEAT**2 * optax.losses.kl_divergence(jax.nn.log_softmax(logits / HEAT), targets).mean()


def labels(params, batch, model=STUDENT):
    logits, _ = outputs(params, batch, model)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()


def redrawing(params, batch):
    _, redrawn = outputs(params, batch)
    return optax.losses.squared_error(redrawn, batch["image"]).mean()


def student_step(weights, optimizer, step, params, state, train):
    """One update of one student; the step is the optimizer's, and the only state a mix needs."""
    loss_fn = jaxmix.mix_loss_fns(weights, soft_targets, labels, redrawing)
    grads = jax.grad(loss_fn, argnums=1)(step, params, next_batch(train, step, BATCH))
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state


# The data and the teacher, one of each per seed.


def load_mnist():
    """MNIST at half size and flat."""
    middle, labels = mnist()
    half = middle.reshape(-1, 10, 2, 10, 2).mean((2, 4))
    return {"image": half.reshape(-1, 100) / 255, "label": labels}


def start(key, images, num_images, teacher_steps):
    """A trained teacher and what a student gets: images, labels and the teacher's logits."""
    rows = jax.random.permutation(key, len(images["label"]))
    parts = jnp.split(rows, [TEST, TEST + TEACHER_IMAGES, TEST + TEACHER_IMAGES + num_images])
    test, school, train = ({name: images[name][part] for name in images} for part in parts[:3])
    optimizer = optax.adam(1e-3)
    teacher = TEACHER.init(key, images["image"][:1])

    def teacher_step(step, carry):
        params, state = carry
        grads = jax.grad(labels)(params, next_batch(school, step, BATCH), TEACHER)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state

    teacher, _ = jax.lax.fori_loop(
        0, teacher_steps, teacher_step, (teacher, optimizer.init(teacher))
    )
    for part in (test, train):
        part["teacher"], _ = outputs(teacher, part, TEACHER)
    params = STUDENT.init(jax.random.fold_in(key, 1), images["image"][:1])
    return params, test, train


@jax.jit
@partial(jax.vmap, out_axes=-1)
def evaluate(params, test):
    """The three losses and the accuracy on held-out images, with the seeds last."""
    logits, _ = outputs(params, test)
    accuracy = jnp.mean(logits.argmax(-1) == test["label"])
    return jnp.stack([loss(params, test) for loss in (soft_targets, labels, redrawing)]), accuracy


# The experiment.


class Run(NamedTuple):
    """The results of one way: T steps, E evaluations, S seeds."""

    weights: np.ndarray  # [T, 3]
    updates: np.ndarray  # [E] updates done before each evaluation
    losses: np.ndarray  # [E, 3, S] on held-out images
    accuracy: np.ndarray  # [E, S]


def run(weights, num_steps, params, test, train, bar) -> Run:
    optimizer = optax.adam(3e-3)
    # The step is not mapped, so that a loss is skipped for all seeds at once.
    over_seeds = jax.vmap(partial(student_step, weights, optimizer), in_axes=(None, 0, 0, 0))
    one_step = jax.jit(over_seeds)
    state = jax.vmap(optimizer.init)(params)
    updates, losses, accuracy = [], [], []
    for step in range(num_steps + 1):
        if step % max(1, num_steps // 40) == 0 or step == num_steps:
            updates.append(step)
            for into, score in zip((losses, accuracy), evaluate(params, test), strict=True):
                into.append(score)
        if step < num_steps:
            params, state = one_step(step, params, state, train)
            bar.update()
    planned = jax.vmap(lambda step: jaxmix.weights_at(step, weights))(jnp.arange(num_steps))
    return Run(*map(np.asarray, (planned, updates, losses, accuracy)))


def report(runs: dict[str, Run], teacher: np.ndarray) -> str:
    """The table, with no claim that its own numbers do not show."""
    lines = ["way               accuracy, %   anneal leads by, points   losses evaluated per step"]
    for name, run in runs.items():
        mean, error = mean_se(100 * run.accuracy[-1])
        lead, lead_error = mean_se(100 * (runs["anneal"].accuracy[-1] - run.accuracy[-1]))
        sure = "*" if abs(lead) > 3 * lead_error else " "
        used = (run.weights > 0).sum(1).mean()
        lines.append(
            f"{name:14}{mean:9.1f} ± {error:.1f}{lead:+16.1f} ± {lead_error:.1f}{sure}{used:22.2f}"
        )
    lines.append("{:14}{:9.1f} ± {:.1f}".format("the teacher", *mean_se(100 * teacher)))
    lines.append("Mean over seeds ± standard error; leads are paired by seed; *: over 3 errors.")
    return "\n".join(lines)


def draw(runs: dict[str, Run], teacher: float, title: str, path: Path) -> None:
    """Weights and losses of the anneal on the left, the accuracy of every way on the right."""
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, weight="bold")
    panels = figure.subplot_mosaic("wa;le", width_ratios=[1, 1.1])
    titles = {
        "w": "Anneal: weight of each loss, %",
        "l": "Anneal: losses on held-out images (dotted: weight 0, not evaluated in training)",
        "a": "Accuracy on held-out images, %",
        "e": "After the last update, % (bars: ± s.e.; dots: seeds)",
    }
    for name, panel in panels.items():
        figures.style(panel, titles[name])
    for name in "wla":
        panels[name].set_xlabel("update")

    anneal = runs["anneal"]
    mean, error = mean_se(anneal.losses)
    panels["l"].set_yscale("log")
    for k, (name, colour) in enumerate(LOSSES.items()):
        weight = 100 * anneal.weights[:, k]
        panels["w"].plot(weight, color=colour, linewidth=2.5)
        top = int(np.flatnonzero(weight == weight.max()).mean())
        offset = {"textcoords": "offset points", "xytext": (0, 6)}
        panels["w"].annotate(name, (top, weight[top]), color=colour, ha="center", **offset)
        used = np.interp(anneal.updates, range(len(weight)), weight) > 0
        for style, shown in ((":", np.ones_like(used)), ("-", used)):
            line = np.where(shown, mean[:, k], np.nan)
            panels["l"].plot(anneal.updates, line, style, color=colour, linewidth=2)
        low, high = mean[:, k] - error[:, k], mean[:, k] + error[:, k]
        panels["l"].fill_between(anneal.updates, low, high, color=colour, alpha=0.2, linewidth=0)
    ends = zip(mean[-1], LOSSES, LOSSES.values(), strict=True)
    figures.name_lines(panels["l"], ends, gap=0.06)
    panels["w"].set_ylim(0, 112)

    ends = []
    for place, (name, run) in enumerate(runs.items()):
        colour = WAYS[name]
        mean, error = mean_se(100 * run.accuracy)
        width = 2.5 if name == "anneal" else 1.5
        panels["a"].plot(run.updates, mean, color=colour, linewidth=width)
        ends.append((mean[-1], name, colour))
        seeds = 100 * run.accuracy[-1]
        spread = place + 0.18 + np.linspace(0, 0.2, len(seeds))
        panels["e"].plot(seeds, spread, ".", color=colour, alpha=0.4)
        panels["e"].errorbar(mean[-1], place, xerr=error[-1], fmt="o", color=colour, linewidth=2)
    panels["e"].axvline(teacher, color="0.5", linestyle="--", linewidth=1)
    panels["e"].text(teacher, len(runs) - 0.45, "teacher ", color="0.4", ha="right")
    panels["e"].set_yticks(range(len(runs)), list(runs), fontsize=11)
    panels["e"].set_ylim(-0.5, len(runs) - 0.2)
    for tick, colour in zip(panels["e"].get_yticklabels(), WAYS.values(), strict=True):
        tick.set_color(colour)
    low = min(end for end, *_ in ends)
    panels["a"].set_ylim(low - 8, max(end for end, *_ in ends) + 1.5)
    figures.name_lines(panels["a"], ends, gap=0.06)
    figures.save(figure, path)


def main(argv: list[str] | None = None) -> dict[str, Run]:
    """Run the experiment, print the table, write the picture and return the runs."""
    parser = argparse.ArgumentParser(description="Five ways to weigh three losses.")
    parser.add_argument("--seeds", type=int, default=10, help="splits, teachers and students")
    parser.add_argument("--steps", type=int, default=800, help="updates of a student")
    parser.add_argument("--images", type=int, default=200, help="labelled images of the student")
    parser.add_argument("--out", type=Path, default=Path("out/loss_interpolation.png"))
    parser.add_argument("--fast", action="store_true", help="2 seeds, 40 updates: a smoke test")
    args = parser.parse_args(argv)
    if args.fast:
        args.seeds, args.steps = 2, 40
    if min(args.seeds, args.steps // 8) < 2 or not 1 <= args.images <= 400:
        parser.error("--seeds must be >= 2, --steps >= 16, --images in [1, 400]")

    images = jax.tree.map(jnp.asarray, load_mnist())
    keys = jax.vmap(jax.random.key)(jnp.arange(args.seeds))
    set_up = partial(start, num_images=args.images, teacher_steps=args.steps)
    params, test, train = jax.jit(jax.vmap(set_up, in_axes=(0, None)))(keys, images)
    teacher = np.asarray(jnp.mean(test["teacher"].argmax(-1) == test["label"], axis=-1))
    runs = {}
    with tqdm(total=len(WAYS) * args.steps, unit="step") as bar:
        for name, weights in ways(args.steps).items():
            bar.set_description(f"{name:13}")
            runs[name] = run(weights, args.steps, params, test, train, bar)
    print(report(runs, teacher))
    title = f"From a teacher's soft targets to {args.images} labels (mean of {args.seeds} seeds)"
    draw(runs, 100 * float(teacher.mean()), title, args.out)
    print(f"picture: {args.out}")
    return runs


if __name__ == "__main__":
    main()
