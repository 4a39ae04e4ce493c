"""Weights checked inside jit, for runs under `jax.experimental.checkify`."""

import jax.numpy as jnp
from jax.experimental import checkify

from jaxmix._step import as_step, call_schedule
from jaxmix._types import ArrayLike, ScalarOrSchedule
from jaxmix.weights import TOLERANCE, weights_at


def check_weights(step: ArrayLike, weights: ScalarOrSchedule) -> None:
    """Report weights that are NaN or off the simplex, with the step, under `checkify`.

    Traced weights are otherwise clipped to the simplex, and only a NaN stays visible. Call it
    beside `mix_rows` or a loss, inside a function that `checkify.checkify` transforms.

    Args:
      step: the step, a scalar int of any dtype; may be traced.
      weights: gamma in [0, 1]; an array [K], `>= 0` with sum 1 within 1e-4; or a schedule returning
        either. Numbers that are known at the call raise at once, as in `weights_at`.

    Raises:
      ValueError: from JAX, when it is traced without `checkify`. With it the error is in the
        returned `err`, and `err.throw()` raises `checkify.JaxRuntimeError`.

    `checkify` itself fails around a `shard_map` on a mesh with explicit axes (what `jax.make_mesh`
    makes by default), even where the check is outside the `shard_map`: use
    `axis_types=(AxisType.Auto,)`, or look at `mix/gamma` in `MixMetrics`, where a NaN shows.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmix
      >>> from jax.experimental import checkify
      >>> def train_step(step):
      ...     jaxmix.check_weights(step, lambda step: 0.5 + step)
      ...     return step + 1
      >>> err, _ = jax.jit(checkify.checkify(train_step))(3)
      >>> err.get().splitlines()[0]
      'weights must be >= 0 with the sum 1, got gamma = 3.5 at step 3 (`check` failed)'
    """
    if callable(weights):
        raw = call_schedule(weights, step)
    else:
        weights_at(step, weights)
        raw = jnp.asarray(weights, jnp.float32)
    inside = jnp.all((raw >= -TOLERANCE) & (raw <= 1.0 + TOLERANCE))
    is_whole = jnp.abs(raw.sum() - 1.0) <= TOLERANCE if raw.ndim else True
    label = "{raw}" if raw.ndim else "gamma = {raw}"
    checkify.check(
        inside & is_whole,
        f"weights must be >= 0 with the sum 1, got {label} at step {{step}}",
        raw=raw,
        step=as_step(step),
    )
