"""Names: what is given by name is matched by name, in plans, states, sources and lengths."""

import json
import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmix
from jaxmix import MixPlan, PlanSource, preview
from jaxmix.testing import assert_conserves, assert_resumes

GAMMA = optax.linear_schedule(0.2, 0.6, 500)
MIX = {"web": 0.5, "code": 0.3, "books": 0.2}


def falling(step):
    return 1.0 - GAMMA(step)


def again(plan, step, weights, **options):
    return MixPlan(
        weights, plan.batch_size, state=json.loads(json.dumps(plan.state(step))), **options
    )


def same_rows(one, other, steps):
    return all(
        (a == b).all()
        for step in steps
        for a, b in zip(one.rows(step), other.rows(step), strict=True)
    )


def test_names_are_those_given_or_numbers():
    assert MixPlan(0.5, 4).names == ("0", "1")
    assert MixPlan([0.5, 0.3, 0.2], 4, names=["x", "y", "z"]).names == ("x", "y", "z")
    assert MixPlan(GAMMA, 4, names=("x", "y")).names == ("x", "y")
    assert MixPlan(MIX, 4).names == ("books", "code", "web")
    assert MixPlan(MIX, 4, names=["web", "code", "books"]).weights.round(9).tolist() == [
        0.5,
        0.3,
        0.2,
    ]


@pytest.mark.parametrize("mix", [MIX, {"web": GAMMA, "code": falling}])
def test_the_order_of_a_dict_changes_no_row(mix):
    plan, other = MixPlan(mix, 12), MixPlan(dict(reversed(mix.items())), 12)
    assert same_rows(plan, other, (0, 5, 1030))
    assert plan.digest(1100) == other.digest(1100) and plan.state(99) == other.state(99)
    data = {name: 1000 * k + np.arange(700) for k, name in enumerate(mix)}
    feeds = [PlanSource(plan, data, 50), PlanSource(other, dict(reversed(data.items())), 50)]
    in_order = MixPlan(mix, 12, names=plan.names)
    feeds.append(PlanSource(in_order, [data[name] for name in plan.names], 50))
    rows = [feed[30]["rows"].tolist() for feed in feeds]
    assert rows[0] == rows[1] == rows[2]
    lengths = {name: 40 + k for k, name in enumerate(mix)}
    by_place = [lengths[name] for name in plan.names]
    assert plan.runs_out_at(90, lengths) == in_order.runs_out_at(90, by_place)
    seen = preview(plan, 90, lengths=lengths), preview(in_order, 90, lengths=by_place)
    assert seen[0].epochs == seen[1].epochs


def test_numbers_and_schedules_by_name_are_the_weights():
    plan = MixPlan({"b": GAMMA, "a": falling}, 30)
    array = MixPlan(lambda step: jnp.stack([falling(step), GAMMA(step)]), 30)
    assert (plan.counts_table(0, 1100) == array.counts_table(0, 1100)).all()
    assert_conserves(plan, 300)
    assert_resumes(plan, 100)
    part = MixPlan(
        {"a": 0.5, "b": optax.linear_schedule(0.5, 0.1, 99), "c": 0.0}, 8, normalize=True
    )
    late = np.array([0.5, 0.1, 0.0]) / 0.6
    np.testing.assert_allclose(part.weights_at(200), late, rtol=1e-7)
    np.testing.assert_allclose(jaxmix.weights_at(200, part.weights), late, rtol=1e-6)


