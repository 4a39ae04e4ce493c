"""The rows in one epoch of each source, checked against those in a state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxmix._checks import source_lengths


def check_lengths(
    lengths: Any, names: Sequence[str], known: Sequence[int | None], minimum: int
) -> list[int]:
    """The lengths as ints, in order; lengths other than the known ones are refused."""
    sizes = source_lengths(lengths, len(names), minimum)
    for name, size, before in zip(names, sizes, known, strict=True):
        if before is not None and size != before:
            raise ValueError(
                f"the length of source {name!r} must be {before}, as in `state`, got {size} "
                f"(if its data has changed: MixPlan(..., resized=[{name!r}]))"
            )
    return sizes
