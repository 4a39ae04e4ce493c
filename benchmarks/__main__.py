"""Run all suites, each in a process of its own, and write their tables into the pages.

`python -m benchmarks [--fast] [--device gpu] [--results DIR]`: with `--fast`, or with a folder of
your own for the results, the pages stay as they are.
"""

import argparse
import subprocess
import sys

from benchmarks import tables


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--results")
    args, _ = parser.parse_known_args()
    for suite in tables.SUITES:
        path = tables.ROOT / "benchmarks" / f"{suite}.py"
        if code := subprocess.run([sys.executable, str(path), *sys.argv[1:]]).returncode:
            sys.exit(code)
    if not (args.fast or args.results):
        tables.write_pages()


if __name__ == "__main__":
    main()
