"""A schedule is compiled once as long as it reads the same values, and is freed with them."""

import dataclasses
import functools
import gc
import math
import pickle
import tracemalloc
import types
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from schedule_cases import CASES, bits

import jaxmix

GLOBAL = types.SimpleNamespace(gamma=0.25)
NUMBER = 0.25


def of_global_object(step):
    return jnp.float32(GLOBAL.gamma)


def of_global_number(step):
    return jnp.float32(NUMBER)


def of_helper(step):
    return of_global_number(step)


@dataclasses.dataclass  # without a hash
class Gamma:
    gamma: float

    def __call__(self, step):
        return jnp.float32(self.gamma)

    def at(self, step):
        return jnp.float32(self.gamma)


class Module(nnx.Module):
    def __init__(self, gamma):
        self.gamma = nnx.Param(jnp.float32(gamma))

    def __call__(self, step):
        return self.gamma[...]


def changing(kind, monkeypatch):
    """A schedule of 0.25, and what makes it 0.75."""
    box, settings = Gamma(0.25), {"gamma": 0.25}
    array, listed = np.full(3, 0.25), [0.25]
    module = Module(0.25)

    def default(step, gamma=0.25):
        return jnp.float32(gamma)

    def change_array():
        array[:] = 0.75

    def change_module():
        module.gamma[...] = jnp.float32(0.75)

    def change_attribute():
        box.gamma = 0.75

    def of_box(step):
        return jnp.float32(box.gamma)

    kinds = {
        "object": (box, change_attribute),
        "bound method": (box.at, change_attribute),
        "closure of an object": (of_box, change_attribute),
        "closure of a dict": (
            lambda step: jnp.float32(settings["gamma"]),
            lambda: settings.update(gamma=0.75),
        ),
        "closure of a list": (lambda step: jnp.float32(listed[0]), lambda: listed.insert(0, 0.75)),
        "closure of an array": (lambda step: jnp.asarray(array)[step % 3], change_array),
        "closure of a closure": (lambda step: of_box(step), change_attribute),
        "partial": (functools.partial(lambda box, step: box.gamma, box), change_attribute),
        "default": (default, lambda: setattr(default, "__defaults__", (0.75,))),
        "global object": (of_global_object, lambda: monkeypatch.setattr(GLOBAL, "gamma", 0.75)),
        "global number": (
            of_global_number,
            lambda: monkeypatch.setitem(globals(), "NUMBER", 0.75),
        ),
        "helper": (of_helper, lambda: monkeypatch.setitem(globals(), "NUMBER", 0.75)),
        "module": (module, change_module),
        "complement of one": (
            jaxmix.complement_schedule(lambda step: 1.0 - of_box(step)),
            change_attribute,
        ),
        "clip of an object": (jaxmix.clip_schedule(box, 0.0, 1.0), change_attribute),
        "optax, joined": (
            optax.join_schedules([of_box, optax.constant_schedule(0.5)], [10**6]),
            change_attribute,
        ),
    }
    return kinds[kind]


