"""What a function reads, as a value: while it stays equal, a compiled function stays valid.

Numbers, arrays and functions are described by what they hold, also inside tuples, lists, dicts,
closures, defaults, partials, frozen dataclasses and the globals that a function names. Anything
else (an object with attributes, a module of the user) may change unnoticed, so it has no snapshot.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
import weakref
from typing import Any

import jax
import numpy as np

from jaxmix._checks import is_concrete

LIBRARIES = {"jax", "jaxlib", "numpy", "optax", "flax", "chex", "jaxmix", *sys.stdlib_module_names}
"""Packages whose globals count as constant."""

_VALUES = (int, float, complex, bool, str, bytes, types.NoneType, types.EllipsisType, slice)
_FIXED = (type, np.ufunc, np.dtype, types.BuiltinFunctionType, types.WrapperDescriptorType)
_JITTED = type(jax.jit(abs))
_DISPATCHED = type(np.interp)


class _UnknownError(Exception):
    """Something that may change unnoticed."""


class _Same:
    """A value that can't change, compared by identity."""

    def __init__(self, value: Any):
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._value is other._value


class _SameTracer(_Same):
    """A traced array, held by a weak reference: equal to itself as long as it exists."""

    def __init__(self, value: Any):
        self._reference = weakref.ref(value)

    def __eq__(self, other: object) -> bool:
        value = self._reference()
        return isinstance(other, _SameTracer) and value is not None and value is other._reference()


def snapshot(value: Any) -> Any:
    """What `value` reads, to be compared with `==`; None if that can't be known."""
    try:
        return _seen(value, ())
    except _UnknownError:
        return None


def _seen(value: Any, path: tuple[int, ...]) -> Any:
    kind = type(value)
    if kind in _VALUES:
        return kind, value
    if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        if isinstance(value, np.ndarray) and not value.flags.writeable and value.flags.owndata:
            return _Same(value)
        return kind, value.dtype, value.shape, hash(value.tobytes())
    if isinstance(value, jax.Array):
        return _Same(value) if is_concrete(value) else _SameTracer(value)
    if id(value) in path:
        return "as above"
    path = (*path, id(value))
    if isinstance(value, types.FunctionType):
        return _function(value, path)
    if isinstance(value, functools.partial):
        return _seen((value.func, value.args, value.keywords), path)
    if isinstance(value, types.MethodType):
        return _seen((value.__func__, value.__self__), path)
    contents: Any = value
    if kind in (tuple, list):
        return kind, [_seen(part, path) for part in contents]
    if kind is dict:
        return kind, [(_seen(key, path), _seen(part, path)) for key, part in contents.items()]
    if dataclasses.is_dataclass(value) and kind.__dataclass_params__.frozen:
        fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return kind, _seen(fields, path)
    library = isinstance(value, types.ModuleType) and _is_library(value.__name__)
    if library or isinstance(value, (*_FIXED, _JITTED, _DISPATCHED)):
        return _Same(value)
    raise _UnknownError


def _function(function: types.FunctionType, path: tuple[int, ...]) -> Any:
    """The code of a function and all that it reads besides its arguments."""
    cells = function.__closure__ or ()
    try:
        read: list[Any] = [cell.cell_contents for cell in cells]
    except ValueError as error:  # a cell that is not filled yet
        raise _UnknownError from error
    read += [function.__defaults__, function.__kwdefaults__, function.__dict__]
    if not _is_library(function.__module__ or ""):
        names = _global_names(function.__code__)
        read += [function.__globals__[name] for name in names if name in function.__globals__]
    return function.__code__, _seen(read, path)


@functools.lru_cache(1024)
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    """The names that code, and the code inside it, may look up among the globals."""
    inner = [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return tuple(
        sorted({*code.co_names, *(name for part in inner for name in _global_names(part))})
    )


def _is_library(name: str) -> bool:
    return name.partition(".")[0] in LIBRARIES
