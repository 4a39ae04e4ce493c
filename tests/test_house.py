"""The house: imports go one way, a name is public once, nothing runs at import."""

import ast
import importlib
import inspect
import pathlib
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

import jaxmix

PACKAGE = pathlib.Path(jaxmix.__file__).parent

# A file may import only files that stand before it.
ORDER = """
    _types _checks _html _step _exact
    schedules curricula tables annealing weights sizes combinators checked
    slots draws rows _skipping losses distributions metrics
    counts units plan_state blocks plan readers feed processes
    sampler plots plan_warnings preview _compare _plan_assertions testing
""".split()

OPTIONAL = {"grain", "matplotlib", "orbax", "tqdm", "sklearn", "mlxtend", "datasets"}


def _imports(path: pathlib.Path) -> list[tuple[str, bool]]:
    """The modules that a file imports, and whether it does so at its top level."""
    tree = ast.parse(path.read_text())
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found += [(name, node in tree.body) for name in names]
    return found


FILES = sorted(path for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def test_every_file_has_its_place_in_the_order():
    assert sorted(ORDER) == [path.stem for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_imports_only_files_before_it(path):
    before = set(ORDER[: ORDER.index(path.stem)])
    for name, top in _imports(path):
        if name.split(".")[0] == "jaxmix":
            assert name.count(".") == 1 and name.split(".")[1] in before, name
        assert not (top and name.split(".")[0] in OPTIONAL), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_short_and_says_in_a_line_what_it_is_for(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    assert (ast.get_docstring(ast.parse(text)) or "").splitlines()


def test_jax_random_draws_only_in_draws():
    for path in FILES:
        if path.stem != "draws" and path.stem != "testing":
            code = [line.split("#")[0] for line in path.read_text().splitlines()]
            uses = [line for line in code if "jax.random." in line and ">>>" not in line]
            calls = [
                node
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Attribute)
                and ast.unparse(node).startswith("jax.random.")
                and ast.unparse(node) != "jax.random.key"
            ]
            assert not calls, (path.stem, uses)


def test_all_is_sorted_complete_and_each_name_has_one_home():
    assert list(jaxmix.__all__) == sorted(set(jaxmix.__all__))
    public = {
        name
        for name, value in vars(jaxmix).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(jaxmix.__all__)
    for name in jaxmix.__all__:
        value = getattr(jaxmix, name)
        home = importlib.import_module(value.__module__)
        assert home.__name__.startswith("jaxmix.") and getattr(home, name) is value, name


@pytest.mark.parametrize("name", jaxmix.__all__)
def test_a_public_name_is_documented_with_an_example_and_in_the_readme(name):
    value = getattr(jaxmix, name)
    text = inspect.getdoc(value) or ""
    assert text and text.splitlines()[0].endswith((".", ":")), name
    if inspect.isfunction(value):
        example = [line for line in text.splitlines() if line.strip().startswith((">>>", "..."))]
        assert any(f"{name}(" in line for line in example), name
        for parameter in inspect.signature(value).parameters:
            assert parameter in text, (name, parameter)
    readme = PACKAGE.parent / "README.md"
    assert f"`{name}" in readme.read_text(), name


def test_importing_starts_no_backend_and_no_optional_package():
    code = (
        "import sys, jaxmix\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        f"assert not {OPTIONAL!r} & set(sys.modules), sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_distribution_is_ours():
    assert jaxmix.__version__ == version("jaxmix-schedules")
    with pytest.raises(PackageNotFoundError):  # another project, of the same import name
        version("jaxmix")
