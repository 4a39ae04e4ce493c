"""The language model on real processes: the same rows on any of them, killed or asked to stop."""

import fcntl
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import language_model as example
import loopback
import numpy as np
import pytest
from support.training_log import read_log

import jaxmix

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "language_model.py"
ENV = dict(loopback.ENV)
STEPS = 50


def command(folder, *options, processes=1, script=SCRIPT):
    small = ["--fast", "--steps", str(STEPS), "--eval-every", "25", "--save-every", "20"]
    where = ["--out", str(folder), "--corpora", str(folder.parent / "corpora")]
    return [sys.executable, str(script), *small, *where, "--processes", str(processes), *options]


def begin(folder, *options, processes=1, devices=8, script=SCRIPT):
    """Start a run, in a process group of its own."""
    return subprocess.Popen(
        command(folder, *options, processes=processes, script=script),
        env=ENV | ({"JAX_NUM_CPU_DEVICES": str(devices)} if processes == 1 else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(run):
    """The exit code and what it printed; nothing of a run that hangs is left."""
    try:
        return run.communicate(timeout=120)[0], run.returncode
    finally:
        try:
            os.killpg(run.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def finish(folder, *options, processes=1, devices=8):
    text, code = end(begin(folder, *options, processes=processes, devices=devices))
    assert code == 0, text
    return text


def lines(folder, key="rows"):
    """The lines of the metrics that have a key; the last one may be half written."""
    return [line for line in read_log(folder / "metrics.jsonl") if key in line]


def wait_for(run, folder, step):
    """Return once a line of this step is written."""
    for _ in range(2000):
        if any(line["step"] >= step for line in lines(folder)):
            return
        assert run.poll() is None, end(run)
        time.sleep(0.05)
    raise AssertionError(end(run))


def saved(folder):
    return sorted(
        int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit()
    )


def assert_same(folder, unbroken, steps=STEPS):
    """Every step once, the rows to the bit, the losses to rounding."""
    ours, theirs = lines(folder), lines(unbroken)
    assert [line["step"] for line in ours] == list(range(steps))
    assert [line["rows"] for line in ours] == [line["rows"] for line in theirs]
    np.testing.assert_allclose(
        [line["loss"] for line in ours], [line["loss"] for line in theirs], rtol=1e-4
    )
    scores = (
        [(line["step"], line["valid/code"]) for line in lines(f, "valid/code")]
        for f in (folder, unbroken)
    )
    np.testing.assert_allclose(*scores, rtol=1e-4)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language_model")
    ENV["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")  # most runs compile the same
    ENV["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    return folder


@pytest.fixture(scope="module")
def unbroken(home):
    """One process with eight devices."""
    finish(home / "unbroken")
    return home / "unbroken"


def test_it_learns_and_the_mix_is_annealed(unbroken):
    log = lines(unbroken)
    assert len({line["rows"] for line in log}) == STEPS
    assert all(math.isfinite(line["loss"]) for line in log)
    shares = np.array([line["mix/share/prose"] for line in log])
    assert shares[:10].mean() > 0.75 and shares[-10:].mean() < 0.35
    scores = lines(unbroken, "valid/code")
    assert [line["step"] for line in scores] == [0, 25, 50]
    for name in ("valid/prose", "valid/code"):
        assert scores[-1][name] < 8 and scores[-1][name] < scores[0][name]
    assert saved(unbroken)[-1] == STEPS and (unbroken / "mix.png").stat().st_size > 10_000


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_train_on_the_rows_of_one(home, unbroken, processes):
    folder = home / f"processes{processes}"
    finish(folder, "--save-every", str(STEPS), processes=processes)
    assert_same(folder, unbroken)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_buffers_on_the_devices_give_the_rows_that_the_host_reads(home, unbroken, processes):
    folder = home / f"planned{processes}"
    finish(folder, "--feed", "planned", "--save-every", str(STEPS), processes=processes)
    assert_same(folder, unbroken)


def test_the_pool_gives_two_processes_the_rows_of_one_device(home, unbroken):
    one, two = home / "pool1", home / "pool2"
    finish(one, "--feed", "pool", "--steps", "20", devices=1)
    finish(two, "--feed", "pool", "--steps", "20", processes=2)
    assert_same(two, one, steps=20)
    assert not {line["rows"] for line in lines(one)} & {line["rows"] for line in lines(unbroken)}


def test_one_process_killed_ends_all_and_another_number_goes_on(home, unbroken):
    folder = home / "killed"
    run = begin(folder, processes=2)
    wait_for(run, folder, 29)
    copies = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(copies[1]), signal.SIGKILL)
    text, code = end(run)
    assert code == 1 and "process 1 of 2 ended with -9" in text
    assert not any(Path(f"/proc/{copy}").exists() for copy in copies)
    assert saved(folder)[-1] in (20, 40)
    finish(folder, "--resume")
    assert_same(folder, unbroken)


def test_told_to_leave_it_saves_and_another_number_goes_on(home, unbroken):
    folder = home / "told"
    run = begin(folder, processes=2)
    wait_for(run, folder, 9)
    run.send_signal(signal.SIGTERM)
    text, code = end(run)
    assert code == 0, text
    first = saved(folder)[-1]
    assert f"left after step {first} of {STEPS}: --resume" in text
    assert 10 < first < STEPS and lines(folder)[-1]["step"] == first - 1

    run = begin(folder, "--resume", "--workers", "1")
    wait_for(run, folder, first)
    os.killpg(run.pid, signal.SIGINT)  # as Ctrl-C does, grain's worker included
    text, code = end(run)
    assert code == 0, text
    assert first < saved(folder)[-1] < STEPS and "Traceback" not in text, text
    finish(folder, "--resume", "--feed", "planned")  # the same rows, so it is the same run
    assert_same(folder, unbroken)


WORKER = """
import sys
sys.path.insert(0, {examples!r})
import jaxmix, language_model
from support import local_processes
args = language_model.parse(sys.argv[1:])
if args.place is None:
    local_processes.start_processes(sys.argv, args.processes, args.devices)
else:
    local_processes.join(args.place)
    end = 0.2 if args.place[2] == "0" else 0.3
    language_model.train(args, jaxmix.cosine_schedule(0.9, end, args.steps), [])
"""


def test_processes_with_other_schedules_are_refused_before_the_first_step(home):
    script = home / "two_schedules.py"
    script.write_text(WORKER.format(examples=str(EXAMPLES)))
    text, code = end(begin(home / "refused", processes=2, script=script))
    assert code == 1
    assert "plan must be the same in every process, got counts at step" in text
    assert not lines(home / "refused")


def test_the_fingerprint_sees_every_byte_and_its_place():
    rows = np.random.default_rng(0).integers(0, 256, (16, 128), dtype=np.uint8)
    other, swapped = rows.copy(), rows[[1, 0, *range(2, 16)]]
    other[7, 9] ^= 1
    sharding = jax.NamedSharding(jax.make_mesh((8,), ("data",)), jax.P("data"))
    hashes = [int(example.fingerprint(x)) for x in (rows, other, swapped)]
    assert len(set(hashes)) == 3
    assert int(jax.jit(example.fingerprint)(jax.device_put(rows, sharding))) == hashes[0]


def test_a_run_is_not_overwritten_nor_resumed_as_another(home, unbroken):
    folder = home / "copy"
    shutil.copytree(unbroken, folder)
    options = command(folder)[2:]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        with pytest.raises(SystemExit, match="has a run already: --resume it"):
            example.main(options)
        for option, value, was in (("--seed", 1, 0), ("--steps", 60, STEPS), ("--width", 64, 32)):
            with pytest.raises(
                SystemExit, match=f"{option[2:]} was {was} and is now {value}; keep"
            ):
                example.main([*options, "--resume", option, str(value)])
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(SystemExit, match="is in use by another run"):
                example.main([*options, "--resume"])
        last = example.main([*options, "--resume", "--tensorboard", str(folder / "board")])
    text, code = end(begin(folder, processes=2))
    assert code == 1 and "has a run already: --resume it" in text
    assert last["step"] == STEPS and last == lines(folder, "valid/code")[-1]
    assert_same(folder, unbroken)
    assert list((folder / "board").glob("events*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--log-every", "0"], "--log-every must be 1 or more"),
        (["--batch-size", "0"], "--batch-size must be 1 or more"),
        (["--processes", "-1"], "--processes must be 1 or more"),
        (["--width", "48"], "--width must be a multiple of 32"),
        (["--processes", "3"], "--devices 8 cannot be split over 3 processes"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message, capsys):
    with pytest.raises(SystemExit):
        example.parse(options)
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_used_stops_all_processes(home):
    (home / "a file").touch()
    text, code = end(begin(home / "a file", processes=2))
    assert code == 1 and "a file cannot be used and locked" in text


def test_shakespeare_takes_a_tenth_beside_the_anneal():
    weights = example.mixture(example.parse(["--shakespeare", "--steps", "100"]))
    table = np.asarray(jaxmix.tabulate(weights, 101))
    np.testing.assert_allclose(table[0], [0.81, 0.09, 0.1], rtol=1e-6)
    np.testing.assert_allclose(table[100], [0.18, 0.72, 0.1], rtol=1e-6)


def test_too_little_text_and_no_launcher_are_reported(tmp_path):
    options = ["--fast", "--out", str(tmp_path / "run"), "--corpora", str(tmp_path / "corpora")]
    with pytest.raises(SystemExit, match=r"--megabytes 0.001 is too little: prose has \d+ rows"):
        example.main([*options, "--megabytes", "0.001"])
    run = subprocess.run(
        [sys.executable, str(SCRIPT), *options, "--distributed"],
        env=ENV,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1 and "--distributed found no Slurm, Open MPI or TPU" in run.stderr
