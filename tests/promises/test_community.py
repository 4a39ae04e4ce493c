"""What stands beside the package agrees with it: versions, folders, commands."""

import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def read(name: str) -> str:
    return (ROOT / name).read_text()


def test_pre_commit_formats_with_the_ruff_of_the_check():
    pinned = [p for p in PROJECT["project"]["optional-dependencies"]["test"] if "ruff" in p]
    assert re.findall(r"rev: v(\S+)", read(".pre-commit-config.yaml")) == [
        p.removeprefix("ruff==") for p in pinned
    ]


def test_the_citation_is_of_this_version():
    assert re.findall(r"^version: (\S+)$", read("CITATION.cff"), re.M) == [
        PROJECT["project"]["version"]
    ]


def test_the_workflow_runs_the_check_that_people_run():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
    assert "- run: .ci/run\n" in read(".github/workflows/ci.yml")


def test_a_source_distribution_holds_what_exists():
    for name in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]:
        assert (ROOT / name.lstrip("/")).exists(), name


def test_contributing_names_files_and_functions_that_exist():
    text = read("CONTRIBUTING.md")
    names = set(re.findall(r"`([\w./]+/[\w.]*)`", text))
    assert len(names) > 10
    assert [name for name in sorted(names) if not (ROOT / name).exists()] == []
    wings = {path.name for path in (ROOT / "jaxmix").iterdir() if path.name.startswith("_")}
    wings = {name for name in wings if (ROOT / "jaxmix" / name).is_dir()} - {"__pycache__"}
    assert wings <= set(re.findall(r"`(_\w+)`", text))
