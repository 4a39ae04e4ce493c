"""The README holds: its blocks run, its commands are what they say, its files exist."""

import pathlib
import re
import tomllib

import jax
import pytest

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
COMMANDS = [block.strip() for block in re.findall(r"^```bash\n(.*?)^```", TEXT, re.M | re.S)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[0][:40])
def test_every_block_runs_and_prints_what_its_comments_say(block, capsys):
    with jax.numpy_dtype_promotion("standard"):  # a user's setting, not that of our tests
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    # What a print puts out stands behind it, or in the comment below it.
    found = re.findall(r"^\s*print\(.*\)(?:  # (.+)|((?:\n# .*)+))$", block, re.M)
    wanted = [line for one, more in found for line in [one, *more.split("\n# ")] if line]
    assert capsys.readouterr().out.splitlines() == wanted


def test_the_train_step_is_short():
    block = next(block for block in BLOCKS if "def train_step" in block)
    assert len([line for line in block.splitlines() if line.strip()]) <= 28


def test_the_first_block_is_shorter_and_prints():
    assert len(BLOCKS[0].splitlines()) < 10 and "print(" in BLOCKS[0]


def test_the_two_commands_install_what_they_run():
    example, tests = COMMANDS[:2]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for command in (example, tests):
        extra = re.search(r'^pip install -e "\.\[(\w+)\]" && python ', command)
        assert extra and extra[1] in extras, command
    assert re.search(r"python (examples/\w+\.py)$", example)
    assert tests.endswith("python -m pytest")


def test_every_file_that_is_named_exists():
    linked = re.findall(r"\]\((?!https?:)([\w./]+)\)", TEXT)
    named = re.findall(r"(?:`|python )((?:docs|examples|tests|benchmarks)/[\w./]+)", TEXT)
    assert len(linked) > 10 and named
    for name in linked + named:
        assert (ROOT / name).exists(), name


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 180
