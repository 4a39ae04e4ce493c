"""What weights that learn cost: an update of each mixer, alone and inside a train step.

Alone: a compiled `update` that is called from Python, with the ratio to a compiled call that only
copies a state of as many arrays ("copy"), which is the price of any call. Inside: a jitted train
step with the mixer, as a ratio to the step without it.

    python benchmarks/adaptive.py [--rounds 9] [--fast]
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import in_turn, run_parts, table

from jaxmix import (
    exp3,
    exponentiated_gradient,
    floor_weights,
    limit_change,
    smooth_weights,
    update_every,
)


def mixers(num_sources: int) -> dict[str, Any]:
    plain = exponentiated_gradient(num_sources, 0.1)
    smooth = limit_change(smooth_weights(plain, 0.9), 0.01)
    return {
        "exponentiated_gradient": plain,
        "exp3": exp3(num_sources, 0.1),
        "smooth_weights": smooth_weights(plain, 0.9),
        "update_every": update_every(plain, 10),
        "floor_weights": floor_weights(plain, 0.1 / num_sources),
        "limit_change": limit_change(plain, 0.01),
        "all four wrappers": update_every(floor_weights(smooth, 0.1 / num_sources), 10),
    }


def call_times(runs: dict[str, tuple[Callable[..., Any], Any]], rounds: int, calls: int):
    """Seconds of a call [round] by name: `state = fn(state)` again and again, in turns."""

    def turn_of(fn, state):
        def turn():
            nonlocal state
            for _ in range(calls):
                state = fn(state)
            return state

        return turn

    turns = {name: turn_of(*run) for name, run in runs.items()}
    return {name: seconds / calls for name, seconds in in_turn(turns, rounds).items()}


def alone(num_sources: int, rounds: int, calls: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each mixer the seconds of an update and the ratios to a copy of its state."""
    scores = jnp.asarray(np.random.default_rng(0).random(num_sources), jnp.float32)
    rows = jnp.ones(num_sources, jnp.int32)
    result = {}
    for name, mixer in mixers(num_sources).items():
        update = jax.jit(lambda state, scores, rows, m=mixer: m.update(state, scores, rows))
        copy = jax.jit(lambda state, scores, rows: jax.tree.map(lambda leaf: leaf + 1, state))
        fns = {"update": update, "copy": copy}
        runs = {
            key: (functools.partial(_call, fn, scores, rows), mixer.init())
            for key, fn in fns.items()
        }
        times = call_times(runs, rounds, calls)
        result[name] = times["update"], times["update"] / times["copy"]
    return result


def _call(fn, scores, rows, state):
    return fn(state, scores, rows)


def inside(num_sources: int, rounds: int, calls: int) -> dict[str, np.ndarray]:
    """The ratios of a train step with a mixer to the one without; "again" is that one once more."""
    matrix = jax.random.normal(jax.random.key(0), (512, 512)) / 512**0.5
    batch = jax.random.normal(jax.random.key(1), (256, 512))
    source = jnp.arange(256) % num_sources

    def train_step(mixer, carry):
        params, state = carry
        losses, pull = jax.vjp(lambda p: jnp.square(jnp.tanh(batch @ p)).mean(axis=1), params)
        params = params - 0.1 * pull(jnp.full(256, 1 / 256))[0]
        if mixer is not None:
            rows = jnp.bincount(source, length=num_sources)
            total = jnp.bincount(source, losses, length=num_sources)
            state = mixer.update(state, total / jnp.maximum(rows, 1), rows)
        return params, state

    some: dict[str, Any] = {"without": None, "again": None} | mixers(num_sources)
    runs = {}
    for name, mixer in some.items():
        state = mixer.init() if mixer is not None else jnp.zeros(())
        runs[name] = jax.jit(functools.partial(train_step, mixer)), (matrix, state)
    times = call_times(runs, rounds, max(1, calls // 20))
    return {name: times[name] / times["without"] for name in some if name != "without"}


def adaptive(rounds: int, fast: bool) -> Iterator[dict[str, Any]]:
    calls = 20 if fast else 200
    columns = {"update, us": {}, "ratio to a copy": {}, "ratio in a step": {}}
    for num_sources in (8,) if fast else (8, 168, 1000):
        steps = inside(num_sources, rounds, calls)
        for name, (seconds, ratio) in alone(num_sources, rounds, calls).items():
            cells = 1e6 * seconds, ratio, steps[name]
            for column, found in zip(columns.values(), cells, strict=True):
                column[f"K = {num_sources:,}, {name}"] = found
        columns["ratio in a step"][f"K = {num_sources:,}, again (the noise)"] = steps["again"]
    yield table("An update of each mixer", columns)


if __name__ == "__main__":
    run_parts(__file__, __doc__, {"adaptive": adaptive}, rounds=9)
