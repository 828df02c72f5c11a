"""Meta architecture VIF: fastreid's Baseline, the losses of LOSS_REGISTRY, and the batch's geometry logged.

Shape letters: B batch, D embedding, K identities.
"""

from typing import Any, Dict

import torch
from fastreid.config import configurable
from fastreid.modeling.losses import triplet_loss
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.baseline import Baseline
from fastreid.utils.events import get_event_storage
from torch import nn

from ..compat import register
from ..config_checks import FASTREID_LOSSES
from ..registries import LOSS_REGISTRY
from .losses import Gathered, gather, pair_statistics
from .losses import VIALLoss as _VIALLoss


@LOSS_REGISTRY.register()
def VIALLoss(cfg: Any) -> nn.Module:
    """VIAL-HNM from MODEL.LOSSES.VIAL."""
    vial = cfg.MODEL.LOSSES.VIAL
    loss = _VIALLoss(
        beta=vial.BETA,
        lam=vial.LAMBDA,
        margin=vial.MARGIN,
        penalty=vial.PENALTY,
        hard_negatives=vial.HARD_NEGATIVES,
        weight=vial.SCALE,
    )
    return Gathered(loss) if vial.GATHER else loss


class GatheredTriplet(Gathered):
    """fastreid's triplet loss, times `scale`, over the batches of all processes."""

    def __init__(self, *, margin: float, norm_feat: bool, hard_mining: bool, scale: float) -> None:
        super().__init__(lambda f, t: triplet_loss(f, t, margin, norm_feat, hard_mining) * scale)


@register(META_ARCH_REGISTRY)
class VIF(Baseline):
    """Identity loss + gamma * triplet + delta * VIAL-HNM, equation 13, on fastreid's Baseline.

    Args:
        extra_losses: name -> module; features (B, D) before the BNNeck and targets (B,) in, 0-d tensor out.
        hard_margin: M of the logged share of hard negatives.
        kwargs: what Baseline takes.
    """

    @configurable
    def __init__(self, *, extra_losses: Dict[str, nn.Module], hard_margin: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extra_losses = nn.ModuleDict(extra_losses)
        self.hard_margin = hard_margin

    @classmethod
    def from_config(cls, cfg: Any) -> Dict[str, Any]:
        """Plain arguments of `__init__`."""
        names = [name for name in cfg.MODEL.LOSSES.NAME if name not in FASTREID_LOSSES]
        arguments = super().from_config(cfg)
        extra = {name: LOSS_REGISTRY.get(name)(cfg) for name in names}
        fastreids, triplet = cfg.MODEL.LOSSES.NAME, cfg.MODEL.LOSSES.TRI
        if triplet.GATHER and "TripletLoss" in fastreids:
            arguments["loss_kwargs"]["loss_names"] = [name for name in fastreids if name != "TripletLoss"]
            gathered = GatheredTriplet(
                margin=triplet.MARGIN,
                norm_feat=triplet.NORM_FEAT,
                hard_mining=triplet.HARD_MINING,
                scale=triplet.SCALE,
            )
            extra = {"TripletLoss": gathered, **extra}
        return {
            **arguments,
            "extra_losses": extra,
            "hard_margin": cfg.MODEL.LOSSES.VIAL.MARGIN,
        }

    def losses(self, outputs: Dict[str, torch.Tensor], gt_labels: torch.Tensor) -> Dict[str, torch.Tensor]:
        """All losses by name, each times its weight; logs the geometry of all processes' features (B, D)."""
        loss_dict = super().losses(outputs, gt_labels)
        features = outputs["features"]
        for name, loss in self.extra_losses.items():
            loss_dict[f"loss_{name[:-4].lower() if name.endswith('Loss') else name}"] = loss(
                features, gt_labels
            )
        statistics = pair_statistics(*gather(features.detach(), gt_labels), self.hard_margin)
        get_event_storage().put_scalars(**{name: float(value) for name, value in statistics.items()})
        return loss_dict
