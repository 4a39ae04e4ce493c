"""The folders of scripts: all of examples/ and benchmarks/ can be run, helpers have their place."""

import ast
import pathlib
import subprocess
import sys

import pytest
import tables

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
HELPERS = sorted((ROOT / "examples" / "support").glob("*.py"))
SUITES = [
    path
    for path in (ROOT / "benchmarks").glob("*.py")
    if path.stem not in ("__main__", "peers", "tables", "timing")
]


def runs(path: pathlib.Path) -> bool:
    """Whether a file does something when it is run."""
    return any(
        isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        for node in ast.parse(path.read_text()).body
    )


def test_what_runs_stands_apart_from_what_helps():
    assert SCRIPTS and HELPERS and SUITES
    assert [path.name for path in SCRIPTS + SUITES if not runs(path)] == []
    assert [path.name for path in HELPERS if runs(path)] == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_runs_from_the_root_and_has_a_fast_form(path):
    """As a person runs it: a script finds its helpers without any path set for it."""
    command = [sys.executable, f"examples/{path.name}", "--help"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "--fast" in ran.stdout


def test_every_suite_is_in_the_list_of_all():
    assert sorted(tables.SUITES) == sorted(path.stem for path in SUITES)
