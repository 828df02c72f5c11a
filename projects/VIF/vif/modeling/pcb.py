"""Meta architecture PCB: Part-based Convolutional Baseline (ECCV 2018).

Shape letters: B batch, C channels, H x W feature map, P stripes, D dimensions of a stripe, K identities.
"""

from typing import Any, Dict, Optional

import torch
import torch.nn.functional as F
from fastreid.modeling.backbones import build_backbone
from fastreid.modeling.losses import log_accuracy
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.baseline import Baseline
from torch import nn

from ..compat import register
from ..errors import ConfigError


class StripeHead(nn.Module):
    """Horizontal stripes, each pooled, reduced and classified with weights of its own.

    Args:
        feat_dim: C.
        stripes: P, divides H.
        dim: D.
        num_classes: K.
        dropout: share of the pooled vector's channels that training drops, before the reduction.
    """

    def __init__(self, feat_dim: int, stripes: int, dim: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.stripes = stripes
        self.dropout = nn.Dropout(dropout)
        self.reductions = nn.ModuleList(
            nn.Sequential(nn.Conv2d(feat_dim, dim, 1, bias=False), nn.BatchNorm2d(dim), nn.ReLU(inplace=True))
            for _ in range(stripes)
        )
        self.classifiers = nn.ModuleList(nn.Linear(dim, num_classes) for _ in range(stripes))
        for reduction, classifier in zip(self.reductions, self.classifiers):
            nn.init.kaiming_normal_(reduction[0].weight, mode="fan_out")
            nn.init.normal_(classifier.weight, std=0.001)
            nn.init.zeros_(classifier.bias)

    def forward(self, features: torch.Tensor, targets: Optional[torch.Tensor] = None) -> torch.Tensor:
        """Feature map (B, C, H, W) in; logits (P, B, K) in training, else embeddings (B, P * D).

        Stripes are joined from top to bottom. Each is scaled to length 1 first, so that the cosine of two
        embeddings is the mean of the stripes' cosines.

        Raises:
            ConfigError: P does not divide H.
        """
        height = features.shape[2]
        if height % self.stripes:
            raise ConfigError(
                f"MODEL.PCB.STRIPES={self.stripes} does not divide the {height} rows of the backbone's "
                "feature map; change INPUT.SIZE_TRAIN and INPUT.SIZE_TEST, or the number of stripes."
            )
        pooled = self.dropout(F.adaptive_avg_pool2d(features, (self.stripes, 1)))
        parts = [reduce(pooled[:, :, i : i + 1]).flatten(1) for i, reduce in enumerate(self.reductions)]
        if not self.training:
            return torch.cat([F.normalize(part) for part in parts], dim=1)
        return torch.stack([classify(part) for classify, part in zip(self.classifiers, parts)])


@register(META_ARCH_REGISTRY)
class PCB(Baseline):
    """The sum of the stripes' identity losses; no other loss.

    Args:
        kwargs: backbone, heads (StripeHead), pixel_mean and pixel_std, as Baseline takes them.
    """

    @classmethod
    def from_config(cls, cfg: Any) -> Dict[str, Any]:
        """Plain arguments of `__init__`."""
        pcb = cfg.MODEL.PCB
        num_classes = cfg.MODEL.HEADS.NUM_CLASSES
        return {
            "backbone": build_backbone(cfg),
            "heads": StripeHead(cfg.MODEL.BACKBONE.FEAT_DIM, pcb.STRIPES, pcb.DIM, num_classes, pcb.DROPOUT),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    def losses(self, outputs: torch.Tensor, gt_labels: torch.Tensor) -> Dict[str, torch.Tensor]:
        """Logits (P, B, K) and identities (B,) -> the loss; logs the accuracy of the stripes' mean vote."""
        outputs = outputs.float()  # also under autocast
        log_accuracy(outputs.detach().mean(dim=0), gt_labels)
        return {"loss_cls": sum(F.cross_entropy(logits, gt_labels) for logits in outputs)}
