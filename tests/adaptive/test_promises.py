"""Every mixer: optax's form, fixed states, one compile, restored at any step, replayed, pure."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from adaptive_mixers import MIXERS, K
from compiles import counted_compiles

import jaxmix

KEY = jax.random.key(3)
NUM_STEPS = 40


@pytest.fixture(params=MIXERS)
def mixer(request):
    return MIXERS[request.param]


def seen_at(step):
    """Scores [K] and rows [K] of a step, a few of them missing."""
    key = jax.random.fold_in(KEY, step)
    scores = jax.random.normal(key, (K,)) + jnp.arange(K, dtype=jnp.float32)
    rows = jax.random.randint(jax.random.fold_in(key, 1), (K,), 0, 4)
    return jnp.where(scores > 3.5, jnp.nan, scores), rows


def stepped(mixer):
    """One compiled train step: the rows of the mix, then what the mixer makes of them."""
    batches = [jnp.arange(32) + 1000 * k for k in range(K)]

    @jax.jit
    def train_step(state, step):
        mixed = jaxmix.mix_rows(KEY, step, mixer(state), *batches)
        return mixer.update(state, *seen_at(step)), mixed.rows, mixed.weights

    return train_step


def test_it_is_a_stateful_schedule_of_optax(mixer):
    assert isinstance(mixer, optax.schedules.StatefulSchedule)
    assert mixer(mixer.init()).dtype == jnp.float32 and mixer(mixer.init()).shape == (K,)


def test_states_never_change_their_structure_and_are_arrays(mixer):
    state = mixer.init()
    later = jax.eval_shape(mixer.update, state, *seen_at(0))
    assert jax.tree.structure(later) == jax.tree.structure(state)
    for one, two in zip(jax.tree.leaves(state), jax.tree.leaves(later), strict=True):
        assert isinstance(one, jax.Array) and not one.weak_type and not two.weak_type
        assert (one.shape, one.dtype) == (two.shape, two.dtype)


def test_the_buffers_of_a_state_can_be_donated(mixer):
    update = jax.jit(mixer.update, donate_argnums=0)
    first = mixer.init()
    later = update(update(first, *seen_at(0)), *seen_at(1))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first))
    assert np.isfinite(np.asarray(mixer(later))).all()


FEW = pytest.mark.parametrize("mixer", ["exp3", "all wrappers"], indirect=True)


@FEW
def test_one_trace_one_compile_and_no_transfer_over_1000_updates(mixer):
    traces = []

    @jax.jit
    def update(state, step):
        traces.append(step)
        return mixer.update(state, *seen_at(step)), step + 1

    carry = update(mixer.init(), jnp.int32(0))
    with counted_compiles() as count, jax.transfer_guard("disallow"):
        for _ in range(999):
            carry = update(*carry)
    assert len(traces) == 1 and count["compiles"] == 0 and int(carry[1]) == 1000


@FEW
def test_logged_weights_replay_the_rows_without_the_mixer(mixer):
    train_step, state, log, rows = stepped(mixer), mixer.init(), [], []
    for step in range(NUM_STEPS):
        log.append(np.asarray(mixer(state)))
        state, came, _ = train_step(state, step)
        rows.append(np.asarray(came))
    replayed = jaxmix.table_schedule(np.stack(log))
    batches = [jnp.arange(32) + 1000 * k for k in range(K)]
    again = jax.jit(lambda step: jaxmix.mix_rows(KEY, step, replayed, *batches).rows)
    assert all((again(step) == rows[step]).all() for step in range(NUM_STEPS))
    assert len(np.unique(np.concatenate(rows) // 1000)) > 1
    assert np.abs(log[-1] - log[0]).max() > 0.01


@pytest.mark.parametrize("name", ["exponentiated_gradient", "all wrappers around exp3"])
def test_restored_by_orbax_at_any_step_it_is_the_same_run(name, tmp_path):
    mixer = MIXERS[name]
    train_step, states, log = stepped(mixer), [mixer.init()], []
    for step in range(NUM_STEPS):
        state, rows, weights = train_step(states[-1], step)
        states.append(state)
        log.append((np.asarray(rows), np.asarray(weights)))
    with ocp.StandardCheckpointer() as checkpointer:
        for step in range(0, NUM_STEPS, 5):
            train_state = {"step": jnp.int32(step), "mixer": states[step]}
            checkpointer.save(tmp_path / str(step), train_state)
        checkpointer.wait_until_finished()
        for step in range(0, NUM_STEPS, 5):
            target = {"step": jnp.int32(0), "mixer": mixer.init()}
            restored = checkpointer.restore(tmp_path / str(step), target)
            assert restored["step"] == step
            state = restored["mixer"]
            for later in range(step, NUM_STEPS):
                state, rows, weights = train_step(state, later)
                assert (rows == log[later][0]).all() and (weights == log[later][1]).all()


def test_a_state_that_orbax_restored_without_a_target_is_refused(tmp_path):
    mixer = MIXERS["exponentiated_gradient"]
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "0", mixer.init())
        checkpointer.wait_until_finished()
        bare = checkpointer.restore(tmp_path / "0")
    with pytest.raises(TypeError, match=r"state must be of type Expo.*got 'dict'"):
        mixer.update(bare, [1.0] * K)


def test_a_mixer_is_mapped_over_seeds(mixer):
    def learn(seed):
        return mixer(mixer.update(mixer.init(), *seen_at(seed)))

    many, one = jax.jit(jax.vmap(learn))(jnp.arange(3)), jax.jit(learn)
    for seed in range(3):
        np.testing.assert_allclose(many[seed], one(seed), rtol=1e-6)
