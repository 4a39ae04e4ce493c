"""What a plan refuses: a bad argument by its name, bad weights at their step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plan_cases import ids

import jaxmix
from jaxmix import MixPlan

STATE = MixPlan([0.5, 0.3, 0.2], 4, seed=1).state(1030)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MixPlan(0.5, 0), "batch_size must be >= 1, got 0"),
        (lambda: MixPlan(0.5, 2.0), "batch_size must be an integer"),
        (lambda: MixPlan(0.5, 2**25), "batch_size must be at most 2\\^24"),
        (lambda: MixPlan(1.5, 4), "weights must be in"),
        (lambda: MixPlan(float("nan"), 4), "weights must be in"),
        (lambda: MixPlan([0.5, 0.4], 4), "weights must be of sum 1"),
        (lambda: MixPlan([1.5, -0.5], 4), r"weights must be finite and in \[0, 1\]"),
        (lambda: MixPlan([[0.5, 0.5]], 4), "weights must be a number or an array"),
        (lambda: MixPlan("half", 4), "weights must be a number, an array"),
        (lambda: MixPlan(0.5, 4, seed=-1), "seed must be >= 0, got -1"),
        (lambda: MixPlan(0.5, 4, seed=2**32), "seed must be below 2\\^32"),
        (lambda: MixPlan(lambda step: 1.5, 4), "weights at step 0 must be in \\[0, 1\\], got 1.5"),
        (lambda: MixPlan(lambda step: jnp.ones((2, 2)) / 4, 4), "a number or an array"),
        (lambda: MixPlan([0.5, 0.5], 4, state=STATE), "weights must be for the 3 sources"),
        (lambda: MixPlan([0.5, 0.3, 0.2], 4, state=STATE, seed=2), "seed must be 1, as in `state`"),
        (lambda: MixPlan([0.5, 0.3, 0.2], 4, state=[1]), "state must be the dict"),
        (lambda: MixPlan([0.5, 0.3, 0.2], 4, state=STATE).rows(1029), "step must be in \\[1030, "),
        (lambda: MixPlan(0.5, 4).counts(-1), "step must be in"),
        (lambda: MixPlan(0.5, 4).counts(2**31), "step must be in"),
        (lambda: MixPlan(0.5, 4).counts(1.0), "step must be an integer"),
        (lambda: MixPlan(0.5, 4).rows(0, shard_count=3), "shard_count must be a divisor of B = 4"),
        (
            lambda: MixPlan(0.5, 4).rows(0, shard_index=2, shard_count=2),
            "shard_index must be below shard_count = 2, got 2",
        ),
        (
            lambda: MixPlan(0.5, 4).rows(0, shard_index=-1, shard_count=2),
            "shard_index must be >= 0",
        ),
        (lambda: MixPlan(0.5, 4).counts_table(3, 2), "stop must be >= 3"),
        (lambda: MixPlan(0.5, 4).runs_out_at(3, [1]), "lengths must be 2 numbers"),
        (lambda: jax.jit(lambda w: MixPlan(w, 4).counts(0))(0.5), "not traced"),
    ],
)
def test_bad_input_is_refused_with_its_name(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


@pytest.mark.parametrize("bad", [500, 1024, 1500])
def test_a_nan_is_refused_at_its_step_and_not_before(bad):
    plan = MixPlan(lambda step: jnp.where(step == bad, jnp.nan, 0.25), 8)
    assert plan.counts(bad - 1).sum() == 8 and len(plan.counts_table(0, bad)) == bad
    for step in (bad, bad + 1, bad + 5000):
        with pytest.raises(ValueError, match=f"weights at step {bad} must be .*nan"):
            plan.rows(step)
    go_on = MixPlan(0.25, 8, state=plan.state(bad - 1))
    assert ids(go_on, bad - 1, bad) == ids(plan, bad - 1, bad)


@pytest.mark.parametrize("weights", [[0.7, 0.2], [0.7, 0.2, 0.2], [0.7, 0.2, 0.1, 0.2]])
def test_weights_wrong_from_the_first_step_on_are_refused_by_name(weights):
    for step in (0, 1024, 1500):
        good = np.eye(len(weights))[0]
        stages = {0: good, step: weights}
        plan = MixPlan(jaxmix.staged_schedule(stages), 8) if step else None
        with pytest.raises(ValueError, match=f"weights at step {step} must be of sum 1"):
            MixPlan(jaxmix.staged_schedule(stages), 8).rows(step)
        if plan is not None:
            assert plan.counts(step - 1)[0] == 8
            state = plan.state(step - 1)
            with pytest.raises(ValueError, match=f"weights at step {step} must be of sum 1"):
                MixPlan(jaxmix.staged_schedule(stages), 8, state=state).counts_table(
                    step - 1, step + 1
                )


def test_a_schedule_may_be_no_weights_before_the_plan_begins():
    def late(step):
        return jnp.where(step < 700, jnp.nan, 0.25)

    plan = MixPlan(late, 8, state=MixPlan(0.5, 8).state(777))
    assert plan.weights_at(777)[0] == plan.weights_at(1023)[0] == 0.25
    assert plan.counts(800).tolist() == [2, 6]
