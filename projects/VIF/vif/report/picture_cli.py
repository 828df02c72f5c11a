"""The commands `vif picture plrm`, `attention` and `synthag`."""

import argparse
import os
from typing import Any, List, Tuple

import numpy as np

from ..errors import ConfigError, DataError

_ENDINGS = (".png", ".jpg", ".jpeg")


def _plrm(args: argparse.Namespace) -> None:
    _begin(args, ".png")
    from ..data.synth import render_image
    from ..data.transforms import PatchLevelRotateMix, Resize
    from .canvas import save_png
    from .plrm_picture import mix, plrm_figure

    size, transform = (256, 128), PatchLevelRotateMix()
    if args.config_file:
        from ..config_file import read_config
        from ..data.augmentations import PatchLevelRotateMix as from_config

        cfg = read_config(args.config_file, args.set)
        size, transform = tuple(cfg.INPUT.SIZE_TRAIN), from_config(cfg)
    elif args.set:
        raise ConfigError("--set changes keys of a config: name it with --config-file.")
    transform.prob = 1.0
    resize, rng = Resize(size, exact=True), np.random.default_rng(0)
    if args.images:
        images = [(os.path.basename(path), resize(_read(path), rng)) for path in args.images]
    else:
        cameras = args.cameras
        images = [(f"SynthAG camera {c}", render_image(args.world, args.id, c, 0, size)) for c in cameras]
    rows = mix(images, transform, args.seed)
    save_png(lambda palette: plrm_figure(rows, transform, palette), args.out)
    print(f"{args.out}: {transform!r}")


def _attention(args: argparse.Namespace) -> None:
    _begin(args, ".png")
    from ..compat import resolve_device
    from ..config_file import read_config
    from ..inference.build import build_torch_backend
    from .attention_picture import attend, attention_figure
    from .canvas import save_png

    cfg = read_config(args.config_file, args.set)
    device = resolve_device(cfg.MODEL.DEVICE)
    backend, transform = build_torch_backend(cfg, args.weights, device)
    images = [("", os.path.basename(path), _read(path)) for path in args.images] or _people(cfg, args)
    found = attend(backend.model, transform, images, device)
    save_png(lambda palette: attention_figure(found, palette), args.out)
    print(
        f"{args.out}: {len(found)} images, grid of {found[0].weights.shape[0]} x {found[0].weights.shape[1]}"
    )


def _people(cfg: Any, args: argparse.Namespace) -> List[Tuple[str, str, np.ndarray]]:
    """Some test people of the config's data set in each view."""
    from ..data.build import build_test_set
    from ..evaluation.extract import Extracted, make_table, unique_rows
    from .attention_picture import choose_people

    splits = build_test_set(cfg, args.dataset or cfg.DATASETS.TESTS[0], show=False).splits
    count = len(unique_rows(splits)[0])
    table = make_table(splits, Extracted(np.zeros((count, 1), np.float32), np.arange(count), []), {})
    return [
        (view, f"id {table.pids[row]}, cam {table.camids[row]}", _read(str(table.paths[row])))
        for view, rows in choose_people(table, args.people, args.seed).items()
        for row in rows
    ]


def _synthag(args: argparse.Namespace) -> None:
    _begin(args, *_ENDINGS)
    from PIL import Image

    from ..data.synth import contact_sheet
    from ..files import atomic_path

    sheet = contact_sheet(args.world, args.ids, (args.height, args.height // 2), index=0)
    kind = "PNG" if args.out.lower().endswith(".png") else "JPEG"
    with atomic_path(args.out) as partial:
        Image.fromarray(sheet).save(partial, format=kind, quality=90, optimize=True)
    print(f"{args.out}: {len(args.ids)} people under 5 aerial and 8 ground cameras")


def _begin(args: argparse.Namespace, *endings: str) -> None:
    """Check libraries and --out before the work begins, and make its folder."""
    from .needs import require

    require(*(["PIL"] if args.picture == "synthag" else ["matplotlib", "PIL"]))
    if not args.out.lower().endswith(endings):
        raise ConfigError(f"--out {args.out}: expected a name that ends in {' or '.join(endings)}.")
    os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)


def _read(path: str) -> np.ndarray:
    from ..inference.images import ImageFailure, load_image

    image = load_image(path)
    if isinstance(image, ImageFailure):
        raise DataError(f"{image}.")
    return image


def _seed(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--seed", type=int, default=0, help=f"of {what} (default 0)")


def _world(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--world", type=int, default=0, metavar="SEED", help="of SynthAG, as `vif synth --seed`"
    )


def _opts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY VALUE", help="config keys to change, last on the line"
    )


def add_pictures(pictures: Any) -> None:
    """Add the three pictures to the subparsers of `vif picture`."""
    plrm = pictures.add_parser("plrm", help="Patch-Level RotateMix before and after, with its probabilities")
    plrm.add_argument("--out", required=True, metavar="FILE", help="to write, .png")
    plrm.add_argument(
        "--images", nargs="+", default=[], metavar="FILE", help="(default: two views of a SynthAG person)"
    )
    plrm.add_argument(
        "--config-file", metavar="FILE", help="whose INPUT.PLRM to use (default: the paper's values)"
    )
    plrm.add_argument("--id", type=int, default=1, help="of the SynthAG person (default 1)")
    plrm.add_argument(
        "--cameras",
        type=int,
        nargs="+",
        default=[2, 9],
        metavar="N",
        help="1-5 aerial, 6-13 ground (default 2 9)",
    )
    _world(plrm)
    _seed(plrm, "what is drawn")
    _opts(plrm)
    plrm.set_defaults(run=_plrm, picture="plrm")

    attention = pictures.add_parser("attention", help="attention roll-out of a ViT, a row a view")
    attention.add_argument("--config-file", required=True, metavar="FILE")
    attention.add_argument("--weights", required=True, metavar="FILE", help="checkpoint, .pth")
    attention.add_argument("--out", required=True, metavar="FILE", help="to write, .png")
    attention.add_argument(
        "--images", nargs="+", default=[], metavar="FILE", help="instead of the data set's people"
    )
    attention.add_argument("--dataset", help="registered data set (default: the first of DATASETS.TESTS)")
    attention.add_argument("--people", type=int, default=8, metavar="N", help="of the data set (default 8)")
    _seed(attention, "the choice of people")
    _opts(attention)
    attention.set_defaults(run=_attention, picture="attention")

    synthag = pictures.add_parser("synthag", help="SynthAG: people as rows, its 13 cameras as columns")
    synthag.add_argument("--out", required=True, metavar="FILE", help="to write, .png or .jpg")
    synthag.add_argument(
        "--ids", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6], metavar="N", help="(default 1 to 6)"
    )
    synthag.add_argument(
        "--height", type=int, default=128, help="of a picture, pixels; the width is half (default 128)"
    )
    _world(synthag)
    synthag.set_defaults(run=_synthag, picture="synthag")
