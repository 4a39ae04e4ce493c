"""The example on two corpora on disk, end to end: its ids show that nothing is lost."""

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[1] / "examples" / "plan_and_feed.py"
SPEC = importlib.util.spec_from_file_location("plan_and_feed", PATH)
assert SPEC is not None and SPEC.loader is not None
example = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(example)


def test_an_edited_run_loses_and_repeats_no_row(capsys):
    assert example.main(["--fast"]) == {"lost": 0, "repeated": 0, "rows": 30 * 16 + 30 * 32}
    text = capsys.readouterr().out
    first, second = text.split("First run")[1].split("Edited run")
    for name in ("prose", "code"):
        before = next(line for line in first.splitlines() if f"  {name}: rows 0 to " in line)
        last = int(before.split(" to ")[1].split(",")[0])
        assert f"  {name}: rows {last + 1} to " in second


def test_the_corpora_are_real_and_tell_prose_from_code(tmp_path):
    prose, code = example.corpora(tmp_path, 100_000)
    assert prose.shape == code.shape == (781, 128)
    marks = {"prose": (b" the ", prose), "code": (b"self.", code)}
    share = {
        (mark, name): bytes(rows).count(text)
        for mark, (text, _) in marks.items()
        for name, (_, rows) in marks.items()
    }
    assert share["prose", "prose"] > 2 * share["prose", "code"]
    assert share["code", "code"] > 3 * share["code", "prose"]
