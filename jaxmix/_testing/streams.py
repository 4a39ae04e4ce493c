"""An assertion: a stream that is set to one of its states gives the same batches from there on."""

from __future__ import annotations

import itertools
import json
from typing import Any

import jax
import numpy as np

from jaxmix._checks import need
from jaxmix._testing.compare import compare


def has_state(stream: Any) -> bool:
    """True for an iterator with a state, such as `PlanStream` and grain's iterators."""
    return all(hasattr(stream, name) for name in ("__next__", "get_state", "set_state"))


def check_stream(stream: Any, num_steps: int) -> None:
    """Raise an AssertionError unless a stream gives the same batches after a state was restored."""
    states, wanted = [_kept(stream)], []
    for batch in itertools.islice(stream, num_steps):
        wanted.append(jax.tree.map(np.array, batch))  # a stream may reuse its arrays
        states.append(_kept(stream))
    need(len(wanted) == num_steps, "num_steps", f"at most {len(wanted)}, its batches", num_steps)
    need(bool(jax.tree.leaves(wanted[0])), "a batch", "a tree with at least one array", wanted[0])
    for stop in sorted({0, min(1, num_steps - 1), num_steps // 2, num_steps - 1}):
        stream.set_state(json.loads(states[stop]))
        got = list(itertools.islice(stream, num_steps - stop))
        if len(got) != num_steps - stop:
            raise AssertionError(f"set to batch {stop}: {len(got)} more, not {num_steps - stop}")
        for number, batch in enumerate(got, stop):
            want = wanted[number]
            compare(f"set to batch {stop}", number, _rows_first(want), _rows_first(batch), "first")


def _kept(stream: Any) -> str:
    return json.dumps(stream.get_state())


def _rows_first(batch: Any) -> Any:
    """The batch with its numbers, such as the step, as arrays of one row."""
    return jax.tree.map(np.atleast_1d, batch)
