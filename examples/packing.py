"""Pack documents before the mix, not after it: then the shares of a schedule are shares of tokens.

Two sources of real text are annealed from prose, which is in short documents, to code, which is in
long ones. Both ways below read the same documents and follow the same schedule.

- Packed after the mix, a row of the plan is a document. The tokens of one step of the plan fill
  many batches, so training falls far behind the schedule; and one long document of code outweighs
  many short ones of prose.
- Packed before the mix, a row of the plan is a row of tokens, and the shares are those written.

Prints a table of each and draws a picture: `python examples/packing.py`. Tokens are bytes here.
"""

import argparse
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from matplotlib.figure import Figure
from support import figures
from support.text_corpora import TEXTS

import jaxmix

NAMES = ("prose", "code")
BATCH_SIZE, ROW_TOKENS, VOCABULARY = 32, 512, 256

Document = tuple[int, str]  # the number of its source, and its text


def tokenize(document: Document) -> np.ndarray:
    """Tokens int32 [T]; each source has its own numbers, so that they can be counted."""
    source, text = document
    return VOCABULARY * source + np.frombuffer(text.encode(), np.uint8).astype(np.int32)


def pack(documents: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Documents one after the other, cut into rows of ROW_TOKENS tokens."""
    rest = np.zeros(0, np.int32)
    for tokens in documents:
        rest = np.concatenate([rest, tokens])
        whole = len(rest) // ROW_TOKENS * ROW_TOKENS
        yield from rest[:whole].reshape(-1, ROW_TOKENS)
        rest = rest[whole:]


def packed_after(
    plan: jaxmix.MixPlan, sources: Sequence[Sequence[Document]], num_steps: int
) -> Iterator[np.ndarray]:
    """Batches [B, ROW_TOKENS]: the plan chooses documents, which are tokenized, then packed."""
    lengths = [len(documents) for documents in sources]
    chosen: Any = jaxmix.PlanSelectionMap(plan, num_steps, shuffle=True, lengths=lengths)
    datasets = [grain.MapDataset.source(documents) for documents in sources]
    rows = pack(grain.MapDataset.select_from_datasets(datasets, chosen).map(tokenize))
    for _ in range(num_steps):
        yield np.stack(list(itertools.islice(rows, BATCH_SIZE)))


def packed_before(
    plan: jaxmix.MixPlan, sources: Sequence[Sequence[Document]], num_steps: int
) -> Iterator[np.ndarray]:
    """Batches [B, ROW_TOKENS]: each source is tokenized and packed; the plan chooses rows."""
    packed = [np.stack(list(pack(map(tokenize, documents)))) for documents in sources]
    for batch in jaxmix.PlanSource(plan, packed, num_steps, shuffle=True):
        yield batch["rows"]


def prose_share(batches: Iterator[np.ndarray]) -> np.ndarray:
    """The share of prose in the tokens of each step."""
    return np.array([np.mean(batch < VOCABULARY) for batch in batches])


def documents(source: int, num_tokens: int) -> list[Document]:
    """Enough documents of a source for so many tokens."""
    found, total = [], 0
    for text in TEXTS[NAMES[source]]():
        found.append((source, text))
        total += len(text.encode())
        if total >= num_tokens:
            break
    return found


def table(planned: np.ndarray, share: np.ndarray) -> str:
    """The share of prose in the schedule and in the tokens, over sixths of the run."""
    lines = ["steps           schedule  tokens"]
    for part in np.array_split(np.arange(len(planned)), 6):
        cells = f"{planned[part].mean():10.2f}{share[part].mean():8.2f}"
        lines.append(f"{f'{part[0]:,} to {part[-1]:,}':14}{cells}")
    return "\n".join(lines)


def draw(planned: np.ndarray, shares: dict[str, np.ndarray], path: Path) -> None:
    """The share of prose over the steps, each point of 10 of them."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panel = figure.subplots()
    figures.style(panel, "Prose, % of the tokens (line: schedule, dots: mean of 10 steps)")
    panel.set(xlabel="step", ylim=(-3, 103))
    panel.plot(100 * planned, color=figures.BLACK, linewidth=2)
    ends = [(100 * planned[-1], "schedule", figures.BLACK)]
    for (name, share), colour in zip(shares.items(), (figures.ORANGE, figures.BLUE), strict=True):
        tens = 100 * share[: len(share) // 10 * 10].reshape(-1, 10).mean(axis=1)
        panel.plot(np.arange(len(tens)) * 10 + 4.5, tens, ".", color=colour, markersize=8)
        ends.append((tens[-5:].mean(), f"packed {name}", colour))
    figures.name_lines(panel, ends, gap=0.07)
    figures.save(figure, path)


def main(argv: Sequence[str] | None = None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Print the tables, draw the picture; return the schedule and the shares by step."""
    parser = argparse.ArgumentParser(description="Packing before the mix and after it.")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("out/packing.png"))
    parser.add_argument("--fast", action="store_true", help="60 steps, for tests")
    args = parser.parse_args(argv)
    if args.fast:
        args.steps = 60
    if args.steps < 60:
        parser.error("--steps must be 60 or more")

    sources = [documents(k, args.steps * BATCH_SIZE * ROW_TOKENS // 2) for k in range(len(NAMES))]
    for name, texts in zip(NAMES, sources, strict=True):
        mean = np.mean([len(text.encode()) for _, text in texts])
        print(f"{name}: {len(texts):,} documents, {mean:,.0f} tokens each on average")
    gamma = jaxmix.cosine_schedule(0.9, 0.2, args.steps)
    plan = jaxmix.MixPlan(gamma, BATCH_SIZE, names=NAMES)
    planned = np.asarray(jaxmix.tabulate(gamma, args.steps))
    ways = {"after the mix": packed_after, "before the mix": packed_before}
    shares = {name: prose_share(way(plan, sources, args.steps)) for name, way in ways.items()}
    for name, share in shares.items():
        print(f"\nPacked {name}, share of prose:\n{table(planned, share)}")
    draw(planned, shares, args.out)
    print(f"\npicture: {args.out}")
    return planned, shares


if __name__ == "__main__":
    main()
