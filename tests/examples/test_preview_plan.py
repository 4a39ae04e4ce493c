"""The example that looks before it trains: its mistakes are found, its gallery is complete."""

import preview_plan as example

import jaxmix


def test_the_mistakes_are_found_and_mended(tmp_path, capsys):
    looks = example.main(["--fast", "--out", str(tmp_path)])
    runs_out, too_short = looks["As first written"].warnings
    assert runs_out.startswith("web runs out at step")
    assert too_short.startswith("the schedule ends at") and "but the run stops" in too_short
    assert looks["Mended"].warnings == []
    assert str(looks["Mended"]) in capsys.readouterr().out
    for name in ("preview_plan.png", "schedules.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_the_gallery_shows_every_schedule():
    shown = {name for title in example.gallery() for name in title.split(", ")}
    public = {name for name in jaxmix.__all__ if name.endswith(("_schedule", "_schedules"))}
    assert shown == public - {"plot_schedules"}
