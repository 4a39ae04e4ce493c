"""The page on weights that learn: its blocks run, and print what their comments say."""

import pathlib
import re

import jax

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "adaptive.md"


def test_the_blocks_of_the_page_run_in_turn_and_print_what_they_say(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert len(blocks) == 6
    names = {"__name__": "docs"}
    with jax.numpy_dtype_promotion("standard"):  # a user's setting, not that of our tests
        for block in blocks:
            exec(compile(block, "adaptive.md", "exec"), names)
            wanted = re.findall(r"^print\(.*\)  # (.+)$", block, re.M)
            assert capsys.readouterr().out.splitlines() == wanted
