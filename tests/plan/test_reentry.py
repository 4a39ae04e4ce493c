"""Plans under threads, signals, forks and pickles: the same rows, nothing lost, nothing stuck."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading

import cloudpickle
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmix
from jaxmix import MixPlan, PlanSelectionMap, PlanSource

GAMMA = optax.cosine_decay_schedule(0.9, 20_000, alpha=0.05)
MANY = jaxmix.temperature_schedule([1e6, 1e5, 1e4, 10.0], jaxmix.cosine_schedule(1.0, 5.0, 9000))
MAKE = {
    "two": lambda: MixPlan(GAMMA, {0: 12, 5000: 20}, seed=3),
    "four": lambda: MixPlan(MANY, 24, group_size=2),
    "fixed": lambda: MixPlan(np.arange(1.0, 8.0) / 28.0, 32),
}
STEPS = np.random.default_rng(5).integers(0, 12_000, 120).tolist()


def seen(plan, step):
    rows = plan.rows(step)
    return (
        rows.source.tolist(),
        rows.position.tolist(),
        plan.cursors(step).tolist(),
        plan.state(step),
    )


@pytest.fixture(scope="module")
def wanted():
    return {name: [seen(make(), step) for step in STEPS[:3]] for name, make in MAKE.items()} | {
        f"all {name}": [seen(plan, step) for step in STEPS]
        for name, plan in ((name, make()) for name, make in MAKE.items())
    }


@pytest.mark.parametrize("name", MAKE)
def test_sixteen_threads_ask_one_plan_in_another_order_each(name, wanted):
    plan, wrong = MAKE[name](), []
    assert wanted[name] == wanted[f"all {name}"][:3]

    def ask(thread):
        order = np.random.default_rng(thread).permutation(len(STEPS)).tolist()
        wrong.extend(at for at in order if seen(plan, STEPS[at]) != wanted[f"all {name}"][at])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=300)
    finally:
        sys.setswitchinterval(interval)
    assert not any(thread.is_alive() for thread in threads) and not wrong


@pytest.mark.parametrize("name", MAKE)
def test_a_signal_handler_may_ask_the_plan_that_it_interrupts(name, wanted):
    answers, plan = [], MAKE[name]()
    wanted = dict(zip(STEPS, wanted[f"all {name}"], strict=True))

    def handler(*_):
        step = STEPS[-1 - len(answers)]
        answers.append(seen(plan, step) == wanted[step])

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for turn, step in enumerate(STEPS[:25]):
            signal.setitimer(signal.ITIMER_REAL, 0.0002 * (1 + turn))
            while len(answers) <= turn:
                plan = MAKE[name]()  # its blocks are being made when the signal comes
                assert seen(plan, step) == wanted[step]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(answers) == 25 and all(answers)


def test_a_child_forked_while_other_threads_plan_is_not_stuck():
    code = """
    import os, threading, numpy as np
    from jaxmix import MixPlan
    plan = MixPlan(np.arange(1.0, 9.0) / 36.0, 64)
    wanted = [MixPlan(np.arange(1.0, 9.0) / 36.0, 64).cursors(t).tolist() for t in (9, 90_000)]
    stop = threading.Event()
    def work():
        step = 0
        while not stop.is_set():
            plan.rows(step)
            step += 1024
    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(25):
        child = os.fork()
        if child == 0:
            ok = [plan.cursors(t).tolist() for t in (9, 90_000)] == wanted
            os._exit(0 if ok else 1)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    """
    run = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    subprocess.run(run, check=True, timeout=120, env={**os.environ, "JAX_PLATFORMS": "cpu"})


@pytest.mark.parametrize("name", MAKE)
def test_a_plan_is_pickled_in_mid_run(name, wanted):
    plan = MAKE[name]()
    for at, step in enumerate(STEPS[:8]):
        assert seen(plan, step) == wanted[f"all {name}"][at]
        carried = plan if name != "two" else None  # optax's are closures
        copies = [copy.copy(plan), copy.deepcopy(plan), pickle.loads(cloudpickle.dumps(plan))]
        copies += [pickle.loads(pickle.dumps(carried))] if carried else []
        for other in copies:
            assert seen(other, STEPS[at + 1]) == wanted[f"all {name}"][at + 1]


FEED_SOURCES = [np.arange(50), np.arange(100, 190)]


def test_a_feed_by_plain_pickle_has_no_schedule_and_no_large_table():
    lambdas = MixPlan(lambda step: 0.5 + 0.0 * step, 2**24)
    sent = pickle.dumps(PlanSelectionMap(lambdas, 3))
    assert len(sent) < 100_000
    plan = MixPlan(GAMMA, {0: 8, 30: 16}, group_size=4)
    feed = PlanSource(plan, FEED_SOURCES, 50)
    other = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(feed))))
    for step in (0, 29, 30, 49):
        assert (other[step]["rows"] == feed[step]["rows"]).all()
    assert feed._plan is plan and plan.state(20)["step"] == 20  # the feed here keeps its schedule
    chosen = PlanSelectionMap(plan, 50)
    assert list(pickle.loads(pickle.dumps(chosen))) == list(chosen)


def test_what_a_worker_has_no_schedule_for_is_refused():
    feed = PlanSource(MixPlan(GAMMA, 8), FEED_SOURCES, 50)
    plan = pickle.loads(pickle.dumps(feed))._plan
    whole = MixPlan(GAMMA, 8)
    assert plan.weights is None and plan.digest(50) == whole.digest(50)
    assert plan.cursors(50).tolist() == whole.cursors(50).tolist()
    for ask in (plan.weights_at, plan.state):
        with pytest.raises(TypeError, match="must be called on the plan itself, got a worker"):
            ask(3)
    with pytest.raises(ValueError, match="step must be below 50, as sent to this process"):
        plan.rows(5000)


@pytest.mark.parametrize("batch_size", [255, 256, 65_535, 65_536, 65_537, 100_000, 131_071])
def test_the_table_that_is_sent_holds_whole_batches(batch_size):
    weights = jaxmix.staged_schedule({0: 1.0, 2: 0.25, 4: 0.0})
    plan = MixPlan(weights, batch_size)
    sent = pickle.loads(pickle.dumps(PlanSelectionMap(plan, 6)))._plan
    for step in range(6):
        assert (sent.counts(step) == plan.counts(step)).all()
        for name in ("source", "position"):
            assert (getattr(sent.rows(step), name) == getattr(plan.rows(step), name)).all()
        order = np.lexsort(plan.rows(step)[::-1])
        each = plan.rows(step).position[order]
        due = [
            np.arange(c, c + n) for c, n in zip(plan.cursors(step), plan.counts(step), strict=True)
        ]
        assert (each == np.concatenate(due)).all()


def test_a_lambda_is_refused_by_plain_pickle_with_what_to_do():
    plan = MixPlan(lambda step: 0.5 + 0.0 * step, 8)
    with pytest.raises(TypeError, match="a plan's schedule must be one that pickle can take"):
        pickle.dumps(plan)
    assert pickle.loads(cloudpickle.dumps(plan)).digest(99) == plan.digest(99)
    assert copy.deepcopy(plan).digest(99) == plan.digest(99)
    named = MixPlan({"a": jaxmix.cosine_schedule(0.9, 0.1, 99), "b": 0.5}, 8, normalize=True)
    size = len(pickle.dumps(named))
    pickle.dumps(PlanSelectionMap(named, 60_000))
    assert len(pickle.dumps(named)) < size + 50_000  # without the 120 kB that went to workers
    again = pickle.loads(pickle.dumps(named))
    assert again.names == named.names and again.digest(99) == named.digest(99)
    assert again.state(50) == named.state(50)


def test_a_spawned_process_gets_a_plan_by_plain_pickle():
    plan = MixPlan(MANY, {0: 12, 70: 24}, names=list("abcd"))
    code = "import sys, pickle; print(pickle.load(sys.stdin.buffer).digest(2000))"
    out = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(plan), capture_output=True, check=True
    )
    assert out.stdout.decode().strip() == plan.digest(2000)


@pytest.mark.parametrize("bad", [500, 1023, 1024, 1025, 2048])
@pytest.mark.parametrize("count", [2, 3])
def test_the_state_before_bad_weights_needs_none_of_them(bad, count):
    whole = np.full(count, 1.0 / count)
    array = lambda step: jnp.where(step < bad, whole, jnp.nan)  # noqa: E731
    gamma = lambda step: jnp.where(step < bad, 0.5, jnp.nan)  # noqa: E731
    plan = MixPlan(gamma if count == 2 else array, 8)
    state = plan.state(bad)
    assert sum(plan.cursors(bad)) == 8 * bad == sum(state["cursors"])
    edited = MixPlan(whole, 8, state=state)
    assert edited.cursors(bad).tolist() == plan.cursors(bad).tolist()
    for ask in (plan.counts, plan.rows, plan.weights_at):
        with pytest.raises(ValueError, match=f"weights at step {bad} must be"):
            ask(bad)
    for ask in (plan.state, plan.cursors):
        with pytest.raises(ValueError, match=f"weights at step {bad} must be"):
            ask(bad + 1)


def test_what_is_returned_may_be_changed_by_the_caller():
    plan = MixPlan([0.5, 0.3, 0.2], 10)
    before = [plan.counts(7).tolist(), plan.cursors(7).tolist(), plan.digest(2000)]
    for step in (0, 7, 1024):
        for array in (plan.counts(step), plan.cursors(step), plan.weights_at(step)):
            array += 1
        rows = plan.rows(step)
        rows.source[:] = 9
        rows.position[:] = 9
        plan.counts_table(0, 9)[:] = 9
    assert [plan.counts(7).tolist(), plan.cursors(7).tolist(), plan.digest(2000)] == before
