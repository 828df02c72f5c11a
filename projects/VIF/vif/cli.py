"""The `vif` command; `vif COMMAND --help` lists a command's options."""

import argparse
import sys
from typing import Any, List, Optional

from .errors import ConfigError, DataError, EvaluationError, VIFError, shown
from .experiments.cli import add_commands
from .inference.cli import add_commands as add_inference_commands
from .report.cli import add_commands as add_report_commands
from .retrieval.cli import add_commands as add_retrieval_commands
from .serve.cli import add_commands as add_serve_commands


def _synth(args: argparse.Namespace) -> None:
    from .data.synth import write_synthag

    write_synthag(
        args.out, ids=args.ids, images_per_camera=args.images_per_camera, seed=args.seed, workers=args.workers
    )


def _extract(args: argparse.Namespace) -> None:
    if args.onnx and (args.config_file or args.weights or args.opts or not args.images):
        raise ConfigError("--onnx FILE holds its config and weights: give it with --images and --out alone.")
    if not args.onnx and not (args.config_file and args.weights):
        raise ConfigError("vif extract needs --config-file and --weights; for --images, --onnx FILE will do.")
    if args.images:
        _extract_images(args)
    else:
        _extract_dataset(args)


def _extract_images(args: argparse.Namespace) -> None:
    from .features import check_path
    from .inference.cli import build_predictor

    check_path(args.out)
    predictor = build_predictor(args.config_file, args.weights, args.onnx, args.opts)
    table, failures = predictor.folder(args.images)
    for failure in failures:
        print(failure, file=sys.stderr)
    if not len(table):
        raise DataError(f"none of the {len(failures)} images below {args.images} could be used.")
    table.save(args.out)
    left_out = f"; {len(failures)} left out, named above" if failures else ""
    print(f"{args.out}: {len(table)} images, {table.features.shape[1]} dimensions{left_out}")


def _extract_dataset(args: argparse.Namespace) -> None:
    from .config_file import merge_pairs, read_config
    from .evaluation import left_out
    from .evaluation.extract_file import extract_file

    cfg = read_config(args.config_file, args.opts)
    merge_pairs(cfg, ["MODEL.WEIGHTS", args.weights, "MODEL.BACKBONE.PRETRAIN", False])
    cfg.freeze()
    table = extract_file(cfg, args.dataset or cfg.DATASETS.TESTS[0], args.out)
    note = left_out.describe(table)
    print(f"{args.out}: {len(table)} images, {table.features.shape[1]} dimensions{note and '; '}{note}")


def _evaluate(args: argparse.Namespace) -> None:
    from .evaluation import left_out
    from .evaluation.evaluate import evaluate_table, format_table
    from .features import FeatureTable
    from .files import write_json

    table = FeatureTable.load(args.features)
    protocols = _protocols(args, table)
    processing = _processing(args)
    rankings = {p.name: evaluate_table(table, p, processing) for p in protocols}
    notes = filter(None, [table.meta.get("flip"), processing.describe(), left_out.describe(table)])
    print(f"{args.features}: {', '.join(notes)}")
    print(format_table(rankings, protocols, args.confidence or None))
    if args.json:
        scores = {p.name: {**rankings[p.name].scores(), **left_out.counts(table, p)} for p in protocols}
        write_json(args.json, {_dataset(args, table): scores})


def _compare(args: argparse.Namespace) -> None:
    from tabulate import tabulate

    from .evaluation import left_out
    from .evaluation.confidence import paired_difference
    from .evaluation.evaluate import evaluate_table
    from .features import FeatureTable

    tables = [FeatureTable.load(path).by_path() for path in (args.a, args.b)]
    if any(list(getattr(tables[0], name)) != list(getattr(tables[1], name)) for name in ("pids", "camids")):
        raise EvaluationError(f"{args.a} and {args.b} are not of the same images: their labels differ.")
    for path, table in zip((args.a, args.b), tables):
        if left_out.describe(table):
            print(f"{path}: {left_out.describe(table)}")
    rows = []
    for protocol in _protocols(args, tables[0]):
        a, b = (evaluate_table(table, protocol, _processing(args)) for table in tables)
        for name, d in paired_difference(a, b, level=args.confidence).items():
            verdict = "yes" if d.distinguishable else "no: the interval holds 0"
            ends = f"[{d.low:+.2f}, {d.high:+.2f}]"
            scores = (f"{a.scores()[name]:.2f}", f"{b.scores()[name]:.2f}", f"{d.difference:+.2f}")
            rows.append((protocol.name, name, *scores, ends, verdict, f"{len(a.valid):,}"))
    headers = ("Protocol", "score", "a", "b", "b - a", f"{args.confidence:.0%} interval", "distinguishable")
    print(tabulate(rows, (*headers, "valid queries"), tablefmt="github", disable_numparse=True))


