"""The commands `vif report` and `vif picture`."""

import argparse
import dataclasses
import os
from typing import Any, List, Optional, Tuple

from ..errors import ConfigError, DataError


def _report(args: argparse.Namespace) -> None:
    from ..files import write_text
    from .needs import require

    require("matplotlib", "sklearn", "jinja2", "PIL")
    for name, least in (("queries", 1), ("top", 1), ("seed", 0)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name} {getattr(args, name)}: expected at least {least}.")
    if not 0 < args.confidence < 1:
        raise ConfigError(f"--confidence {args.confidence}: expected a level between 0 and 1, e.g. 0.95.")
    from .build import Options, build_report
    from .page import render_page
    from .pictures import write_pictures

    material = _material(args)
    options = Options(args.queries, args.top, args.confidence, args.map, args.seed)
    report = build_report(material, options)
    page = render_page(report, material.crops, args.queries, args.top)
    out = args.out or os.path.join(args.run_dir, "report.html")
    write_text(out, page)
    left = f", {len(report.left_out)} parts left out (the page says why)" if report.left_out else ""
    print(f"{out}: {len(page.encode('utf-8')) / 1e6:.2f} MB, {len(report.sections)} sections{left}")
    if args.pictures:
        print(f"{args.pictures}: {len(write_pictures(report, material.crops, args.pictures))} pictures")


def _material(args: argparse.Namespace) -> Any:
    """What there is of the run; what cannot be had becomes a reason on the page."""
    from ..evaluation.processing import Processing
    from ..evaluation.protocols import known_protocols, select
    from .build import Material
    from .crops import Crops
    from .run import read_run
    from .table import report_table

    run = read_run(args.run_dir)
    config, reasons = _config(run, args.root)
    cfg = config.cfg if config else None
    tests = cfg.DATASETS.TESTS if cfg else list(run.results)
    title = args.dataset or next(iter(tests), "")
    crops = Crops(_roots(args.root, cfg))
    processing = config.processing if config else Processing()
    if args.metric:
        processing = processing._replace(metric=args.metric)
    table, warnings, protocols = None, [], []
    try:
        table, warning = report_table(run, cfg, title, args.features)
    except DataError as error:
        if args.features:
            raise
        reasons["features"] = str(error)
    else:
        warnings = [text for text in (warning, _unreadable(table, crops)) if text]
        title = args.dataset or _title(title, table.meta.get("dataset", ""))
        chosen = args.protocols or (cfg.TEST.PROTOCOLS if cfg else ())
        protocols = select(chosen, known_protocols(title, table.views.tolist()))
    return Material(run, title, crops, config, table, protocols, processing, warnings, reasons)


def _unreadable(table: Any, crops: Any) -> str:
    """What `vif.evaluation.left_out` says of the table, without the folders of the machine; "" if nothing."""
    from ..evaluation.left_out import describe, from_meta, to_meta

    images = [image._replace(path=crops.name(image.path)) for image in from_meta(table.meta)]
    return describe(dataclasses.replace(table, meta=to_meta(images))) + "." if images else ""


def _title(name: str, source: str) -> str:
    """What the scores stand under: CARGO_AG where the features are CARGO's, else the features' source."""
    from ..data.datasets.registry import ROWS

    sources = {row.name: row.source for row in ROWS}
    return name if source in ("", name, sources.get(name)) else source


def _config(run: Any, root: Optional[str]) -> Tuple[Any, "dict[str, str]"]:
    from .config import read_run_config

    if not run.config:
        return None, {"config": run.missing.get("config.yaml", "the run has no config.yaml")}
    try:
        roots = [run.folder, *_roots(root, None)]
        return read_run_config(os.path.join(run.folder, "config.yaml"), roots), {}
    except ConfigError as error:
        text = str(error).replace(os.path.join(run.folder, ""), "")
        return None, {"config": f"config.yaml cannot be read by this version ({text})"}


def _roots(root: Optional[str], cfg: Any) -> List[str]:
    """Folders that images may be read from."""
    from ..data.build import data_root

    if root:
        if not os.path.isdir(root):
            raise DataError(f"--root {root}: there is no such folder.")
        return [root]
    manifest = os.path.dirname(cfg.DATASETS.MANIFEST) if cfg is not None and cfg.DATASETS.MANIFEST else ""
    return [data_root(), *([manifest] if manifest else [])]


def add_commands(commands: Any) -> None:
    """Add `vif report` and `vif picture` to the parser's subparsers."""
    report = commands.add_parser("report", help="one HTML page on a trained run: scores, lists, maps, curves")
    report.add_argument("run_dir", metavar="RUN_DIR", help="OUTPUT_DIR of the training")
    report.add_argument(
        "--features", metavar="FILE", help="of `vif extract` (default: the run's, extracted if need be)"
    )
    report.add_argument("--out", metavar="FILE", help="page to write (default: RUN_DIR/report.html)")
    report.add_argument("--pictures", metavar="DIR", help="also write each figure there, as PNG")
    report.add_argument(
        "--dataset", help="registered data set (default: the first of the run's DATASETS.TESTS)"
    )
    report.add_argument(
        "--protocols", nargs="+", default=[], metavar="NAME", help="default: the run's TEST.PROTOCOLS"
    )
    report.add_argument("--metric", choices=("cosine", "euclidean"), help="default: the run's TEST.METRIC")
    report.add_argument("--root", metavar="DIR", help="images are read below it (default: FASTREID_DATASETS)")
    report.add_argument(
        "--queries", type=int, default=5, metavar="N", help="best, typical and worst, each (default 5)"
    )
    report.add_argument("--top", type=int, default=10, metavar="K", help="ranks of a list (default 10)")
    report.add_argument(
        "--map", default="tsne", choices=("tsne", "pca"), help="of the features (default tsne)"
    )
    report.add_argument(
        "--confidence", type=float, default=0.95, metavar="LEVEL", help="of intervals (default 0.95)"
    )
    report.add_argument("--seed", type=int, default=0, help="of the map (default 0)")
    report.set_defaults(run=_report)
    _add_pictures(commands)


def _add_pictures(commands: Any) -> None:
    from . import picture_cli

    picture = commands.add_parser("picture", help="one picture: plrm, attention, synthag")
    picture_cli.add_pictures(picture.add_subparsers(required=True, metavar="PICTURE"))
