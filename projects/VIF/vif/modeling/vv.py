"""Meta architecture VV: an embedding trained with the triplet loss alone (IJCNN 2019; JAISCR 2020).

Shape letters: B batch, C channels, H x W feature map, D embedding.
"""

from typing import Any, Dict

from fastreid.config import configurable
from fastreid.modeling.backbones import build_backbone
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.baseline import Baseline
from fastreid.utils.events import get_event_storage
from torch import nn

from ..compat import register
from .losses import batch_triplet_loss, gather, pair_statistics


@register(META_ARCH_REGISTRY)
class VV(Baseline):
    """Backbone, global average pooling, one linear layer; no BNNeck, no classifier, no normalisation.

    Args:
        feat_dim: C, channels of the backbone's output (B, C, H, W).
        embedding_dim: D.
        hard_mining: batch-hard triplets; False: batch-weighted.
        margin: of the triplet loss; 0: the soft margin.
        scale: weight of the loss.
        gather: the loss is over the images of all processes.
        kwargs: backbone, pixel_mean and pixel_std, as Baseline takes them.
    """

    @configurable
    def __init__(
        self,
        *,
        feat_dim: int,
        embedding_dim: int,
        hard_mining: bool,
        margin: float,
        scale: float,
        gather: bool = False,
        **kwargs: Any,
    ) -> None:
        heads = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(feat_dim, embedding_dim))
        super().__init__(heads=heads, **kwargs)
        self.hard_mining, self.margin, self.scale, self.gather = hard_mining, margin, scale, gather

    @classmethod
    def from_config(cls, cfg: Any) -> Dict[str, Any]:
        """Plain arguments of `__init__`."""
        triplet = cfg.MODEL.LOSSES.TRI
        return {
            "backbone": build_backbone(cfg),
            "feat_dim": cfg.MODEL.BACKBONE.FEAT_DIM,
            "embedding_dim": cfg.MODEL.HEADS.EMBEDDING_DIM,
            "hard_mining": triplet.HARD_MINING,
            "margin": triplet.MARGIN,
            "scale": triplet.SCALE,
            "gather": triplet.GATHER,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    def forward(self, batched_inputs: Any) -> Any:
        """The loss by name (training), or embeddings (B, D); logs the geometry of the batch."""
        embeddings = self.heads(self.backbone(self.preprocess_image(batched_inputs)))
        if not self.training:
            return embeddings
        targets = batched_inputs["targets"]
        statistics = pair_statistics(*gather(embeddings.detach(), targets))
        get_event_storage().put_scalars(**{name: float(value) for name, value in statistics.items()})
        if self.gather:
            embeddings, targets = gather(embeddings, targets)
        loss = batch_triplet_loss(embeddings, targets, hard=self.hard_mining, margin=self.margin)
        return {"loss_triplet": self.scale * loss}
