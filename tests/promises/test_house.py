"""The house: wings import one way, a name is public once, nothing runs at import."""

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

# Which wings each wing imports, exactly: an arrow more or less fails.
WINGS = {
    "_schedules": set(),
    "_mixing": {"_schedules"},
    "_losses": {"_schedules"},
    "_adaptive": set(),
    "_plan": {"_schedules", "_mixing"},
    "_feed": {"_plan", "_schedules", "_mixing"},
    "_preview": {"_plan", "_schedules"},
    "_testing": {"_plan"},
}
FOR_ALL = {"_types", "_checks", "_html", "_tally"}
PUBLIC = {"__init__", "testing"}

OPTIONAL = {"grain", "matplotlib", "orbax", "tqdm", "sklearn", "mlxtend", "datasets"}

FILES = sorted(PACKAGE.rglob("*.py"))
WING_FILES = [path for path in FILES if path.parent != PACKAGE and path.stem != "__init__"]


def _name(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


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


def _own_imports(path: pathlib.Path) -> list[list[str]]:
    """What a file imports of jaxmix, as parts: `["_plan", "counts"]`."""
    split = [name.split(".") for name, _ in _imports(path)]
    return [parts[1:] for parts in split if parts[0] == "jaxmix"]


def test_the_rooms_are_those_of_the_table():
    folders = {path.parent.name for path in WING_FILES}
    assert folders == set(WINGS)
    assert {path.stem for path in PACKAGE.glob("*.py")} == FOR_ALL | PUBLIC


def test_wings_import_exactly_the_wings_of_the_table():
    arrows = {wing: set() for wing in WINGS}
    for path in WING_FILES:
        for parts in _own_imports(path):
            assert parts[0] in FOR_ALL or len(parts) == 2, (_name(path), parts)
            arrows[path.parent.name].add(parts[0])
    for wing, found in arrows.items():
        assert found - {wing} - FOR_ALL == WINGS[wing], wing


def test_what_serves_all_imports_no_wing():
    for name in FOR_ALL:
        assert all(parts[0] in FOR_ALL for parts in _own_imports(PACKAGE / f"{name}.py")), name


def test_imports_go_one_way():
    imports = {
        f"{path.parent.name}.{path.stem}": {".".join(parts) for parts in _own_imports(path)}
        for path in WING_FILES
    }
    while imports:
        free = [name for name, needs in imports.items() if not needs & imports.keys()]
        assert free, f"a circle among {sorted(imports)}"
        for name in free:
            del imports[name]


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_a_file_is_short_and_says_in_a_line_what_it_is_for(path):
    text = path.read_text()
    assert len(text.splitlines()) < 300
    tree = ast.parse(text)
    assert (ast.get_docstring(tree) or "").splitlines()
    if path.stem == "__init__" and path.parent != PACKAGE:
        assert len(tree.body) == 1, "a wing's __init__ is one docstring"


def test_no_file_imports_an_optional_package_at_its_top():
    for path in FILES:
        names = [name.split(".")[0] for name, top in _imports(path) if top]
        assert not OPTIONAL & set(names), _name(path)


def test_jax_random_is_used_in_the_draws_and_their_keys_only():
    for path in FILES:
        if path.stem not in {"draws", "keys", "everywhere"}:
            calls = [
                ast.unparse(node)
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "jax.random"
            ]
            assert not set(calls) - {"jax.random.key"}, (_name(path), calls)


def test_dir_is_the_public_list():
    dunder = {name for name in dir(jaxmix) if name.startswith("__") and name.endswith("__")}
    assert set(dir(jaxmix)) - dunder == {*jaxmix.__all__, "testing"}
    public = {name for name in vars(jaxmix) if not name.startswith("_")}
    assert public == {*jaxmix.__all__, "testing"}
    assert list(jaxmix.__all__) == sorted(set(jaxmix.__all__))


def test_each_public_name_has_one_home():
    for name in jaxmix.__all__:
        value = getattr(jaxmix, name)
        home = importlib.import_module(value.__module__)
        assert home.__name__.startswith("jaxmix._") and getattr(home, name) is value, name


@pytest.mark.parametrize("name", jaxmix.__all__)
def test_a_public_name_is_documented_with_an_example(name):
    value = getattr(jaxmix, name)
    text = inspect.getdoc(value) or ""
    assert text and text.splitlines()[0].endswith((".", ":")), name
    if inspect.isfunction(value):
        example = [line for line in text.splitlines() if line.strip().startswith((">>>", "..."))]
        assert any(f"{name}(" in line for line in example), name
        for parameter in inspect.signature(value).parameters:
            assert parameter in text, (name, parameter)


@pytest.mark.parametrize("name", jaxmix.__all__)
def test_help_shows_a_signature_that_can_be_read(name):
    value = getattr(jaxmix, name)
    if callable(value):
        shown = str(inspect.signature(value))
        assert " at 0x" not in shown, shown
        assert len(shown) < 500, shown


def test_importing_starts_no_backend_and_no_optional_package():
    code = (
        "import sys, jaxmix\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        f"assert not {OPTIONAL!r} & set(sys.modules), sys.modules\n"
        "jaxmix.testing.assert_resumes\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=PACKAGE.parent)


def test_it_works_from_a_plain_path(tmp_path):
    (tmp_path / "jaxmix").symlink_to(PACKAGE)
    code = "import sys; sys.path.insert(0, '.'); import jaxmix; print(jaxmix.__version__)"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120, capture_output=True
    )
    assert ran.stdout.strip()


def test_the_distribution_is_ours():
    with pytest.raises(PackageNotFoundError):  # another project, of the same import name
        version("jaxmix")
