"""What a skipped loss costs: train steps with mix_loss_fns while gamma is 0, 1 and between.

Each case is a whole jitted train step (AdamW) of an MLP, timed in turn with the step of the single
loss that gamma selects, with a plain `lax.cond` for each loss, and with both losses evaluated and
added (they share a forward pass, which XLA then works out once). Prints the ratio to the single
loss, the median over rounds and the middle 80 %; "again" is the single loss once more, the noise.

    python benchmarks/losses.py
"""

import argparse
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmix

MODELS = {  # name: layer sizes, rows in a batch
    "MLP 1024x3": ((1024, 1024, 1024, 1024, 10), 256),
    "MLP 1024x3, large batch": ((1024, 1024, 1024, 1024, 10), 1024),
    "MLP 64-128-10": ((64, 128, 10), 4096),
}


def squared(params, x, label):
    return optax.squared_error(logits(params, x), jax.nn.one_hot(label, 10)).mean()


def cross_entropy(params, x, label):
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), label).mean()


def logits(params, x):
    for matrix in params[:-1]:
        x = jax.nn.relu(x @ matrix)
    return x @ params[-1]


def plain_sum(step, *args):
    gamma = gamma_of(step)
    return gamma * squared(*args) + (1.0 - gamma) * cross_entropy(*args)


def plain_cond(step, *args):
    """What `mix_loss_fns` would be without a gradient of its own."""
    gamma = gamma_of(step)
    total = jnp.float32(0.0)
    for share, loss in ((gamma, squared), (1.0 - gamma, cross_entropy)):
        total += jax.lax.cond(share != 0, lambda s, f=loss: s * f(*args), lambda s: 0.0 * s, share)
    return total


def gamma_of(step):
    """1 at step 0, a half at step 1, 0 at step 2."""
    return 1.0 - 0.5 * step.astype(jnp.float32)


LOSSES = {
    "again": None,
    "mix_loss_fns": jaxmix.mix_loss_fns(gamma_of, squared, cross_entropy),
    "a plain cond each": plain_cond,
    "both evaluated": plain_sum,
}


def train_step(loss_fn, optimizer):
    def one_step(step, params, state, x, label):
        grads = jax.grad(loss_fn, argnums=1)(step, params, x, label)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(one_step, donate_argnums=(1, 2))


def measure(sizes, batch, step, rounds, seconds):
    """Ratios [round] of each loss to the single loss that gamma selects at `step`."""
    keys = jax.random.split(jax.random.key(0), len(sizes))
    x = jax.random.normal(keys[0], (batch, sizes[0]))
    label = jax.random.randint(keys[0], (batch,), 0, 10)
    optimizer = optax.adamw(1e-3)
    single = squared if step == 0 else cross_entropy
    fns = {"single": None} | LOSSES
    runs = {}
    for name, loss_fn in fns.items():
        params = [
            jax.random.normal(key, shape) * shape[0] ** -0.5
            for key, shape in zip(keys[1:], itertools.pairwise(sizes), strict=True)
        ]
        fn = loss_fn or (lambda step, *args: single(*args))
        runs[name] = train_step(fn, optimizer), params, optimizer.init(params)
    times: dict[str, list[float]] = {name: [] for name in runs}
    repeats = 1
    for turn in range(rounds + 2):  # two turns to compile and to choose the repeats
        for name, (one_step, params, state) in runs.items():
            begin = time.perf_counter()
            for _ in range(repeats):
                params, state = one_step(jnp.int32(step), params, state, x, label)
            jax.block_until_ready(params)
            times[name].append((time.perf_counter() - begin) / repeats)
            runs[name] = one_step, params, state
        if turn == 1:
            repeats = max(1, round(seconds / times["single"][1]))
    base = np.array(times["single"][2:])
    return base, {name: np.array(times[name][2:]) / base for name in LOSSES}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time of mix_loss_fns against the single loss.")
    parser.add_argument("--rounds", type=int, default=40, help="interleaved turns")
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a turn")
    parser.add_argument("--fast", action="store_true", help="a smoke test")
    args = parser.parse_args(argv)
    models = dict(list(MODELS.items())[-1:]) if args.fast else MODELS
    rounds, seconds = (3, 0.01) if args.fast else (args.rounds, args.seconds)
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}; ratio to the single loss")
    print(f"{'model':25}{'gamma':>6}{'single, ms':>12}" + "".join(f"{n:>26}" for n in LOSSES))
    for model, (sizes, batch) in models.items():
        for step, gamma in enumerate((1.0, 0.5, 0.0)):
            base, ratios = measure(sizes, batch, step, rounds, seconds)
            cells = []
            for ratio in ratios.values():
                low, middle, high = np.percentile(ratio, (10, 50, 90))
                cells.append(f"{middle:.3f} ({low:.2f}..{high:.2f})".rjust(26))
            print(f"{model:25}{gamma:6}{1e3 * np.median(base):12.2f}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
