"""A batch whose loss or gradient was not finite, run again from the report that a training run left."""

import json
import logging
import os
from typing import Any, Dict

import torch
import yaml
from fastreid.config import CfgNode, get_cfg
from fastreid.utils import comm
from fastreid.utils.events import EventStorage
from safetensors.torch import load_file

from .config import add_vif_config
from .data.build import build_train_loader
from .data.loaders import collate
from .errors import DataError
from .nonfinite import BATCH, MODEL, RANDOM, Guard
from .precision import autocast

logger = logging.getLogger(__name__)


def build_guard(cfg: Any, loader: Any) -> Guard:
    """The guard of SOLVER.NON_FINITE for a run on this loader's batches."""
    return Guard(
        cfg.SOLVER.NON_FINITE,
        cfg.SOLVER.NON_FINITE_LIMIT,
        cfg.OUTPUT_DIR,
        cfg.dump(),
        loader.dataset,
        comm.get_rank(),
        comm.get_world_size(),
    )


def add_skipped(results: Dict[str, Dict[str, Dict[str, float]]], storage: EventStorage) -> None:
    """Put the number of skipped batches beside every protocol's scores."""
    skipped, _ = storage.latest().get("skipped_batches", (0.0, 0))
    for protocols in results.values():
        for scores in protocols.values():
            scores["skipped_batches"] = skipped


def read_report(path: str) -> Dict[str, Any]:
    """The report, nonfinite_*.json; its "config" as a config.

    Raises:
        DataError: there is no such file, or it is no report.
    """
    try:
        with open(path, encoding="utf-8") as f:
            report: Dict[str, Any] = json.load(f)
        cfg = get_cfg()
        add_vif_config(cfg)
        cfg.merge_from_other_cfg(CfgNode.load_cfg(report["config"]))
        rows = list(report["batch"])
    except (OSError, ValueError, KeyError, TypeError, AssertionError, yaml.YAMLError) as error:
        raise DataError(f"{path} is no report of a batch (nonfinite_*.json): {error}") from error
    return {**report, "config": cfg, "batch": rows}


def rebuild_batch(path: str) -> Dict[str, Any]:
    """The batch of a report from its data set's files, with the same augmentation.

    Returns:
        What `collate` gives: ``images`` uint8 (B, 3, H, W), ``targets``, ...
    """
    report = read_report(path)
    dataset = build_train_loader(report["config"]).dataset
    return collate([dataset[row["draw"], row["index"]] for row in report["batch"]])


def replay(path: str) -> Dict[str, Any]:
    """Run the step of a report once more: same weights, images, random numbers and precision.

    Args:
        path: nonfinite_*.json of a run that stopped, its .safetensors file beside it.

    Returns:
        "losses", floats by name, and "gradients", names of parameters whose gradient is not finite.

    Raises:
        DataError: a file is missing or malformed; the batch was skipped, so that no weights were saved.
    """
    from .trainer import VIFTrainer

    report = read_report(path)
    if not report["state"]:
        raise DataError(f"{path} is of a skipped batch and has no weights; set SOLVER.NON_FINITE to 'stop'.")
    state = os.path.join(os.path.dirname(path), os.path.basename(report["state"]))
    if not os.path.isfile(state):
        raise DataError(f"{path} needs {state}, which is not there.")
    if report.get("world_size", 1) > 1:
        logger.warning(
            "%s is of process %d of %d: this is its share of the batch alone. Where losses or batch norm go "
            "over all processes (GATHER, syncBN), numbers differ from the run's, and need not be broken here",
            path,
            report["rank"],
            report["world_size"],
        )
    tensors = load_file(state)
    cfg = report["config"]
    cfg.MODEL.BACKBONE.PRETRAIN, cfg.MODEL.WEIGHTS = False, ""
    model = VIFTrainer.build_model(cfg).train()
    model.load_state_dict(_part(tensors, MODEL))
    batch = {name: value.to(model.device) for name, value in _part(tensors, BATCH).items()}
    batch["images"] = batch["images"].float()
    _set_random(_part(tensors, RANDOM), model.device)
    with EventStorage(report["iteration"]):
        with autocast(model.device.type, getattr(torch, report["precision"])):
            losses = model(batch)
            total = sum(losses.values())
        total.backward()
    broken = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    return {"losses": {name: float(value.detach()) for name, value in losses.items()}, "gradients": broken}


def _set_random(states: Dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _part(tensors: Dict[str, torch.Tensor], prefix: str) -> Dict[str, torch.Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
