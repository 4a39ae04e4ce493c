"""What a skipped loss costs: train steps with mix_loss_fns while gamma is 0, 1 and between.

Each case is a whole jitted train step (AdamW) of an MLP, timed in turn with the step of the single
loss that gamma selects, with a plain `lax.cond` for each loss, and with both losses evaluated and
added (they share a forward pass, which XLA then works out once). Prints the ratio to the single
loss; "again" is the single loss once more, the noise.

    python benchmarks/losses.py [--rounds 7] [--fast]
"""

import itertools

import jax
import jax.numpy as jnp
import optax
from timing import in_turn, ratios, run_parts, table, turned

import jaxmix

MODELS = {  # name: layer sizes, rows in a batch, steps per turn (about 0.1 s on two cores)
    "MLP 64-128-10": ((64, 128, 10), 4096, 40),
    "MLP 1024x3": ((1024, 1024, 1024, 1024, 10), 256, 2),
    "MLP 1024x3, large batch": ((1024, 1024, 1024, 1024, 10), 1024, 1),
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


def measure(sizes, batch, step, steps_per_turn, rounds):
    """Seconds [round] of a step with each loss, the single one that gamma selects first."""
    keys = jax.random.split(jax.random.key(0), len(sizes))
    x = jax.random.normal(keys[0], (batch, sizes[0]))
    label = jax.random.randint(keys[0], (batch,), 0, 10)
    optimizer = optax.adamw(1e-3)
    single = squared if step == 0 else cross_entropy

    def turn_of(loss_fn):
        one_step = train_step(loss_fn or (lambda step, *args: single(*args)), optimizer)
        params = [
            jax.random.normal(key, shape) * shape[0] ** -0.5
            for key, shape in zip(keys[1:], itertools.pairwise(sizes), strict=True)
        ]
        state = optimizer.init(params)

        def turn():
            nonlocal params, state  # each step gives up its inputs
            for _ in range(steps_per_turn):
                params, state = one_step(jnp.int32(step), params, state, x, label)
            return params

        return turn

    turns = {name: turn_of(loss_fn) for name, loss_fn in ({"single": None} | LOSSES).items()}
    return {name: s / steps_per_turn for name, s in in_turn(turns, rounds).items()}


def losses(rounds, fast):
    lines = {}
    for model, (sizes, batch, steps_per_turn) in list(MODELS.items())[: 1 if fast else None]:
        for step, gamma in enumerate((1.0, 0.5, 0.0)):
            seconds = measure(sizes, batch, step, 1 if fast else steps_per_turn, rounds)
            lines[f"{model}, gamma {gamma}"] = ratios(seconds)
    yield table("A train step with two losses, ratio to one with a single loss", turned(lines))


if __name__ == "__main__":
    run_parts(__file__, __doc__, {"losses": losses}, rounds=7)
