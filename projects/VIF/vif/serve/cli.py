"""The command `vif serve`."""

import argparse
import importlib.util
import os
import sys
from typing import Any

from ..errors import ConfigError

_NEEDS = ("fastapi", "uvicorn", "python-multipart")


def _serve(args: argparse.Namespace) -> None:
    missing = [name for name in _NEEDS if importlib.util.find_spec(name.replace("-", "_")) is None]
    if missing:
        raise ConfigError(f"vif serve needs {', '.join(missing)}: `pip install {' '.join(_NEEDS)}`.")
    if args.max_upload_mib <= 0:
        raise ConfigError(f"--max-upload-mib {args.max_upload_mib:g} must be above 0.")
    from ..retrieval import open_gallery
    from .app import create_app
    from .server import is_loopback, listen, own_names, run, url
    from .service import Service

    with listen(args.host, args.port) as bound:
        gallery = open_gallery(args.gallery)
        predictor = None
        if args.onnx or args.config_file or args.weights or args.set:
            from ..inference.cli import build_predictor

            predictor = build_predictor(args.config_file, args.weights, args.onnx, args.set)
        print(f"{args.gallery}: {gallery!r}")
        root = args.root or _own_root(gallery)
        service = Service.build(gallery, root, predictor, int(args.max_upload_mib * 2**20))
        if root:
            print(f"images from {root}")
        if not predictor:
            print("no uploads: they need --config-file and --weights, or --onnx")
        if not is_loopback(bound):
            print(
                f"warning: --host {args.host} lets other machines in, and there is no authentication: "
                "whoever reaches this port sees the gallery and its images.",
                file=sys.stderr,
            )
        print(f"{url(args.host, bound)}  (Ctrl-C ends it)", flush=True)
        run(create_app(service, own_names(args.host, bound)), bound)


def _own_root(gallery: Any) -> str:
    """The folder of images that a gallery names, "" where there is none; says so."""
    root = gallery.meta.get("root", "")
    if os.path.isdir(root):
        return str(root)
    why = f"{root} is not here" if root else "the gallery names no folder of them"
    print(f"no images: {why}; name the folder they are in now with --root")
    return ""


def add_commands(commands: Any) -> None:
    """Add `vif serve` to the parser's subparsers."""
    serve = commands.add_parser("serve", help="a web page and HTTP API to search a gallery with")
    serve.add_argument("gallery", help="folder, gallery.db or http://host:19530[#collection]")
    serve.add_argument("--config-file", metavar="FILE", help="to search by uploaded images, as is --weights")
    serve.add_argument("--weights", metavar="FILE", help="checkpoint, .pth")
    serve.add_argument("--onnx", metavar="FILE", help="instead of both: a file of `vif export`")
    serve.add_argument("--root", metavar="DIR", help="folder of the images (default: the gallery's own)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine)")
    serve.add_argument("--port", type=int, default=8000, help="0: any free one (default 8000)")
    serve.add_argument(
        "--max-upload-mib", type=float, default=16, metavar="MIB", help="largest upload (default 16)"
    )
    serve.add_argument(
        "--set", nargs="+", default=[], metavar="KEY VALUE", help="config keys to change, last on the line"
    )
    serve.set_defaults(run=_serve)
