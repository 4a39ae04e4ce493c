"""The documentation holds: every name on one API page, every named test there, both sides run."""

import collections
import importlib.util
import pathlib
import re

import jax
import pytest

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PEERS = sorted((DOCS / "coming_from").glob("*.md"))


def _documented(module: str) -> list[str]:
    """The names of a module on the API pages, each as often as it stands there."""
    names = []
    for page in (DOCS / "api").glob("*.md"):
        current = re.search(r"currentmodule:: (\S+)", page.read_text())
        if current and current[1] == module:
            names += re.findall(r"auto(?:function|class|data):: (\w+)", page.read_text())
    return names


@pytest.mark.parametrize("module", ["jaxmix", "jaxmix.testing"])
def test_each_public_name_stands_on_one_api_page(module):
    public = importlib.import_module(module).__all__
    assert sorted(_documented(module)) == sorted(public)


def test_every_page_is_reached_from_the_index():
    seen, todo = set(), [DOCS / "index.md"]
    while todo:
        page = todo.pop()
        seen.add(page)
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.S):
            lines = [line for line in block.splitlines() if line and not line.startswith(":")]
            todo += [(page.parent / line).with_suffix(".md") for line in lines]
    assert seen == set(PAGES)


def test_every_test_that_is_named_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / "promises.md").read_text())
    assert len(named) > 20
    for path, test in named:
        assert f"def {test}(" in (ROOT / path).read_text(), (path, test)


def test_every_script_that_is_named_exists():
    text = "".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"\b(?:examples|benchmarks|tests)/[\w/]+\.py", text))
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PEERS, ids=lambda page: page.stem)
def test_both_sides_of_a_coming_from_page_run(page):
    text = page.read_text()
    assert len(text.splitlines()) <= 60, "under one screen"
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert page.stem == "index" or any("jaxmix" in block for block in blocks)
    space = {"__name__": "docs"}
    for block in blocks:
        for name in re.findall(r"^import (\w+)", block, re.M):
            if importlib.util.find_spec(name) is None:
                pytest.skip(f"{name} is not installed")
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            exec(compile(block, str(page), "exec"), space)


def test_no_page_says_a_thing_twice():
    prose = (re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S) for page in PAGES)
    lines = collections.Counter(
        line.strip()
        for text in prose
        for line in text.splitlines()
        if len(line) > 60 and not line.startswith(("|", "!"))
    )
    assert [line for line, count in lines.items() if count > 1] == []
