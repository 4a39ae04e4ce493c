"""What weights that learn cost: an update of each mixer, alone and inside a train step.

Alone: a compiled `update` that is called from Python, with the ratio to a compiled call that only
copies a state of as many arrays ("copy"), which is the price of any call. Inside: a jitted train
step with the mixer, as a ratio to the step without it. Medians over interleaved rounds and the
middle 80 %.

    python benchmarks/adaptive.py
"""

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
    """Seconds of a call [round] by name: `state = fn(state)` over and over, in turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):  # the first turn compiles
        for name, (fn, state) in runs.items():
            begin = time.perf_counter()
            for _ in range(calls):
                state = fn(state)
            jax.block_until_ready(state)
            if turn:
                times[name].append((time.perf_counter() - begin) / calls)
    return {name: np.array(seconds) for name, seconds in times.items()}


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


def spread(values: np.ndarray, digits: int) -> str:
    low, middle, high = np.percentile(values, (10, 50, 90))
    return f"{middle:.{digits}f} ({low:.{digits}f}..{high:.{digits}f})"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time of an update of each mixer.")
    parser.add_argument("--sources", type=int, nargs="+", default=[8, 168, 1000])
    parser.add_argument("--rounds", type=int, default=40, help="interleaved turns")
    parser.add_argument("--calls", type=int, default=200, help="calls in a turn")
    parser.add_argument("--fast", action="store_true", help="a smoke test")
    args = parser.parse_args(argv)
    if args.fast:
        args.sources, args.rounds, args.calls = [8], 3, 20
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    print(f"{'K':>5}  {'mixer':24}{'update, us':>24}{'ratio to a copy':>24}{'ratio in a step':>24}")
    for num_sources in args.sources:
        steps = inside(num_sources, args.rounds, args.calls)
        for name, (seconds, ratio) in alone(num_sources, args.rounds, args.calls).items():
            cells = spread(1e6 * seconds, 1), spread(ratio, 2), spread(steps[name], 3)
            print(f"{num_sources:5}  {name:24}" + "".join(f"{cell:>24}" for cell in cells))
        print(
            f"{num_sources:5}  {'again (the noise)':72}{spread(steps['again'], 3):>24}", flush=True
        )


if __name__ == "__main__":
    main()
