"""Several processes, as on a pod, draw the rows that one process draws."""

import json
import os
import pathlib
import socket
import subprocess
import sys

WORKER = pathlib.Path(__file__).with_name("process_worker.py")


def _rows(processes: int) -> list:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    env["JAX_PLATFORMS"] = "cpu"
    running = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(process), str(processes), str(port)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    outputs = [process.communicate(timeout=300) for process in running]
    assert all(process.returncode == 0 for process in running), outputs
    return json.loads(outputs[0][0].splitlines()[-1])


def test_two_processes_draw_the_rows_of_one():
    alone = _rows(1)
    assert alone == _rows(2)
    mixed, systematic, drawn, whole = alone[10]
    assert mixed == whole != systematic and len(drawn) == 48
