"""A plan in several processes: the part of a batch for each, and a check that all plans agree."""

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
    """Return which part of the global batch this process holds, from a sharding.

    Pass the result as `shard_index` and `shard_count` to a `PlanSource`, and its batches to
    ``jax.make_array_from_process_local_data(sharding, ...)``. The result is also correct if the
    mesh does not order devices by process, and if several processes hold the same rows because a
    model is split over hosts.

    Args:
      sharding: the sharding of an array [B, ...]. Only its first axis matters.
      batch_size: B, the rows of the global batch, a multiple of the number of shards.

    Returns:
      (shard_index, shard_count), two ints.

    Raises:
      ValueError, TypeError: the rows of this process are not one contiguous part; the sharding
        can't split `batch_size` rows.

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
    if isinstance(sharding, NamedSharding):  # of the first axis alone
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
    """Check that all processes plan the same rows for the steps below `num_steps`.

    Call it in every process, once, before training. It compares `MixPlan.digest`, and the lengths
    of the sources where a `state` holds them.

    Args:
      plan: the `MixPlan` of this process.
      num_steps: the end of the run, counted from step 0.

    Raises:
      ValueError: in every process, if plans differ or one can't be computed. The message names what
        differs and in which process; for schedules it is the first step with other counts.

    Example:
      >>> import jaxmix
      >>> plan = jaxmix.MixPlan(jaxmix.cosine_schedule(0.9, 0.1, 100), batch_size=32)
      >>> jaxmix.check_same_plan(plan, num_steps=100)
    """
    need(isinstance(plan, MixPlan), "plan", "a MixPlan", plan, TypeError)
    try:
        seen = f"{plan.digest(num_steps)} {plan._lengths}"
        digest, failed = np.frombuffer(sha256(seen.encode()).digest(), np.int64), None
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
    _compare("lengths", plan._lengths)
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
    """Raise if the value of a process, as text, differs from process 0's."""
    text = str(value).encode()
    padded = np.zeros(int(_gather(len(text)).max()), np.int64)
    padded[: len(text)] = list(text)
    texts = [bytes(line[line > 0].tolist()).decode() for line in _gather(padded)]
    for process, other in enumerate(texts):
        if other != texts[0]:
            pairs = enumerate(zip(texts[0], other, strict=False))
            place = next((i for i, (a, b) in pairs if a != b), min(len(texts[0]), len(other)))
            ours, theirs = (_around(text, place) for text in (texts[0], other))
            got = f"{ours} in process 0 and {theirs} in process {process}"
            raise ValueError(f"plan must be the same in every process, got {name} {got}")


def _around(text: str, place: int) -> str:
    """At most 400 characters of a text, with those at a place among them."""
    start = max(0, min(place - 100, len(text) - 400))
    return "..." * (start > 0) + text[start : start + 400] + "..." * (start + 400 < len(text))


def _gather(numbers: int | list[int] | np.ndarray) -> np.ndarray:
    """int64 numbers, of one shape in all processes, as [processes, ...]."""
    # As pairs of uint32: JAX would cut 64 bits.
    words = np.atleast_1d(np.asarray(numbers, np.int64)).view(np.uint32)
    gathered = np.asarray(multihost_utils.process_allgather(words)).view(np.int64)
    return gathered[:, 0] if np.ndim(numbers) == 0 else gathered
