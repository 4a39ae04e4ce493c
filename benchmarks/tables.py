"""The tables of the pages, from the results: `python benchmarks/tables.py` writes them again.

What a suite measured is a JSON file; the same function turns its tables to Markdown for the
terminal and for the pages, so that no figure is typed by hand.
"""

import json
import pathlib
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SUITES = (
    "host_plan",
    "accuracy",
    "resume",
    "in_jit",
    "train_step",
    "growth",
    "shuffles",
    "losses",
    "adaptive",
    "reads",
    "pipelines",
)
DEVICES = ("cpu", "gpu", "tpu")

FEEDS = {  # lines of the README: its name for each line of the results
    "jaxmix, B = 256": "jaxmix `PlanSource`",
    "grain mix + batch, B = 256": "grain `mix` and `batch`",
    "datasets interleave + batch, B = 256": "HuggingFace `interleave_datasets` and `batch`",
    "torchdata weighted + batch, B = 256": "torchdata `MultiNodeWeightedSampler` and `Batcher`",
    "tf.data sample + batch, B = 256": "tf.data `sample_from_datasets` and `batch`",
    "Levanter mixture, B = 256": "Levanter `MixtureDataset.get_batch`",
}


def folder(results: pathlib.Path, device: str) -> pathlib.Path:
    """The results of a device; those of a CPU are on top."""
    return results if device == "cpu" else results / device


def number(value: Any) -> str:
    """Three digits of a number; a word as it is, and a dash for None."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    size = abs(value)
    if isinstance(value, int) or size >= 100:
        return f"{value:,.0f}"
    places = 1 if size >= 10 else 2
    return f"{value:.{places}f}" if size >= 0.1 or not value else f"{value:.2g}"


def cell(value: Any) -> str:
    """A figure, or a median with the 10th and the 90th percentile."""
    if not isinstance(value, list):
        return number(value)
    middle, low, high = map(number, value)
    return f"{middle} ({low} .. {high})"


def grid(corner: str, head: list[str], lines: dict[str, list[str]]) -> str:
    """A Markdown table, with a name at the head of each line."""
    rows = [[corner, *head], ["---"] * (1 + len(head))]
    rows += [[name, *line] for name, line in lines.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def markdown(table: dict[str, Any]) -> str:
    """One table of the results, with its title and its note."""
    lines = {name: [cell(value) for value in line] for name, line in table["lines"].items()}
    parts = [f"### {table['title']}", grid("", table["head"], lines), table["note"]]
    return "\n\n".join(part for part in parts if part)


def machine(result: dict[str, Any]) -> str:
    """What a suite was measured on, and what it left out, in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    missing = result["not_installed"]
    left_out = f" Left out, as not installed: {', '.join(missing)}." if missing else ""
    return (
        f"`benchmarks/{result['suite']}.py`, {result['date']}: {result['device']}, "
        f"{result['cores']} cores, load {result['load'][0]} at the start and {result['load'][1]} "
        f"at the end, {result['rounds']} rounds, {versions}.{left_out}"
    )


def read(results: pathlib.Path, device: str) -> list[dict[str, Any]]:
    """The results of all suites that were run on a device."""
    paths = (folder(results, device) / f"{suite}.json" for suite in SUITES)
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def page(results: pathlib.Path) -> str:
    """All tables; notes stand beside the first of a kind only."""
    parts = []
    for device in DEVICES:
        found = read(results, device)
        where = "" if device == "cpu" else f", on a {device.upper()}"
        if where and not found:
            parts.append(f"On a {device.upper()}: not measured.")
        for result in found:
            parts.append(f"## {result['about']}{where}\n\n{machine(result)}")
            for table in result["tables"]:
                note = "" if where else table["note"]
                parts.append(markdown(table | {"title": table["title"] + where, "note": note}))
    return "\n\n".join(parts)


def readme(results: pathlib.Path) -> str:
    """The table of the README: medians of whole batches of 256 rows."""
    result = json.loads((results / "host_plan.json").read_text())
    table = next(t for t in result["tables"] if t["title"].startswith("Whole batches"))
    found = {name: table["lines"][key] for key, name in FEEDS.items() if key in table["lines"]}
    lines = {name: [number(value[0]) for value in line] for name, line in found.items()}
    versions = result["versions"]
    peers = ", ".join(f"{name} {versions[name]}" for name in versions if name != "Python")
    corner = "Whole batches of 256 rows of float32 [8], ns per row"
    return (
        f"{grid(corner, table['head'], lines)}\n\nMedians of {result['rounds']} rounds in turn on "
        f"{result['cores']} CPU cores at a load of {result['load'][0]}, {peers}."
    )


PAGES = {"docs/benchmarks.md": page, "README.md": readme}


def fill(text: str, block: str) -> str:
    """A page with the block between its markers."""
    before, rest = text.split("<!-- table -->\n")
    _, after = rest.split("<!-- /table -->")
    return f"{before}<!-- table -->\n\n{block}\n\n<!-- /table -->{after}"


def write_pages() -> None:
    """Write the results into the pages."""
    for name, render in PAGES.items():
        path = ROOT / name
        path.write_text(fill(path.read_text(), render(RESULTS)))


if __name__ == "__main__":
    write_pages()
