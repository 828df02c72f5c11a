"""The command `vif export`."""

import argparse
from typing import Any, Dict, Optional, Sequence

from ..errors import ConfigError


def _export(args: argparse.Namespace) -> None:
    from ..config_file import read_config
    from .export import VARIANTS, export

    report = export(
        read_config(args.config_file, args.set),
        args.weights,
        args.out,
        args.formats,
        uint8=args.uint8,
        normalize=not args.raw,
        variant_names=[name for name in VARIANTS if getattr(args, name)],
        opset=args.opset,
        dataset=args.dataset,
        images=args.images,
    )
    print(format_report(report))


def build_predictor(
    config_file: Optional[str], weights: Optional[str], onnx: Optional[str], opts: Sequence[Any] = ()
) -> Any:
    """The Predictor that a command line asks for: of a config and weights, or of an ONNX file.

    Raises:
        ConfigError: both, or neither; or as in the Predictor.
    """
    from .predictor import Predictor

    if bool(onnx) == bool(config_file or weights or opts) or not (onnx or (config_file and weights)):
        raise ConfigError("images need --config-file and --weights, or --onnx FILE alone, which holds both.")
    if onnx:
        return Predictor.from_onnx(onnx)
    from ..compat import resolve_device
    from ..config_file import read_config

    cfg = read_config(str(config_file), opts)
    device, batch_size = resolve_device(cfg.MODEL.DEVICE), cfg.TEST.IMS_PER_BATCH
    return Predictor(cfg, str(weights), device=device, batch_size=batch_size)


def format_report(report: Dict[str, Any]) -> str:
    """The files of a report as a table, and what the variants lose, protocol by protocol."""
    from tabulate import tabulate

    rows, losses, text = [], [], ""
    for file, row in report["files"].items():
        batches = row["batches"].values()
        lowest = min(batch["cosine_min"] for batch in batches)
        difference = max(batch["max_abs_difference"] for batch in batches)
        rows.append((file, f"{row['bytes'] / 2**20:.1f}", f"{lowest:.6f}", f"{difference:.1e}"))
        loss = row.get("retrieval")
        if loss:
            cosines = f"mean cosine {loss['cosine_mean']:.6f}, least {loss['cosine_min']:.6f}"
            text += f"\n{file} on {loss['data']}, {loss['images']:,} images: {cosines}"
            for name, scores in loss["protocols"].items():
                full, variant = scores["full_precision"], scores["variant"]
                cells = (f"{full[k]:.2f} -> {variant[k]:.2f}" for k in scores["difference"])
                losses.append((file, name, *cells))
    style: Dict[str, Any] = {"tablefmt": "github", "disable_numparse": True}
    text = tabulate(rows, ("file", "MiB", "least cosine", "largest difference"), **style) + "\n" + text
    if losses:
        text += "\n" + tabulate(losses, ("file", "protocol", "Rank-1", "mAP", "mINP"), **style)
    return text.rstrip()


def add_commands(commands: Any) -> None:
    """Add `vif export` to the parser's subparsers."""
    export = commands.add_parser("export", help="write a trained network as ONNX, TorchScript, safetensors")
    export.add_argument("--config-file", required=True, metavar="FILE")
    export.add_argument("--weights", required=True, metavar="FILE", help="checkpoint")
    export.add_argument(
        "--out", required=True, metavar="DIR", help="of the files and their report, export.json"
    )
    export.add_argument(
        "--formats",
        nargs="+",
        default=["onnx"],
        metavar="NAME",
        help="safetensors, onnx, torchscript, torch_export (default: onnx)",
    )
    export.add_argument(
        "--uint8", action="store_true", help="input uint8 (B, H, W, 3), normalised inside (default: float32)"
    )
    export.add_argument("--raw", action="store_true", help="features as they are (default: of length 1)")
    export.add_argument("--fp16", action="store_true", help="also the ONNX file in float16")
    export.add_argument("--int8", action="store_true", help="also the ONNX file in int8")
    data = export.add_mutually_exclusive_group()
    data.add_argument(
        "--dataset",
        default="",
        help="to measure variants on (default: the first of DATASETS.TESTS)",
    )
    data.add_argument("--images", default="", metavar="FOLDER", help="to measure on instead, without labels")
    export.add_argument("--opset", type=int, metavar="N", help="of ONNX (default: the installed torch's own)")
    export.add_argument(
        "--set", nargs="+", default=[], metavar="KEY VALUE", help="config keys to change, last on the line"
    )
    export.set_defaults(run=_export)
