"""The benchmarks' timer: what is compared takes turns, and a ratio is taken round by round."""

import json
import time

import numpy as np
import pytest
import tables
import timing


def test_variants_take_turns_and_the_warm_up_is_left_out():
    turns = []
    runs = {name: lambda name=name: turns.append(name) for name in ("one", "two")}
    seconds = timing.in_turn(runs, rounds=3, warmup=2)
    assert turns == ["one", "two"] * 5
    assert [len(times) for times in seconds.values()] == [3, 3]


def test_a_ratio_is_that_of_the_times_of_one_round():
    drifting = np.array([1.0, 2.0, 4.0])  # the machine slows down; the ratio stays
    found = timing.ratios({"base": drifting, "other": 3 * drifting})
    assert found["base, us"].tolist() == [1e6, 2e6, 4e6]
    assert found["other"].tolist() == [3.0, 3.0, 3.0]


def test_a_table_keeps_medians_with_their_spread_and_a_gap_where_nothing_was_measured():
    columns = {"one": {"x": np.arange(11.0)}, "two": {"x": 3, "y": "a word"}}
    table = timing.table("title", columns, "note")
    assert table["lines"] == {"x": [[5.0, 1.0, 9.0], 3], "y": [None, "a word"]}
    assert timing.turned(columns) == {"x": {"one": columns["one"]["x"], "two": 3}} | {
        "y": {"one": None, "two": "a word"}
    }
    assert (
        tables.markdown(table)
        == """### title

|  | one | two |
| --- | --- | --- |
| x | 5.00 (1.00 .. 9.00) | 3 |
| y | - | a word |

note"""
    )


def test_the_time_waits_for_what_jax_computes():
    class Late:
        def block_until_ready(self):
            time.sleep(0.05)
            return self

    assert timing.in_turn({"late": Late}, rounds=1, warmup=0)["late"][0] >= 0.05


def some_parts(seen):
    """Two parts that say how they were called."""

    def part(name):
        def run(*got):
            seen.append((name, *got))
            yield timing.table(f"of {name}", {"column": {"line": 1.5}})

        return run

    return {name: part(name) for name in ("a", "b")}


def test_parts_run_by_name_in_the_fast_form_and_others_are_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    seen = []
    parts = some_parts(seen)
    timing.run_parts("a.py", "A benchmark.", parts, 20, argv=["--only", "b"])
    timing.run_parts("a.py", "A benchmark.", parts, 20, argv=["--fast"])
    assert seen == [("b", 20, False), ("a", 2, True), ("b", 2, True)]
    assert list(tmp_path.iterdir()) == [], "only a whole run is kept unasked"
    for argv, message in (
        (["--only", "c"], "--only must be of a, b, got c"),
        (["--rounds", "0"], "--rounds must be >= 1, got 0"),
    ):
        with pytest.raises(SystemExit):
            timing.run_parts("a.py", "A benchmark.", parts, 20, argv=argv)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["--fast", "--results"]])
def test_a_whole_run_and_a_named_folder_keep_the_figures(argv, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    argv = [*argv, str(tmp_path)] if argv else []
    timing.run_parts("suite.py", "A benchmark: more.", some_parts([]), 20, ["jax", "no_such"], argv)
    result = json.loads((tmp_path / "suite.json").read_text())
    assert result["suite"] == "suite" and result["about"] == "A benchmark"
    assert result["not_installed"] == ["no_such"] and "jax" in result["versions"]
    assert [table["title"] for table in result["tables"]] == ["of a", "of b"]


def test_a_device_that_is_not_there_is_said_in_one_line():
    with pytest.raises(SystemExit, match="no tpu here: JAX has cpu only"):
        timing.run_parts("a.py", "A benchmark.", some_parts([]), 20, argv=["--device", "tpu"])