def test_weights_of_any_sum_are_normalised_only_where_that_is_asked_for():
    tokens = {"web": 6e12, "code": 3e12, "books": 1e12}
    plan = MixPlan(tokens, 10, normalize=True)
    assert plan.counts_table(0, 20).sum(axis=0).tolist() == [20, 60, 120]
    assert same_rows(plan, MixPlan([0.1, 0.3, 0.6], 10), range(9))
    with pytest.raises(ValueError, match=r"got 10000000000000\.0: .* normalize=True"):
        MixPlan(tokens, 10)
    with pytest.raises(ValueError, match=r"of sum 1 \(within 0\.0001\), got 0\.75"):
        MixPlan([0.5, 0.25], 10)
    with pytest.raises(ValueError, match="weights must be of a positive sum, got 0"):
        MixPlan([0.0, 0.0], 10, normalize=True)
    with pytest.raises(ValueError, match="weights at step 0 must be"):
        MixPlan({"a": lambda step: 2.0 + 0.0 * step, "b": 3.0}, 10)
    moving = MixPlan(lambda step: jnp.array([1.0, 2.0, 5.0]) * (1.0 + step), 8, normalize=True)
    assert moving.counts(500).tolist() == [1, 2, 5]
    with pytest.raises(ValueError, match="weights at step 3 must be"):
        MixPlan(lambda step: jnp.array([3.0, 3.0, 3.0]) - step, 8, normalize=True).counts(3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MixPlan(MIX, 4, names=["web", "code"]), r"missing \[\], unknown \['books'\]"),
        (lambda: MixPlan(MIX, 4, names=["web", "code", "x"]), r"missing \['x'\], unknown \['bo"),
        (lambda: MixPlan({}, 4), "weights must be of at least one source"),
        (lambda: MixPlan({1: 0.5, 2: 0.5}, 4), "the names of weights must be strings"),
        (lambda: MixPlan({"a": [0.5], "b": 0.5}, 4), r"weights\['a'\] must be a number"),
        (lambda: MixPlan({"a": -0.5, "b": 1.5}, 4), r"weights\['a'\] must be in \[0, inf\)"),
        (lambda: MixPlan(0.5, 4, names=["a"]), r"names must be 2 different names, got \['a'\]"),
        (lambda: MixPlan(0.5, 4, names=["a", "a"]), "names must be 2 different names"),
        (lambda: MixPlan(0.5, 4, names="ab"), "names must be a sequence of names"),
        (lambda: MixPlan(0.5, 4, normalize=True), "weights must be an array"),
        (lambda: MixPlan(0.5, 4, normalize=1), "normalize must be True or False"),
        (lambda: MixPlan(MIX, 4).runs_out_at(9, {"web": 3}), r"missing \['books', 'code'\]"),
        (
            lambda: MixPlan(0.5, 4).runs_out_at(9, {"0": 3, "1": 4}),
            "the sources of the plan have no names",
        ),
        (lambda: MixPlan(0.5, 4).state(9, lengths={"0": 3, "1": 4}), "have no names"),
        (
            lambda: PlanSource(MixPlan(MIX, 4), {"web": [1], "code": [2], "book": [3]}, 9),
            r"sources must be for the sources \['books', 'code', 'web'\], got \['web', 'code', "
            r"'book'\]: missing \['books'\], unknown \['book'\]",
        ),
        (lambda: PlanSource(MixPlan(0.5, 4), {"0": [1], "1": [2]}, 9), "have no names"),
        (lambda: MixPlan({"a": lambda t: jnp.ones(2), "b": 0.5}, 4), "a schedule of scalars"),
    ],
)
def test_wrong_names_are_refused_with_both_lists(build, message):
    with pytest.raises((ValueError, TypeError), match=message) as refused:
        build()
    assert len(str(refused.value)) < 1500


def test_thousands_of_long_names_make_a_short_message():
    many = {f"{'x' * 300}{k}": 1.0 for k in range(5000)}
    with pytest.raises(ValueError, match="missing") as refused:
        MixPlan(many, 8, normalize=True).runs_out_at(9, {"x": 3})
    assert len(str(refused.value)) < 1500
    assert len(repr(MixPlan(many, 8, normalize=True))) < 1500


def test_sources_continue_by_name_when_moved_added_dropped_and_brought_back():
    """Ten edits in random order: by the sets of rows of each name, none skipped, none repeated."""
    rng = np.random.default_rng(7)
    names = ["web", "code", "books", "maths", "wiki"]
    seen = {name: [] for name in names}
    plan, step = MixPlan({"web": 0.5, "code": 0.5}, 7, seed=3), 0
    for _ in range(12):
        end = step + int(rng.integers(1, 700))
        for at in range(step, end):
            rows = plan.rows(at)
            for k, i in zip(rows.source.tolist(), rows.position.tolist(), strict=True):
                seen[plan.names[k]].append(i)
        step = end
        chosen = [plan.names[0], *rng.permutation([n for n in names if n != plan.names[0]])]
        chosen = rng.permutation(chosen[: int(rng.integers(1, 6))]).tolist()
        weights = {name: float(rng.integers(0, 4)) for name in chosen}
        weights[chosen[0]] += 1.0
        size, group = int(rng.integers(1, 20)), int(rng.integers(1, 4))
        state = json.loads(json.dumps(plan.state(step)))
        old = dict(zip(plan.names, plan.cursors(step).tolist(), strict=True))
        plan = MixPlan(weights, size * group, normalize=True, group_size=group, state=state)
        assert plan.names == tuple(sorted(chosen)) and plan.first_step == step
        for name, cursor in zip(plan.names, plan.cursors(step).tolist(), strict=True):
            assert cursor == len(seen[name]) == old.get(name, cursor)
        assert_conserves(plan, step + 40, max_error=3.0 * group)
        assert plan.rows_before(step) == sum(map(len, seen.values()))
    assert all(sorted(rows) == list(range(len(rows))) for rows in seen.values())
    assert sum(map(bool, seen.values())) == 5