KINDS = [
    "object",
    "bound method",
    "closure of an object",
    "closure of a dict",
    "closure of a list",
    "closure of an array",
    "closure of a closure",
    "partial",
    "default",
    "global object",
    "global number",
    "helper",
    "module",
    "complement of one",
    "clip of an object",
    "optax, joined",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_value_shows_in_new_plans_and_on_the_device(kind, monkeypatch):
    schedule, change = changing(kind, monkeypatch)

    def seen():
        plan = jaxmix.MixPlan(schedule, 8)
        return [
            plan.weights_at(0)[0],
            float(jaxmix.weights_at(0, schedule)[0]),
            float(jax.jit(lambda step: jaxmix.weights_at(step, schedule))(0)[0]),
            float(jaxmix.tabulate(schedule, 2)[1]),
        ]

    plan = jaxmix.MixPlan(schedule, 8)
    assert seen() == [0.25] * 4
    change()
    assert seen() == [0.75] * 4
    assert plan.weights_at(5000)[0] == 0.25  # a plan keeps what it was made with


def counted(make):
    calls = []

    def schedule(step):
        calls.append(step)
        return make(step)

    return schedule, calls


def test_a_function_is_traced_once_over_1000_calls_and_in_every_plan():
    schedule, calls = counted(lambda step: jnp.float32(0.5) * (step > 3))
    for step in range(1000):
        jaxmix.weights_at(step, schedule)
    assert len(calls) == 1
    for size in (8, 16, 32):
        jaxmix.MixPlan(schedule, size).counts(5000)
    assert len(calls) == 2  # once more, for whole blocks
    inside, calls = counted(lambda step: jnp.float32(0.5))
    both = jaxmix.stack_schedules(inside, CASES["cosine"].schedule)
    for step in range(100):
        both(step)
    assert len(calls) == 1


def test_what_a_schedule_can_only_read_of_libraries_is_no_reason_to_trace_again():
    table, jitted = jnp.linspace(0.0, 1.0, 100), jax.jit(lambda x: x * 0.5)
    frozen = dataclasses.make_dataclass("Frozen", ["gamma"], frozen=True)(0.5)
    flags = {"on": (True, None, "x"), "end": np.float32(0.5)}
    for make in (
        lambda step: jitted(table[step]) * math.sqrt(frozen.gamma) + np.float32(flags["end"]),
        lambda step: optax.linear_schedule(0.0, 1.0, 9)(step) * flags["end"],
    ):
        schedule, calls = counted(make)
        for step in range(20):
            jaxmix.weights_at(step, jaxmix.clip_schedule(schedule, 0.0, 1.0))
        again = len(calls)
        kept = jaxmix.clip_schedule(schedule, 0.0, 1.0)
        for step in range(20):
            jaxmix.weights_at(step, kept)
        assert again == 1 and len(calls) == 1


def made(number):
    table = np.full(25_000, 0.5, np.float32)
    kinds = [
        lambda step: jnp.asarray(table)[step],
        lambda step: table[step],
        functools.partial(lambda table, step: jnp.asarray(table)[step], table),
        jaxmix.table_schedule(table),
        jaxmix.stack_schedules(lambda step: jnp.asarray(table)[step], 0.5),
        jaxmix.stack_schedules(lambda step: float(table[step]), 0.5),
    ]
    return kinds[number % len(kinds)]


def test_schedules_are_freed_with_all_that_was_compiled():
    references = []
    for number in range(12):
        schedule = made(number)
        references.append(weakref.ref(schedule))
        jaxmix.weights_at(3, schedule)
        jaxmix.MixPlan(schedule, 8).counts(3)
    del schedule
    gc.collect()
    assert not any(reference() for reference in references)


def test_memory_is_flat_over_1000_schedules():
    def use(numbers):
        references = []
        for number in numbers:
            schedule = made(3 if number % 2 else 0)
            references.append(weakref.ref(schedule))
            jax.eval_shape(lambda step, s=schedule: jaxmix.weights_at(step, s), jnp.int32(0))
        del schedule
        gc.collect()
        return sum(reference() is not None for reference in references)

    use(range(100))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    alive = use(range(1000))  # tables of 100 MB in all
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert alive == 0 and grown < 2e6


@pytest.mark.parametrize("name", CASES)
def test_a_schedule_of_jaxmix_can_be_pickled(name):
    schedule = CASES[name].schedule
    try:
        copy = pickle.loads(pickle.dumps(schedule))
    except (pickle.PicklingError, AttributeError):
        assert name in ("clip", "stack", "temperature_moving")  # of optax's own closures
        return
    steps = np.array([0, 7, 500, 1000, 5000])
    assert bits(copy(steps)) == bits(schedule(steps))
    assert repr(copy) == repr(schedule) and " at 0x" not in repr(copy)


def test_the_tables_of_a_schedule_are_its_own():
    values, stage = np.array([0.25, 0.5], np.float32), np.array([0.25, 0.75])
    means, sizes, rows = (
        np.array([1.0, 3.0]),
        np.array([1.0, 3.0]),
        np.array([0.5, 0.5], np.float32),
    )
    known = np.array([0.25, 0.75])
    made = [
        jaxmix.table_schedule(values),
        jaxmix.staged_schedule({0: stage, 5: stage}),
        jaxmix.token_share_schedule(rows, means),
        jaxmix.temperature_schedule(sizes, 1.0),
        jaxmix.nest_schedules(rows, known, [1.0]),
    ]
    before = [np.asarray(schedule(1)) for schedule in made]
    plan = jaxmix.MixPlan(known, 8)
    sampler = jaxmix.MixtureSampler(range(9), range(9), values)
    drawn = [sampler[0], sampler[1]]
    for array in (values, stage, means, sizes, rows, known):
        array[:] = [0.99, 0.01]
    for schedule, value in zip(made, before, strict=True):
        assert bits(schedule(1)) == bits(value)
        assert bits(jax.jit(schedule)(1)) == bits(value)
    assert plan.weights_at(0).tolist() == [0.25, 0.75] and plan.counts(0).tolist() == [2, 6]
    assert [sampler[0], sampler[1]] == drawn
