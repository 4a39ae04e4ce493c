"""Steps as int32 or float32, and the only place where a schedule is called."""

from __future__ import annotations

import dataclasses
import functools
import types
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import is_concrete, need, plain_number
from jaxmix._schedules.schedule_errors import ask, check_schedule, read_value
from jaxmix._schedules.snapshot import snapshot
from jaxmix._schedules.units import Units, in_units, known_units
from jaxmix._types import Array, ArrayLike, Schedule

MAX_STEP = 2**31 - 1


def as_step(step: ArrayLike) -> Array:
    """The step as int32, or float32 if it is a float (units of `rescale_schedule`).

    A step is an int, a NumPy or JAX scalar or array of any integer or float dtype, or an object
    with `__jax_array__` (an `nnx.Variable`) or `__index__`. Unsigned steps
    (`flax.nnx.Optimizer.step` is uint32) would wrap inside optax's schedules, so they are
    converted. Python and NumPy steps outside [0, 2^31 - 1] raise ValueError. JAX arrays, which may
    be traced, are clipped to this range.
    """
    step = plain_number(step)
    array = step if isinstance(step, jax.Array) else np.asarray(step)
    if jnp.issubdtype(array.dtype, jnp.floating):
        return jnp.asarray(array, jnp.float32)
    need(jnp.issubdtype(array.dtype, jnp.integer), "step", "an integer or a float", step, TypeError)
    if not isinstance(step, jax.Array):
        ok = array.size == 0 or (array.min() >= 0 and array.max() <= MAX_STEP)
        need(bool(ok), "step", f"in [0, {MAX_STEP}]", step)
        return jnp.asarray(array.astype(np.int32))
    if array.dtype.itemsize >= 4 and array.dtype != jnp.int32:  # wider than int32: saturate
        array = jnp.clip(array, jnp.asarray(0, array.dtype), jnp.asarray(MAX_STEP, array.dtype))
    return jnp.maximum(array.astype(jnp.int32), 0)


def as_whole_step(step: ArrayLike) -> Array:
    """The step as an int32 scalar; a float or an array of steps raises."""
    whole = as_step(step)
    need(whole.dtype == jnp.int32, "step", "an integer", step, TypeError)
    need(whole.ndim == 0, "step", "a scalar (vmap over many)", whole.shape)
    return whole


def call_schedule(schedule: Schedule, step: ArrayLike) -> Array:
    """`schedule(step)` as float32, isolated so that its bits rarely depend on what surrounds it.

    The schedule must be pure. It is compiled as a separate function between two barriers: a value
    that differs by one rounding would sometimes choose another row. XLA may still drop the
    barriers. jaxmix's schedules keep their bits then; another one may differ by a rounding.

    The compiled function is reused as long as `snapshot` shows that the schedule reads the same
    values. Where this can't be known (a module, an object with attributes) the schedule is traced
    at each call. At a known step a schedule in plain Python works too: see `values_on_host`.
    """
    return _evaluate(_call, schedule, step)


def call_schedule_each(schedule: Schedule, steps: ArrayLike) -> Array:
    """`call_schedule` at each of the steps [T], in one compiled call: [T] or [T, K]."""
    return _evaluate(call_each, schedule, steps)


def _evaluate(body: Callable[..., Array], schedule: Schedule, step: ArrayLike) -> Array:
    check_schedule(schedule)
    step = plain_number(step)
    array = as_step(step)
    try:
        return compiled(body, schedule)(array)
    except Exception:
        if not is_concrete(step):
            raise
    steps = np.asarray(step)
    steps = steps.astype(np.float32 if steps.dtype.kind == "f" else np.int64).clip(min=0)
    values = values_on_host(schedule, np.atleast_1d(steps))
    return jnp.asarray(values if body is call_each else values[0])


def values_on_host(schedule: Schedule, steps: np.ndarray, lenient: bool = False) -> np.ndarray:
    """The float32 values [T, ...] at known steps [T], int64 (of any size) or float32, `>= 0`.

    They come from one compiled call if the schedule can be traced, else from `plain_values`.
    """
    check_schedule(schedule)
    with jax.ensure_compile_time_eval():
        try:
            return compiled_values(compiled(call_each, schedule), steps)
        except Exception:
            pass  # an error of the schedule itself is raised by the plain call
    return plain_values(schedule, steps, lenient)


def plain_values(schedule: Schedule, steps: np.ndarray, lenient: bool = False) -> np.ndarray:
    """The values at known steps, from one call per step with a Python number.

    So plain Python works: `if step < 100`, `math`, `np.interp`, `table[step]`. With `lenient` the
    value is NaN at a step at which the schedule raises, unless it raises at all of them.
    """
    with jax.ensure_compile_time_eval():
        if isinstance(schedule, Formula):
            return schedule.combine_on_host(steps, lenient)
        return _asked_values(schedule, steps, lenient)


def compiled_values(function: Callable[[Any], Array], steps: np.ndarray) -> np.ndarray:
    """The values of a compiled `call_each`; steps above int32 are passed in 64 bits."""
    if steps.dtype.kind == "i" and steps.max() > MAX_STEP:
        with jax.enable_x64(True):
            return np.asarray(function(steps))
    return np.asarray(function(as_step(steps)))


