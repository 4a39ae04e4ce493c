"""Through grain: workers, threads, checkpoints and restarts change no row; each trap is shown."""

import absl.flags
import grain
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxmix import MixPlan, PlanSelectionMap, PlanSource
from jaxmix.testing import assert_resumes

absl.flags.FLAGS.mark_as_parsed()  # else grain 0.2.18 fails to start worker processes

STEPS = 12
FEW = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)


def plan():
    return MixPlan(lambda step: 0.2 + 0.05 * jnp.asarray(step, jnp.float32), 8, seed=2)


def sources():
    return [np.arange(500), np.arange(1000, 1500)]


def pipeline(start=0, workers=0, options=FEW):
    feed = grain.MapDataset.source(PlanSource(plan(), sources(), STEPS))[start:]
    dataset = feed.to_iter_dataset(options)
    if workers:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return dataset


def take(iterator, count=STEPS):
    batches = [next(iterator) for _ in range(count)]
    return [(int(b["step"]), b["rows"].tolist(), b["position"].tolist()) for b in batches]


@pytest.fixture(scope="module")
def wanted():
    feed = PlanSource(plan(), sources(), STEPS)
    return take(iter([feed[step] for step in range(STEPS)]))


@pytest.mark.parametrize("threads", [0, 4])
def test_threads_change_no_row(threads, wanted):
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=3 * (threads > 0))
    iterator = iter(pipeline(options=options))
    assert take(iterator) == wanted
    iterator.close()
    dataset = pipeline(options=options)
    prefetched = iter(grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=2))
    assert take(prefetched) == wanted
    prefetched.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_checkpoints_and_slices_change_no_row(workers, wanted, tmp_path, monkeypatch):
    # A worker that asked for a JAX device would fail.
    monkeypatch.setenv("JAX_PLATFORMS", "no_such_platform")
    iterator = iter(pipeline(workers=workers))
    assert take(iterator, 5) == wanted[:5]
    with ocp.CheckpointManager(tmp_path) as manager:
        saved = ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator))
        manager.save(5, args=saved)
        manager.wait_until_finished()
        iterator.close()
        again = iter(pipeline(workers=workers))
        restored = ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(again))
        manager.restore(5, args=restored)
    assert take(again, STEPS - 5) == wanted[5:]
    with pytest.raises(StopIteration):
        next(again)
    again.close()
    sliced = iter(pipeline(start=7))  # a restart by slicing takes any number of workers
    assert take(sliced, STEPS - 7) == wanted[7:]
    sliced.close()


def test_a_pipeline_resumes_anywhere_on_other_parts():
    def feed(first_step, part, parts):
        batches = PlanSource(plan(), sources(), STEPS, shard_index=part, shard_count=parts)
        return grain.MapDataset.source(batches)[first_step:].to_iter_dataset(FEW)

    assert_resumes(feed, STEPS)


def selected(weights_plan):
    datasets = [grain.MapDataset.source(rows) for rows in sources()]
    return grain.MapDataset.select_from_datasets(datasets, PlanSelectionMap(weights_plan, STEPS))


def test_a_selection_map_gives_the_plan_row_by_row(wanted):
    rows = selected(plan())
    assert len(rows) == 8 * STEPS
    batched = rows.map(lambda row: row + 1).batch(8)
    assert [(batch - 1).tolist() for batch in batched] == [rows for _, rows, _ in wanted]
    later = rows[5 * 8 :].batch(8)
    assert [batch.tolist() for batch in later] == [rows for _, rows, _ in wanted[5:]]
    for element in (-1, 8 * STEPS):
        with pytest.raises(IndexError, match="element must be in"):
            PlanSelectionMap(plan(), STEPS)[element]
    with pytest.raises(IndexError, match="element must be in"):
        rows.repeat(2)[8 * STEPS]
    edited = MixPlan(0.5, 8, state=plan().state(6))
    assert (
        int(selected(edited)[48])
        == sources()[PlanSelectionMap(edited, 9)[48][0]][PlanSelectionMap(edited, 9)[48][1]]
    )
    with pytest.raises(IndexError, match=r"element must be in \[48, 96\)"):
        PlanSelectionMap(edited, STEPS)[47]


def test_trap_batch_before_to_iter_dataset_when_there_are_workers(wanted, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "no_such_platform")
    two = grain.MultiprocessingOptions(num_workers=2)
    right = iter(selected(plan()).batch(8).to_iter_dataset(FEW).mp_prefetch(two))
    assert [batch.tolist() for batch in right] == [rows for _, rows, _ in wanted]
    right.close()
    wrong = iter(selected(plan()).to_iter_dataset(FEW).batch(8).mp_prefetch(two))
    assert [batch.tolist() for batch in wrong] != [rows for _, rows, _ in wanted]
    wrong.close()


def test_trap_a_filtered_source_is_refused():
    for kept in (0, 1):  # row 0 is read when the feed is made
        odd = grain.MapDataset.source(sources()[0]).filter(lambda row, kept=kept: row % 2 == kept)
        with pytest.raises(ValueError, match=r"a row of source 0 must be an example .*filter"):
            PlanSource(plan(), [odd, sources()[1]], STEPS)[0]


def test_trap_seeds_side_by_side_replay_each_other():
    def epochs(seed):
        dataset = grain.MapDataset.source(np.arange(40)).shuffle(seed=seed)
        feed = PlanSource(MixPlan([1.0], 40), [dataset], 3)
        batches = [feed[epoch] for epoch in range(3)]
        return [batch["rows"][batch["position"].argsort()].tolist() for batch in batches]

    zero, one, far = epochs(0), epochs(1), epochs(1000)
    assert zero[1] == one[0] and zero[2] == one[1]
    assert not any(a == b for a in zero for b in far)
    for rows in zero + far:
        assert sorted(rows) == list(range(40))  # every epoch is a shuffle of its own


def test_trap_past_the_end_grain_starts_again():
    feed = grain.MapDataset.source(PlanSource(plan(), sources(), STEPS))
    assert int(feed[STEPS]["step"]) == 0 and len(feed) == STEPS
