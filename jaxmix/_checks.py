"""Checks of arguments, all with one form of message: "<name> must be <needed>, got <got>"."""

from __future__ import annotations

import math
import numbers
import operator
import reprlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmix._types import PyTree

MAX_SHOWN = 300
"""The most characters of a value in a message."""

MAX_TEXT = 500
"""The most characters of the other parts of a message."""


def need(ok: bool, name: str, needed: str, got: Any, error: type[Exception] = ValueError) -> None:
    """Raise `error("<name> must be <needed>, got <got>")` unless `ok`."""
    if not ok:
        raise error(f"{printable(name)} must be {printable(needed)}, got {shown(got)}")


def shown(value: Any) -> str:
    """A value for a message: a short `repr` on one line; an array as dtype, shape and entries."""
    text = printable(_SHORT.repr(value))
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def printable(text: str) -> str:
    """`text`, cut short, with control characters written as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:MAX_TEXT])[:MAX_TEXT]


class _Short(reprlib.Repr):
    """The `repr` of the first entries only: no whole array is copied, no long text is built."""

    def repr1(self, x: Any, level: int) -> str:
        if isinstance(x, Tracer):
            return f"a traced {x.aval.str_short()}"
        if isinstance(x, np.ndarray | jax.Array) and x.ndim:
            return self._array(x)
        if type(x).__module__ == "builtins":
            return super().repr1(x, level)
        try:
            return repr(x)[: 2 * MAX_SHOWN]
        except Exception:
            return f"<{type(x).__name__}>"

    def repr_int(self, x: int, level: int) -> str:
        bits = x.bit_length()  # Python refuses to write more than 4,300 digits
        return super().repr_int(x, level) if bits < 1000 else f"an integer of {bits} bits"

    def _array(self, x: Any) -> str:
        kind = f"{x.dtype}[{', '.join(map(str, x.shape))}]"
        if x.size == 0 or (isinstance(x, jax.Array) and not x.is_fully_addressable):
            return kind
        first = np.asarray(x[(0,) * (x.ndim - 1)][:6]).tolist()
        more = ", ..." if x.size > len(first) else ""
        return f"{kind} of {', '.join(self.repr1(number, 1) for number in first)}{more}"


_SHORT = _Short()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = _SHORT.maxdict = 12
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200


def is_concrete(value: Any) -> bool:
    """True if the numbers in `value` can be read now; False for a traced array."""
    return not isinstance(value, Tracer)


def whole_number(name: str, value: Any, minimum: int) -> int:
    """`value` as an int, at least `minimum`.

    Any object with `__index__` or `__jax_array__` that holds one integer is allowed. Bools and
    floats raise.
    """
    if type(value) is not int:
        needed = f"an integer >= {minimum}"
        number = unwrapped(value)
        need(is_concrete(number), name, f"{needed} known at trace time", value, TypeError)
        try:
            ok = not isinstance(value, bool)
            number = operator.index(number)
        except TypeError:
            ok = False
        need(ok, name, needed, value, TypeError)
        value = number
    need(value >= minimum, name, f">= {minimum}", value)
    return value


def unwrapped(value: Any) -> Any:
    """The array in an object with `__jax_array__` (an `nnx.Variable`); another object as it is."""
    unwrap = None if isinstance(value, jax.Array) else getattr(value, "__jax_array__", None)
    return value if unwrap is None else unwrap()


def plain_number(value: Any) -> Any:
    """The number or the array in an object that holds one; another object as it is."""
    value = unwrapped(value)
    if isinstance(value, jax.Array | np.ndarray | np.generic | int | float):
        return value
    return operator.index(value) if hasattr(value, "__index__") else value


def real_number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False
) -> float:
    """`value` as a finite float in [low, high], or in (low, high] with `open_low`."""
    value = unwrapped(value)
    need(is_concrete(value), name, "a number known at trace time", value, TypeError)
    ok = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    if not ok and getattr(value, "shape", None) == ():
        dtype = np.asarray(value).dtype
        ok = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
    need(ok, name, "a number", value, TypeError)
    try:
        number = float(value)
    except OverflowError:  # an int beyond 1e308
        number = math.inf
    inside = (low < number if open_low else low <= number) and number <= high
    if math.isinf(low) and math.isinf(high):
        needed = "finite"
    else:
        needed = f"in {'(' if open_low else '['}{low:g}, {high:g}{')' if math.isinf(high) else ']'}"
    need(inside and math.isfinite(number), name, needed, number)
    return number


def source_names(names: Sequence[str] | None, num_sources: int) -> list[str]:
    """The names of the sources; "0", "1", ... if not given."""
    is_list = names is None or (isinstance(names, Sequence) and not isinstance(names, str))
    is_list = is_list and all(isinstance(name, str | int) for name in names or ())
    need(is_list, "names", "a sequence of names", names, TypeError)
    labels = list(map(str, range(num_sources) if names is None else names))
    fine = len(set(labels)) == len(labels) == num_sources
    need(fine, "names", f"{num_sources} different names", labels)
    return labels


def source_lengths(lengths: Sequence[int], num_sources: int, minimum: int = 1) -> list[int]:
    """The rows in one epoch of each source, as ints."""
    is_list = isinstance(lengths, Sequence) and not isinstance(lengths, str | bytes)
    is_list = is_list or (isinstance(lengths, np.ndarray) and lengths.ndim == 1)
    need(is_list, "lengths", "a sequence of numbers", lengths, TypeError)
    sizes = [whole_number("a length", size, minimum) for size in lengths]
    need(len(sizes) == num_sources, "lengths", f"{num_sources} numbers, one per source", sizes)
    return sizes


def leaf_name(path: tuple[Any, ...]) -> str:
    """The name of a leaf in messages: `leaf ['image']`, `leaf .x[0]`, or `the array` if alone."""
    return f"leaf {jax.tree_util.keystr(path)}" if path else "the array"


def check_alike(trees: tuple[Any, ...], *, skip_axes: int = 0) -> None:
    """Raise unless the trees, one per source, agree in structure and in leaf shapes and dtypes.

    The first `skip_axes` axes of a leaf may have any size.
    """
    need(len(trees) > 0, "the number of sources", ">= 1", 0)
    first, structure = jax.tree.flatten_with_path(trees[0])
    need(len(first) > 0, "source 0", "a tree with at least one array", trees[0])
    for k, tree in enumerate(trees):
        leaves, other = jax.tree.flatten(tree)
        if other != structure:
            raise ValueError(_structure_message(k, trees[0], tree))
        for (path, model), leaf in zip(first, leaves, strict=True):
            name = f"{leaf_name(path)} of source {k}"
            need(hasattr(leaf, "dtype"), name, "an array", leaf, TypeError)
            needed = f"{model.dtype} as in source 0"
            need(leaf.dtype == model.dtype, name, needed, leaf.dtype, TypeError)
            need(len(leaf.shape) >= skip_axes, name, f"of rank {skip_axes} or more", leaf.shape)
            same = leaf.shape[skip_axes:] == model.shape[skip_axes:]
            ranks = len(leaf.shape) == len(model.shape)
            need(same and ranks, name, f"of shape {model.shape} as in source 0", leaf.shape)


def _structure_message(k: int, first: PyTree, other: PyTree) -> str:
    """The message for a source of another structure: leaves that differ, else both structures."""
    here, there = (
        {leaf_name(path) for path, _ in jax.tree.leaves_with_path(tree)} for tree in (first, other)
    )
    message = f"source {k} must be of the structure of source 0"
    parts = [("has no", sorted(here - there)), ("also has", sorted(there - here))]
    lacks = [f"{verb} {printable(', '.join(names[:5]))[:200]}" for verb, names in parts if names]
    if lacks:
        return f"{message}, but it {' and '.join(lacks)}"
    structures = [shown(jax.tree.structure(tree)) for tree in (first, other)]
    return f"{message}, {structures[0]}, got {structures[1]}"