def _asked_values(schedule: Schedule, steps: np.ndarray, lenient: bool) -> np.ndarray:
    values: list[np.ndarray | None] = []
    problem = None
    for step in steps.tolist():
        try:
            value = ask(schedule, step)
            if type(value) is not float:  # the common case, and the fast one
                value = read_value(value, schedule, on_host=True)
            values.append(float32_of(np.asarray(value)))
        except Exception as error:
            if not lenient:
                raise
            problem = problem or error
            values.append(None)
    known = [value for value in values if value is not None]
    if not known:
        raise problem or ValueError("steps must be at least one")
    shape = known[0].shape
    if lenient:  # a value of another shape is refused when its step is reached
        nothing = np.full(shape, np.nan, np.float32)
        return np.stack([v if v is not None and v.shape == shape else nothing for v in values])
    shapes = {value.shape for value in known}
    need(len(shapes) == 1, "a schedule's values", "of one shape", sorted(shapes))
    return np.stack(known)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Formula:
    """A schedule of jaxmix: a function at module level and its fixed arguments.

    The value is `formula(step, *parts)` for one step `>= 0` (int32 or float32), where each schedule
    among the parts is replaced by its own value at the step. With `units`, formula and parts get
    the step in these units; if `units` is a function, the schedule works on the host only. A
    `Formula` can be pickled if its parts can.

    Steps below 0 count as 0, known or traced: `optax.join_schedules` asks for them.
    """

    formula: Callable[..., Array]
    parts: tuple[Any, ...]
    units: Units = None

    def __call__(self, step: ArrayLike) -> Array:
        step = plain_number(step)
        if not isinstance(step, jax.Array):
            step = np.asarray(step)
            step = np.maximum(step, 0) if step.dtype.kind == "i" else step
        shape = np.shape(step)
        if shape == ():
            return call_schedule(self, step)
        values = call_schedule_each(self, step.reshape(-1))
        return values.reshape(*shape, *values.shape[1:])

    def __repr__(self) -> str:
        return f"<jaxmix schedule {self.formula.__name__.strip('_')}>"

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def value(self, step: Array) -> Array:
        """The value at one step, traced or not."""
        step = in_units(jnp.where(step < 0, 0, step), self.units)
        parts = [compiled(_call, p)(step) if callable(p) else p for p in self.parts]
        return self.formula(step, *parts)

    def combine_on_host(self, steps: np.ndarray, lenient: bool) -> np.ndarray:
        """The values at known steps; each schedule among the parts by `values_on_host`."""
        units, missing = known_units(steps, self.units, lenient)
        values = [values_on_host(p, units, lenient=lenient) for p in self.parts if callable(p)]
        with jax.enable_x64(units.dtype.kind == "i" and int(units.max()) > MAX_STEP):
            made = np.array(self._formula_each(units, *values))
        made[missing] = np.nan
        return made

    @functools.cached_property
    def _formula_each(self) -> Callable[..., Array]:
        """The formula at steps [T], given the values [T, ...] of the schedules among the parts."""

        def at(step: Array, *values: Array) -> Array:
            rest = iter(values)
            parts = [next(rest) if callable(part) else part for part in self.parts]
            return self.formula(step, *parts).astype(jnp.float32)

        return jax.jit(jax.vmap(at))


def compiled(body: Callable[..., Array], schedule: Schedule) -> Callable[..., Array]:
    """`body(schedule, ...)` compiled, once for as long as the schedule reads the same values.

    The cache holds a schedule by a weak reference, so an entry is freed with its schedule.
    """
    kind = types.FunctionType | functools.partial | Formula
    seen = snapshot(schedule) if isinstance(schedule, kind) else None
    if seen is None:
        return jax.jit(functools.partial(body, schedule))
    kept = _KEPT.get(schedule)
    if kept is None or kept.seen != seen:
        kept = _KEPT[schedule] = _Kept(seen, {})
    if body not in kept.functions:
        kept.functions[body] = jax.jit(functools.partial(_traced, body, weakref.ref(schedule)))
    return kept.functions[body]


@dataclasses.dataclass
class _Kept:
    """What a schedule read when it was traced, and the functions compiled then, by body."""

    seen: Any
    functions: dict[Callable[..., Array], Callable[..., Array]]


_KEPT: weakref.WeakKeyDictionary[Any, _Kept] = weakref.WeakKeyDictionary()


def _traced(body: Callable[..., Array], reference: weakref.ref[Any], step: Array) -> Array:
    """Trace the body; a call may change what the schedule reads (it may count its calls)."""
    schedule = reference()
    value = body(schedule, step)
    if schedule in _KEPT:
        _KEPT[schedule].seen = snapshot(schedule)
    return value


def _call(schedule: Schedule, step: Array, check: Callable[[Any], None] | None = None) -> Array:
    step = jax.lax.optimization_barrier(step)
    with jax.numpy_dtype_promotion("standard"):  # optax's cosine mixes int32 and float32
        value = schedule.value(step) if isinstance(schedule, Formula) else ask(schedule, step)
        value = read_value(value, schedule, on_host=False)
    if check is not None:
        check(value)
    return jax.lax.optimization_barrier(float32_of(value))


def call_each(
    schedule: Schedule, steps: Array, check: Callable[[Any], None] | None = None
) -> Array:
    """The values at steps [T], to be compiled: see `compiled`.

    `check` sees the value of one step before there are T of them, and may raise.
    """
    return jax.vmap(functools.partial(_call, schedule, check=check))(steps)


def float32_of(value: Any) -> Any:
    """A value in float32; half-precision weights [K] of sum 1, except for rounding, get sum 1."""
    wide = value.astype(np.float32)
    is_half = jnp.issubdtype(value.dtype, jnp.floating) and value.dtype.itemsize < 4
    if value.ndim != 1 or not is_half:
        return wide
    total = wide.sum()
    where = jnp.where if isinstance(value, jax.Array) else np.where
    return wide / where(abs(total - 1) <= float(jnp.finfo(value.dtype).eps), total, np.float32(1))
