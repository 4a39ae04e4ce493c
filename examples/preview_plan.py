"""Look at a plan before you train: what it will do, what is wrong with it, and every schedule.

A mid-training mixture of five sources is previewed twice: as first written, with the mistakes that
the warnings name, and mended. Prints both tables and draws two pictures, the mended plan and
a gallery of every schedule. Run it with `python examples/preview_plan.py`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import optax
from matplotlib.figure import Figure

import jaxmix

NAMES = ["web", "code", "books", "maths", "instructions"]
LENGTHS = [1_800_000, 500_000, 400_000, 350_000, 140_000]
NUM_STEPS, BATCH_SIZE = 10_000, 256

# From mostly web text to a mixture with maths and instructions.
BEGIN, END = [0.80, 0.12, 0.08, 0.0, 0.0], [0.25, 0.22, 0.18, 0.25, 0.10]


def look(begin_step: int, ramp_steps: int) -> jaxmix.Preview:
    weights = jaxmix.staged_schedule({0: BEGIN, begin_step: END}, ramp_steps=ramp_steps)
    plan = jaxmix.MixPlan(weights, BATCH_SIZE, names=NAMES)
    return jaxmix.preview(plan, NUM_STEPS, lengths=LENGTHS)


def gallery() -> dict[str, dict[str, optax.Schedule]]:
    """Every schedule over 1,000 steps: the name of the function, and examples of it."""
    linear = jaxmix.make_schedule(1000)
    sizes = [8e6, 2e6, 5e5, 1e5]
    mixes = {0: [0.7, 0.2, 0.1], 600: [0.1, 0.3, 0.6]}
    kinds = ("linear", "cosine", "sigmoid", "exponential")
    return {
        "make_schedule": {k: jaxmix.make_schedule(1000, 0.01, 0.99, kind=k) for k in kinds},
        "cosine_schedule": {
            "begin 0": jaxmix.cosine_schedule(1.0, 0.0, 800),
            "begin 400": jaxmix.cosine_schedule(1.0, 0.2, 500, transition_begin=400),
        },
        "sigmoid_schedule": {
            f"steepness {k}": jaxmix.sigmoid_schedule(0.0, 1.0, 999, steepness=k)
            for k in (6, 12, 24)
        },
        "exponential_schedule": {
            f"from {v}": jaxmix.exponential_schedule(v, 1.0, 999) for v in (0.001, 0.01, 0.1)
        },
        "inverse_sigmoid_schedule": {
            f"k = {k}": jaxmix.inverse_sigmoid_schedule(k) for k in (50, 100, 150)
        },
        "dann_schedule": {f"rate {r}": jaxmix.dann_schedule(999, rate=r) for r in (5, 10, 20)},
        "competence_schedule": {
            f"power {p}": jaxmix.competence_schedule(0.05, 999, power=p) for p in (1, 2, 5)
        },
        "cyclical_schedule": {
            "three cycles": jaxmix.cyclical_schedule(0.0, 1.0, 333, num_cycles=3),
            "ramp 0.9": jaxmix.cyclical_schedule(0.0, 0.5, 250, ramp_fraction=0.9),
        },
        "staged_schedule": {
            "ramps": jaxmix.staged_schedule({0: 0.1, 300: 0.5, 700: 0.9}, ramp_steps=150),
            "switches": jaxmix.staged_schedule({0: 0.0, 300: 0.4, 700: 0.8}),
        },
        "table_schedule": {
            "table": jaxmix.table_schedule([(step / 999) ** 3 for step in range(1000)])
        },
        "temperature_schedule": {
            "size": jaxmix.temperature_schedule(sizes, optax.linear_schedule(1.0, 5.0, 999))
        },
        "stack_schedules": {
            "source": jaxmix.stack_schedules(0.5, linear, jaxmix.complement_schedule(linear))
        },
        "nest_schedules": {
            "leaf": jaxmix.nest_schedules(
                linear, [0.75, 0.25], jaxmix.cosine_schedule(0.9, 0.1, 999)
            )
        },
        "token_share_schedule": {
            "row share": jaxmix.token_share_schedule(jaxmix.staged_schedule(mixes), [100, 400, 900])
        },
        "complement_schedule, clip_schedule": {
            "complement": jaxmix.complement_schedule(linear),
            "clipped": jaxmix.clip_schedule(linear, 0.2, 0.6),
        },
        "rescale_schedule, rows_schedule": {
            "by epochs": jaxmix.rescale_schedule(optax.linear_schedule(0.0, 0.8, 4), 200),
            "by rows": jaxmix.rescale_schedule(
                jaxmix.cosine_schedule(0.0, 0.6, 12_000), jaxmix.rows_schedule({0: 8, 400: 24})
            ),
        },
    }


def draw_gallery(path: Path) -> None:
    shapes = gallery()
    figure = Figure(figsize=(17, 12), layout="constrained")
    panels = figure.subplots(4, 4).ravel()
    for (name, schedules), panel in zip(shapes.items(), panels, strict=True):
        jaxmix.plot_schedules(schedules, 1000, ax=panel)
        panel.set_title(name, loc="left", family="monospace", fontsize=12, weight="bold")
    figure.savefig(path, dpi=75)


def main(argv: Sequence[str] | None = None) -> dict[str, jaxmix.Preview]:
    parser = argparse.ArgumentParser(description="Preview a plan and draw every schedule.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures")
    parser.add_argument("--fast", action="store_true", help="the same; it takes seconds")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)

    looks = {"As first written": look(9_000, 2_000), "Mended": look(2_000, 6_000)}
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    for (title, seen), panel in zip(looks.items(), figure.subplots(1, 2), strict=True):
        print(f"{title}:\n{seen}\n")
        seen.plot(panel).set_title(title, loc="left", weight="bold")
    figure.savefig(args.out / "preview_plan.png", dpi=100)
    draw_gallery(args.out / "schedules.png")
    print(f"Pictures: {args.out / 'preview_plan.png'}, {args.out / 'schedules.png'}")
    return looks


if __name__ == "__main__":
    main()
