"""The assertion of the same rows everywhere: it finds its faults, and says in plain words where."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType

import jaxmix
from jaxmix.testing import assert_same_everywhere

KEY = jax.random.key(7)


def test_a_shard_that_draws_the_first_rows_again_is_found():
    def local_rows(step, x, axis_name=None):
        return jaxmix.bernoulli_sources(KEY, step, 0.5, x.shape[0], axis_name=())

    assert_same_everywhere(local_rows, jnp.zeros(16), max_devices=1)
    with pytest.raises(AssertionError, match=r"on 2 devices.*, step 0, leaf .*row \d+ is"):
        assert_same_everywhere(local_rows, jnp.zeros(16), max_devices=2)


def test_a_function_that_looks_at_the_step_as_python_is_found():
    def by_python(step, x, axis_name=None):
        return x + (step if isinstance(step, int) else 0)

    with pytest.raises(AssertionError, match=r"jit, step 3, leaf .*row 0 is 0, eager 3"):
        assert_same_everywhere(by_python, jnp.zeros(4, jnp.int32), steps=[3], max_devices=1)


def test_another_structure_shape_or_dtype_is_found():
    def ragged(step, x, axis_name=None):
        return x if isinstance(step, int) else x.astype(jnp.float16)

    with pytest.raises(AssertionError, match=r"jit, step 0, leaf .: float16\(4,\), eager float32"):
        assert_same_everywhere(ragged, jnp.zeros(4), max_devices=1)


@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        ((), {}, r"the number of batches must be >= 1 .*jnp.arange\(B\).*num_rows=x.shape\[0\]"),
        (({},), {}, "the number of batches must be >= 1"),
        ((jnp.zeros(4),), {"steps": []}, "the number of steps must be >= 1"),
        ((jnp.zeros(8),), {"max_devices": 9}, "max_devices must be at most 8"),
        ((jnp.zeros(7),), {}, "the number of rows must be even"),
        ((jnp.zeros(8), 0.5), {}, "the array of batch 1 must be .*, got 0.5"),
        (
            ({"x": jnp.zeros(8), "y": jnp.zeros(6)},),
            {},
            r"\['y'\] of batch 0 must be .* 8 rows, got",
        ),
        ((jnp.zeros(8),), {"axis_types": "auto"}, r"axis_types must be a tuple .*got 'auto'"),
        ((jnp.zeros(8),), {"axis_types": ()}, "axis_types must be a tuple of"),
        ((jnp.zeros(8),), {"axis_types": ("Auto",)}, r"\"auto\" and \"explicit\", got \('Auto',\)"),
        ((jnp.zeros(8),), {"axis_types": (AxisType.Auto,)}, "axis_types must be a tuple of"),
        ((jnp.zeros(8),), {"axis_types": [["auto"]]}, "axis_types must be a tuple of"),
        ((jnp.zeros(0),), {}, "a batch must be a tree of arrays with rows"),
    ],
)
def test_what_gives_no_comparison_is_refused(batches, options, message):
    with pytest.raises(ValueError, match=message):
        assert_same_everywhere(lambda step, *batches: batches[0], *batches, **options)


def _own_draw(step, x, y, axis_name=None):
    """A right pipeline without jaxmix; on Explicit axes JAX asks for the sharding of `u`."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * x.shape[0]
    keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(KEY, step), row))(
        first + jnp.arange(x.shape[0])
    )
    u = jax.vmap(jax.random.uniform)(keys)
    return jnp.where(u < 0.5, x, y)


def test_meshes_with_explicit_axes_can_be_left_out():
    batches = jnp.zeros(8), jnp.ones(8)
    assert_same_everywhere(_own_draw, *batches, steps=[1], max_devices=2, axis_types=["auto"])
    with pytest.raises(Exception, match="select `which` must be scalar") as raised:
        assert_same_everywhere(_own_draw, *batches, steps=[1], max_devices=1)
    (note,) = [note for note in raised.value.__notes__ if "axis_types" in note]
    assert note.startswith(
        "where fn ran: jit of batches sharded over 1 devices (Explicit axes), step 1"
    )
    assert 'axis_types=("auto",)' in note


@pytest.mark.parametrize(
    ("fails_at", "where"),
    [
        (lambda step, name: isinstance(step, int), "where fn ran: eager, step 3"),
        (lambda step, name: not isinstance(step, int), "where fn ran: jit, step 3"),
        (lambda step, name: name is not None, "where fn ran: pmap on 1 devices, step 3"),
    ],
)
def test_an_error_of_the_function_says_where_it_was_run(fails_at, where):
    def fails(step, x, axis_name=None):
        if fails_at(step, axis_name):
            raise KeyError("mine")
        return x

    with pytest.raises(KeyError, match="mine") as raised:
        assert_same_everywhere(fails, jnp.zeros(8), steps=[3], max_devices=1)
    assert [note for note in raised.value.__notes__ if note.startswith("where")] == [where]


def test_results_without_a_row_per_row_are_refused_before_any_mode_runs():
    runs = []

    def whole(step, x, axis_name=None):
        runs.append(axis_name)
        return jaxmix.mix_rows(KEY, step, 0.5, x, x, axis_name=axis_name)

    with pytest.raises(
        ValueError, match=r"leaf \.weights .* must be .* 64 rows.*`\.rows`.*got flo"
    ):
        assert_same_everywhere(whole, jnp.zeros(64), steps=[0])
    assert runs == [None]
    for got, name in [
        (0.5, "the array of what fn returns"),
        ({"x": jnp.zeros(8), "loss": jnp.float32(0)}, r"leaf \['loss'\] of what fn returns"),
        ([jnp.zeros(8), jnp.zeros(4)], r"leaf \[1\] of what fn returns"),
        ({}, "what fn returns"),
    ]:
        with pytest.raises(ValueError, match=f"{name} must be "):
            assert_same_everywhere(lambda step, x, got=got, axis_name=None: got, jnp.zeros(8))


def test_a_draw_without_batches_takes_the_numbers_of_its_rows():
    pool = jaxmix.RowPool(jnp.zeros(5), jnp.ones(9))

    def draw(step, x, axis_name=None):
        return jaxmix.draw_rows(KEY, step, 0.5, pool, x.shape[0], axis_name=axis_name).rows

    assert_same_everywhere(draw, jnp.arange(8), steps=[1], max_devices=1, axis_types=("auto",))


def test_one_device_is_not_enough_unless_asked_for(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"max_devices must be set to 1 .*JAX_NUM_CPU_DEVICES=8"):
        assert_same_everywhere(lambda step, x, axis_name=None: x, jnp.zeros(8))
    assert_same_everywhere(lambda step, x, axis_name=None: x, jnp.zeros(8), max_devices=1)
