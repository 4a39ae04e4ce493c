"""Several processes of one script on one machine, in place of a pod, and how they stop."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

LEAVE = (signal.SIGINT, signal.SIGTERM)


def start_processes(command: Sequence[str], count: int, devices: int) -> None:
    """Run `count` copies, each with its own `--place`; exit with 1 if one of them fails.

    Ctrl-C and SIGTERM are passed on. When one copy fails, the others would wait for it for ever,
    so they are killed.
    """
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices // count)}
    copies: list[subprocess.Popen] = []
    with caught_signals(lambda number: [copy.send_signal(number) for copy in copies]):
        for k in range(count):
            place = ["--place", address, str(count), str(k)]
            copies.append(subprocess.Popen([sys.executable, *command, *place], env=env))
        while None in (codes := [copy.poll() for copy in copies]) and not any(codes):
            time.sleep(0.05)
        for copy in copies:
            if any(codes):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    copy.wait(timeout=2)  # it may end by itself and print why
                copy.kill()
            copy.wait()
    for k, code in enumerate(codes):
        if code:
            sys.exit(f"process {k} of {count} ended with {code}: the others were stopped")


@contextlib.contextmanager
def caught_signals(act) -> Iterator[None]:
    """Call `act` with the number of each Ctrl-C or SIGTERM, instead of ending the process."""
    before = [signal.signal(number, lambda number, _: act(number)) for number in LEAVE]
    try:
        yield
    finally:
        for number, handler in zip(LEAVE, before, strict=True):
            signal.signal(number, handler)


def leave_to_parent(*_) -> None:
    """In a worker of grain: ignore Ctrl-C, and let the process that started it end it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process: a collective with the same result in all."""
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def join(place: Sequence[str]) -> None:
    """Join the other copies, with what `start_processes` wrote after `--place`."""
    address, count, k = place
    jax.distributed.initialize(address, num_processes=int(count), process_id=int(k))
