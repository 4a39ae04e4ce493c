"""A train step with mixing and without it: rows mixed in the step, and each kind of feed.

    python benchmarks/train_step.py [--rounds 5] [--only mixed,feeds] [--fast]

`mixed`: `mix_rows` in the step of a transformer and of a small MLP. `feeds`: the step of
`examples/language_model.py` with a plan on the host (`plan`), planned rows of a pool on the device
(`planned`) and rows drawn from one (`pool`), beside the same step on a fixed source; and, as that
is too noisy for 1 %, mixing and planning alone.
"""

import functools
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from in_jit import GAMMA, KEY, Body, compare, looped
from timing import in_turn, ratios, run_parts, table, take_next

import jaxmix

sys.path.append(str(pathlib.Path(__file__).parents[1] / "examples"))  # for the models


def token_loss(model: Any, batch: Any) -> jax.Array:
    losses = optax.softmax_cross_entropy_with_integer_labels(model(batch), batch)
    return losses.mean()


def mixed(rounds: int, fast: bool) -> Iterator[dict[str, Any]]:
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
        columns[name] = steps(model, token_loss, tokens, 1, rounds)
    name = "MLP of digits, B = 4,096"
    columns[name] = steps(classifier(nnx.Rngs(0)), class_loss, images, 20, rounds)
    yield table("A train step (AdamW), ratio to the same step without mixing", columns)


def permuted(step: jax.Array, *batches: Any) -> Any:
    """Exact counts the costly way: a random permutation sorts keys."""
    num_rows = len(jax.tree.leaves(batches[0])[0])
    count = jnp.round(GAMMA(step) * num_rows).astype(jnp.int32)
    order = jax.random.permutation(jax.random.fold_in(KEY, step), num_rows)
    return jaxmix.select_rows((order >= count).astype(jnp.int32), *batches)


def steps(
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
        "exact counts by a permutation": body(permuted),
    }
    carry = (state, optimizer.init(state))
    return compare(bodies, carry, tuple(batches), length, rounds)


def feeds(rounds: int, fast: bool) -> Iterator[dict[str, Any]]:
    """The language model's step with each feed, to the same step on a fixed source."""
    import language_model as lm

    columns = {}
    for feed in ("plan",) if fast else ("plan", "planned", "pool"):
        args = lm.parse(["--feed", feed, "--steps", "100000", "--megabytes", "1"])
        axis_types = (jax.sharding.AxisType.Auto,)
        mesh = jax.make_mesh((1,), ("data",), axis_types, devices=list(jnp.zeros(()).devices()))
        whole, rows = (jax.NamedSharding(mesh, jax.P(*axis)) for axis in ((), ("data",)))
        sources, _ = lm.load_text(args, mesh)
        gamma = jaxmix.cosine_schedule(0.9, 0.2, args.steps)
        one = jaxmix.MixPlan(gamma, args.batch_size)
        fixed_plan = jaxmix.MixPlan([1.0], args.batch_size)
        mixed_feed = lm.plan_feed if feed == "plan" else lm.pool_feed
        fed_by = {
            "fixed source": lm.plan_feed(fixed_plan, sources[:1], args, 0, rows),
            "fixed again (noise)": lm.plan_feed(fixed_plan, sources[:1], args, 0, rows),
            "mixed": mixed_feed(one, sources, args, 0, rows),
        }
        graph, state = jax.jit(functools.partial(lm.start_state, args), out_shardings=whole)()
        train_step = jax.jit(functools.partial(lm.train_step, gamma, args, mesh, graph))
        runs = {
            name: functools.partial(segment, train_step, state, fed) for name, fed in fed_by.items()
        }
        seconds = in_turn(runs, rounds)
        step_seconds = float(np.median(seconds["fixed source"])) / 10
        if feed == "plan":
            mixed = jaxmix.PlanSource(one, sources, args.steps, shuffle=True)
            fixed = jaxmix.PlanSource(fixed_plan, sources[:1], args.steps, shuffle=True)
            alone = {
                name: take_next(map(feed.__getitem__, itertools.count()), 1000)
                for name, feed in {"fixed": fixed, "mixed": mixed}.items()
            }
        else:
            (pool,) = itertools.islice(fed_by["mixed"], 1)
            alone = {
                name: functools.partial(looped(body, 1000), jnp.zeros((16, 128), jnp.uint8), pool)
                for name, body in pool_bodies(gamma, args.batch_size).items()
            }
        took = in_turn(alone, rounds)
        costs = {"in all": took["mixed"], "more than fixed": took["mixed"] - took["fixed"]}
        columns[f"--feed {feed}"] = ratios({name: s / 10 for name, s in seconds.items()}) | {
            f"batches alone, {name}, % of a step": cost / 10 / step_seconds
            for name, cost in costs.items()
        }
    yield table("A language model's step, 16 x 128 bytes, ratio to a fixed source", columns)


def segment(train_step: Any, state: Any, fed: Iterator[Any]) -> Any:
    """Ten steps."""
    for batch in itertools.islice(fed, 10):
        state, last = train_step(state, batch)
        jax.block_until_ready(last)
    return state


def pool_bodies(gamma: Any, batch_size: int) -> dict[str, Callable[..., jax.Array]]:
    """A batch from the pool: the next rows of one source, or the planned or drawn rows of both."""

    def fixed(step: Any, rows: Any, pool: Any) -> jax.Array:
        pool = pool.pool if isinstance(pool, jaxmix.PlannedPool) else pool
        first = (step * batch_size) % (pool.lengths[0] - batch_size)
        return rows ^ jax.lax.dynamic_slice_in_dim(pool.rows, first, batch_size)

    def mixed(step: Any, rows: Any, pool: Any) -> jax.Array:
        if isinstance(pool, jaxmix.PlannedPool):
            return rows ^ pool.take(step).rows
        return rows ^ jaxmix.draw_rows(KEY, step, gamma, pool, batch_size).rows

    return {"fixed": fixed, "mixed": mixed}


PARTS = {"mixed": mixed, "feeds": feeds}


if __name__ == "__main__":
    run_parts(__file__, __doc__, PARTS, rounds=5)
