"""Weights into a network: names are matched, position embeddings resized, and a report says what happened."""

import logging
from dataclasses import dataclass, field
from typing import Collection, Dict, Iterable, List, Sequence, Tuple

import torch
from torch import nn

from .errors import DataError
from .positions import TOKENS, fit_positions, position_tables
from .weight_files import Weights

logger = logging.getLogger(__name__)

# what programs put before a backbone's names, and where a backbone lies in our networks
_PREFIXES = (
    "module.",
    "_orig_mod.",
    "backbone.",
    "model.",
    "encoder_q.",
    "encoder.",
    "visual.trunk.",
    "trunk.",
)
_PLACES = ("", "backbone.", "model.", "backbone.model.")
ABSENT = "no such weight in the network"  # why a tensor is left out
# parts of a transformer without which its weights mean something else, by a component of their names
_ESSENTIAL = {
    "a norm before the blocks (CLIP)": {"norm_pre", "ln_pre"},
    "layer scale (DINOv2, DeiT-III, BEiT)": {"ls1", "gamma_1"},
    "register tokens": {"reg_token", "register_tokens"},
    "attention pooling (SigLIP)": {"attn_pool"},
    "norms of queries and keys": {"q_norm"},
}


@dataclass
class LoadReport:
    """What became of a file's weights; as text one paragraph."""

    source: str
    loaded: List[str] = field(default_factory=list)  # the network's names
    resized: Dict[str, str] = field(default_factory=dict)  # of these, what was done
    left_out: Dict[str, str] = field(default_factory=dict)  # the file's names, and why
    missing: List[str] = field(default_factory=list)  # the network's names that the file gave nothing for

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.missing)
        parts = [f"{self.source}: {len(self.loaded)} of {total} tensors of the network loaded"]
        parts += [f"resized: {name} {how}" for name, how in self.resized.items()]
        reasons: Dict[str, List[str]] = {}
        for name, reason in self.left_out.items():
            reasons.setdefault(reason, []).append(name)
        parts += [f"left out, {reason}: {shorten(names)}" for reason, names in reasons.items()]
        if self.missing:
            parts.append(f"as they were before: {shorten(self.missing)}")
        return "; ".join(parts)

    def log(self) -> None:
        """One line of the log, a warning where a part of the network got no weights."""
        logger.log(logging.WARNING if self.missing else logging.INFO, "%s", self)


def shorten(names: Sequence[str], limit: int = 8) -> str:
    """The first names, and how many more there are."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def load_weights(model: nn.Module, weights: Weights) -> LoadReport:
    """Load what fits of `weights` into `model`, a backbone or a whole network, and log the report.

    Raises:
        DataError: as `fit`.
    """
    fitted, report = fit(weights, model)
    model.load_state_dict(fitted, strict=False)
    report.log()
    return report


def fit(weights: Weights, model: nn.Module) -> Tuple[Dict[str, torch.Tensor], LoadReport]:
    """The tensors of `weights` that fit `model`, under its names and in its shapes, and the report.

    Classifiers of another number of classes and what the network lacks are left out; position embeddings are
    resized (`vif.positions`).

    Raises:
        DataError: nothing in the file fits the backbone; it is of a transformer with parts that it lacks.
    """
    own = {name: tensor for name, tensor in model.state_dict().items() if tensor.numel()}
    _refuse_another_architecture(weights, own)
    tables, names = position_tables(model), align(weights.tensors, own)
    fitted: Dict[str, torch.Tensor] = {}
    report = LoadReport(weights.source)
    for key, tensor in weights.tensors.items():
        name = names.get(key, "")
        if name not in own:
            report.left_out[key] = ABSENT
            continue
        target = own[name]
        if name in tables:
            present = [token for token in TOKENS if key[: -len("pos_embed")] + token in weights.tensors]
            tensor, done = fit_positions(tensor, present, weights.grids.get(key), tables[name])
            report.resized.update({name: done} if done else {})
        elif tensor.dim() == 2 and target.dim() == 4 and tensor.numel() == target.numel():
            tensor = tensor.reshape(target.shape)  # patches as rows, of the first ports of ViT
        if tensor.shape == target.shape:
            fitted[name] = tensor
        else:
            report.left_out[key] = f"{_shape(tensor)} there and {_shape(target)} here"
            report.resized.pop(name, None)
    report.loaded = [name for name in own if name in fitted]
    report.missing = [n for n in own if n not in fitted and not n.endswith("num_batches_tracked")]
    backbone = [name for name in own if name.startswith("backbone.")] or list(own)
    if not fitted.keys() & set(backbone):
        refuse(weights, backbone, report)
    return fitted, report


def refuse(weights: Weights, wanted: Sequence[str], report: LoadReport) -> None:
    """Raise DataError: nothing of `weights` fits a backbone with the names `wanted`."""
    shapes = [f"{key} {why}" for key, why in report.left_out.items() if why.endswith("here")]
    raise DataError(
        f"{weights.source}: nothing in it fits the backbone. It holds {shorten(list(weights.tensors), 4)}; "
        f"the backbone wants {shorten(wanted, 4)}. {'Shapes: ' + shorten(shapes, 2) + '. ' if shapes else ''}"
        "Take weights of this architecture and size, or set MODEL.BACKBONE to theirs."
    )


def align(keys: Iterable[str], wanted: Collection[str]) -> Dict[str, str]:
    """Name in the file -> name in the network, under the pair of prefixes by which most names meet.

    Names outside the file's prefix (a classifier beside `backbone.`) have no entry.
    """
    keys = list(keys)
    strips = [""]
    for strip in strips:  # grows: prefixes of prefixes
        longer = (strip + prefix for prefix in _PREFIXES)
        strips += [prefix for prefix in longer if any(key.startswith(prefix) for key in keys)]
    ways = [
        {key: place + key[len(strip) :] for key in keys if key.startswith(strip)}
        for strip in strips
        for place in _PLACES
    ]
    return max(ways, key=lambda names: sum(name in wanted for name in names.values()))


def _refuse_another_architecture(weights: Weights, own: Collection[str]) -> None:
    there, here = ({part for name in names for part in name.split(".")} for names in (weights.tensors, own))
    foreign = [what for what, parts in _ESSENTIAL.items() if parts & there and not parts & here]
    if "pos_embed" in there and "cls_token" in here - there:
        foreign.append("no class token")
    if foreign and "pos_embed" in here:
        raise DataError(
            f"{weights.source} is of a transformer with {', '.join(foreign)}; the network's is not, and the "
            "weights would mean something else in it. Set MODEL.BACKBONE.NAME to build_vif_timm_backbone, "
            "MODEL.BACKBONE.TIMM.NAME to timm's name of that transformer and MODEL.BACKBONE.PRETRAIN_PATH to "
            "this file."
        )


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
