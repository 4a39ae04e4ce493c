"""The figures hold: each table of the pages is what the results of the benchmarks render to."""

import copy
import json

import pytest
import tables


def results():
    return tables.read(tables.RESULTS, "cpu")


@pytest.mark.parametrize("name", tables.PAGES)
def test_the_tables_of_a_page_are_what_the_results_render_to(name):
    text = (tables.ROOT / name).read_text()
    assert tables.fill(text, tables.PAGES[name](tables.RESULTS)) == text


@pytest.mark.parametrize("name", tables.PAGES)
def test_another_figure_is_another_page(name, tmp_path):
    """The test above can fail: no figure of the README's table is left out of the rendering."""
    for result in copy.deepcopy(results()):
        for table in result["tables"]:
            for line in table["lines"].values():
                line[:] = [[9.0, 8.0, 10.0]] * len(line)
        (tmp_path / f"{result['suite']}.json").write_text(json.dumps(result))
    text = (tables.ROOT / name).read_text()
    assert tables.fill(text, tables.PAGES[name](tmp_path)) != text


def test_every_suite_was_run_whole_and_says_on_what():
    assert [result["suite"] for result in results()] == list(tables.SUITES)
    for result in results():
        assert result["tables"] and result["rounds"] > 2 and result["versions"]["jax"]
        for table in result["tables"]:
            assert all(len(line) == len(table["head"]) for line in table["lines"].values())


def test_the_results_of_a_gpu_stand_below_those_of_the_cpu(tmp_path):
    result = results()[0]
    for folder in (tmp_path, tmp_path / "gpu"):
        folder.mkdir(exist_ok=True)
        (folder / f"{result['suite']}.json").write_text(json.dumps(result))
    text = tables.page(tmp_path)
    title = result["tables"][0]["title"]
    assert text.index(f"### {title}\n") < text.index(f"### {title}, on a GPU\n")
    assert "On a GPU: not measured." not in text and "On a TPU: not measured." in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([0.9956, 0.9, 1.134], "1.00 (0.90 .. 1.13)"),
        ([12345.6, 999.6, 20000.0], "12,346 (1,000 .. 20,000)"),
        (0.000163, "0.00016"),
        (0.0, "0.00"),
        (12_000, "12,000"),
        (None, "-"),
        ("not measured", "not measured"),
    ],
)
def test_a_cell_shows_three_digits(value, text):
    assert tables.cell(value) == text
