"""Preview: what it says of a plan is what the plan then does, and it warns of what is not meant."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmix
from jaxmix import MixPlan, preview
from jaxmix._plan import ledger

STAGED = jaxmix.staged_schedule(
    {0: [0.9, 0.1, 0.0, 0.0], 40: [0.0, 0.5, 0.5, 0.0], 1500: [0.0, 0.0, 0.999, 0.001]}
)
PLANS = {
    "gamma": MixPlan(jaxmix.cosine_schedule(0.8, 0.1, 900), 8, seed=3),
    "constant": MixPlan([0.5, 0.3, 0.2], 5),
    "staged": MixPlan(STAGED, 16),
    "from a state": MixPlan(STAGED, 16, state=MixPlan([0.5, 0.5], 32).state(777)),
    "gone on with": MixPlan(STAGED, 16, state=MixPlan(STAGED, 16).state(777)),
}


@pytest.mark.parametrize("more", [1, 30, 1024, 1025, 3000])
@pytest.mark.parametrize("name", PLANS)
def test_it_says_what_the_plan_then_does(name, more):
    plan = PLANS[name]
    first, stop = plan.first_step, plan.first_step + more
    seen = preview(plan, stop, lengths=[300] * plan.num_sources)
    table = plan.counts_table(first, stop)
    assert seen.rows == table.sum(axis=0).tolist()
    np.testing.assert_allclose(seen.share, table.sum(axis=0) / table.sum())
    for k in range(plan.num_sources):
        used = first + np.flatnonzero(table[:, k])
        assert seen.first_used[k] == (used[0] if used.size else None)
        assert seen.last_used[k] == (used[-1] if used.size else None)
        ends = plan.cursors(first)[k] + table[:, k].cumsum()
        assert seen.epochs[k] == ends[-1] / 300
        over = first + np.flatnonzero((ends > 300) & (table[:, k] > 0))
        assert seen.runs_out[k] == (over[0] if over.size else None)
    assert seen.steps[0] == first and len(seen.steps) == min(more, 500)
    weights = np.array([plan.weights_at(step) for step in range(first, stop)])
    stretches = np.split(weights, seen.steps[1:] - first)
    wanted = [stretch.mean(axis=0) for stretch in stretches]
    np.testing.assert_allclose(seen.weights, wanted, rtol=1e-12)


def test_the_printed_table_has_a_line_a_source_and_a_line_a_warning():
    text = repr(preview(PLANS["staged"], 40, names=["web", "code", "books", "maths"]))
    assert text.splitlines() == [
        "Steps 0 to 39, 16 rows each: 640 rows",
        "source  rows   share  first used  last used",
        "web      576  90.0 %           0         39",
        "code      64  10.0 %           0         39",
        "books      0   0.0 %           -          -",
        "maths      0   0.0 %           -          -",
        "! books gives no rows: its weight is 0 in all steps",
        "! maths gives no rows: its weight is 0 in all steps",
    ]


def warnings(weights, num_steps, **options):
    return preview(MixPlan(weights, 10), num_steps, **options).warnings


def test_a_source_without_rows_is_named():
    assert warnings([0.7, 0.3], 50) == []
    assert warnings([1.0, 0.0], 50, names=["x", "y"]) == [
        "y gives no rows: its weight is 0 in all steps"
    ]
    assert warnings([1.0 - 1e-6, 1e-6], 50) == [
        "1 gives no rows: its weight is at most 1e-06 in all steps"
    ]
    blip = {0: [0.5, 0.5, 0.0], 1003: [0.5, 0.499, 0.001], 1063: [0.5, 0.5, 0.0]}
    told = preview(MixPlan(jaxmix.staged_schedule(blip), 8), 100_000, names=["x", "y", "z"])
    assert told.warnings[0] == "z gives no rows: its weight is at most 0.001 in all steps"


def test_a_source_that_runs_out_is_named():
    assert warnings([0.5, 0.5], 50, lengths=[250, 250]) == []
    assert warnings([0.5, 0.5], 50, names=["x", "y"], lengths=[249, 1000]) == [
        "x runs out at step 49: its rows are used again, 1.004 epochs in all"
    ]
    later = MixPlan(0.5, 10, state=MixPlan(0.5, 10).state(100))
    assert preview(later, 200, lengths=[300, 5000]).warnings == [
        "0 ran out before step 100: its rows are used again, 3.333 epochs in all"
    ]


def test_a_source_used_up_just_before_the_first_step_runs_out_there():
    later = MixPlan(0.5, 10, state=MixPlan(0.5, 10).state(100))
    told = preview(later, 110, lengths=[500, 499]).warnings
    assert [text.split(":")[0] for text in told] == [
        "0 runs out at step 100",
        "1 ran out before step 100",
    ]


TWICE_THERE = jaxmix.staged_schedule({0: 0.9, 100: 0.5, 200: 0.9, 300: 0.5, 1000: 0.9})
CYCLES = (33, 100, 341, 1000, 1023, 1024, 5000, 10_000)


def falling(step):
    """It goes on for ever, to no end."""
    return 0.5 + 0.4 * jnp.cos(jnp.asarray(step, jnp.float32))


def broken_at_1024(step):
    return jnp.where(step == 1024, jnp.nan, jnp.array([0.5, 0.3, 0.2]))


def broken_later(step):
    return jnp.where(step < 10_000, jnp.asarray(step, jnp.float32) / 20_000 + 0.1, jnp.nan)


@pytest.mark.parametrize(
    ("weights", "num_steps", "said"),
    [
        (optax.linear_schedule(0.1, 0.9, 1200), 1000, "ends at gamma = 0.9, but the run stops"),
        (optax.linear_schedule(0.1, 0.9, 1200), 1190, "0.9, but the run stops after step 1,189"),
        (optax.linear_schedule(0.9, 0.1, 1200), 601, "ends at gamma = 0.1, but the run stops"),
        (optax.linear_schedule(0.1, 0.9, 1200), 1200, None),
        (optax.linear_schedule(0.1, 0.9, 1200), 5000, None),
        (jaxmix.staged_schedule({0: 0.9, 5: 0.5, 900: 0.9}), 800, "after step 799 at gamma = 0.5"),
        (TWICE_THERE, 250, None),  # it stands at its end when the run stops
        (jaxmix.cyclical_schedule(0.1, 0.9, 4000, num_cycles=20), 8000, None),
        *((jaxmix.cyclical_schedule(0.1, 0.9, cycle), 99, None) for cycle in CYCLES),
        # These creep up to an end for ever; floats end it.
        (jaxmix.inverse_sigmoid_schedule(20.0), 50, None),
        (optax.exponential_decay(0.9, 1000, 0.5), 5000, None),
        (lambda step: 0.1 + 0.8 / jnp.sqrt(1 + jnp.asarray(step, jnp.float32) / 100), 1000, None),
        (lambda step: 0.3 + 0.0 * jnp.asarray(step, jnp.float32), 50, None),
        (falling, 50, None),
        (broken_later, 50, None),
        (broken_later, 10_000, None),
        (broken_at_1024, 1024, None),
        (0.3, 50, None),
    ],
)
def test_a_run_that_stops_before_the_schedule_ends_is_told(weights, num_steps, said):
    found = [text for text in warnings(weights, num_steps) if "the schedule ends" in text]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


@pytest.mark.parametrize(
    "weights",
    [
        jaxmix.cosine_schedule(1.0, 0.0, 100),
        jaxmix.cosine_schedule(0.0, 1.0, 100),
        jaxmix.make_schedule(100, 0.9, 0.1, kind="cosine"),
        jaxmix.cyclical_schedule(0.1, 0.9, 50),
        optax.linear_schedule(0.9, 0.1, 71),
        0.3,
    ],
)
def test_a_usual_schedule_is_no_cause_for_a_warning(weights):
    assert warnings(weights, 101) == []


def edited(weights, before, step):
    return MixPlan(weights, 10, state=MixPlan(before, 10).state(step))


def test_weights_that_jump_at_an_edit_are_named():
    """A cosine of 100 steps made one of 200 at step 60: gamma jumps back."""
    for ends in ((1.0, 0.0), (0.0, 1.0)):
        old, longer = (jaxmix.cosine_schedule(*ends, steps) for steps in (100, 200))
        (told,) = preview(edited(longer, old, 60), 201).warnings
        before, after = float(old(59)), float(longer(60))
        assert told == (
            f"the weights jump at the edit, step 60: gamma = {before:.4g} before it, "
            f"gamma = {after:.4g} from it on"
        )
        assert preview(edited(old, old, 60), 101).warnings == []
    ramp = optax.linear_schedule(0.2, 0.4, 100)  # steps of 0.002
    shifted = {shift: lambda step, by=shift: ramp(step) + by for shift in (0.016, 0.02)}
    assert preview(edited(shifted[0.016], ramp, 50), 101).warnings == []
    assert len(preview(edited(shifted[0.02], ramp, 50), 101).warnings) == 1
    again = MixPlan(longer, 10, state=edited(longer, old, 60).state(60))
    assert (
        "jump at the edit, step 60" in preview(again, 201).warnings[0]
    )  # kept until a step is made


def test_a_jump_is_seen_by_name():
    old = MixPlan({"a": 0.5, "b": 0.5}, 10)
    moved = MixPlan([0.5, 0.5], 10, names=["b", "a"], state=old.state(30))
    assert preview(moved, 40).warnings == []
    more = MixPlan({"a": 0.5, "b": 0.3, "c": 0.2}, 10, state=old.state(30))
    assert preview(more, 40).warnings == [
        "the weights jump at the edit, step 30: [0.5, 0.5, 0] before it, [0.5, 0.3, 0.2] from it on"
    ]


def test_a_source_that_was_renamed_at_an_edit_is_asked_about():
    state = MixPlan({"a": 0.5, "b": 0.5}, 10).state(30)
    (text,) = preview(MixPlan({"a": 0.5, "bb": 0.5}, 10, state=state), 40).warnings[:1]
    assert text == (
        "bb begins at row 0, and b is only in the state: if a source was renamed, rename it "
        "in state['names'] too"
    )
    # A weight of the same size as that of the source that left is no gamma that stayed.
    assert (
        "[0.5, 0] before it, [0.5, 0.5] from it on"
        in preview(MixPlan({"a": 0.5, "bb": 0.5}, 10, state=state), 40).warnings[1]
    )
    for weights in ({"a": 1.0}, {"a": 0.5, "b": 0.3, "c": 0.2}):  # left, or joined: as asked for
        said = preview(MixPlan(weights, 10, state=state), 40).warnings
        assert not any("renamed" in text for text in said)


def test_a_run_as_long_as_the_transition_is_no_cause_for_a_warning():
    for steps in (50, 200):
        assert warnings(optax.linear_schedule(0.9, 0.1, steps), steps) == []
        assert len(warnings(optax.linear_schedule(0.9, 0.1, steps + 2), steps)) == 1


def test_many_weights_are_told_in_short():
    even, first = np.full(60, 1 / 60), np.eye(60)[0]
    late = jaxmix.staged_schedule({0: even, 500: first})
    (told,) = preview(MixPlan(late, 64), 300).warnings
    assert told == (
        "the schedule ends at weights of 0 to 1, but the run stops after step 299 at weights of "
        "0.0167 to 0.0167"
    )


def test_counts_are_worked_out_only_where_they_are_needed(monkeypatch):
    worked_out = []
    counts = ledger.block_counts
    monkeypatch.setattr(ledger, "block_counts", lambda *a: worked_out.append(1) or counts(*a))
    preview(MixPlan(STAGED, 16), 200_000)
    assert len(worked_out) <= 10


def test_bad_input_is_refused_with_its_name():
    plan = MixPlan([0.5, 0.3, 0.2], 4)
    for call, message in {
        lambda: preview(plan, 0): "num_steps must be >= 1",
        lambda: preview(plan, 5, names=["a", "b"]): "names must be 3 different names",
        lambda: preview(plan, 5, names=["a", "b", "b"]): "names must be 3 different names",
        lambda: preview(plan, 5, lengths=[1, 2]): "lengths must be 3 numbers",
        lambda: preview(plan, 5, lengths=[1, 2, 0]): "a length must be >= 1",
        lambda: preview(MixPlan(broken_later, 4), 20_000): "weights at step 10000 must be",
        lambda: preview(MixPlan(broken_later, 4), 10_001): "weights at step 10000 must be",
        lambda: preview(MixPlan(broken_at_1024, 4), 1500): "weights at step 1024 must be",
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
    for call, message in {
        lambda: preview([0.5, 0.5], 5): "plan must be a MixPlan",
        lambda: preview(plan, 5, names=5): "names must be a sequence of names, got 5",
        lambda: preview(plan, 5, names="abc"): "names must be a sequence of names, got 'abc'",
        lambda: preview(plan, 5, lengths=5): "lengths must be a sequence of numbers, got 5",
        lambda: preview(plan, 5, lengths={"a": 5}): "lengths must be a sequence, as the sources",
    }.items():
        with pytest.raises(TypeError, match=message):
            call()


def test_notebooks_get_tables_and_names_are_escaped():
    seen = preview(MixPlan([0.5, 0.5, 0.0], 4), 9, names=["<b>", "a & b", "c"], lengths=[9, 9, 9])
    html = seen._repr_html_()
    assert "<td>&lt;b&gt;</td>" in html and "<td>a &amp; b</td>" in html and "<b>" not in html
    assert html.count("<tr>") == 4 and "<p>&lt;b&gt; runs out at step 4" in html
    plan = MixPlan(np.full(35, 1 / 35), 64, seed=9)
    assert "<td>batch_size</td><td>64</td>" in plan._repr_html_()
    assert "<td>sources</td><td>35</td>" in plan._repr_html_()
    report = jaxmix.annealing_report(jaxmix.make_schedule(9, 0.25, 0.75), 9)
    assert "<td>direction</td><td>rising</td>" in report._repr_html_()
    assert "direction='rising'" in repr(report)


def test_a_mixed_batch_shows_shapes_not_numbers():
    x = {"image": jnp.zeros((8, 3)), "flag": jnp.zeros(8, bool)}
    shown = []

    def step(x):
        mixed = jaxmix.mix_rows(jax.random.key(0), 0, 0.5, x, x)
        shown.append(repr(mixed))
        return mixed

    with jax.transfer_guard("disallow_explicit"):
        text = repr(jax.jit(step)(x))
    rows = "{'flag': bool[8], 'image': float32[8, 3]}"
    assert text == f"MixedBatch(rows={rows}, source=int32[8], weights=float32[2])" == shown[0]
