"""One of several processes of a loopback run: prints a digest of the rows that its devices hold."""

import json
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmix

NUM_ROWS, NUM_STEPS, DEVICES = 48, 20, 8


def main(process: int, processes: int, port: int) -> None:
    if processes > 1:
        jax.distributed.initialize(f"localhost:{port}", num_processes=processes, process_id=process)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    key = jax.random.key(7)
    gamma = jaxmix.cosine_schedule(0.1, 0.9, transition_steps=NUM_STEPS)
    local = np.arange(NUM_ROWS).reshape(processes, -1)[process]
    x, y = (
        jax.make_array_from_process_local_data(rows, local + offset, (NUM_ROWS,))
        for offset in (0, 1000)
    )
    pool = jaxmix.RowPool(np.arange(5), np.arange(1000, 1300))

    def per_shard(step, x, y):
        args = {"axis_name": "data"}
        mixed = jaxmix.mix_rows(key, step, gamma, x, y, **args)
        systematic = jaxmix.mix_rows(key, step, gamma, x, y, draw=jaxmix.systematic_sources, **args)
        return (
            mixed.rows,
            systematic.rows,
            jaxmix.draw_rows(key, step, gamma, pool, x.shape[0], **args).rows,
        )

    spec = PartitionSpec("data")
    sharded = jax.jit(
        jax.shard_map(per_shard, mesh=mesh, in_specs=(PartitionSpec(), spec, spec), out_specs=spec)
    )
    whole = jax.jit(lambda step, x, y: jaxmix.mix_rows(key, step, gamma, x, y).rows)
    seen = []
    for step in range(NUM_STEPS):
        out = (*sharded(step, x, y), whole(step, x, y))
        seen.append([multihost_utils.process_allgather(a, tiled=True).tolist() for a in out])
    print(json.dumps(seen))
    if processes > 1:
        jax.distributed.shutdown()


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", DEVICES // int(sys.argv[2]))
    main(*(int(argument) for argument in sys.argv[1:]))
