"""A plan in several processes: which part of a batch is this one's, do all have the same plan?"""

from __future__ import annotations

import itertools
from hashlib import sha256

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from jaxmix._checks import need, whole_number
from jaxmix._plan.counts import MAX_STEPS
from jaxmix._plan.plan import MixPlan


def local_shard(sharding: jax.sharding.Sharding, batch_size: int) -> tuple[int, int]:
    """Read from a sharding which rows of the global batch this process holds: (index, count).

    They are `shard_index` and `shard_count` of a `PlanSource`, whose batches then go into
    `jax.make_array_from_process_local_data(sharding, ...)`. It is read from the sharding, so it is
    right as well where the mesh orders devices otherwise than by process, and where several
    processes hold the same rows, as with a model that is split over hosts.

    Args:
      sharding: of an array [B, ...] with the rows first; only its first axis is looked at.
      batch_size: B, the rows of the global batch, a multiple of the shards of the rows.

    Raises:
      ValueError, TypeError: rows of this process that are no contiguous part; a `batch_size` that
        the sharding can't split.

    Example:
      >>> import jax, jaxmix
      >>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
      >>> rows = jax.NamedSharding(mesh, jax.P("data"))
      >>> jaxmix.local_shard(rows, batch_size=64)
      (0, 1)
    """
    is_sharding = isinstance(sharding, jax.sharding.Sharding)
    need(is_sharding, "sharding", "a jax.sharding.Sharding", sharding, TypeError)
    size = whole_number("batch_size", batch_size, 1)
    if isinstance(sharding, NamedSharding):  # of its first axis alone
        sharding = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[:1]))
    mesh = getattr(sharding, "mesh", None)
    concrete = not isinstance(mesh, AbstractMesh)
    need(concrete, "sharding", "on a mesh of devices, not an AbstractMesh", sharding, TypeError)
    slices = sharding.addressable_devices_indices_map((size,)).values()
    need(len(slices) > 0, "sharding", "on a mesh with a device of this process", sharding)
    spans = sorted({index[0].indices(size)[:2] for index in slices if index is not None})
    first, stop = spans[0][0], spans[-1][1]
    whole = all(before[1] == after[0] for before, after in itertools.pairwise(spans))
    whole = whole and size % (stop - first) == 0 and first % (stop - first) == 0
    need(whole, "sharding", "one that gives this process a contiguous part of the rows", spans)
    return first // (stop - first), size // (stop - first)


def check_same_plan(plan: MixPlan, num_steps: int) -> None:
    """Raise in every process unless all of them plan the same rows for the steps below `num_steps`.

    Compares `MixPlan.digest`; call it in every process, once, before training.

    Args:
      plan: this process's `MixPlan`.
      num_steps: the steps of the run, counted from step 0.

    Raises:
      ValueError: naming what differs, in which process; for plans with other schedules the first
        step with other counts; that a plan could not be worked out in a process, as its weights are
        none at a step.

    Example:
      >>> import jaxmix
      >>> plan = jaxmix.MixPlan(jaxmix.cosine_schedule(0.9, 0.1, 100), batch_size=32)
      >>> jaxmix.check_same_plan(plan, num_steps=100)
    """
    need(isinstance(plan, MixPlan), "plan", "a MixPlan", plan, TypeError)
    try:
        digest, failed = np.frombuffer(bytes.fromhex(plan.digest(num_steps)), np.int64), None
    except Exception as error:  # raised below, so that the other processes don't wait
        digest, failed = np.zeros(4, np.int64), error
    fine = _gather(int(failed is None))
    if failed is not None:
        raise failed
    others = np.flatnonzero(fine == 0).tolist()
    if others:
        raise ValueError(f"plan must be known in every process, got an error in processes {others}")
    if (_gather(digest) == digest).all():
        return
    first = plan.first_step
    _compare("num_steps", num_steps)
    for name in ("batch_size", "group_size", "seed", "num_sources", "names", "first_step"):
        _compare(name, getattr(plan, name))
    _compare(f"cursors at step {first}", plan.cursors(first).tolist())
    starts = range(first, num_steps, MAX_STEPS)
    tables = [plan.counts_table(start, min(start + MAX_STEPS, num_steps)) for start in starts]
    hashes = _gather([int(sha256(table.tobytes()).hexdigest()[:15], 16) for table in tables])
    number = int((hashes != hashes[0]).any(axis=0).argmax())
    counts = _gather(tables[number])
    line = int((counts != counts[0]).any(axis=(0, 2)).argmax())
    _compare(f"counts at step {starts[number] + line}", tables[number][line].tolist())
    _compare("digest", digest.tolist())


def _compare(name: str, value: object) -> None:
    """Raise if a process has another value than process 0; as text, of any length in each."""
    text = str(value).encode()
    padded = np.zeros(int(_gather(len(text)).max()), np.int64)
    padded[: len(text)] = list(text)
    texts = [bytes(line[line > 0].tolist()).decode() for line in _gather(padded)]
    for process, other in enumerate(texts):
        if other != texts[0]:
            got = f"{texts[0][:500]} in process 0 and {other[:500]} in process {process}"
            raise ValueError(f"plan must be the same in every process, got {name} {got}")


def _gather(numbers: int | list[int] | np.ndarray) -> np.ndarray:
    """int64 numbers, of one shape in all processes, as [processes, ...]."""
    words = np.atleast_1d(np.asarray(numbers, np.int64)).view(np.uint32)  # 64 bits would be cut
    gathered = np.asarray(multihost_utils.process_allgather(words)).view(np.int64)
    return gathered[:, 0] if np.ndim(numbers) == 0 else gathered
