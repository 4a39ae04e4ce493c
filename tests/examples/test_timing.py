"""The benchmarks' timer: what is compared takes turns, and a ratio is taken round by round."""

import importlib.util
import pathlib
import time

import numpy as np
import pytest

SPEC = importlib.util.spec_from_file_location(
    "timing", pathlib.Path(__file__).parents[2] / "benchmarks" / "timing.py"
)
assert SPEC and SPEC.loader
timing = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(timing)


def test_variants_take_turns_and_the_warm_up_is_left_out():
    turns = []
    runs = {name: lambda name=name: turns.append(name) for name in ("one", "two")}
    seconds = timing.in_turn(runs, rounds=3, warmup=2)
    assert turns == ["one", "two"] * 5
    assert [len(times) for times in seconds.values()] == [3, 3]


def test_a_ratio_is_that_of_the_times_of_one_round(capsys):
    drifting = np.array([1.0, 2.0, 4.0])  # the machine slows down; the ratio stays
    timing.report("title", {"base": drifting, "other": 3 * drifting}, length=1000)
    assert (
        capsys.readouterr().out.split() == "title: base 2000.0 us other 3.00 (3.00 .. 3.00)".split()
    )


def test_the_time_waits_for_what_jax_computes():
    class Late:
        def block_until_ready(self):
            time.sleep(0.05)
            return self

    assert timing.in_turn({"late": Late}, rounds=1, warmup=0)["late"][0] >= 0.05


def test_parts_run_by_name_in_the_fast_form_and_others_are_refused(capsys):
    seen = []
    parts = {name: lambda *got, name=name: seen.append((name, *got)) for name in ("a", "b")}
    timing.run_parts("A benchmark.", parts, 20, ["--only", "b"])
    timing.run_parts("A benchmark.", parts, 20, ["--fast"])
    assert seen == [("b", 20, False), ("a", 2, True), ("b", 2, True)]
    for argv, message in (
        (["--only", "c"], "--only must be of a, b, got c"),
        (["--rounds", "0"], "--rounds must be >= 1, got 0"),
    ):
        with pytest.raises(SystemExit):
            timing.run_parts("A benchmark.", parts, 20, argv)
        assert message in capsys.readouterr().err
