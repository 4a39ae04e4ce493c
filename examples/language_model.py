"""A small language model is annealed from prose to code, on one device or on many processes.

A byte-level transformer in Flax NNX, data-parallel over a mesh. The mixture of the two corpora is
annealed as in mid-training, and every row is a function of (seed, step): on any machines, and
however often it was killed, `metrics.jsonl` shows the same rows.

    python examples/language_model.py                         # a laptop
    JAX_NUM_CPU_DEVICES=8 python examples/language_model.py   # eight devices
    python examples/language_model.py --processes 2           # two processes, four devices each
    srun python examples/language_model.py --distributed      # a pod: the same file in each process

Ctrl-C or SIGTERM saves and ends; the same command with `--resume` continues, on any of these.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import absl.flags
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from support.language_model_options import parse
from support.local_processes import (
    any_process,
    caught_signals,
    join,
    leave_to_parent,
    start_processes,
)
from support.text_corpora import ROW_BYTES, corpora, sha256
from support.training_log import check_same_run, draw, open_log, own_folder, read_log
from support.transformer import Transformer
from tqdm import tqdm

import jaxmix

# The mixture.


def mixture(args):
    """From prose to code, beside a tenth of Shakespeare if asked for."""
    gamma = jaxmix.cosine_schedule(0.9, 0.2, args.steps)
    return jaxmix.nest_schedules([0.9, 0.1], gamma, [1.0]) if args.shakespeare else gamma


# What a feed gives, `mixed_batch` makes a MixedBatch in the step. No feed has a state, and "plan"
# and "planned" give the very same rows.


def plan_feed(plan, sources, args, start: int, rows: NamedSharding):
    """Batches of the plan from step `start` on; each process reads its own part, in advance."""
    index, count = jaxmix.local_shard(rows, args.batch_size)
    batches = jaxmix.PlanSource(
        plan, sources, args.steps, shard_index=index, shard_count=count, shuffle=True
    )
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    dataset = grain.MapDataset.source(batches)[start:].to_iter_dataset(options)
    if args.workers:
        absl.flags.FLAGS.mark_as_parsed()  # else grain 0.2.18 cannot start its workers
        options = grain.MultiprocessingOptions(num_workers=args.workers)
        dataset = dataset.mp_prefetch(options, worker_init_fn=leave_to_parent)
    with contextlib.closing(iter(dataset)) as local:
        for batch in local:
            yield tuple(
                jax.make_array_from_process_local_data(
                    rows, batch[name], (args.batch_size, *batch[name].shape[1:])
                )
                for name in ("rows", "source")
            )


def pool_feed(plan, sources, args, start: int, rows: NamedSharding):
    """The whole corpora on every device; the step takes its rows from them."""
    buffers = map(np.asarray, sources)
    if args.feed == "planned":
        pool = jaxmix.PlannedPool(plan, *buffers, num_steps=args.steps)
    else:
        pool = jaxmix.RowPool(*buffers)
    whole = NamedSharding(rows.mesh, PartitionSpec())
    pool = jax.tree.map(lambda leaf: place(np.asarray(leaf), whole), pool)
    while True:
        yield pool


def mixed_batch(weights, args, mesh: Mesh, step, fed) -> jaxmix.MixedBatch:
    """The batch of a step, inside jit."""
    if isinstance(fed, jaxmix.PlannedPool | jaxmix.RowPool):
        key, num_rows = jax.random.key(args.seed), args.batch_size // mesh.size

        def take(step, pool):
            if isinstance(pool, jaxmix.PlannedPool):
                mixed = pool.take(step, num_rows, axis_name="data")
            else:
                mixed = jaxmix.draw_rows(key, step, weights, pool, num_rows, axis_name="data")
            return mixed.rows, mixed.source

        every, split = PartitionSpec(), PartitionSpec("data")
        fed = jax.shard_map(take, mesh=mesh, in_specs=(every, every), out_specs=split)(step, fed)
    rows, source = fed
    return jaxmix.MixedBatch(rows, source, jaxmix.weights_at(step, weights))


def place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A global array from one that every process has."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


# The training step.


def nats(model, rows):
    """The loss of each byte, [B, T]."""
    return optax.softmax_cross_entropy_with_integer_labels(model(rows), rows.astype(jnp.int32))


def start_state(args):
    """The model and its optimizer, as a graph (static) and a tree of arrays."""
    model = Transformer(256, ROW_BYTES, args.width, args.layers, nnx.Rngs(args.seed))
    rate = optax.warmup_cosine_decay_schedule(0.0, 3e-3, args.steps // 10, args.steps)
    return nnx.split((model, nnx.Optimizer(model, optax.adamw(rate), wrt=nnx.Param)))


def train_step(weights, args, mesh: Mesh, graph, state, fed):
    """One update; returns the new state and what to record of the step."""
    model, optimizer = nnx.merge(graph, state)
    mixed = mixed_batch(weights, args, mesh, optimizer.step[...], fed)

    def loss_fn(model):
        losses = nats(model, mixed.rows)
        return losses.mean(), jaxmix.source_sums(losses, mixed.source, len(args.names))

    (loss, sums), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
    optimizer.update(model, grads)  # counts optimizer.step up, which is all the state a mix has
    report = {"loss": loss, "rows": fingerprint(mixed.rows)}
    bits = sums.total / sums.count / jnp.log(2.0)
    report |= {f"train/{name}": bits[k] for k, name in enumerate(args.names)}
    report |= (
        jaxmix.MixMetrics.empty(len(args.names))
        .update(mixed.source, mixed.weights)
        .compute(args.names)
    )
    return nnx.state((model, optimizer)), report


def fingerprint(rows):
    """A hash of every byte and its place in the global batch, the same on any sharding."""
    x = jnp.arange(rows.size, dtype=jnp.uint32).reshape(rows.shape) * 256 + rows.astype(jnp.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return jnp.sum(x ^ (x >> 16), dtype=jnp.uint32)


def evaluate(args, graph, state, valid):
    """Bits per byte of each source on held-out rows [K, N, B, T]."""
    model, _ = nnx.merge(graph, state)
    losses = jax.lax.map(lambda rows: nats(model, rows).mean(), valid.reshape(-1, *valid.shape[2:]))
    bits = losses.reshape(valid.shape[:2]).mean(1) / jnp.log(2.0)
    return {f"valid/{name}": bits[k] for k, name in enumerate(args.names)}


# The run.


def train(args: argparse.Namespace, weights, signals: Sequence[int]) -> dict[str, float]:
    """Train to the last step, or until there is one of `signals`; return the last evaluation."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    whole, rows = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in ((), ("data",)))
    if args.batch_size % mesh.size:
        raise SystemExit(f"--batch-size must be a multiple of the {mesh.size} devices")
    sources, valid = load_text(args, mesh)
    plan = jaxmix.MixPlan(weights, args.batch_size, seed=args.seed)
    facts = check_processes(args, sources, plan)

    graph, state = jax.jit(partial(start_state, args), out_shardings=whole)()
    step_fn = partial(train_step, weights, args, mesh, graph)
    step_fn = jax.jit(step_fn, donate_argnums=0, out_shardings=whole)
    eval_fn = jax.jit(partial(evaluate, args, graph), out_shardings=whole)

    with contextlib.ExitStack() as stack:
        is_first = jax.process_index() == 0
        own = own_folder(args.out, args.resume) if is_first else contextlib.nullcontext("")
        why = stack.enter_context(own)
        if any_process(bool(why)):
            raise SystemExit(why or 1)
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        manager = ocp.CheckpointManager(args.out.absolute() / "checkpoints", options=options)
        stack.enter_context(manager)
        start, state = start_or_resume(args, facts, manager, state)
        feed = plan_feed if args.feed == "plan" else pool_feed
        feed = stack.enter_context(contextlib.closing(feed(plan, sources, args, start, rows)))
        write = stack.enter_context(record(args, start))

        reports, done = [], start
        look_every = 10 if jax.process_count() > 1 else 1  # to agree on an end is a collective
        while done < args.steps:
            if done % args.eval_every == 0:
                write([as_line(done, eval_fn(state, valid))])
            state, report = step_fn(state, next(feed))
            if jax.default_backend() == "cpu":
                jax.block_until_ready(report)  # many devices on few cores: one step at a time
            reports.append(report)
            done += 1
            leave = done % look_every == 0 and any_process(bool(signals))
            save = leave or done % args.save_every == 0 or done == args.steps
            if save or done % args.log_every == 0 or done % args.eval_every == 0:
                first = done - len(reports)
                write([as_line(first + k, r) for k, r in enumerate(jax.device_get(reports))])
                reports = []
            if save:
                manager.save(done, args=ocp.args.StandardSave(state))
            if leave and done < args.steps:
                manager.wait_until_finished()
                if jax.process_index() == 0:
                    tqdm.write(f"left after step {done} of {args.steps}: --resume continues there")
                return {}
        last = as_line(done, eval_fn(state, valid))
        write([last])
    if jax.process_index() == 0:
        conclude(args)
    return last


