"""The cost of mixing inside a compiled step, as ratios taken side by side in one run.

    python benchmarks/in_jit.py [--rounds 7] [--only draws,rows,pool] [--fast]

Every figure is a ratio to the baseline that its block names. Small work runs many times inside one
compiled loop, so that neither dispatch nor fresh output pages are measured.
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from peers import load
from timing import in_turn, ratios, run_parts, table, turned

import jaxmix

KEY = jax.random.key(0)
GAMMA = jaxmix.cosine_schedule(0.1, 0.9, transition_steps=1_000_000)

Body = Callable[[jax.Array, Any, Any], Any]


def looped(body: Body, length: int) -> Callable[[Any, Any], Any]:
    """`body(step, carry, data) -> carry` many times in one compiled call; `data` is not copied."""
    return jax.jit(
        lambda carry, data: jax.lax.fori_loop(0, length, lambda s, c: body(s, c, data), carry)
    )


def compare(
    bodies: dict[str, Body], carry: Any, data: Any, length: int, rounds: int
) -> dict[str, np.ndarray]:
    """Each body beside the first, run `length` times in one compiled call."""
    loops = {
        name: functools.partial(looped(body, length), carry, data) for name, body in bodies.items()
    }
    return ratios({name: took / length for name, took in in_turn(loops, rounds).items()})


def draws(rounds: int, fast: bool) -> Iterator[dict[str, Any]]:
    """Which source each row takes, against one global `jax.random.bernoulli`."""
    columns = {}
    for num_rows in (256,) if fast else (256, 4096, 65_536):
        bodies: dict[str, Body] = {
            "bernoulli(key, p, (B,))": lambda step, sums, _: (
                sums
                + jax.random.bernoulli(
                    jax.random.fold_in(KEY, step), jaxmix.weights_at(step, GAMMA)[0], sums.shape
                ).astype(jnp.int32)
            )
        }
        for sources in (2,) if fast else (2, 8, 35):
            weights: Any = GAMMA if sources == 2 else np.full(sources, 1 / sources)
            for draw in (jaxmix.bernoulli_sources, jaxmix.systematic_sources):
                bodies[f"{draw.__name__}, K = {sources}"] = (
                    lambda step, sums, _, w=weights, d=draw: sums + d(KEY, step, w, sums.shape[0])
                )
            counts = np.full(sources, num_rows // sources)
            counts[0] += num_rows - counts.sum()
            bodies[f"counted_sources, K = {sources}"] = lambda step, sums, _, c=counts: (
                sums + jaxmix.counted_sources(KEY, step, jnp.asarray(c), sums.shape[0])
            )
        length = max(4, 2**19 // num_rows)
        start = jnp.zeros(num_rows, jnp.int32)
        columns[f"B = {num_rows:,}"] = compare(bodies, start, None, length, rounds)
    yield table("Draws, ratio to one global `jax.random.bernoulli`", columns)


def rows(rounds: int, fast: bool) -> Iterator[dict[str, Any]]:
    """Rows mixed, against `jnp.where` with a mask that is already there."""
    columns = {}
    for num_rows in (256,) if fast else (256, 4096, 65_536):
        for width in (64,) if fast else (64, 1024):
            for sources in (2,) if fast else (2, 8):
                if num_rows * width * sources > 2**27:
                    continue
                batches = tuple(jnp.full((num_rows, width), float(k)) for k in range(sources))
                source = jnp.arange(num_rows, dtype=jnp.int32) % sources
                name = f"B = {num_rows:,}, D = {width:,}, K = {sources}"
                columns[name] = _mixed_rows(num_rows, width, batches, source, rounds)
    yield table("`mix_rows` of float32 [B, D], ratio to `where` with a ready mask", turned(columns))


def _mixed_rows(
    num_rows: int, width: int, batches: tuple[jax.Array, ...], source: jax.Array, rounds: int
) -> dict[str, np.ndarray]:
    sources = len(batches)
    weights: Any = GAMMA if sources == 2 else np.full(sources, 1 / sources)

    def where(step: jax.Array, carry: Any, batches: Any) -> Any:
        source, _ = carry
        chosen = batches[-1]
        for k in range(sources - 1):
            chosen = jnp.where((source == k)[:, None], batches[k], chosen)
        # Another mask at each step, so that nothing is hoisted out of the loop.
        return jnp.where(source == sources - 1, 0, source + 1), chosen

    def mixed(draw: Callable[..., jax.Array]) -> Body:
        def body(step: jax.Array, carry: Any, batches: Any) -> Any:
            mix = jaxmix.mix_rows(KEY, step, weights, *batches, draw=draw)
            return mix.source, mix.rows

        return body

    counts = np.full(sources, num_rows // sources)
    counts[0] += num_rows - counts.sum()

    def counted(step: jax.Array, carry: Any, batches: Any) -> Any:
        drawn = jaxmix.counted_sources(KEY, step, jnp.asarray(counts), num_rows)
        return drawn, jaxmix.select_rows(drawn, *batches)

    bodies = {
        "where": where,
        "where again (noise)": where,
        "mix_rows, bernoulli": mixed(jaxmix.bernoulli_sources),
        "mix_rows, systematic": mixed(jaxmix.systematic_sources),
        "select_rows, counted": counted,
    }
    length = max(2, 2**24 // (num_rows * width))
    return compare(bodies, (source, batches[0]), batches, length, rounds)


def pool(rounds: int, fast: bool) -> Iterator[dict[str, Any]]:
    """Rows drawn from a pool, against one `jnp.take` of rows that are already known."""
    columns = {}
    sizes = ((256, 1024), (4096, 64), (4096, 1024), (65_536, 64))
    for num_rows, width in sizes[:1] if fast else sizes:
        for sources in (2,) if fast else (2, 8, 35):
            per_source = 2 ** (20 if fast else 26) // (width * sources)
            buffers = [jnp.full((per_source, width), float(k)) for k in range(sources)]
            weights = np.full(sources, 1 / sources)
            length = max(8, 2**23 // (num_rows * width))
            plan = jaxmix.MixPlan(weights, num_rows)
            planned = jaxmix.PlannedPool(plan, *buffers, num_steps=length)
            # The very rows that draw_rows takes at each step: the same ones again would be cached.
            places = jaxmix.RowPool(*jnp.split(jnp.arange(sources * per_source), sources))

            def places_at(step: Any, w: Any = weights, n: int = num_rows, p: Any = places) -> Any:
                return jaxmix.draw_rows(KEY, step, w, p, n).rows

            ready = jax.jit(jax.vmap(places_at))(jnp.arange(length))

            def take(step: jax.Array, _: Any, data: Any) -> Any:
                planned, ready, _ = data
                return jnp.take(planned.pool.rows, ready[step], axis=0, mode="clip")

            def drawn_by(draw: Any, w: Any = weights, n: int = num_rows) -> Body:
                return lambda step, _, data: (
                    jaxmix.draw_rows(KEY, step, w, data[0].pool, n, draw=draw).rows
                )

            bodies = {
                "take": take,
                "draw_rows, bernoulli": drawn_by(jaxmix.bernoulli_sources),
                "draw_rows, systematic": drawn_by(jaxmix.systematic_sources),
                "PlannedPool": lambda step, _, data: data[0].take(step).rows,
            }
            states = None
            if importlib.util.find_spec("flashbax"):
                states, bodies["flashbax mixer"] = flashbax_mixer(buffers, num_rows)
            rows = jnp.zeros((num_rows, width))
            found = compare(bodies, rows, (planned, ready, states), length, rounds)
            columns[f"B = {num_rows:,}, D = {width:,}, K = {sources}"] = found
    note = "flashbax draws as many rows from each buffer, in blocks, and takes no schedule."
    title = "`draw_rows` and `PlannedPool`, ratio to one `take` of ready rows"
    yield table(title, turned(columns), note)


def flashbax_mixer(buffers: list[jax.Array], num_rows: int) -> tuple[Any, Body]:
    """The states of a mixer of full buffers, and a draw of equal parts from them."""
    flashbax = load("flashbax")
    share = num_rows // len(buffers) + num_rows % len(buffers)  # the first takes the remainder
    one = flashbax.make_item_buffer(len(buffers[0]), 1, share, add_batches=True)
    mixer = load("flashbax.buffers.mixer").make_mixer(
        [one] * len(buffers), num_rows, [1] * len(buffers)
    )
    states = [one.add(one.init(rows[0]), rows) for rows in buffers]

    def body(step: jax.Array, _: Any, data: Any) -> Any:
        return mixer.sample(data[2], jax.random.fold_in(KEY, step)).experience

    return states, body


PARTS = {"draws": draws, "rows": rows, "pool": pool}


if __name__ == "__main__":
    run_parts(__file__, __doc__, PARTS, rounds=7, peers=["flashbax"])