def test_a_source_that_comes_back_continues_where_it_was():
    plan = MixPlan({"a": 0.5, "b": 0.5}, 10)
    alone = again(plan, 100, {"a": 1.0})
    both = again(alone, 200, {"b": 0.25, "a": 0.75})
    assert alone.cursors(200).tolist() == [1500]
    assert dict(zip(both.names, both.cursors(200).tolist(), strict=True)) == {"a": 1500, "b": 500}
    assert alone.state(200)["away"] == {"b": [500, None]} and not both.state(200)["away"]


def test_only_moved_sources_go_on_as_if_nothing_happened():
    plan = MixPlan(MIX, 10)
    moved = again(plan, 1500, dict(reversed(MIX.items())))
    assert moved.digest(3000) == again(plan, 1500, MIX).digest(3000)
    assert (moved.counts_table(1500, 3000) == plan.counts_table(1500, 3000)).all()
    placed = again(plan, 1500, [0.2, 0.5, 0.3], names=["books", "web", "code"])
    order = [plan.names.index(name) for name in placed.names]
    assert (placed.cursors(1500) == plan.cursors(1500)[order]).all()


def test_a_state_of_other_sources_is_refused_with_both_lists():
    named, plain = MixPlan(MIX, 10), MixPlan([0.5, 0.3, 0.2], 10)
    lists = r"\['books', 'code', 'web'\].*got \['a', 'b', 'c'\]"
    with pytest.raises(ValueError, match=lists):
        again(named, 9, {"a": 0.5, "b": 0.3, "c": 0.2})
    with pytest.raises(ValueError, match=r"\['books', 'code', 'web'\].*got \['0', '1', '2'\]"):
        again(named, 9, [0.5, 0.3, 0.2])
    with pytest.raises(ValueError, match=r"\['0', '1', '2'\].*got \['books', 'code', 'web'\]"):
        again(plain, 9, MIX)
    with pytest.raises(ValueError, match="weights must be for the 3 sources of `state` or more"):
        again(plain, 9, [0.5, 0.5])
    renamed = {**plain.state(9), "names": ["books", "code", "web"]}  # as the message says
    assert MixPlan(MIX, 10, state=renamed).cursors(9).tolist() == plain.cursors(9).tolist()


def test_another_length_in_place_is_refused_unless_it_is_said_to_have_changed():
    plan = MixPlan({"a": 0.5, "b": 0.5}, 10)
    state = json.loads(json.dumps(plan.state(100, lengths={"b": 700, "a": 300})))
    assert state["lengths"] == [300, 700]
    again_ = MixPlan({"a": 0.5, "b": 0.5}, 10, state=state)
    data = {"a": np.arange(300), "b": np.arange(700)}
    grown = {**data, "b": np.arange(701)}
    PlanSource(again_, data, 200)
    assert again_.state(150) == plan.state(150, lengths=[300, 700])  # it stays known
    message = r"the length of source 'b' must be 700, as in `state`, got 701 .*resized=\['b'\]"
    for refused in (
        lambda: PlanSource(again_, grown, 200),
        lambda: preview(again_, 200, lengths={"a": 300, "b": 701}),
        lambda: again_.runs_out_at(200, [300, 701]),
        lambda: again_.state(150, lengths=[300, 701]),
    ):
        with pytest.raises(ValueError, match=message):
            refused()
    said = MixPlan({"a": 0.5, "b": 0.5}, 10, state=state, resized=["b"])
    assert PlanSource(said, grown, 200)[150]["rows"].shape == (10,)
    assert said.state(150)["lengths"] == [300, None]
    alone = MixPlan({"a": 1.0}, 10, state=state)
    back = MixPlan({"a": 0.5, "b": 0.5}, 10, state=alone.state(300))
    with pytest.raises(ValueError, match=message):  # a length is kept while its source is away
        PlanSource(back, grown, 400)
    with pytest.raises(ValueError, match=r"resized must be names of \['a', 'b'\], got \['c'\]"):
        MixPlan({"a": 0.5, "b": 0.5}, 10, state=state, resized=["c"])
    with pytest.raises(ValueError, match=r"resized must be names of"):
        MixPlan({"a": 0.5, "b": 0.5}, 10, state=state, resized="aaa b")


