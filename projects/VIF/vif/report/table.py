"""The features that a report is about: of a file, or extracted from the run and kept beside it."""

import hashlib
import os
from typing import Any, Optional, Tuple

from ..errors import DataError
from ..features import FeatureTable
from .run import Run


def report_table(run: Run, cfg: Any, dataset: str, file: Optional[str]) -> Tuple[FeatureTable, str]:
    """The table, and a warning where it is of other weights than the run's model_final.pth, or "".

    Args:
        run: the run.
        cfg: its config; None where that cannot be read.
        dataset: registered name.
        file: feature file; None: the run's own, `features-DATASET.npz`, which is written where it is missing
            or of other weights.

    Raises:
        DataError: the file cannot be read, or there are no weights or images to extract from.
    """
    weights = _sha256(run.weights) if run.weights else ""
    if file:
        table = FeatureTable.load(file)
        named = table.meta.get("weights", "")
        if weights and named and weights not in named:
            return (
                table,
                f"The features are of {named.split(' ')[0]} with other weights than model_final.pth's.",
            )
        return table, ""
    own = os.path.join(run.folder, f"features-{dataset}.npz")
    if os.path.isfile(own):
        table = FeatureTable.load(own)
        if not weights or weights in table.meta.get("weights", weights):
            return table, ""
    if not weights or cfg is None:
        reason = run.missing.get("model_final.pth") or run.missing.get("config.yaml", "no config")
        raise DataError(f"there are no features: {reason}, and no feature file is given (--features).")
    return _extract(run, cfg, dataset, own), ""


def _extract(run: Run, cfg: Any, dataset: str, out: str) -> FeatureTable:
    from ..evaluation.extract_file import extract_file

    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(["MODEL.WEIGHTS", run.weights, "MODEL.BACKBONE.PRETRAIN", False])
    cfg.freeze()
    return extract_file(cfg, dataset, out)


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()
