"""Public docstrings are read once: one rule for their first word, one screen, plain words."""

import inspect
import pathlib
import re

import pytest

import jaxmix

PACKAGE = pathlib.Path(jaxmix.__file__).parent
PAGES = sorted(PACKAGE.parent.glob("docs/**/*.md"))

# The words that a function or method may begin with: what a call does. A new verb is added here.
VERBS = set(
    "Add Assert Assign Check Clip Convert Decay Describe Draw Follow Grow Hold Interpolate Join "
    "Make Mix Multiply Pick Raise Read Repeat Report Restore Return Rise Show Sum Take "
    "Yield".split()
)
SCREEN = 48  # lines of a docstring, of the 50 that `help` has on a screen

PUBLIC = {name: getattr(jaxmix, name) for name in jaxmix.__all__}
PUBLIC |= {f"testing.{name}": getattr(jaxmix.testing, name) for name in jaxmix.testing.__all__}
# What a user calls and reads; how JAX takes a pytree apart is for JAX alone.
FOR_JAX = {"tree_flatten", "tree_unflatten"}


def _is_ours(function) -> bool:
    return PACKAGE in pathlib.Path(inspect.getfile(inspect.unwrap(function))).parents


def _members(kind: type) -> dict[str, object]:
    """The methods and properties that a public class defines itself, without dunders."""
    found = {}
    for name, member in vars(kind).items():
        function = getattr(member, "__func__", getattr(member, "fget", member))
        if inspect.isfunction(function) and not name.startswith("_") and _is_ours(function):
            found[name] = member
    return {name: member for name, member in found.items() if name not in FOR_JAX}


CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}
MEMBERS = {
    f"{name}.{member}": value
    for name, kind in CLASSES.items()
    for member, value in _members(kind).items()
}
PROPERTIES = {name: value for name, value in MEMBERS.items() if isinstance(value, property)}
CALLS = {
    name: value
    for name, value in (PUBLIC | MEMBERS).items()
    if name not in CLASSES and name not in PROPERTIES
}
ALL = PUBLIC | MEMBERS


def _first_word(value) -> str:
    return (inspect.getdoc(value) or "nothing").split()[0]


def test_there_are_docstrings_of_each_kind():
    assert len(CLASSES) > 12 and len(PROPERTIES) > 1 and len(CALLS) > 60


@pytest.mark.parametrize("name", CALLS)
def test_a_function_begins_with_what_a_call_does(name):
    assert _first_word(CALLS[name]) in VERBS


@pytest.mark.parametrize("name", CLASSES | PROPERTIES)
def test_a_class_or_property_begins_with_what_it_is(name):
    assert _first_word((CLASSES | PROPERTIES)[name]) not in VERBS


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_reads_like_an_attribute(name):
    assert _first_word(PROPERTIES[name]) == "The"


@pytest.mark.parametrize("name", ALL)
def test_a_docstring_fits_a_screen_and_has_one_line_at_its_top(name):
    lines = (inspect.getdoc(ALL[name]) or "").splitlines()
    assert 1 <= len(lines) <= SCREEN
    assert lines[0].endswith((".", ":")) and lines[1:2] in ([], [""])


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in CLASSES])
def test_a_function_says_what_it_takes_returns_and_raises(name):
    text = inspect.getdoc(PUBLIC[name])
    returns = inspect.signature(PUBLIC[name]).return_annotation != "None"
    for section in ["Args:", *["Returns:"] * returns, "Raises:", "Example:"]:
        assert re.search(rf"^{section}$", text, re.M), section


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_names_what_it_takes_or_holds(name):
    kind = CLASSES[name]
    text = inspect.getdoc(kind)
    assert re.search(r"^(Args|Attributes):$", text, re.M)
    for parameter in inspect.signature(kind).parameters:
        assert re.search(rf"\b{parameter}\b", text), parameter


@pytest.mark.parametrize(
    "path", [*sorted(PACKAGE.rglob("*.py")), *PAGES], ids=lambda path: path.stem
)
def test_words_are_plain(path):
    old = r"\b(anew|told|as said|goes on|that of|works? out|worked out)\b"
    assert re.findall(old, path.read_text()) == []
