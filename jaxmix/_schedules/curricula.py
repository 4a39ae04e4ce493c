"""Schedules from papers on curricula. The rules at the top of `transitions.py` hold here too."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import real_number, whole_number
from jaxmix._schedules.arithmetic import clip, elapsed_and_left, linear, transition
from jaxmix._schedules.evaluate import Formula
from jaxmix._types import Array, Schedule


def inverse_sigmoid_schedule(k: float) -> Schedule:
    """Decay by the inverse sigmoid of scheduled sampling, ``k / (k + exp(step / k))``.

    The value is ``k / (k + 1)`` at step 0 and 1/2 at step ``k log(k)``; it falls to 0.

    Args:
      k: how slow the decay is, `>= 1`.

    Returns:
      A schedule of float32 scalars.

    Raises:
      ValueError: `k < 1` or not finite.

    Example:
      >>> import jaxmix
      >>> teacher_forcing = jaxmix.inverse_sigmoid_schedule(k=100.0)
      >>> [round(float(teacher_forcing(t)), 3) for t in (0, 460, 1000)]
      [0.99, 0.501, 0.005]

    Source: Bengio, Vinyals, Jaitly and Shazeer 2015, Scheduled Sampling for Sequence Prediction
    with Recurrent Neural Networks.
    """
    return Formula(_inverse_sigmoid, (real_number("k", k, 1.0),))


def dann_schedule(transition_steps: float, rate: float = 10.0) -> Schedule:
    """Rise from 0 as in domain-adversarial training, steep at first and then flat.

    The value is ``2 / (1 + exp(-rate p)) - 1`` with ``p = step / transition_steps`` in [0, 1]. Its
    last value is the value at ``p = 1``, which is 0.9999 for rate 10.

    Args:
      transition_steps: the steps of the rise, `>= 1`.
      rate: how steep the start is, `> 0`.

    Returns:
      A schedule of float32 scalars.

    Raises:
      ValueError: `transition_steps < 1`, `rate <= 0`.

    Example:
      >>> import jaxmix
      >>> gamma = jaxmix.dann_schedule(transition_steps=10)
      >>> [round(float(gamma(t)), 4) for t in (0, 1, 5, 10, 20)]
      [0.0, 0.4621, 0.9866, 0.9999, 0.9999]

    Source: Ganin et al. 2016, Domain-Adversarial Training of Neural Networks.
    """
    steps = real_number("transition_steps", transition_steps, 1.0)
    return Formula(_dann, (steps, real_number("rate", rate, 0.0, open_low=True)))


def competence_schedule(init_value: float, transition_steps: float, power: float = 2.0) -> Schedule:
    """Grow the competence of a learner: the part of the data that it may see.

    With ``c0 = init_value`` the value is
    ``min(1, (c0^power + (1 - c0^power) step / transition_steps)^(1 / power))``.

    Args:
      init_value: the value at step 0, in [0, 1].
      transition_steps: the step from which the value is 1, `>= 1`.
      power: `> 0`. 2 gives the square root of the paper, 1 a straight line.

    Returns:
      A schedule of float32 scalars.

    Raises:
      ValueError: a number outside its range.

    Example:
      >>> import jaxmix
      >>> competence = jaxmix.competence_schedule(0.1, transition_steps=100)
      >>> [round(float(competence(t)), 3) for t in (0, 25, 50, 100, 200)]
      [0.1, 0.507, 0.711, 1.0, 1.0]

    Source: Platanios et al. 2019, Competence-based Curriculum Learning for Neural Machine
    Translation.
    """
    init = np.float32(real_number("init_value", init_value, 0.0, 1.0))
    steps = real_number("transition_steps", transition_steps, 1.0)
    power = real_number("power", power, 0.0, open_low=True)
    return Formula(_competence, (init, steps, power))


def cyclical_schedule(
    init_value: float,
    end_value: float,
    cycle_steps: float,
    ramp_fraction: float = 0.5,
    num_cycles: int | None = None,
) -> Schedule:
    """Repeat a cycle: a straight ramp from `init_value` to `end_value`, then a rest there.

    With ``tau = (step mod cycle_steps) / cycle_steps`` the value is
    ``init_value + (end_value - init_value) min(1, tau / ramp_fraction)``.

    Args:
      init_value: the value at the first step of each cycle.
      end_value: the value in the rest of each cycle, and after the last cycle.
      cycle_steps: the steps of a cycle, `>= 1`.
      ramp_fraction: the part of a cycle that is ramp, in (0, 1].
      num_cycles: the number of cycles, `>= 1`; None for no end.

    Returns:
      A schedule of float32 scalars.

    Raises:
      ValueError: a number outside its range.

    Example:
      >>> import jaxmix
      >>> beta = jaxmix.cyclical_schedule(0.0, 1.0, cycle_steps=4, num_cycles=2)
      >>> [float(beta(t)) for t in range(10)]
      [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0]

    Source: Fu et al. 2019, Cyclical Annealing Schedule: A Simple Approach to Mitigating KL
    Vanishing.
    """
    init = np.float32(real_number("init_value", init_value))
    end = np.float32(real_number("end_value", end_value))
    cycle = real_number("cycle_steps", cycle_steps, 1.0)
    ramp = cycle * real_number("ramp_fraction", ramp_fraction, 0.0, 1.0, open_low=True)
    count = None if num_cycles is None else whole_number("num_cycles", num_cycles, 1)
    return Formula(_cyclical, (init, end, cycle, ramp, count))


def _inverse_sigmoid(step: Array, k: float) -> Array:
    init = np.float32(k / (k + 1))
    value = jax.nn.sigmoid(math.log(k) - step.astype(jnp.float32) * np.float32(1 / k))
    return jnp.where(step <= 0, init, clip(value, 0.0, init))


def _dann(step: Array, steps: float, rate: float) -> Array:
    end = np.float32(math.tanh(rate / 2))
    elapsed, left = elapsed_and_left(step, 0.0, steps)
    fall = -rate * (elapsed / (elapsed + left))
    value = -jnp.expm1(fall) / (1.0 + jnp.exp(fall))
    return jnp.where(left <= 0, end, clip(value, 0.0, end))


def _competence(step: Array, init: np.float32, steps: float, power: float) -> Array:
    floor = np.float32(float(init) ** power)
    elapsed, left = elapsed_and_left(step, 0.0, steps)
    moving = elapsed > 0  # at 0 the root of c0 = 0 has no finite derivative
    filled = floor + (1 - floor) * (elapsed / (elapsed + left))
    value = jnp.where(moving, filled, 1.0) ** (1.0 / power)
    return jnp.where(left <= 0, 1.0, jnp.where(moving, clip(value, init, 1.0), init))


def _cyclical(
    step: Array, init: np.float32, end: np.float32, cycle: float, ramp: float, count: int | None
) -> Array:
    value = transition(init, end, *elapsed_and_left(_remainder(step, cycle), 0.0, ramp), linear)
    if count is None:
        return value
    _, left = elapsed_and_left(step, 0.0, count * cycle)
    return jnp.where(left <= 0, end, value)


def _remainder(step: Array, cycle: float) -> Array:
    """`step mod cycle`, in integers where both are whole."""
    if jnp.issubdtype(step.dtype, jnp.integer) and cycle.is_integer():
        return step % int(cycle) if cycle <= jnp.iinfo(step.dtype).max else step
    return step.astype(jnp.float32) % np.float32(cycle)
