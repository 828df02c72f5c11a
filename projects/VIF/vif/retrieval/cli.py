"""The commands `vif index` and `vif search`."""

import argparse
import os
import sys
from typing import Any

import numpy as np

_ONLY = {"features": ("split", "rows"), "images": ("config_file", "weights", "onnx", "set")}


def _index(args: argparse.Namespace) -> None:
    from ..errors import ConfigError, DataError
    from .labels import read_cells, read_labels
    from .opening import create_gallery, is_milvus, is_there, open_gallery
    from .roots import of_folder, relative_to

    _refuse_strays(args, "images" if args.images else "features")
    for name in ("index", "overwrite", "root"):
        if args.add and getattr(args, name):
            raise ConfigError(f"--{name} makes a gallery; leave it out with --add.")
    if args.index and is_milvus(args.out):
        raise ConfigError("--index is for galleries in a folder; Milvus chooses its own.")
    gallery = open_gallery(args.out) if args.add else None
    if gallery is None and is_there(args.out) and not args.overwrite:
        raise DataError(f"there is a gallery {args.out} already: extend it by --add, or --overwrite it.")
    root = (args.root or args.images or "") if gallery is None else gallery.meta.get("root", "")
    # refused here, before the work of reading images
    if args.labels:
        read_cells(args.labels)
    if args.images:
        of_folder(root, args.images, ["any"])
    table = _read_images(args) if args.images else _read_features(args.features, args.split)
    times, extra = None, None
    if args.labels:
        table, times, extra = read_labels(args.labels, table)
    if args.images:
        table.paths = of_folder(root, args.images, table.paths.tolist())
    elif root:
        table.paths = relative_to(root, table.paths.tolist())
    options = {"times": times, "extra": extra, "fingerprint": args.fingerprint}
    if gallery is not None:
        gallery.add(table, **options)
        gallery.save()
    else:
        if root:
            table.meta["root"] = os.path.abspath(root)
        kind = {} if is_milvus(args.out) else {"index": args.index or "auto"}
        gallery = create_gallery(args.out, table, overwrite=args.overwrite, **options, **kind)
    print(f"{args.out}: {gallery!r}")


def _search(args: argparse.Namespace) -> None:
    from ..errors import ConfigError
    from ..files import write_json
    from .filters import Filter
    from .opening import open_gallery

    _refuse_strays(args, next(name for name in ("images", "features", "ids") if getattr(args, name)))
    if args.ids and args.query_camid is not None:
        raise ConfigError(
            "--query-camid is for images and features; a row of the gallery has its own camera."
        )
    where = Filter(
        camids=args.camids,
        views=args.views,
        since=args.since,
        until=args.until,
        ids=args.among,
        other_cameras=args.other_cameras,
    )
    gallery = open_gallery(args.gallery)
    if args.ids:
        found = gallery.similar(args.ids, args.top, where)
    else:
        queries = _query_images(args) if args.images else _read_features(args.features, args.split, args.rows)
        camids = None if args.query_camid is None else [args.query_camid] * len(queries)
        found = gallery.search(queries, args.top, where, camids)
    print(found)
    if args.json:
        write_json(args.json, found.to_json())


def _refuse_strays(args: argparse.Namespace, source: str) -> None:
    """Options of another source than the one that is named would change nothing."""
    from ..errors import ConfigError

    for owner, names in _ONLY.items():
        stray = [name for name in names if owner != source and getattr(args, name, None)]
        if stray:
            raise ConfigError(f"--{stray[0].replace('_', '-')} is for --{owner}; leave it out.")


def _read_images(args: argparse.Namespace) -> Any:
    """Features of the images below a folder; prints what could not be used."""
    from ..errors import DataError

    table, failures = _predictor(args).folder(args.images)
    for failure in failures:
        print(failure, file=sys.stderr)
    if not len(table):
        raise DataError(f"none of the {len(failures)} images below {args.images} could be used.")
    return table


def _query_images(args: argparse.Namespace) -> Any:
    from ..features import FeatureTable

    predictor = _predictor(args)
    unknown, empty = np.full(len(args.images), -1), np.full(len(args.images), "")
    return FeatureTable(
        features=predictor(args.images),
        pids=unknown,
        camids=unknown,
        views=empty,
        paths=np.array(args.images),
        splits=empty,
        meta={"fingerprint": predictor.fingerprint},
    )


