"""The cost of mixing inside a compiled step, as ratios taken side by side in one run.

    python benchmarks/in_jit.py [--rounds 20] [--only draws,rows,pool,step] [--fast]

Every figure is a ratio to the baseline that its block names. Small work runs many times inside one
compiled loop, so that neither dispatch nor fresh output pages are measured.
"""

import functools
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from timing import in_turn, ratios, run_parts, table, turned

import jaxmix

sys.path.append(str(pathlib.Path(__file__).parents[1] / "examples"))  # for the models

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
            one = jaxmix.RowPool(*buffers)
            length = max(8, 2**23 // (num_rows * width))
            # The very rows that draw_rows takes at each step: the same ones again would be cached.
            places = jaxmix.RowPool(*jnp.split(jnp.arange(sources * per_source), sources))

            def places_at(step: Any, w: Any = weights, n: int = num_rows, p: Any = places) -> Any:
                return jaxmix.draw_rows(KEY, step, w, p, n).rows

            ready = jax.jit(jax.vmap(places_at))(jnp.arange(length))

            def take(step: jax.Array, _: Any, data: Any) -> Any:
                one, ready = data
                return jnp.take(one.rows, ready[step], axis=0, mode="clip")

            def drawn_by(draw: Any, w: Any = weights, n: int = num_rows) -> Body:
                return lambda step, _, data: (
                    jaxmix.draw_rows(KEY, step, w, data[0], n, draw=draw).rows
                )

            bodies = {
                "take": take,
                "draw_rows, bernoulli": drawn_by(jaxmix.bernoulli_sources),
                "draw_rows, systematic": drawn_by(jaxmix.systematic_sources),
            }
            rows = jnp.zeros((num_rows, width))
            found = compare(bodies, rows, (one, ready), length, rounds)
            columns[f"B = {num_rows:,}, D = {width:,}, K = {sources}"] = found
    yield table("`draw_rows`, ratio to one `take` of ready rows", turned(columns))


def _token_loss(model: Any, batch: Any) -> jax.Array:
    losses = optax.softmax_cross_entropy_with_integer_labels(model(batch), batch)
    return losses.mean()


def step(rounds: int, fast: bool) -> Iterator[dict[str, Any]]:
    """A whole train step with mixing inside, against the same step on one ready batch."""
    from support.digits import class_loss, classifier
    from support.transformer import Transformer

    columns = {}
    tokens = [jax.random.randint(jax.random.key(k), (16, 128), 0, 256) for k in range(2)]
    images = [
        {
            "image": jax.random.normal(jax.random.key(k), (4096, 64)),
            "label": jax.random.randint(jax.random.key(k), (4096,), 0, 10),
        }
        for k in range(2)
    ]
    if not fast:
        model = Transformer(256, 128, width=128, layers=2, rngs=nnx.Rngs(0))
        name = "transformer, 16 x 128 tokens"
        columns[name] = _steps(model, _token_loss, tokens, 1, rounds)
    name = "MLP of digits, B = 4,096"
    columns[name] = _steps(classifier(nnx.Rngs(0)), class_loss, images, 20, rounds)
    yield table("A train step (AdamW), ratio to the same step without mixing", columns)


def _steps(
    model: Any, loss: Any, batches: Sequence[Any], length: int, rounds: int
) -> dict[str, np.ndarray]:
    graph, state = nnx.split(model)
    optimizer = optax.adamw(1e-3)

    def body(pick: Callable[..., Any]) -> Body:
        def update(step: jax.Array, carry: Any, batches: Any) -> Any:
            state, moments = carry
            batch = pick(step, *batches)
            grads = jax.grad(lambda s: loss(nnx.merge(graph, s), batch))(state)
            changes, moments = optimizer.update(grads, moments, state)
            return optax.apply_updates(state, changes), moments

        return update

    def mix(draw: Callable[..., jax.Array]) -> Body:
        return body(lambda step, x, y: jaxmix.mix_rows(KEY, step, GAMMA, x, y, draw=draw).rows)

    plain = body(lambda step, x, y: x)
    bodies = {
        "plain": plain,
        "plain again (noise)": plain,
        "mix_rows, bernoulli": mix(jaxmix.bernoulli_sources),
        "mix_rows, systematic": mix(jaxmix.systematic_sources),
    }
    carry = (state, optimizer.init(state))
    return compare(bodies, carry, tuple(batches), length, rounds)


PARTS = {"draws": draws, "rows": rows, "pool": pool, "step": step}


if __name__ == "__main__":
    run_parts(__file__, __doc__, PARTS, rounds=20)
