"""VDT (View-decoupled Transformer, CVPR 2024): backbone with a view token, loss, meta architecture.

Built after its published code. It reads view labels in training, and none at test time. Shape letters:
B batch, D embedding, T tokens (class, view, one a patch).
"""

from typing import Any, Dict, Tuple

import torch
import torch.nn.functional as F
from fastreid.config import configurable
from fastreid.layers import trunc_normal_
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.backbones.vision_transformer import VisionTransformer
from fastreid.modeling.heads import build_heads
from fastreid.modeling.losses import cross_entropy_loss
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.baseline import Baseline
from torch import nn

from ..compat import register, with_local_weights
from ..errors import DataError
from .backbones import vit_arguments


class ViewDecoupledTransformer(VisionTransformer):
    """fastreid's VisionTransformer with a view token that is subtracted from the class (meta) token.

    The subtraction happens after every block ("hierarchical subtractive separation") and once more after the
    last layer norm. As published, the view token starts at zero.

    Args:
        kwargs: what VisionTransformer takes.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.view_token = nn.Parameter(torch.zeros(1, 1, self.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.num_patches + 2, self.embed_dim))
        trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Images (B, 3, H, W) in; view-independent and view tokens out, (B, D, 1, 1) each."""
        patches = self.patch_embed(x)
        first = torch.cat([self.cls_token, self.view_token], dim=1).expand(len(patches), -1, -1)
        tokens = self.pos_drop(torch.cat([first, patches], dim=1) + self.pos_embed)
        for block in self.blocks:
            tokens = block(tokens)
            tokens = torch.cat([tokens[:, :1] - tokens[:, 1:2], tokens[:, 1:]], dim=1)
        meta, view = self.norm(tokens[:, :2]).unbind(dim=1)
        return (meta - view)[..., None, None], view[..., None, None]


@BACKBONE_REGISTRY.register()
@with_local_weights
def build_vdt_backbone(cfg: Any) -> ViewDecoupledTransformer:
    """ViewDecoupledTransformer in the size of MODEL.BACKBONE.VIT; PRETRAIN loads PRETRAIN_PATH.

    As published, with a plain ViT's weights the view token keeps its value, and its position is that of the
    file's first patch.
    """
    return ViewDecoupledTransformer(**vit_arguments(cfg))


def orthogonal_loss(features: torch.Tensor, view_features: torch.Tensor) -> torch.Tensor:
    """Mean |cosine| of each image's two features: 0 when they are orthogonal, at most 1.

    Args:
        features: view-independent features (B, D), floating.
        view_features: view features (B, D), floating.

    Returns:
        0-d float32 tensor.
    """
    return F.cosine_similarity(features.float(), view_features.float()).abs().mean()


@register(META_ARCH_REGISTRY)
class VDT(Baseline):
    """Identity and triplet loss of the view-independent feature + view loss + orthogonal loss.

    In training a batch holds `views`, int64 (B,), 0 aerial and 1 any other. At test time images are enough;
    the result is the BNNeck's output of the view-independent feature, (B, D).

    Args:
        view_heads: head of the two views, with a BNNeck of its own.
        view_weight: weight of the view classifier's cross entropy.
        orthogonal_weight: weight of `orthogonal_loss`.
        kwargs: what Baseline takes.
    """

    LABELS = ("views",)  # read from the batch: check_config asks for exactly these in DATALOADER.LABELS

    @configurable
    def __init__(
        self, *, view_heads: nn.Module, view_weight: float, orthogonal_weight: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.view_heads = view_heads
        self.view_weight = view_weight
        self.orthogonal_weight = orthogonal_weight

    @classmethod
    def from_config(cls, cfg: Any) -> Dict[str, Any]:
        """Plain arguments of `__init__`."""
        arguments = super().from_config(cfg)
        view_cfg = cfg.clone()
        view_cfg.defrost()
        view_cfg.MODEL.HEADS.NUM_CLASSES = 2
        return {
            **arguments,
            "view_heads": build_heads(view_cfg),
            "view_weight": cfg.MODEL.VDT.VIEW_WEIGHT,
            "orthogonal_weight": cfg.MODEL.VDT.ORTHOGONAL_WEIGHT,
        }

    def forward(self, batched_inputs: Any) -> Any:
        """Losses by name, each times its weight (training), or embeddings (B, D).

        Raises:
            DataError: a training batch carries no view labels.
        """
        features, view_features = self.backbone(self.preprocess_image(batched_inputs))
        if not self.training:
            return self.heads(features)
        if "views" not in batched_inputs:
            raise DataError(
                "VDT trains on view labels and the batch has none; set DATALOADER.LABELS to ('views',) and "
                "take the batches of VIFTrainer's loader."
            )
        targets, views = batched_inputs["targets"], batched_inputs["views"]
        outputs, view_outputs = self.heads(features, targets), self.view_heads(view_features, views)
        ce = self.loss_kwargs["ce"]
        view_loss = cross_entropy_loss(view_outputs["cls_outputs"], views, ce["eps"], ce["alpha"])
        orthogonal = orthogonal_loss(outputs["features"], view_outputs["features"])
        return {
            **self.losses(outputs, targets),
            "loss_view": self.view_weight * view_loss,
            "loss_orthogonal": self.orthogonal_weight * orthogonal,
        }