def _sweep(args: argparse.Namespace) -> None:
    import logging

    from .experiments.runner import run_sweep
    from .experiments.sweep import read_sweep

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sweep = read_sweep(args.file, args.data, args.seeds, args.set)
    path, failed = run_sweep(sweep, args.out, args.jobs, args.threads)
    print(path)
    if failed:
        raise ConfigError(f"{failed} of {len(sweep.runs)} runs failed; {path} holds their errors.")


def _dataset(args: argparse.Namespace, table: Any) -> str:
    return args.dataset or table.meta.get("dataset", "")


def _protocols(args: argparse.Namespace, table: Any) -> List[Any]:
    """Rows asked for: those of the data set, or of the table's own views when the data set is not known."""
    from .evaluation.protocols import PROTOCOLS, known_protocols, select

    if args.dataset and args.dataset not in PROTOCOLS:
        raise EvaluationError(f"--dataset {args.dataset}: unknown; there are {', '.join(PROTOCOLS)}.")
    return select(args.protocols, known_protocols(_dataset(args, table), table.views.tolist()))


def _processing(args: argparse.Namespace) -> Any:
    from .evaluation.processing import Expansion, Processing, Rerank

    return Processing(
        args.metric,
        Expansion(int(args.expand[0]), args.expand[1], int(args.expand[2])) if args.expand else None,
        Rerank(int(args.rerank[0]), int(args.rerank[1]), args.rerank[2]) if args.rerank else None,
    )


def _add_scoring(parser: argparse.ArgumentParser, confidence: str) -> None:
    """Options that `evaluate` and `compare` share."""
    parser.add_argument("--dataset", help="whose protocols to use, e.g. CARGO (default: the file's own)")
    parser.add_argument(
        "--protocols", nargs="*", default=[], metavar="NAME", help="e.g. AG A2G (default: all)"
    )
    parser.add_argument("--metric", default="cosine", choices=("cosine", "euclidean"))
    parser.add_argument(
        "--expand", nargs=3, type=float, metavar=("K", "ALPHA", "TIMES"), help="query expansion, e.g. 5 3 1"
    )
    parser.add_argument(
        "--rerank", nargs=3, type=float, metavar=("K1", "K2", "LAMBDA"), help="re-ranking, e.g. 20 6 0.3"
    )
    parser.add_argument("--confidence", type=float, default=0.95, metavar="LEVEL", help=confidence)


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

    extract = commands.add_parser("extract", help="write the features of a data set or a folder to a file")
    extract.add_argument("--config-file", metavar="FILE")
    extract.add_argument("--weights", metavar="FILE", help="checkpoint, .pth")
    extract.add_argument("--onnx", metavar="FILE", help="instead of both, with --images: of `vif export`")
    extract.add_argument("--out", required=True, metavar="FILE", help="features.npz or features.safetensors")
    source = extract.add_mutually_exclusive_group()
    source.add_argument("--dataset", help="registered data set (default: the first of DATASETS.TESTS)")
    source.add_argument("--images", metavar="FOLDER", help="all images below a folder, instead of a data set")
    extract.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys to change")
    extract.set_defaults(run=_extract)

    evaluate = commands.add_parser("evaluate", help="print the table of protocols of a feature file")
    evaluate.add_argument("features", help="features.npz or features.safetensors")
    _add_scoring(evaluate, "of the bootstrap intervals, 0 for none (default 0.95)")
    evaluate.add_argument("--json", metavar="FILE", help="write the scores, as results.json has them")
    evaluate.set_defaults(run=_evaluate)

    compare = commands.add_parser("compare", help="paired difference of two feature files, b minus a")
    compare.add_argument("a")
    compare.add_argument("b")
    _add_scoring(compare, "of the bootstrap intervals (default 0.95)")
    compare.set_defaults(run=_compare)

    sweep = commands.add_parser(
        "sweep", help="train many configs under many seeds, e.g. one of the paper's tables"
    )
    sweep.add_argument("file", help="e.g. configs/sweeps/table3.yml")
    sweep.add_argument("--data", required=True, help="folder of configs: CARGO, AGReIDv1, AGReIDv2, SynthAG")
    sweep.add_argument(
        "--out", default="logs/sweeps", metavar="DIR", help="runs and results (default logs/sweeps)"
    )
    sweep.add_argument("--seeds", nargs="+", type=int, default=[], metavar="SEED", help="default: the file's")
    sweep.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default 1)")
    sweep.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads of a run (default: cores / jobs)"
    )
    sweep.add_argument(
        "--set", nargs="+", default=[], metavar="KEY VALUE", help="config keys to change in every run"
    )
    sweep.set_defaults(run=_sweep)
    add_commands(commands)
    add_inference_commands(commands)
    add_retrieval_commands(commands)
    add_report_commands(commands)
    add_serve_commands(commands)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run one command; the project's errors, and the system's of files, end in one line and exit code 1."""
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except VIFError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except OSError as e:
        if e.filename is None:  # of no file: a closed pipe, a network
            raise
        print(f"error: {shown(str(e.filename))}: {e.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
