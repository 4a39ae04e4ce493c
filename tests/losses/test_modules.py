"""mix_loss_fns and add_loss_fns with NNX modules: state changes where a loss is evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import errors, nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmix import add_loss_fns, mix_loss_fns

GAMMA = optax.linear_schedule(1.0, 0.0, 2)  # 1, a half, 0
DATA = jax.random.normal(jax.random.key(1), (8, 3)) * jnp.array([[1.0, 2.0, 3.0]])


class Model(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.norm(self.linear(x)))


def square(model, x):
    return (model(x) ** 2).mean()


def absolute(model, x):
    return jnp.abs(model(x) - 1.0).mean()


mixed = mix_loss_fns(GAMMA, square, absolute)


@nnx.jit(static_argnums=0)
def plain(step, model, x):
    """Value and gradient in the plain way: the losses of non-zero weight, one after the other."""
    gamma = 1.0 - step / 2.0
    used = [(w, fn) for w, fn in ((gamma, square), (1.0 - gamma, absolute)) if w]
    return nnx.value_and_grad(lambda model: sum(w * fn(model, x) for w, fn in used))(model)


def train(model, step, x):
    return nnx.value_and_grad(mixed, argnums=1)(step, model, x)


def model_of(seed=0):
    return Model(nnx.Rngs(seed))


def draws(model):
    return int(model.dropout.rngs.count[...])


def assert_same(got, want):
    """Equal states: keys and counts bit for bit, floats within a few roundings."""

    def compare(a, b):
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        else:
            assert jnp.array_equal(a, b)

    jax.tree.map(compare, nnx.to_pure_dict(nnx.state(got)), nnx.to_pure_dict(nnx.state(want)))


WAYS = {
    "eager": lambda run: run,
    "jit": nnx.jit,
    "remat": lambda run: nnx.jit(nnx.remat(run)),
    "tree mode": lambda run: nnx.jit(run, graph=False),
}


@pytest.mark.parametrize("way", WAYS)
def test_statistics_and_counts_are_those_of_the_losses_that_were_evaluated(way):
    ours, theirs, seen = model_of(), model_of(), []
    run = WAYS[way](train)
    for step in [1] if way == "eager" else [0, 1, 2]:
        value, grads = run(ours, jnp.int32(step), DATA)
        want, want_grads = plain(step, theirs, DATA)
        np.testing.assert_allclose(value, want, rtol=1e-5)
        assert_same(grads, want_grads)
        assert_same(ours, theirs)
        seen.append(draws(ours))
    assert seen == ([2] if way == "eager" else [1, 3, 4])


def test_a_scan_and_a_vmap_over_models_carry_the_state_of_each():
    ours, theirs = model_of(), model_of()

    @nnx.jit
    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    def steps(model, step):
        return model, train(model, step, DATA)[0]

    values = steps(ours, jnp.arange(3))[1]
    want = [plain(step, theirs, DATA)[0] for step in range(3)]
    np.testing.assert_allclose(values, want, rtol=1e-5)
    assert_same(ours, theirs)

    keys = jax.random.split(jax.random.key(0), 3)
    models = nnx.vmap(model_of)(keys)
    values = nnx.jit(nnx.vmap(mixed, in_axes=(0, 0, None)))(jnp.arange(3), models, DATA)
    for step in range(3):
        alone = model_of(keys[step])
        np.testing.assert_allclose(values[step], plain(step, alone, DATA)[0], rtol=1e-5)
        np.testing.assert_allclose(models.norm.mean[...][step], alone.norm.mean[...], atol=1e-6)
        assert int(models.dropout.rngs.count[...][step]) == draws(alone)


@pytest.mark.parametrize("make", [mix_loss_fns, add_loss_fns])
def test_streams_of_random_numbers_advance_from_loss_to_loss_and_from_call_to_call(make):
    def noise(rngs):
        return jax.random.normal(rngs(), ())

    rngs, same = nnx.Rngs(0), nnx.Rngs(0)
    loss = make([0.5, 0.5], noise, noise)
    for _ in range(2):
        want = 0.5 * noise(same) + 0.5 * noise(same)
        assert float(loss(0, rngs)) == float(want)
    make([0, 1], noise, noise)(0, rngs)  # the skipped one draws no number
    assert int(rngs.default.count[...]) == 5


def test_a_loss_sees_what_the_one_before_it_has_changed_wherever_it_is_passed():
    count, other = nnx.Variable(jnp.asarray(1.0)), {"both": nnx.Variable(np.float32(0.0))}
    model = nnx.Dict(count=count, first=nnx.Variable(jnp.zeros(2)))

    def add(model, count, other):
        model["count"][...] += 1.0
        model["first"][...] += 3.0  # which the other one leaves alone
        return 1.0 * count[...]

    def double(model, count, other):
        count[...] *= jnp.float32(10.0)  # no longer of a weak type
        other["both"][...] = model["count"][...]
        return 0.0 * count[...]

    loss = mix_loss_fns([0.5, 0.5], add, double)
    assert float(loss(0, model, count, other)) == 0.5 * 2.0
    assert model["first"][...].tolist() == [3.0, 3.0]
    assert model["count"] is count and count[...] == 20.0 and other["both"][...] == 20.0


def test_losses_that_change_nothing_take_a_module_of_an_outer_trace():
    model = model_of()
    model.eval()
    grad = jax.jit(jax.grad(lambda scale: scale * mixed(1, model, DATA)))(1.0)
    assert float(grad) == pytest.approx(0.5 * square(model, DATA) + 0.5 * absolute(model, DATA))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_statistics_over_shards_are_those_of_the_global_batch(kind):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    data = jax.device_put(DATA, NamedSharding(mesh, PartitionSpec("data")))
    graph, state = nnx.split(nnx.BatchNorm(3, axis_name="data", rngs=nnx.Rngs(0)))

    def per_shard(state, data):
        norm = nnx.merge(graph, state)
        loss = mix_loss_fns(
            0.5, lambda norm, x: (norm(x) ** 3).mean(), lambda norm, x: norm(x).mean()
        )
        value, grads = nnx.value_and_grad(loss, argnums=1)(0, norm, data)
        return jax.lax.pmean(value, "data"), nnx.state(norm), grads

    specs = PartitionSpec(), PartitionSpec("data")
    sharded = jax.shard_map(per_shard, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())
    _, after, grads = jax.block_until_ready(jax.jit(sharded)(state, data))
    norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))

    def want(norm):
        return 0.5 * (norm(DATA) ** 3).mean() + 0.5 * norm(DATA).mean()

    want_grads = nnx.grad(want)(norm)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), after, nnx.state(norm))
    # Each of 8 shards has the mean of its row as its loss, so their sum is 8 times the mean.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 8 * b, atol=1e-4), grads, want_grads)


class Odd(nnx.Module):
    def __init__(self):
        self.scale, self.seen = nnx.Param(jnp.ones(2)), nnx.BatchStat(jnp.zeros(2))
        self.plain, self.is_new = nnx.data(jnp.zeros(2)), True


def add_variable(model):
    model.more = nnx.BatchStat(jnp.zeros(2))


def change_attribute(model):
    model.is_new = False


def change_plain_array(model):
    model.plain = model.plain + 1


def change_dtype(model):
    model.seen.set_value(model.seen[...].astype(jnp.bfloat16))


def change_param(model):
    model.scale[...] = jnp.clip(model.scale[...], 0.0, 0.5)


REFUSED = {
    add_variable: (TypeError, r"loss_fns\[0\] must be a function that changes only values of "),
    change_attribute: (TypeError, "changes only values of variables in a module"),
    change_plain_array: (ValueError, r"'plain'.* must be unchanged, since it is not an nnx.Var"),
    change_dtype: (ValueError, r"'seen'.* must be float32\[2\], as before, got 'bfloat16\[2\]'"),
    change_param: (ValueError, "a variable that a loss changes must be one without a gradient"),
}


@pytest.mark.parametrize("change", REFUSED)
def test_a_change_that_would_be_lost_is_refused(change):
    def loss(model):
        change(model)
        return (model.scale[...] ** 2).sum()

    error, message = REFUSED[change]
    with pytest.raises(error, match=message):
        nnx.value_and_grad(mix_loss_fns([0.5, 0.5], loss, loss), argnums=1)(0, Odd())


def test_modules_that_a_loss_closes_over_cannot_be_changed():
    model = model_of()
    loss = mix_loss_fns(GAMMA, lambda x: square(model, x), lambda x: absolute(model, x))
    with pytest.raises(errors.TraceContextError, match="Cannot mutate"):
        loss(0, DATA)
    with pytest.raises(errors.TraceContextError, match="Cannot mutate"):
        jax.grad(lambda scale: scale * mixed(0, model, DATA))(1.0)  # nor those of an outer trace
    with pytest.raises(ValueError, match="a variable that a loss changes must be one without"):
        jax.grad(lambda model: mixed(0, model, DATA), allow_int=True)(model)
    assert draws(model) == 0


@pytest.mark.parametrize("kind", ["ref", "hijax"])
def test_variables_that_are_no_plain_arrays_are_refused(kind):
    variable = nnx.Variable(jnp.zeros(2), **{kind: True})
    with pytest.raises(TypeError, match="a variable of a module must be an array"):
        mix_loss_fns(0.5, lambda v: v[...].sum(), lambda v: v[...].sum())(0, variable)
