"""The `vif` command; `vif COMMAND --help` lists a command's options."""

import argparse
import sys
from typing import List, Optional

from .errors import VIFError


def _synth(args: argparse.Namespace) -> None:
    from .data.synth import write_synthag

    write_synthag(
        args.out, ids=args.ids, images_per_camera=args.images_per_camera, seed=args.seed, workers=args.workers
    )


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run`."""
    parser = argparse.ArgumentParser(prog="vif", description="Aerial-ground person re-identification.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    synth = commands.add_parser("synth", help="write SynthAG, a synthetic data set in CARGO's layout")
    synth.add_argument("--out", required=True, metavar="DIR", help="folder to write, e.g. datasets/SynthAG")
    synth.add_argument("--ids", type=int, default=600, help="identities, half train, half test (default 600)")
    synth.add_argument("--images-per-camera", type=int, default=1, help="images of each identity and camera")
    synth.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default 0)")
    synth.add_argument("--workers", type=int, default=None, help="processes (default: all cores)")
    synth.set_defaults(run=_synth)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run one command; the project's own errors end in one line and exit code 1."""
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except VIFError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
