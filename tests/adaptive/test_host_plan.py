"""Learned weights in a host plan: exact rows, also when the process is killed and restarted."""

import collections
import os
import signal
import subprocess
import sys

import adaptive_plan_run as run
import numpy as np

import jaxmix

NUM_STEPS = 60


def start(folder):
    command = [sys.executable, run.__file__, str(folder), str(NUM_STEPS)]
    paths = [os.path.dirname(os.path.dirname(jaxmix.__file__)), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_killed_and_restarted_it_reads_the_rows_of_an_unbroken_run(tmp_path, capsys):
    (tmp_path / "unbroken").mkdir()
    run.main(tmp_path / "unbroken", NUM_STEPS)
    want = capsys.readouterr().out.splitlines()

    (tmp_path / "killed").mkdir()
    process = start(tmp_path / "killed")
    lines = [process.stdout.readline().strip() for _ in range(34)]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and lines == want[:34]
    restarted = start(tmp_path / "killed").communicate()[0].splitlines()
    first = int(restarted[0].split()[0])
    assert 0 < first <= NUM_STEPS and first % 7 == 0
    assert restarted == want[first:]

    used = collections.defaultdict(list)
    for line in want[:-1]:
        for word in line.split()[1:]:
            source, index = map(int, word.split(":"))
            used[source].append(index)
    for index in used.values():  # over all plans no row is skipped and none comes twice
        assert sorted(index) == list(range(len(index)))
    learned = np.array([float(word) for word in want[-1].split()[1:]])
    assert learned.argmax() == 0 and learned[0] > 0.5 and learned.min() >= 0.05
    assert len(used[0]) > len(used[1]) > len(used[2])