@pytest.mark.parametrize(
    "changed",
    [
        {"names": ["books", "code"]},
        {"names": ["books", "code", "code"]},
        {"names": "abc"},
        {"lengths": [1, 2]},
        {"lengths": [1, 2, 0]},
        {"lengths": [1, 2, True]},
        {"lengths": None},
        {"group_size": 0},
        {"away": []},
        {"away": {"web": [1, None]}},
        {"away": {"old": [-1, None]}},
        {"away": {"old": [True, None]}},
        {"away": {"old": [1]}},
        {"away": {"old": [1, 0]}},
    ],
)
def test_a_state_that_was_changed_by_hand_is_refused(changed):
    state = MixPlan(MIX, 4).state(30)
    assert MixPlan(MIX, 4, state=state).first_step == 30
    with pytest.raises((ValueError, TypeError), match=r"state\[|names"):
        MixPlan(MIX, 4, state={**state, **changed})


def test_what_is_owed_stays_within_the_bound_when_sources_leave():
    rng = np.random.default_rng(1)
    for count in (2, 3, 6):
        names = [f"s{k}" for k in range(count + 1)]
        mix = dict(zip(names, rng.dirichlet(np.ones(count + 1)), strict=True))
        plan = MixPlan(mix, 3, normalize=True)
        for step in range(1, 60):
            left = {name: mix[name] for name in names if name != names[step % count]}
            edited = again(plan, step, left, normalize=True)
            state = edited.state(step)
            assert sum(state["carry"]) == 0
            assert max(map(abs, state["carry"])) <= (0.5 if count == 2 else 3) * 2**52
            counts = edited.counts_table(step, step + 9)
            assert counts.min() >= 0 and (counts.sum(axis=1) == 3).all()


def test_names_are_in_what_is_shown():
    plan = MixPlan(MIX, 8)
    assert repr(plan) == ("MixPlan(['books', 'code', 'web'], batch_size=8, seed=0, first_step=0)")
    assert "books" in plan._repr_html_()
    assert preview(plan, 9).names == ["books", "code", "web"]
    seen = preview(plan, 90, lengths={"web": 10**6, "code": 10**6, "books": 20})
    assert seen.warnings[0].startswith("books runs out at step")
    other = preview(plan, 90, names={"web": "Web", "code": "Code", "books": "Books"})
    assert other.names == ["Books", "Code", "Web"]


def test_weights_at_are_whole_units_by_name():
    plan = MixPlan({"x": 1 / 3, "y": 2 / 3}, 3)
    assert math.isclose(float(plan.weights_at(0)[0]), 1 / 3, rel_tol=1e-15)


def test_a_list_beside_a_dict_that_was_sorted_is_refused_not_swapped():
    plan = MixPlan({"web": 0.9, "code": 0.1}, 10)
    assert plan.names == ("code", "web")
    web, code = np.arange(100), 1000 + np.arange(100)
    for call in (
        lambda: jaxmix.PlanSource(plan, [web, code], 5),
        lambda: jaxmix.PlanStream(plan, [web, code], 5),
        lambda: jaxmix.PlannedPool(plan, web, code, num_steps=5),
        lambda: plan.runs_out_at(5, [100, 100]),
        lambda: plan.state(3, lengths=[100, 100]),
        lambda: jaxmix.preview(plan, 5, lengths=[100, 100]),
        lambda: jaxmix.PlanSelectionMap(plan, 5),
    ):
        with pytest.raises(ValueError, match=r"names=\[...\]"):
            call()
    by_name = jaxmix.PlanSource(plan, {"web": web, "code": code}, 5)[0]["rows"]
    assert (by_name < 1000).sum() == 9
    in_order = MixPlan({"web": 0.9, "code": 0.1}, 10, names=["web", "code"])
    assert (jaxmix.PlanSource(in_order, [web, code], 5)[0]["rows"] < 1000).sum() == 9
    sorted_already = MixPlan({"code": 0.1, "web": 0.9}, 10)
    assert (jaxmix.PlanSource(sorted_already, [code, web], 5)[0]["rows"] < 1000).sum() == 9
