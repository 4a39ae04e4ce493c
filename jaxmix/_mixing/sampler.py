"""MixtureSampler: one row at a time on the host, with the draws of the device."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import need, whole_number
from jaxmix._mixing.draws import bernoulli_sources, uniform_rows
from jaxmix._schedules.evaluate import MAX_STEP
from jaxmix._schedules.tables import table_schedule
from jaxmix._schedules.weights import TOLERANCE, weights_at
from jaxmix._types import Array, Weights

BLOCK = 1024
"""Steps drawn in one compiled call."""


class MixtureSampler:
    """A mix of two sources, row by row: row t is from X with probability gamma_t, else from Y.

    Iterating yields the pairs `(t, row)` from t = 0 on. `len(sampler)` is their number.
    `sampler[t]` returns pair t directly, without the pairs before it.

    Args:
      X, Y: sequences (`len` and `[i]`) of rows of any kind.
      schedule: a sequence of gammas, one for each step; or a number or a schedule, with
        `num_steps`.
      num_steps: the number of rows; by default the length of `schedule`.
      seed: as for `jax.random.key(seed)`, in [0, 2^32). Row t is a pure function of (seed, t): it
        is the row that `draw_rows` takes at step t with `num_rows=1`.

    Raises:
      ValueError, TypeError: an empty X or Y; a known gamma outside [0, 1]; no `num_steps` although
        `schedule` is not a sequence, or more than its length; a seed out of range.
      IndexError: a t out of range.

    Example:
      >>> import jaxmix
      >>> gammas = jaxmix.tabulate(jaxmix.make_schedule(10, 0.0, 1.0, kind="cosine"), 10)
      >>> sampler = jaxmix.MixtureSampler(["x0", "x1"], ["y0", "y1", "y2"], gammas)
      >>> len(sampler), sampler[0][1][0], sampler[9][1][0]
      (10, 'y', 'x')
    """

    def __init__(
        self,
        X: Sequence[Any],
        Y: Sequence[Any],
        schedule: Weights,
        num_steps: int | None = None,
        seed: int = 0,
    ):
        most = MAX_STEP + 1
        for name, source in (("X", X), ("Y", Y)):
            need(len(source) > 0, name, "a sequence of at least one row", "an empty one")
        need(max(len(X), len(Y)) < 2**31, "X and Y", "below 2^31 rows", (len(X), len(Y)))
        if not callable(schedule) and np.ndim(schedule) == 1:
            gammas = np.asarray(schedule, np.float32)
            inside = bool(np.all((gammas >= -TOLERANCE) & (gammas <= 1.0 + TOLERANCE)))
            need(inside, "schedule", "in [0, 1] at every step", schedule)
            most = gammas.size
            num_steps = most if num_steps is None else num_steps
            schedule = table_schedule(gammas) if gammas.size else 0.0
        self._sources = (X, Y)
        self._num_steps = whole_number("num_steps", num_steps, 0)
        need(self._num_steps <= most, "num_steps", f"at most {most}", num_steps)
        seed = whole_number("seed", seed, 0)
        need(seed < 2**32, "seed", f"below {2**32}", seed)
        self._draw = functools.partial(_draw, seed, schedule, (len(X), len(Y)))
        self._draw_block = jax.jit(jax.vmap(self._draw))
        self._block: tuple[int, np.ndarray, np.ndarray] = (-1, np.zeros(0), np.zeros(0))

    def __len__(self) -> int:
        return self._num_steps

    def __getitem__(self, t: int) -> tuple[int, Any]:
        t = range(self._num_steps)[operator.index(t)]
        number, place = divmod(t, BLOCK)
        block = self._block  # read once, so that threads may share the sampler
        if block[0] != number:
            source, index = self._draw_block(number * BLOCK + jnp.arange(BLOCK))
            self._block = block = (number, np.asarray(source), np.asarray(index))
        return t, self._sources[block[1][place]][int(block[2][place])]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_draw_block"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _draw_block=jax.jit(jax.vmap(state["_draw"])))

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        return (self[t] for t in range(self._num_steps))


def _draw(
    seed: int, schedule: Weights, lengths: tuple[int, int], step: Array
) -> tuple[Array, Array]:
    """The source and the row of one step."""
    key = jax.random.key(seed)
    source = bernoulli_sources(key, step, weights_at(step, schedule, num_sources=2), 1)
    index = uniform_rows(key, step, jnp.asarray(lengths)[source])
    return source[0], index[0]
