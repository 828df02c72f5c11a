"""export.json: what `vif export` wrote, from what, and how near it comes to the network."""

import importlib.metadata
import json
import logging
import os
import platform
from dataclasses import asdict
from typing import Any, Dict

from ..errors import ExportError
from ..files import atomic_path, write_json
from ..weight_files import sha256
from . import formats
from .metadata import Signature

logger = logging.getLogger(__name__)
REPORT = "export.json"
_PACKAGES = ("vif-agreid", "fastreid", "torch", "numpy", "onnx", "onnxruntime", "onnxscript", "safetensors")
_ORIGIN = ("weights", "signature", "versions")  # what files of one report have in common


def describe(name: str, path: str) -> Dict[str, Any]:
    """Facts of a file in the format `name`."""
    row = {"format": name, "bytes": os.path.getsize(path), "sha256": sha256(path)}
    return {**row, "opset": formats.opset_of(path)} if path.endswith(".onnx") else row


def make_report(weights: str, signature: Signature, files: Dict[str, Dict[str, Any]]) -> Dict[str, Any]:
    """The report: files by name, each with ``passed``, and what they come from."""
    return {
        "passed": all(row["passed"] for row in files.values()),
        "weights": {"file": os.path.basename(weights), "sha256": sha256(weights)},
        "signature": asdict(signature),
        "versions": {"python": platform.python_version(), **_versions()},
        "files": files,
    }


def publish(folder: str, out: str, report: Dict[str, Any]) -> None:
    """Move the files of a report from `folder` into `out`, the report last.

    Where one has failed, all go to `out`/failed. Else the report takes over the rows of the one before it
    whose files still lie there, of the same weights, signature and versions.

    Raises:
        ExportError: a file has failed; names it, and where the report is.
    """
    place = out if report["passed"] else os.path.join(out, "failed")
    os.makedirs(place, exist_ok=True)
    for file in report["files"]:
        with atomic_path(os.path.join(place, file)) as partial:
            os.replace(os.path.join(folder, file), partial)
    failed = [file for file, row in report["files"].items() if not row["passed"]]
    path = os.path.join(place, REPORT)
    if not failed:
        report["files"] = {**_earlier(out, report), **report["files"]}
    write_json(path, report)
    if failed:
        raise ExportError(
            f"{', '.join(failed)} does not give the network's features; {path} says by how much. The files "
            f"are kept in {place} to look into; do not deploy them. Try another format, --opset or torch."
        )


def _earlier(out: str, report: Dict[str, Any]) -> Dict[str, Dict[str, Any]]:
    """Rows of the report before this one for files that are as it says and not written anew."""
    try:
        with open(os.path.join(out, REPORT), encoding="utf-8") as file:
            former = json.load(file)
        rows = {
            name: row
            for name, row in former["files"].items()
            if name not in report["files"] and row["sha256"] == sha256(os.path.join(out, name))
        }
        same = all(former[key] == json.loads(json.dumps(report[key])) for key in _ORIGIN)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # none, or not one of ours
        return {}
    if rows and not same:
        logger.warning(
            "%s in %s: of an export with other weights, options or versions, no longer in %s; remove what "
            "is not in use",
            *(", ".join(rows), out, REPORT),
        )
    return rows if same else {}


def _versions() -> Dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