def _read_features(path: str, split: str, rows: Any = None) -> Any:
    """A feature file, some rows of it if they are named."""
    from ..errors import DataError
    from ..features import FeatureTable

    table = FeatureTable.load(path)
    chosen = table.rows(split) if split else np.arange(len(table))
    if split and not len(chosen):
        raise DataError(f"{path} has no split {split!r}; it has {', '.join(table.split_names()) or 'none'}.")
    if rows is not None:
        outside = [row for row in rows if not 0 <= row < len(chosen)]
        if outside:
            raise DataError(f"{path} has no row {outside[0]}; rows are 0 to {len(chosen) - 1}.")
        chosen = chosen[np.array(rows)]
    names = ("features", "pids", "camids", "views", "paths", "splits")
    return FeatureTable(**{name: getattr(table, name)[chosen] for name in names}, meta=table.meta)


def _predictor(args: argparse.Namespace) -> Any:
    from ..errors import ConfigError
    from ..inference.cli import build_predictor

    try:
        return build_predictor(args.config_file, args.weights, args.onnx, args.set)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"to read images {error.name} is needed: pip install -r requirements.txt. Without it, search by "
            "--features or --ids."
        ) from error


def _time(text: str) -> float:
    from ..errors import DataError
    from .labels import parse_time

    try:
        return parse_time(text)
    except DataError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config-file", metavar="FILE", help="with --images, as is --weights")
    parser.add_argument("--weights", metavar="FILE", help="checkpoint, .pth")
    parser.add_argument("--onnx", metavar="FILE", help="instead of both: a file of `vif export`")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY VALUE", help="config keys to change, last on the line"
    )


def add_commands(commands: Any) -> None:
    """Add `vif index` and `vif search` to the parser's subparsers."""
    index = commands.add_parser("index", help="build a gallery to search in, from images or features")
    source = index.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", metavar="FOLDER", help="all images below a folder")
    source.add_argument("--features", metavar="FILE", help="of `vif extract`")
    index.add_argument(
        "--out",
        required=True,
        metavar="GALLERY",
        help="folder, gallery.db or http://host:19530[#collection]",
    )
    index.add_argument("--index", choices=("auto", "flat", "hnsw", "ivfpq"), help="default: auto, by size")
    index.add_argument("--split", default="", help="only this split of a feature file, e.g. gallery")
    index.add_argument("--labels", metavar="CSV", help="path, and any of pid, camid, view, time, ...")
    index.add_argument(
        "--root", metavar="DIR", help="folder of all images, to show them from (default: that of --images)"
    )
    index.add_argument("--fingerprint", metavar="WORD", help="names the weights of a file that does not")
    index.add_argument("--add", action="store_true", help="to the gallery that is there")
    index.add_argument("--overwrite", action="store_true", help="replace the gallery that is there")
    _add_network(index)
    index.set_defaults(run=_index)

    search = commands.add_parser("search", help="the nearest rows of a gallery, by image, feature or id")
    search.add_argument("gallery", help="folder, gallery.db or http://host:19530[#collection]")
    query = search.add_mutually_exclusive_group(required=True)
    query.add_argument("--images", nargs="+", metavar="FILE", help="query images")
    query.add_argument("--features", metavar="FILE", help="queries of `vif extract`")
    query.add_argument("--ids", nargs="+", type=int, metavar="ID", help="rows of the gallery")
    search.add_argument("--rows", nargs="+", type=int, metavar="N", help="of the feature file, from 0")
    search.add_argument("--split", default="", help="only this split of the feature file, e.g. query")
    search.add_argument("--top", type=int, default=10, metavar="K", help="neighbours of a query (default 10)")
    search.add_argument("--camids", nargs="+", type=int, metavar="N", help="only these cameras")
    search.add_argument("--views", nargs="+", metavar="VIEW", help="only these views, e.g. aerial")
    search.add_argument("--since", type=_time, metavar="TIME", help="e.g. 2026-03-01T12:30 (UTC), or seconds")
    search.add_argument("--until", type=_time, metavar="TIME", help="before this time")
    search.add_argument("--among", nargs="+", type=int, metavar="ID", help="only these rows")
    search.add_argument("--other-cameras", action="store_true", help="not the query's own camera")
    search.add_argument("--query-camid", type=int, metavar="N", help="the camera of the queries")
    search.add_argument("--json", metavar="FILE", help="also write the neighbours of all queries")
    _add_network(search)
    search.set_defaults(run=_search)
