"""Two corpora on disk under one plan: feed, stop, edit the schedule, resume, and lose no row.

The corpora are real text that every installation has: prose from the docstrings of NumPy, SciPy and
JAX, and code from Python's own library. Each becomes a file of rows of 128 bytes, which is read
through a memory map. Run it with `python examples/plan_and_feed.py`.
"""

import argparse
import json
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np
import optax
from support.text_corpora import ROW_BYTES, corpora, sha256

import jaxmix

NAMES = ("prose", "code")


def feed(plan: jaxmix.MixPlan, sources: Sequence[np.ndarray], stop: int, shards: int) -> list[dict]:
    """The batches of some steps, fed by `shards` processes (here one after the other)."""
    feeds = [
        jaxmix.PlanSource(plan, sources, stop, shard_index=i, shard_count=shards)
        for i in range(shards)
    ]
    batches = []
    for pieces in zip(*feeds, strict=True):
        assert len({int(piece["step"]) for piece in pieces}) == 1
        batches.append(
            {k: np.concatenate([p[k] for p in pieces]) for k in ("source", "position", "rows")}
        )
    return batches


def describe(title: str, plan: jaxmix.MixPlan, batches: Sequence[dict]) -> None:
    print(f"\n{title}: steps {plan.first_step} to {plan.first_step + len(batches) - 1}, {plan}")
    for k, name in enumerate(NAMES):
        position = np.concatenate([b["position"][b["source"] == k] for b in batches])
        if position.size:
            print(f"  {name}: rows {position.min()} to {position.max()}, {position.size} of them")


def main(argv: Sequence[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description="Plan, feed, stop, edit, resume.")
    parser.add_argument("--megabytes", type=float, default=2.0, help="of each corpus")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--fast", action="store_true", help="a small run, for tests")
    args = parser.parse_args(argv)
    if args.fast:
        args.megabytes, args.steps, args.batch_size = 0.2, 60, 16
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        sources = corpora(folder, int(args.megabytes * 1e6), names=NAMES)
        for label, rows in zip(NAMES, sources, strict=True):
            digest = sha256(rows)[:12]
            print(f"{label}: {len(rows)} rows of {ROW_BYTES} bytes on disk, sha256 {digest}")

        # The plan: prose first, then more and more code. All of it is known before the first step.
        gamma = optax.linear_schedule(0.9, 0.3, args.steps)
        plan = jaxmix.MixPlan(gamma, args.batch_size, seed=7)
        ends = plan.runs_out_at(args.steps, [len(rows) for rows in sources])
        print(f"\nThe second epoch begins at step {dict(zip(NAMES, ends, strict=True))}")

        stop = args.steps // 2
        before = feed(plan, sources, stop, shards=1)
        describe("First run", plan, before)

        # The run stops. Its checkpoint holds a few numbers of the plan.
        (folder / "plan.json").write_text(json.dumps(plan.state(stop)))

        # It resumes with another schedule, twice the batch size, and on four processes.
        state = json.loads((folder / "plan.json").read_text())
        swap = jaxmix.staged_schedule({0: 0.5, stop + args.steps // 4: 0.0})
        edited = jaxmix.MixPlan(swap, 2 * args.batch_size, state=state)
        after = feed(edited, sources, args.steps, shards=4)
        describe("Edited run", edited, after)

        first = after[0]["rows"][after[0]["source"] == 1][0]
        print("\nA row of code in it:", repr(bytes(first).decode(errors="replace")))

        source = np.concatenate([batch["source"] for batch in before + after])
        position = np.concatenate([batch["position"] for batch in before + after])
        rows = np.concatenate([batch["rows"] for batch in before + after])
        print("\nBoth runs together")
        lost = repeated = 0
        for k, label in enumerate(NAMES):
            used = position[source == k]
            ids = set(used.tolist())
            lost += len(set(range(used.size)) - ids)
            repeated += used.size - len(ids)
            print(f"  {label}: {used.size} rows, {len(ids)} ids from {min(ids)} to {max(ids)}")
            assert (rows[source == k] == sources[k][used % len(sources[k])]).all()
        print(f"  lost: {lost}, repeated: {repeated}")
        del sources, rows
    return {"lost": lost, "repeated": repeated, "rows": len(source)}


if __name__ == "__main__":
    main()
