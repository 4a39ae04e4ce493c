"""No message is long, whatever came, and none has control characters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix
from jaxmix._checks import check_alike, need, source_lengths, source_names

LONG = "x" * 10**6
VALUES = {
    "text": LONG,
    "list": [0.1] * 10**6,
    "nested": [[LONG] * 1000] * 1000,
    "dict": {f"{LONG}{k}": k for k in range(3)},
    "array": np.ones(10**6),
    "wide array": np.ones((3, 10**6)),
    "array of text": np.array([LONG]),
    "no array": np.zeros((0, 3)),
    "device array": jnp.ones(10**6),
    "integer": 10**5000,
    "tree": jax.tree.structure({f"leaf {k}": k for k in range(10**5)}),
    "control": "a\x1b[31m\nb\0" * 100,
    "object": type("Long", (), {"__repr__": lambda self: LONG + "\n"})(),
    "broken": type("Broken", (), {"__repr__": lambda self: 1 / 0})(),
}


def refused(call):
    with pytest.raises((ValueError, TypeError)) as raised:
        call()
    text = str(raised.value)
    assert len(text) < 1500 and text.isprintable(), text[:200]
    return text


@pytest.mark.parametrize("name", VALUES)
def test_what_came_is_cut_short(name):
    value = VALUES[name]
    for call in (
        lambda: need(False, "name", "fine", value),
        lambda: need(False, str(LONG) + "\n", LONG, value),
        lambda: jaxmix.cosine_schedule(value, 1.0, 10),
        lambda: jaxmix.MixPlan(0.5, value),
        lambda: jaxmix.MixPlan(lambda step: value, 8),
        lambda: source_names(value, 2),
        lambda: source_lengths(value, 2),
    ):
        text = refused(call)
        assert "must be" in text


def test_numbers_and_arrays_stay_readable():
    shown = {
        0.5: "got 0.5",
        (1, 2): r"got (1, 2)",
        "a": "got 'a'",
    }
    for value, text in shown.items():
        assert refused(lambda value=value: need(False, "x", "fine", value)).endswith(text)
    array = np.arange(12.0).reshape(3, 4)
    text = refused(lambda: need(False, "x", "fine", array))
    assert text == "x must be fine, got float64[3, 4] of 0.0, 1.0, 2.0, 3.0, ..."
    text = refused(lambda: need(False, "x", "fine", jnp.ones(2)))
    assert text == "x must be fine, got float32[2] of 1.0, 1.0"
    text = refused(lambda: jax.jit(lambda x: need(False, "x", "fine", x))(1.0))
    assert text == "x must be fine, got a traced float32[]"


def test_trees_that_differ_are_told_apart_by_their_leaves():
    big = {f"leaf {k}": np.zeros(2) for k in range(10**4)}
    text = refused(lambda: check_alike((big, {**big, "one\nmore": np.zeros(2)})))
    assert text == (
        "source 1 must be of the structure of source 0, but it also has leaf ['one\\nmore']"
    )
    fewer = {k: v for k, v in big.items() if k != "leaf 77"}
    text = refused(lambda: check_alike((big, fewer)))
    assert text.endswith("but it has no leaf ['leaf 77']")
    text = refused(lambda: check_alike(([np.zeros(2)], (np.zeros(2),))))
    assert text.endswith("got PyTreeDef((*,))")
    refused(lambda: check_alike((big, {LONG: np.zeros(2)})))


def test_names_that_repeat_are_refused_and_shown_escaped():
    assert "'a\\x1b'" in refused(lambda: source_names(["a\x1b", "a\x1b"], 2))
