"""Run all benchmarks, each in a process of its own: `python -m benchmarks [--fast]`."""

import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).parent
SUITES = ("in_jit", "losses", "adaptive", "shuffles", "host_plan", "reads", "pod")


def main() -> None:
    for name in SUITES:
        print(f"\n# {name}\n", flush=True)
        command = [sys.executable, str(FOLDER / f"{name}.py"), *sys.argv[1:]]
        if code := subprocess.run(command).returncode:
            sys.exit(f"{name} ended with {code}")


if __name__ == "__main__":
    main()
