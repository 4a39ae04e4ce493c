"""One of several processes on loopback: which part it has, and what it says of other plans."""

import json
import sys

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxmix


def refusal(plan: jaxmix.MixPlan, num_steps: int = 3000) -> str:
    try:
        jaxmix.check_same_plan(plan, num_steps)
    except ValueError as refused:
        return str(refused)
    return ""


def part(devices: np.ndarray, names: tuple[str, ...]) -> list[int] | str:
    mesh = Mesh(devices, names, axis_types=(AxisType.Auto,) * len(names))
    try:
        return list(jaxmix.local_shard(NamedSharding(mesh, PartitionSpec("data")), 48))
    except ValueError as refused:
        return str(refused)


def main(process: int, processes: int, port: int) -> None:
    jax.distributed.initialize(f"localhost:{port}", num_processes=processes, process_id=process)
    gamma = jaxmix.cosine_schedule(0.9, 0.1, transition_steps=2000)
    late = jaxmix.staged_schedule({0: 0.5, 2000 + 500 * process: 0.25})
    plan = jaxmix.MixPlan(gamma, 32)
    broken = jaxmix.rescale_schedule(lambda step: 0.5 + step, 1000)
    state = plan.state(100) if process == 0 else jaxmix.MixPlan(0.5, 32).state(100)
    named, stages = {"web": 0.7, "code": 0.3}, {0: 32, 1000: 64}
    moving = {"web": gamma, "code": jaxmix.complement_schedule(gamma)}
    alike, unlike = (
        jaxmix.MixPlan(named, 32).state(100, lengths={"web": 50 + more, "code": 70})
        for more in (0, process)
    )
    many = [f"source {k}" for k in range(299)]
    devices = np.array(jax.devices())
    half = len(devices) // 2
    print(
        json.dumps(
            {
                "the same": refusal(plan),
                "the same in all": refusal(
                    jaxmix.MixPlan(moving, stages, group_size=4, state=alike)
                ),
                "the same up to there": refusal(
                    jaxmix.MixPlan(named, {**stages, 3000 + process: 8})
                ),
                "names": refusal(jaxmix.MixPlan(0.5, 32, names=["web", ("code", "Code")[process]])),
                "names in turn": refusal(
                    jaxmix.MixPlan(0.5, 32, names=["web", "code"][:: (1, -1)[process]])
                ),
                "last of many names": refusal(
                    jaxmix.MixPlan([1 / 300] * 300, 32, names=[*many, f"last {process}"]), 3
                ),
                "stage": refusal(jaxmix.MixPlan(named, {0: 32, 1000 + process: 64})),
                "last of many stages": refusal(
                    jaxmix.MixPlan(
                        0.5, {start: 8 + start % 3 for start in range(99)} | {99: 40 + process}
                    )
                ),
                "group_size": refusal(jaxmix.MixPlan(0.5, 32, group_size=4 + 4 * process)),
                "length": refusal(jaxmix.MixPlan(named, 32, state=unlike)),
                "length not known": refusal(
                    jaxmix.MixPlan(named, 32, state=alike, resized=["code"][process:])
                ),
                "schedule": refusal(jaxmix.MixPlan(late, 32)),
                "batch_size": refusal(jaxmix.MixPlan(gamma, 32 + 32 * process)),
                "seed": refusal(jaxmix.MixPlan(gamma, 32, seed=2**32 - 1 - process)),
                "sources": refusal(jaxmix.MixPlan([0.5, 0.5] + [0.0] * process, 32)),
                "start": refusal(jaxmix.MixPlan(gamma, 32, state=state)),
                "num_steps": refusal(plan, 3000 + process),
                "no weights": refusal(jaxmix.MixPlan(broken if process else gamma, 32)),
                "no devices": part(devices[:half], ("data",)),
                "in order": part(devices, ("data",)),
                "reversed": part(devices[::-1], ("data",)),
                "rows shared": part(devices.reshape(2, half).T, ("data", "model")),
                "one half each": part(devices.reshape(2, half), ("data", "model")),
                "in turns": part(devices.reshape(2, half).T.reshape(-1), ("data",)),
                "outside and inside": part(np.roll(devices, 2), ("data",)),
            }
        )
    )
    jax.distributed.shutdown()


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 4)
    main(*(int(argument) for argument in sys.argv[1:]))
