"""Several processes, as on a pod: they draw the rows of one, know their parts, and must agree."""

import json
import pathlib
import re
import socket
import subprocess
import sys

import jax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from loopback import ENV

import jaxmix


def _run(worker: str, processes: int) -> list:
    """What each process of a loopback run of a worker prints."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    path = pathlib.Path(__file__).parents[1] / "support" / worker
    running = [
        subprocess.Popen(
            [sys.executable, str(path), str(process), str(processes), str(port)],
            env=ENV,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    outputs = [process.communicate(timeout=300) for process in running]
    assert all(process.returncode == 0 for process in running), outputs
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


def test_two_processes_draw_the_rows_of_one():
    alone, both = _run("process_worker.py", 1)[0], _run("process_worker.py", 2)
    assert both[0] == both[1] == alone
    mixed, systematic, drawn, whole = alone[10]
    assert mixed == whole != systematic and len(drawn) == 48


@pytest.fixture(scope="module")
def said():
    return _run("plan_worker.py", 2)


def test_processes_with_other_plans_are_refused_and_told_what_differs(said):
    got = {
        "schedule": r"counts at step 2000 \[8, 24\] in process 0 and \[16, 16\] in process 1",
        "batch_size": "batch_size 32 in process 0 and 64 in process 1",
        "seed": "seed 4294967295 in process 0 and 4294967294 in process 1",
        "sources": "num_sources 2 in process 0 and 3 in process 1",
        "start": r"cursors at step 100 \[\d+, \d+\] in process 0 and \[1600, 1600\] in process 1",
        "num_steps": "num_steps 3000 in process 0 and 3001 in process 1",
        "names": r"names \('web', 'code'\) in process 0 and \('web', 'Code'\) in process 1",
        "names in turn": r"names \('web', 'code'\) in process 0 and \('code', 'web'\) in process 1",
        "last of many names": r"names .*'last 0'\) in process 0 and .*'last 1'\) in process 1",
        "stage": r"batch_size \{.* 1000: 64\} in process 0 and \{.* 1001: 64\} in process 1",
        "last of many stages": r"batch_size .* 99: 40\} in process 0 and .* 99: 41\} in process 1",
        "group_size": "group_size 4 in process 0 and 8 in process 1",
        "length": r"lengths \(70, 50\) in process 0 and \(70, 51\) in process 1",
        "length not known": r"lengths \(None, 50\) in process 0 and \(70, 50\) in process 1",
    }
    for name in ("the same", "the same in all", "the same up to there"):
        assert said[0][name] == said[1][name] == "", name
    for name, wanted in got.items():
        assert len(said[0][name]) < 1500
        assert said[0][name] == said[1][name]  # no process goes on alone
        assert re.fullmatch(f"plan must be the same in every process, got {wanted}", said[0][name])


def test_an_error_in_one_process_is_told_in_all(said):
    assert (
        said[0]["no weights"]
        == "plan must be known in every process, got an error in processes [1]"
    )
    assert "a schedule's weights at step 501 must be" in said[1]["no weights"]


def test_a_process_knows_its_part_from_the_sharding(said):
    parts = {
        "in order": ([0, 2], [1, 2]),
        "reversed": ([1, 2], [0, 2]),  # where parts by process index would swap the rows
        "one half each": ([0, 2], [1, 2]),
        "rows shared": ([0, 1], [0, 1]),  # a model split over the processes: both hold all rows
    }
    for name, wanted in parts.items():
        assert (said[0][name], said[1][name]) == wanted, name
    assert said[0]["no devices"] == [0, 1]
    assert "must be on a mesh with a device of this process" in said[1]["no devices"]
    for told in said:
        for name in ("in turns", "outside and inside"):
            assert "must be one that gives this process a contiguous part" in told[name], name


def test_a_part_wants_a_sharding_and_a_size_that_it_splits():
    mesh = jax.make_mesh((8,), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    assert jaxmix.local_shard(rows, 16) == (0, 1)
    for spec in (PartitionSpec(), PartitionSpec(None, "data"), PartitionSpec("data", None, None)):
        assert jaxmix.local_shard(NamedSharding(mesh, spec), 16) == (0, 1)
    assert jaxmix.local_shard(jax.sharding.SingleDeviceSharding(jax.devices()[3]), 5) == (0, 1)
    with pytest.raises(TypeError, match=r"sharding must be a jax\.sharding\.Sharding"):
        jaxmix.local_shard("data", 16)
    with pytest.raises(ValueError, match="batch_size must be >= 1"):
        jaxmix.local_shard(rows, 0)
    with pytest.raises(
        TypeError, match="sharding must be on a mesh of devices, not an AbstractMesh"
    ):
        jaxmix.local_shard(NamedSharding(mesh.abstract_mesh, PartitionSpec("data")), 16)
    with pytest.raises(ValueError, match="divi"):
        jaxmix.local_shard(rows, 12)
    with pytest.raises(TypeError, match="plan must be a MixPlan"):
        jaxmix.check_same_plan(0.5, 10)
