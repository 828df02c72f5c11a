"""`vif export`: a trained network as files that run without this project, each compared with it."""

import copy
import functools
import importlib
import logging
import os
import tempfile
from dataclasses import replace
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import numpy as np

from ..data.build import build_test_set
from ..errors import ConfigError, DataError, ExportError, VIFError
from ..evaluation.extract import Extracted, make_table, unique_rows
from ..evaluation.protocols import Protocol
from ..features import FeatureTable
from . import formats, variants
from .backends import OnnxBackend
from .build import build_torch_backend
from .export_report import describe, make_report, publish
from .network import Network
from .predictor import Predictor
from .verify import THRESHOLD, probes, retrieval_loss, verify

logger = logging.getLogger(__name__)
VARIANTS = {
    "fp16": ("model.fp16.onnx", variants.write_fp16),
    "int8": ("model.int8.onnx", variants.write_int8),
}


def export(
    cfg: Any,
    weights: str,
    out: str,
    names: Sequence[str] = ("onnx",),
    *,
    uint8: bool = False,
    normalize: bool = True,
    variant_names: Sequence[str] = (),
    opset: Optional[int] = None,
    dataset: str = "",
    images: str = "",
) -> Dict[str, Any]:
    """Write a checkpoint's network in some formats, verify every file, and keep the report.

    Files take their place in `out` when all of them have passed. Otherwise they and the report go to
    `out`/failed, and what `out` held before stays.

    Args:
        cfg: config with VIF's keys.
        weights: checkpoint.
        out: folder, made where it is missing.
        names: of `formats.FILES`.
        uint8: input uint8 (B, H, W, 3), normalised inside; else float32 (B, 3, H, W), normalised before.
        normalize: whether features get length 1 inside.
        variant_names: of `VARIANTS`, made from the ONNX file.
        opset: of ONNX; None: the installed exporter's own.
        dataset: registered data set on which the variants' loss is measured; "": the first of DATASETS.TESTS.
        images: folder of images to measure on instead, where there are no labels.

    Returns:
        The report, as it is written to `out`/export.json.

    Raises:
        ConfigError: an unknown name, a missing package, or arguments that do not go together.
        DataError: the checkpoint, the data set or the folder cannot be read.
        ExportError: torch cannot write a format, or a file does not give the network's features.
    """
    _check(names, variant_names, opset, dataset, images)
    cfg = cfg.clone()
    cfg.defrost()
    if cfg.TEST.FLIP.ENABLED:
        logger.warning("TEST.FLIP is on: an exported network gives the features of the image alone")
        cfg.TEST.FLIP.ENABLED = False
    full = Predictor(cfg, weights, device="cpu")
    signature = replace(full.signature, uint8_input=uint8, l2_output=normalize)
    model = full.backend.model
    network = Network(model, signature)
    writers: Dict[str, Callable[[str], None]] = {
        "safetensors": lambda path: formats.write_safetensors(model, signature, cfg.dump(), path),
        "onnx": lambda path: formats.write_onnx(network, signature, path, opset),
        "torchscript": lambda path: formats.write_torchscript(network, signature, path),
        "torch_export": lambda path: formats.write_torch_export(network, signature, path),
    }
    openers: Dict[str, Callable[[str], Any]] = {
        "safetensors": lambda path: build_torch_backend(cfg, path, "cpu")[0],
        "onnx": lambda path: OnnxBackend(path, "cpu"),
        "torchscript": formats.TorchFileBackend,
        "torch_export": formats.TorchFileBackend,
    }
    measure = _Retrieval(cfg, full, dataset, images) if variant_names else None
    pixels = probes(signature.height, signature.width)
    raw = full.backend(pixels)
    if not np.isfinite(raw).all():
        raise DataError(f"{weights}: the network gives NaN or infinity; there is nothing to export.")

    os.makedirs(out, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export.", dir=out) as folder:
        files: Dict[str, Dict[str, Any]] = {}
        make = functools.partial(_make, folder, pixels, raw)
        for name in [name for name in formats.FILES if name in names]:
            row, _ = make(name, formats.FILES[name], writers[name], openers[name], THRESHOLD)
            files[formats.FILES[name]] = row
        for name in variant_names:
            file, convert = VARIANTS[name]
            write = functools.partial(convert, os.path.join(folder, formats.FILES["onnx"]), signature)
            row, backend = make(name, file, write, openers["onnx"], None)
            if measure and row["passed"]:
                row["retrieval"] = measure(backend)
                row["passed"] = "error" not in row["retrieval"]
            files[file] = row
        report = make_report(weights, signature, files)
        publish(folder, out, report)
    return report


def _check(
    names: Sequence[str], variant_names: Sequence[str], opset: Optional[int], dataset: str, images: str
) -> None:
    for kind, given, known in (("format", names, formats.FILES), ("variant", variant_names, VARIANTS)):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ConfigError(f"export: unknown {kind} {unknown[0]!r}; there are {', '.join(known)}.")
    if not names:
        raise ConfigError(f"export: no format is named; there are {', '.join(formats.FILES)}.")
    if (variant_names or opset is not None) and "onnx" not in names:
        raise ConfigError("export: --fp16, --int8 and --opset are for ONNX; add onnx to --formats.")
    if dataset and images:
        raise ConfigError("export: --dataset and --images both say what to measure on; give one.")
    if (dataset or images) and not variant_names:
        raise ConfigError("export: --dataset and --images measure --fp16 and --int8; add one of these.")
    missing = [package for name in names for package in formats.required(name) if not _installed(package)]
    if missing:
        raise ConfigError(f"export to {', '.join(names)} needs `pip install {' '.join(missing)}`.")
    if "onnx" in names:
        formats.check_opset(opset)


def _installed(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def _make(
    folder: str,
    pixels: np.ndarray,
    raw: np.ndarray,
    name: str,
    file: str,
    write: Callable[[str], None],
    opener: Callable[[str], Any],
    threshold: Optional[float],
) -> Tuple[Dict[str, Any], Any]:
    """Write a file, open it again, compare: its row of the report, and its backend."""
    path = os.path.join(folder, file)
    _write(name, write, path)
    backend = _open(name, opener, path)
    expected = _unit(raw) if backend.signature.l2_output else raw
    return {**describe(name, path), **verify(backend, pixels, expected, threshold)}, backend


def _write(name: str, write: Callable[[str], None], path: str) -> None:
    try:
        formats.quietly(write, path)
    except VIFError:
        raise
    except Exception as error:  # the exporters have exceptions of many kinds
        raise ExportError(
            f"export to {name} failed: {type(error).__name__}: {_first_line(error)} Take another format, or "
            "another release of torch."
        ) from error


def _open(name: str, opener: Callable[[str], Any], path: str) -> Any:
    try:
        return formats.quietly(opener, path)
    except Exception as error:
        raise ExportError(f"the {name} file does not open again: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]


class _Retrieval:
    """Features of the images to measure on in full precision, once; then the loss of each backend."""

    def __init__(self, cfg: Any, full: Predictor, dataset: str, images: str) -> None:
        self.full, self.folder = full, images
        self.protocols: Tuple[Protocol, ...] = ()
        self.title = os.path.basename(os.path.normpath(images))
        if not images:
            self.data = build_test_set(cfg, dataset or cfg.DATASETS.TESTS[0], show=False)
            self.protocols, self.title = self.data.protocols, self.data.title
        self.table = self._features(full)

    def __call__(self, backend: Any) -> Dict[str, Any]:
        predictor = copy.copy(self.full)  # same images, same transform
        predictor.backend = backend
        try:
            loss = retrieval_loss(self.table, self._features(predictor), self.protocols)
        except DataError as error:  # numbers that float16 cannot hold
            loss = {"error": str(error)}
        return {"data": self.title, **loss}

    def _features(self, predictor: Predictor) -> FeatureTable:
        if self.folder:
            return predictor.folder(self.folder)[0]
        records, _ = unique_rows(self.data.splits)
        features = predictor([record.path for record in records])
        return make_table(self.data.splits, Extracted(features, np.arange(len(records)), []), {})


def _unit(features: np.ndarray) -> np.ndarray:
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12))
