"""A run on a host plan whose weights are learned: killed at any time, it restarts where it was.

    python adaptive_plan_run.py FOLDER NUM_STEPS

Prints `step source:index ...` for each step. Every N steps the weights that the mixer has learned
become those of a new plan, which continues at the state of the one before.
"""

import json
import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

import jaxmix
from jaxmix import exponentiated_gradient, floor_weights, update_every

K, BATCH, N = 3, 16, 10
MIXER = update_every(floor_weights(exponentiated_gradient(K, 2.0), 0.05), N)


@jax.jit
def train_step(params, state, source):
    """The "model" is one number for each source, which learns where rows come from."""
    loss = jnp.array([4.0, 2.0, 1.0]) * jnp.exp(-params)
    rows = jnp.zeros(K, jnp.int32).at[source].add(1)
    return params + 0.002 * rows.astype(jnp.float32), MIXER.update(state, loss, rows)


def save(path, step, plan, params, state):
    leaves = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves((params, state))]
    weights = plan.weights.tolist()
    other = path.with_suffix(".new")
    other.write_text(json.dumps([step, plan.state(step), weights, leaves]))
    os.replace(other, path)


def load(path, params, state):
    step, plan_state, weights, leaves = json.loads(path.read_text())
    plan = jaxmix.MixPlan(weights, BATCH, state=plan_state)
    like, structure = jax.tree.flatten((params, state))
    arrays = [jnp.asarray(value, leaf.dtype) for value, leaf in zip(leaves, like, strict=True)]
    return step, plan, *jax.tree.unflatten(structure, arrays)


def main(folder, num_steps):
    path = pathlib.Path(folder) / "checkpoint.json"
    first, params, state = 0, jnp.zeros(K), MIXER.init()
    plan = jaxmix.MixPlan(np.asarray(MIXER(state)), BATCH)
    if path.exists():
        first, plan, params, state = load(path, params, state)
    for step in range(first, num_steps):
        if step % 7 == 0:  # a rhythm of its own: also between two changes of the weights
            save(path, step, plan, params, state)
        rows = plan.rows(step)
        print(step, *(f"{k}:{i}" for k, i in zip(*rows, strict=True)), flush=True)
        params, state = train_step(params, state, rows.source)
        if (step + 1) % N == 0:
            plan = jaxmix.MixPlan(np.asarray(MIXER(state)), BATCH, state=plan.state(step + 1))
    print("weights", *np.asarray(MIXER(state)).tolist(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
