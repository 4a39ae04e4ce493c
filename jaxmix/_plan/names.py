"""The names of sources, and values given for each source put in the order of the names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmix._checks import need, shown


def default_names(num_sources: int) -> tuple[str, ...]:
    """The names of sources that have none: "0", "1", ..."""
    return tuple(map(str, range(num_sources)))


def match_by_name(what: str, given: Any, names: Sequence[str]) -> list[Any]:
    """The values `given` for each source in the order of `names`: a dict by name, others by place.

    Raises TypeError or ValueError for any other type, for a wrong number of entries, for a dict
    with other names, and for a dict if the sources have no names.
    """
    count = len(names)
    if isinstance(given, Mapping):
        named = tuple(names) != default_names(count)
        needed = "a sequence, as the sources of the plan have no names"
        need(named, what, needed, sorted(map(str, given)), TypeError)
        return by_name(what, given, names)
    is_list = isinstance(given, Sequence | np.ndarray) and not isinstance(given, str | bytes)
    need(is_list, what, "a sequence or a dict by name", given, TypeError)
    need(len(given) == count, what, f"{count}, one for each source", len(given))
    return list(given)


def by_name(what: str, given: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """The values of a dict in the order of `names`; ValueError for other names."""
    if given.keys() != set(names):
        missing = [name for name in names if name not in given]
        unknown = sorted(map(str, given.keys() - set(names)))
        raise ValueError(
            f"{what} must be for the sources {shown(list(names))}, got {shown(list(given))}: "
            f"missing {shown(missing)}, unknown {shown(unknown)}"
        )
    return [given[name] for name in names]
