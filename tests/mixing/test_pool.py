"""Pools: the row asked for in every kind of index, draws from whole buffers, copies, export."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmix

KEY = jax.random.key(7)


def test_a_pool_gives_the_row_asked_for_and_starts_anew_past_its_end():
    pool = jaxmix.RowPool(*({"id": jnp.arange(n) + 100 * k} for k, n in enumerate((3, 1, 7))))
    source = jnp.array([0, 0, 1, 2, 2, 1])
    index = jnp.array([2, 3, 5, 6, 7, 0])
    want = [2, 0, 100, 206, 200, 100]
    assert pool.take(source, index)["id"].tolist() == want
    assert jax.jit(lambda p, s, i: p.take(s, i))(pool, source, index)["id"].tolist() == want
    far = np.asarray(index, np.int64) + 21 * 2**40  # a plan's index, past what int32 holds
    assert pool.take(source, far)["id"].tolist() == want


def test_a_pool_refuses_what_is_no_source_or_index():
    pool = jaxmix.RowPool(jnp.arange(300), jnp.arange(7))
    known = np.array([0, 1])
    for source, index, error, message in [
        (known > 0, known, TypeError, "source must be an array of integers"),
        (known, known[:1], ValueError, r"index must be of shape \(2,\), got \(1,\)"),
        ([0, 1], known, TypeError, "source must be an array of integers"),
    ]:
        with pytest.raises(error, match=message):
            pool.take(source, index)
    take = jax.jit(lambda source: pool.take(source, np.array([5, 8])))
    assert take(jnp.asarray(known)).tolist() == [5, 1]
    assert pool.take(known, jnp.array([2**32 - 1, 8], jnp.uint32)).tolist() == [195, 1]
    with pytest.raises(TypeError, match="pool must be a RowPool"):
        jaxmix.draw_rows(KEY, 0, 0.5, (1, 2), 4)


def test_a_pool_moves_only_the_rows_taken():
    pool = jaxmix.RowPool(*(jnp.zeros((1000, 16)) for _ in range(35)))
    take = jax.jit(lambda p, s, i: p.take(s, i))
    text = take.lower(pool, jnp.zeros(8, jnp.int32), jnp.zeros(8, jnp.int32)).compile().as_text()
    made = [line.split("= ")[1] for line in text.splitlines() if "= f32[" in line]
    assert made and not [line for line in made if "[35000" in line and "parameter(" not in line]


def test_drawn_rows_come_from_the_whole_buffer_of_their_source():
    lengths = (3, 50)
    pool = jaxmix.RowPool(*(jnp.arange(n) + 1000 * k for k, n in enumerate(lengths)))
    mixed = jax.jit(lambda step, p: jaxmix.draw_rows(KEY, step, 0.5, p, 2048))(3, pool)
    assert (mixed.rows // 1000 == mixed.source).all()
    for k, length in enumerate(lengths):
        rows = np.asarray(mixed.rows)[np.asarray(mixed.source) == k] - 1000 * k
        assert set(rows.tolist()) == set(range(length))


def test_a_group_shares_its_source_and_not_its_row():
    pool = jaxmix.RowPool(jnp.arange(1000), jnp.arange(1000, 2000))
    mixed = jaxmix.draw_rows(KEY, 3, 0.5, pool, 64, group_size=8)
    assert len(set((np.asarray(mixed.rows) // 1000).reshape(8, 8).sum(1).tolist()) - {0, 8}) == 0
    assert len(set(mixed.rows.tolist())) > 48


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_every_integer_kind_of_index_takes_the_same_rows(dtype):
    pool = jaxmix.RowPool(jnp.arange(300), jnp.arange(1000, 1007))
    source, index = np.array([0, 0, 1, 1]), np.array([0, 100, 6, 7], dtype)
    want = [0, 100, 1006, 1000]
    assert pool.take(source.astype(np.int8), index).tolist() == want
    assert pool.take(jnp.asarray(source), index).tolist() == want
    if index.itemsize < 8:  # without x64 a traced index has 32 bits
        assert jax.jit(pool.take)(source, index).tolist() == want


def test_a_uint64_index_keeps_all_its_bits():
    lengths = (3, 1_000_003)
    pool = jaxmix.RowPool(*map(jnp.arange, lengths))
    index = np.array([2**64 - 1, 2**64 - 1, 2**53 + 1], np.uint64)
    want = [(2**64 - 1) % 3, (2**64 - 1) % 1_000_003, (2**53 + 1) % 1_000_003]
    assert pool.take(np.array([0, 1, 1]), index).tolist() == want
    huge = np.array([2**63 - 1, -1, -(2**63)])
    want = [(2**63 - 1) % 1_000_003, 1_000_002, -(2**63) % 1_000_003]
    assert pool.take(np.array([1, 1, 1]), huge).tolist() == want


@pytest.mark.parametrize("index", [[0, 2**31], [-1, 0]])
def test_a_numpy_index_beside_a_traced_source_is_below_2_to_the_31(index):
    pool = jaxmix.RowPool(jnp.arange(300), jnp.arange(7))
    take = jax.jit(lambda source: pool.take(source, np.array(index)))
    with pytest.raises(ValueError, match=r"index must be in \[0, 2\^31\) with a traced source"):
        take(jnp.array([0, 1]))
    most = jax.jit(lambda source: pool.take(source, np.array([2**31 - 1, 0])))
    assert most(jnp.array([0, 1])).tolist() == [(2**31 - 1) % 300, 0]


class Large:
    """Stands for an array of many rows: a pool checks sizes before it reads rows."""

    def __init__(self, num_rows):
        self.shape, self.dtype, self.ndim = (num_rows,), np.dtype(np.int8), 1


def test_a_pool_is_below_2_to_the_31_rows():
    for sizes in [(2**30, 2**30), (2**31,)]:
        with pytest.raises(ValueError, match=r"the pool must be below 2\^31 rows, got 2147483648"):
            jaxmix.RowPool(*map(Large, sizes))


@pytest.mark.parametrize("buffers", [1, 2])
def test_a_pool_is_a_copy_of_its_buffers(buffers):
    host = np.arange(2**16, dtype=np.float32)
    pool = jaxmix.RowPool(*[host] * buffers)
    host[:] = -1.0
    assert pool.rows.tolist() == list(range(2**16)) * buffers
    device = jnp.arange(8)
    pool = jaxmix.RowPool(*[device] * buffers)
    device.delete()
    assert pool.rows.tolist() == list(range(8)) * buffers
    keys = jax.random.split(KEY, 3)
    assert jaxmix.RowPool(*[keys] * buffers).rows.shape == (3 * buffers,)


def test_a_pool_works_with_64_bit_numbers_and_strict_promotion():
    pool = jaxmix.RowPool(jnp.arange(5), jnp.arange(1000, 1300))
    want = jaxmix.draw_rows(KEY, 3, 0.5, pool, 32).rows.tolist()
    counts = jaxmix.counted_sources(KEY, 3, np.array([10, 22]), 32).tolist()
    part = jaxmix.uniform_rows(KEY, 3, np.full(4, 9), microbatch=(3, 8)).tolist()
    with jax.enable_x64(True):
        for run in (lambda fn: fn, jax.jit):
            for step in (np.int64(3), jnp.int64(3)):
                draw = run(lambda step: jaxmix.draw_rows(KEY, step, 0.5, pool, 32).rows)
                assert draw(step).tolist() == want
            index = jnp.array([2**40, -1, 3])
            place = run(pool.take)(jnp.array([0, 1, 1]), index)
            assert place.tolist() == [2**40 % 5, 1299, 1003]
            count = run(lambda step, c: jaxmix.counted_sources(KEY, step, c, 32))
            assert count(jnp.int64(3), jnp.array([10, 22])).tolist() == counts
            split = run(
                lambda i: jaxmix.uniform_rows(KEY, 3, jnp.full(4, 9, jnp.int64), microbatch=(i, 8))
            )
            assert split(jnp.int64(3)).tolist() == part


def test_a_pool_goes_through_export():
    pool = jaxmix.RowPool({"id": jnp.arange(5)}, {"id": jnp.arange(1000, 1300)})

    def draw(step, pool):
        return jaxmix.draw_rows(KEY, step, 0.5, pool, 16), pool

    exported = jax.export.export(jax.jit(draw))(jnp.int32(3), pool)
    mixed, again = jax.export.deserialize(exported.serialize()).call(jnp.int32(3), pool)
    assert type(again) is jaxmix.RowPool and again.lengths == (5, 300)
    assert mixed.rows["id"].tolist() == draw(3, pool)[0].rows["id"].tolist()


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_part_of_a_pool_is_refused_and_a_pool_of_parts_is_not(kind):
    mesh, split = jax.make_mesh((8,), ("data",), axis_types=(kind,)), PartitionSpec("data")
    x, y = jnp.zeros((16, 2)), jnp.ones((64, 2))
    plan = jaxmix.MixPlan(0.5, 16)

    def run(body, specs, *args):
        shards = jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=split)
        with jax.set_mesh(mesh):
            return jax.jit(shards)(*jax.device_put(args, NamedSharding(mesh, split)))

    def drawn(pool):
        return jaxmix.draw_rows(KEY, 3, 0.5, pool, 2, axis_name="data").rows

    def planned(pool):
        return pool.take(jnp.int32(3), axis_name="data").rows

    pools = (jaxmix.RowPool(x, y), jaxmix.PlannedPool(plan, x, y, num_steps=8))
    for pool, body in zip(pools, (drawn, planned), strict=True):
        with pytest.raises(ValueError, match=r"a pool must be whole, 80 rows .*, got '10 rows'"):
            run(body, split, pool)
    rows = run(lambda x, y: drawn(jaxmix.RowPool(x, y)), (split, split), x, y)
    assert rows.shape == (16, 2) and 0 < float(rows.sum()) < 32