def load_text(args, mesh: Mesh):
    """The training rows of each corpus, and held-out rows [K, N, B, T] on the devices."""
    sources = corpora(args.corpora, int(args.megabytes * 1e6), names=args.names)
    for name, source in zip(args.names, sources, strict=True):
        if len(source) < 2 * args.batch_size:
            raise SystemExit(
                f"--megabytes {args.megabytes} is too little: {name} has {len(source)} rows"
            )
    # Held out is the last 20th of each corpus; about 256 rows of it are enough here.
    held = [max(args.batch_size, len(source) // 20) for source in sources]
    count = max(1, min(*held, 256) // args.batch_size)
    chosen = [
        s[len(s) - h :][: count * args.batch_size] for s, h in zip(sources, held, strict=True)
    ]
    shape = (len(args.names), count, args.batch_size, ROW_BYTES)
    over_rows = NamedSharding(mesh, PartitionSpec(None, None, "data"))
    valid = place(np.stack(chosen).reshape(shape), over_rows)
    return [s[: len(s) - h] for s, h in zip(sources, held, strict=True)], valid


def check_processes(args, sources, plan) -> dict[str, Any]:
    """Raise unless all processes have the same text and plan; return what decides the rows."""
    texts = [sha256(source) for source in sources]
    as_bytes = np.frombuffer(bytes.fromhex("".join(texts)), np.uint8)
    multihost_utils.assert_equal(as_bytes, "the corpora differ between the processes")
    jaxmix.check_same_plan(plan, args.steps)
    options = ("steps", "batch_size", "seed", "width", "layers")
    facts = {name: getattr(args, name) for name in options}
    facts["feed"] = args.feed.replace("planned", "plan")  # the same rows
    return {**facts, "corpora": texts, "plan": plan.digest(args.steps)}


def start_or_resume(args, facts, manager: ocp.CheckpointManager, state):
    """The first step to run and the state before it, placed like `state` on this mesh."""
    start, path = manager.latest_step() or 0, args.out / "run.json"
    begun = path.exists()
    if begun:
        check_same_run(path, facts)
    if start:
        state = manager.restore(start, args=ocp.args.StandardRestore(state))
    any_process(False)  # waits until all have read the folder
    if not begun and jax.process_index() == 0:
        path.write_text(json.dumps(facts))
    return start, state


@contextlib.contextmanager
def record(args, start: int):
    """Give a function that writes lines of the metrics and moves the bar, in process 0 only."""
    if jax.process_index() > 0:
        yield lambda lines: None
        return
    since = time.perf_counter()
    log = open_log(args.out / "metrics.jsonl", start, args.tensorboard)
    with log as append, tqdm(total=args.steps, initial=start, unit="step") as bar:

        def write(lines):
            nonlocal since
            append(lines)
            if "loss" in lines[-1]:
                bits = lines[-1]["loss"] / np.log(2)
                prose = np.mean([line["mix/share/prose"] for line in lines])
                tokens = len(lines) * args.batch_size * ROW_BYTES / (time.perf_counter() - since)
                bar.set_postfix_str(f"{bits:.2f} bits, {prose:.0%} prose, {tokens:,.0f} tokens/s")
                bar.update(len(lines))
            since = time.perf_counter()

        yield write


def conclude(args) -> None:
    """The picture, and the first and the last evaluation."""
    log = read_log(args.out / "metrics.jsonl")
    draw(args.out / "mix.png", log, args.names)
    for name in args.names:
        bits = [line[f"valid/{name}"] for line in log if f"valid/{name}" in line]
        print(f"{name}: held-out bits per byte {bits[0]:.2f} -> {bits[-1]:.2f}")
    print(f"metrics, checkpoints and picture: {args.out}")


def as_line(step: int, report: dict[str, Any]) -> dict[str, Any]:
    """A line of the metrics, fetched from the device."""
    line: dict[str, Any] = {"step": step}
    for name, value in jax.device_get(report).items():
        if not (name.startswith("train/") and np.isnan(value)):  # no row of that source
            line[name] = f"{int(value):08x}" if name == "rows" else float(value)
    return line


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    args = parse(argv)
    if args.processes > 1 and not args.place:
        command = [__file__, *(sys.argv[1:] if argv is None else argv)]
        start_processes(command, args.processes, args.devices)
        return {}
    if args.place:
        join(args.place)
    elif args.devices:
        jax.config.update("jax_num_cpu_devices", args.devices)
    if args.distributed:
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise SystemExit(f"--distributed found no Slurm, Open MPI or TPU: {error}") from None
    signals: list[int] = []

    def leave(number: int) -> None:
        signals.append(number)
        if jax.process_index() == 0:
            tqdm.write("asked to stop: saving first")

    with caught_signals(leave):  # only now, since joining sets JAX's own handler
        return train(args, mixture(args), signals)


if __name__ == "__main__":
    main()
