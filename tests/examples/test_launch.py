"""The language model as a pod's launcher starts it: `--distributed` finds its own coordinates."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from loopback import ENV

SCRIPT = Path(__file__).parents[2] / "examples" / "language_model.py"


def slurm(process: int, job: int) -> dict[str, str]:
    """What `srun --ntasks=2` tells each process."""
    return {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process),
    }


def open_mpi(process: int, job: int) -> dict[str, str]:
    """What `mpirun -n 2` of Open MPI 4 tells each process."""
    return {
        "OMPI_MCA_orte_hnp_uri": f"{job * 2**12}.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(process),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(process),
    }


@pytest.mark.parametrize("launcher", [slurm, open_mpi])
def test_the_launcher_s_coordinates_are_found(launcher, tmp_path):
    job = random.SystemRandom().randrange(2**12)  # the port is made from it
    command = [sys.executable, str(SCRIPT), "--distributed", "--fast", "--steps", "4"]
    command += ["--out", str(tmp_path / "run"), "--corpora", str(tmp_path / "corpora")]
    running = [
        subprocess.Popen(
            command,
            env=ENV | {"JAX_NUM_CPU_DEVICES": "2"} | launcher(process, job),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]
    try:
        texts = [process.communicate(timeout=120)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], texts
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [line["step"] for line in map(json.loads, lines) if "rows" in line] == [0, 1, 2, 3]
    # Only process 0 writes and says so.
    assert [("held-out bits per byte" in text) for text in texts] == [True, False]
