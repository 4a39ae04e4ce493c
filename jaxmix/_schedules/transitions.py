"""Shapes of gamma(step) that optax lacks: each function returns a schedule of float32 scalars.

For linear, polynomial and constant schedules and for warm-ups use optax's. jaxmix takes any
`optax.Schedule`. These rules hold for all shapes here:

- A step is 0-based. It is an int of any dtype, of NumPy or JAX, traced or not; a float (units of
  `rescale_schedule`); or an array of steps. Steps below 0 count as 0.
- Both ends are exact (`float32(init_value)`, `float32(end_value)`), also before and after the
  transition, and no value lies outside them.
- Eager, jit, vmap and scan give the same bits.
- The derivative with respect to a float step is finite everywhere.
- Sizes (`transition_steps`, ...) are numbers known at trace time, at least 1, without a limit.
- A float step has 24 bits, so neighbouring steps are distinct up to 2^24 only. Int steps always
  are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import need, real_number, whole_number
from jaxmix._schedules.arithmetic import elapsed_and_left, join, linear, transition
from jaxmix._schedules.evaluate import Formula
from jaxmix._types import Array, Schedule


def cosine_schedule(
    init_value: float, end_value: float, transition_steps: float, transition_begin: float = 0
) -> Schedule:
    """Follow half a cosine: slow at both ends, fastest in the middle.

    The value is ``init_value + (end_value - init_value) (1 - cos(pi p)) / 2`` with
    ``p = (step - transition_begin) / transition_steps`` in [0, 1].

    Args:
      init_value: the value up to step `transition_begin`.
      end_value: the value from step `transition_begin + transition_steps` on.
      transition_steps: the steps of the transition, `>= 1`.
      transition_begin: the first step of the transition, `>= 0`.

    Returns:
      A schedule of float32 scalars.

    Raises:
      ValueError: a value that is not finite, `transition_steps < 1`, `transition_begin < 0`.

    Example:
      >>> import jaxmix
      >>> gamma = jaxmix.cosine_schedule(0.0, 1.0, transition_steps=4)
      >>> [round(float(gamma(t)), 3) for t in range(6)]
      [0.0, 0.146, 0.5, 0.854, 1.0, 1.0]

    Source: Loshchilov and Hutter 2017, SGDR: Stochastic Gradient Descent with Warm Restarts.
    """
    return Formula(_cosine, _way(init_value, end_value, transition_steps, transition_begin))


def sigmoid_schedule(
    init_value: float,
    end_value: float,
    transition_steps: float,
    transition_begin: float = 0,
    steepness: float = 12.0,
) -> Schedule:
    """Follow an S-curve: nearly flat at both ends, steep in the middle.

    The value is ``init_value + (end_value - init_value) s(p)``, with p as in `cosine_schedule`.
    ``s(p) = (l(k (p - 1/2)) - l(-k/2)) / (l(k/2) - l(-k/2))``, where l is the logistic function and
    k the steepness.

    Args:
      init_value, end_value, transition_steps, transition_begin: as for `cosine_schedule`.
      steepness: `>= 0.001`. Near 0 the curve is a straight line, at 100 a jump in the middle.

    Returns:
      A schedule of float32 scalars.

    Raises:
      ValueError: as for `cosine_schedule`; `steepness < 0.001`.

    Example:
      >>> import jaxmix
      >>> gamma = jaxmix.sigmoid_schedule(0.0, 1.0, transition_steps=4)
      >>> [round(float(gamma(t)), 3) for t in range(5)]
      [0.0, 0.045, 0.5, 0.955, 1.0]
    """
    k = real_number("steepness", steepness, 1e-3)
    way = _way(init_value, end_value, transition_steps, transition_begin)
    return Formula(_sigmoid, (*way, k))


def exponential_schedule(
    init_value: float, end_value: float, transition_steps: float, transition_begin: float = 0
) -> Schedule:
    """Multiply the value by the same factor at every step.

    The value is ``init_value (end_value / init_value)^p``, with p as in `cosine_schedule`.

    Args:
      init_value, end_value: both positive or both negative.
      transition_steps, transition_begin: as for `cosine_schedule`.

    Returns:
      A schedule of float32 scalars.

    Raises:
      ValueError: as for `cosine_schedule`; an end that is 0; two ends of different sign.

    Example:
      >>> import jaxmix
      >>> gamma = jaxmix.exponential_schedule(0.01, 1.0, transition_steps=2)
      >>> [round(float(gamma(t)), 3) for t in range(4)]
      [0.01, 0.1, 1.0, 1.0]
    """
    init, end, begin, steps = _way(init_value, end_value, transition_steps, transition_begin)
    same_sign = init != 0 and end != 0 and (init > 0) == (end > 0)
    need(same_sign, "init_value and end_value", "of one sign, not 0", (init_value, end_value))
    return Formula(_exponential, (init, end, begin, steps))


def make_schedule(
    n_steps: int, start: float = 0.0, end: float = 1.0, kind: str = "linear"
) -> Schedule:
    """Make a schedule by name: `start` at step 0, `end` at step `n_steps - 1`.

    Args:
      n_steps: the steps of the run, `>= 1`. With a single step the value is `start`.
      start, end: the two ends. Steps after the last have the value `end`.
      kind: "linear", "cosine", "sigmoid" or "exponential" (both ends of the same sign).

    Returns:
      A schedule of float32 scalars.

    Raises:
      ValueError: an unknown kind, `n_steps < 1`, ends that this kind does not allow.

    Example:
      >>> import jaxmix
      >>> gamma = jaxmix.make_schedule(5, start=0.1, end=0.9, kind="cosine")
      >>> [round(float(gamma(t)), 3) for t in range(5)]
      [0.1, 0.217, 0.5, 0.783, 0.9]
    """
    need(kind in _KINDS, "kind", f"one of {', '.join(_KINDS)}", kind)
    steps = whole_number("n_steps", n_steps, 1) - 1
    return _KINDS[kind](start, end if steps else start, max(steps, 1))


def _linear_schedule(init_value: float, end_value: float, transition_steps: float) -> Schedule:
    return Formula(_linear, _way(init_value, end_value, transition_steps, 0))


_KINDS: dict[str, Callable[[float, float, float], Schedule]] = {
    "linear": _linear_schedule,
    "cosine": cosine_schedule,
    "sigmoid": sigmoid_schedule,
    "exponential": exponential_schedule,
}


def _way(
    init_value: float, end_value: float, transition_steps: float, transition_begin: float
) -> tuple[np.float32, np.float32, float, float]:
    init = np.float32(real_number("init_value", init_value))
    end = np.float32(real_number("end_value", end_value))
    begin = real_number("transition_begin", transition_begin, 0.0)
    return init, end, begin, real_number("transition_steps", transition_steps, 1.0)


def _linear(step: Array, init: np.float32, end: np.float32, begin: float, steps: float) -> Array:
    return transition(init, end, *elapsed_and_left(step, begin, steps), linear)


def _cosine(step: Array, init: np.float32, end: np.float32, begin: float, steps: float) -> Array:
    def rise(share: Array) -> Array:
        return jnp.sin(share * (math.pi / 2)) ** 2  # (1 - cos(pi p)) / 2, precise near 0 as well

    return transition(init, end, *elapsed_and_left(step, begin, steps), rise)


def _sigmoid(
    step: Array, init: np.float32, end: np.float32, begin: float, steps: float, k: float
) -> Array:
    # The same s(p) as a product, l(k (p - 1/2)) (1 - exp(-k p)) / (1 - exp(-k/2)): no cancellation.
    def rise(share: Array) -> Array:
        return jax.nn.sigmoid(k * (share - 0.5)) * (jnp.expm1(-k * share) / math.expm1(-k / 2))

    return transition(init, end, *elapsed_and_left(step, begin, steps), rise)


def _exponential(
    step: Array, init: np.float32, end: np.float32, begin: float, steps: float
) -> Array:
    log_ratio = math.log(float(end) / float(init))
    middle = np.float32(math.copysign(math.sqrt(float(init) * float(end)), init))
    elapsed, left = elapsed_and_left(step, begin, steps)
    near = elapsed <= left
    share = jnp.where(near, elapsed, -left) / (elapsed + left)
    value = jnp.where(near, init, end) * jnp.exp(share * log_ratio)
    return join(value, near, init, middle, end)
