"""A schedule in plain Python works on the host, alone and inside others, and says so inside jit."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmix

TABLE = [0.1, 0.2, 0.3]
ARRAY = np.linspace(0.0, 1.0, 2048)

PLAIN = {
    "if": lambda t: 1.0 if t < 3 else 0.5,
    "math": lambda t: 0.5 + 0.5 * math.cos(t / 100),
    "interp": lambda t: np.interp(t, [0, 100], [0.0, 1.0]),
    "list": lambda t: TABLE[min(t, 2)],
    "array": lambda t: ARRAY[t],
    "dict": lambda t: {0: 1.0, 1: 0.25}.get(t, 0.5),
    "weights": lambda t: [0.5, 0.25, 0.25] if t % 2 else [0.25, 0.5, 0.25],
    "jax, with an if": lambda t: jnp.float32(0.25) if t < 3 else jnp.float32(0.75),
}
STEPS = [0, 1, 2, 3, 4, 1023, 1024, 1500]


def expected(schedule, step):
    value = np.asarray(schedule(step), np.float32)
    return np.array([value, 1 - value]) if value.ndim == 0 else value


@pytest.mark.parametrize("name", PLAIN)
def test_a_plan_and_known_steps_take_it(name):
    schedule = PLAIN[name]
    plan = jaxmix.MixPlan(schedule, 8)
    for step in STEPS:
        np.testing.assert_allclose(plan.weights_at(step), expected(schedule, step), atol=1e-7)
        assert plan.counts(step).sum() == 8
    for step in (0, np.uint32(3), jnp.int32(4)):
        np.testing.assert_array_equal(
            jaxmix.weights_at(step, schedule), expected(schedule, int(step))
        )
    values = [np.asarray(schedule(t), np.float32) for t in range(5)]
    np.testing.assert_array_equal(jaxmix.tabulate(schedule, 5), values)


def _mapped(step, weights):
    return jax.vmap(lambda step: jaxmix.weights_at(step, weights))(jnp.array([step]))


@pytest.mark.parametrize("name", PLAIN)
def test_inside_jit_one_sentence_says_what_to_use(name):
    schedule = PLAIN[name]
    message = (
        r"schedule must be written with jax\.numpy to run inside jit, got plain Python in <lambda> "
        r"\(test_plain_python\.py:\d+\): use jnp\.where, jaxmix\.staged_schedule or "
        r"jaxmix\.table_schedule \(a MixPlan takes it as it is\)"
    )
    for weights in (schedule, jaxmix.nest_schedules(0.5, schedule, [1.0])):
        for function in (jax.jit(jaxmix.weights_at, static_argnums=1), _mapped):
            with pytest.raises(TypeError) as raised:
                function(3, weights)
            assert re.fullmatch(message, str(raised.value))
    known = jax.jit(lambda x: x * jaxmix.weights_at(3, schedule))(1.0)  # a step that is known
    np.testing.assert_array_equal(known, expected(schedule, 3))


def test_other_schedules_take_it_in_a_plan():
    gamma, heat = PLAIN["if"], lambda t: 1.0 if t < 3 else 2.0
    cosine = jaxmix.cosine_schedule(0.0, 1.0, 10)
    cases = {
        jaxmix.stack_schedules(gamma, cosine, 0.5): lambda t: [gamma(t), cosine(t), 0.5],
        jaxmix.nest_schedules(gamma, [1.0], cosine): lambda t: [
            gamma(t),
            (1 - gamma(t)) * cosine(t),
            (1 - gamma(t)) * (1 - cosine(t)),
        ],
        jaxmix.complement_schedule(gamma): lambda t: [1 - gamma(t), gamma(t)],
        jaxmix.clip_schedule(gamma, 0.0, 0.75): lambda t: [min(gamma(t), 0.75), 0.25 + (t > 2) / 4],
        jaxmix.token_share_schedule(gamma, [1.0, 3.0]): lambda t: [gamma(t), (1 - gamma(t)) / 3],
        jaxmix.temperature_schedule([9.0, 1.0], heat): lambda t: [9 ** (1 / heat(t)), 1],
        jaxmix.rescale_schedule(gamma, 2): lambda t: [gamma(t / 2), 1 - gamma(t / 2)],
    }
    for schedule, reference in cases.items():
        plan = jaxmix.MixPlan(schedule, 8)
        for step in (0, 2, 3, 5, 6, 1030):
            want = np.asarray(reference(step), np.float64)
            np.testing.assert_allclose(plan.weights_at(step), want / want.sum(), atol=1e-6)
        alone = jaxmix.weights_at(5, schedule)
        np.testing.assert_allclose(alone, plan.weights_at(5), atol=1e-7)
    np.testing.assert_array_equal(
        jaxmix.complement_schedule(gamma)(np.arange(6).reshape(2, 3)),
        [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]],
    )


def test_a_plan_asks_each_step_once_while_a_block_is_in_use():
    asked = []

    def gamma(step):
        asked.append(step)
        return 0.5 if step < 10 else 0.25

    plan = jaxmix.MixPlan(gamma, 4)
    before = len(asked)
    assert before == 1 + 1024 and all(type(step) is int for step in asked[1:])
    for step in range(100):
        plan.counts(step)
        plan.weights_at(step)
    plan.state(7)
    assert len(asked) == before
    for step in (1500, 7, 1600, 8):  # to and fro between two blocks
        plan.weights_at(step)
    assert len(asked) == before + 1024


def test_a_table_that_ends_is_an_error_only_where_its_end_is_reached():
    short = [0.25] * 50
    plan = jaxmix.MixPlan(lambda step: short[step], 8)
    assert plan.counts(49).tolist() == [2, 6]
    state = plan.state(49)
    with pytest.raises(IndexError, match="list index out of range") as raised:
        plan.counts(50)
    assert any("at step 50" in note for note in raised.value.__notes__)
    assert jaxmix.MixPlan(0.5, 8, state=state).cursors(49).tolist() == [98, 294]
    late = {step: 0.5 for step in range(40, 2000)}  # nothing for the steps before the plan's own
    edited = jaxmix.MixPlan(lambda step: late[step], 8, state=plan.state(40))
    assert edited.counts(40).tolist() == [4, 4]
    nested = jaxmix.MixPlan(jaxmix.stack_schedules(lambda step: short[step], 0.75), 8)
    assert nested.counts(49).tolist() == [2, 6]
    with pytest.raises(IndexError, match="list index out of range"):
        nested.counts(50)


def test_other_shapes_later_on_are_refused_at_their_step():
    plan = jaxmix.MixPlan(lambda t: [0.5, 0.5] if t < 9 else [0.5, 0.25, 0.25], 8)
    assert plan.counts(8).tolist() == [4, 4]
    with pytest.raises(ValueError, match=r"weights at step 9 must be .* as at other steps"):
        plan.counts(9)
    with pytest.raises(ValueError, match=r"a schedule's values must be of one shape, got"):
        jaxmix.tabulate(lambda t: 0.5 if t < 3 else [0.5, 0.5], 5)


def test_the_error_of_the_users_own_code_is_what_is_raised():
    def broken(step):
        return 1.0 if step < 5 else missing_name  # noqa: F821

    assert jaxmix.MixPlan(broken, 8).counts(4).tolist() == [8, 0]
    with pytest.raises(NameError, match="missing_name"):
        jaxmix.MixPlan(broken, 8).counts(5)
    for call in (
        lambda f: jaxmix.MixPlan(f, 8),
        lambda f: jaxmix.weights_at(0, f),
        lambda f: jax.jit(lambda t: jaxmix.weights_at(t, f))(0),
    ):
        with pytest.raises(ZeroDivisionError) as raised:
            call(lambda step: 1 / 0)
        assert any("raised by the schedule <lambda>" in note for note in raised.value.__notes__)


class Gamma:
    def __call__(self, step):
        return 0.5


@pytest.mark.parametrize(
    ("schedule", "error", "message"),
    [
        (lambda t: None, TypeError, "a real number or an array .*, got None from <lambda>"),
        (lambda t: {"a": 1}, TypeError, r"a real number or an array .*, got \{'a': 1\} from"),
        (lambda t: "half", TypeError, "a real number or an array .*, got 'half' from"),
        (lambda t: 1j, TypeError, "a real number or an array .*, got 1j from"),
        (lambda t: jnp.complex64(1j), TypeError, "a real number or an array .*, got"),
        (lambda t: True, TypeError, "a real number or an array .*, got True from"),
        (lambda t: [0.5, None], TypeError, r"a real number or an array .*, got \[0.5, None\] from"),
        (lambda t: jnp.zeros(0), ValueError, r"got one of shape \(0,\) from <lambda>"),
        (
            lambda t: optax.constant_schedule(0.5),
            TypeError,
            "got a function from <lambda> .*: c",
        ),
        (lambda t, total: 0.5, TypeError, r"take one argument, the step, got .*\(t, total\): bind"),
        (Gamma, TypeError, "got the class Gamma: pass an instance of it"),
        (optax.linear_schedule, TypeError, "got linear_schedule itself: call it"),
        (optax.constant_schedule, TypeError, "got constant_schedule itself: call it"),
        (jaxmix.cosine_schedule, TypeError, "got cosine_schedule itself: call it"),
        (jaxmix.dann_schedule, TypeError, "got dann_schedule itself: call it"),
        (jaxmix.stack_schedules, TypeError, "got stack_schedules itself: call it"),
        (
            optax.schedules.WrappedSchedule(optax.constant_schedule(0.5)),
            TypeError,
            r"got WrappedSchedule, which keeps a state \(it has init and update\): pass",
        ),
    ],
)
def test_what_is_no_schedule_is_named(schedule, error, message):
    for call in (
        lambda: jaxmix.weights_at(0, schedule),
        lambda: jax.jit(lambda t: jaxmix.weights_at(t, schedule))(0),
        lambda: jaxmix.MixPlan(schedule, 8),
        lambda: jaxmix.tabulate(schedule, 3),
    ):
        with pytest.raises(error, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)
    if not isinstance(schedule, type(lambda: 0)) or schedule.__name__ != "<lambda>":
        for made in (
            lambda: jaxmix.complement_schedule(schedule),
            lambda: jaxmix.stack_schedules(schedule, 0.5),
            lambda: jaxmix.nest_schedules(schedule, [1.0], [1.0]),
            lambda: jaxmix.token_share_schedule(schedule, [1.0, 2.0]),
            lambda: jaxmix.temperature_schedule([1.0, 2.0], schedule),
            lambda: jaxmix.rescale_schedule(schedule, 2),
        ):
            with pytest.raises(error, match=message):
                made()


def test_what_is_no_weights_at_all_is_shown():
    transformation = optax.inject_hyperparams(optax.sgd)(learning_rate=optax.constant_schedule(0.5))
    for weights in ({}, {"a": 0.5}, {0.5}, [[0.5], [0.5, 0.5]], transformation, object()):
        calls = [lambda w: jaxmix.weights_at(0, w)]
        if not isinstance(weights, dict):  # a plan takes weights by name
            calls.append(lambda w: jaxmix.MixPlan(w, 8))
        for call in calls:
            with pytest.raises(TypeError, match="weights must be a number, an array") as raised:
                call(weights)
            assert len(str(raised.value)) < 500
