"""Commands about experiments: `vif results`."""

import argparse
from typing import Any


def _results(args: argparse.Namespace) -> None:
    from ..files import write_text
    from .formats import FORMATS
    from .results import read_results
    from .tables import METRICS, sections

    found = sections(
        [read_results(path) for path in args.files],
        args.table,
        args.protocols,
        args.metrics or METRICS,
        args.later,
    )
    text = FORMATS[args.format](found)
    if args.out:
        write_text(args.out, text)
    else:
        print(text, end="")
    if args.plot:
        from .figures import draw

        draw(found, args.plot, args.protocols, args.metrics)


def add_commands(commands: Any) -> None:
    """Add this package's commands to the parser's subparsers; each sets `run`."""
    results = commands.add_parser("results", help="print the paper's tables, published and from sweeps")
    results.add_argument("files", nargs="*", metavar="FILE", help="written by `vif sweep` (default: none)")
    results.add_argument("--table", action="append", default=[], choices=list("12345"), help="only this one")
    results.add_argument(
        "--protocols", nargs="+", default=[], metavar="NAME", help="e.g. AG A2G (default: the paper's)"
    )
    results.add_argument(
        "--metrics", nargs="+", default=[], metavar="NAME", help="e.g. Rank-5 mAP (default: Rank-1 mAP mINP)"
    )
    results.add_argument("--format", default="markdown", choices=("markdown", "csv", "latex"))
    results.add_argument("--later", action="store_true", help="append systems that are newer than the paper")
    results.add_argument("--plot", metavar="DIR", help="also write curves and effects there, as PNG and SVG")
    results.add_argument("--out", metavar="FILE", help="write there, not to the screen")
    results.set_defaults(run=_results)
