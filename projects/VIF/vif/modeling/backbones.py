"""Backbones registered with fastreid: a ViT of any size."""

from typing import Any, Dict

from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.backbones.vision_transformer import VisionTransformer

from ..compat import with_local_weights
from ..config_checks import VIT_WEIGHTS
from ..errors import ConfigError


def vit_arguments(cfg: Any) -> Dict[str, Any]:
    """What fastreid's VisionTransformer takes, in the size of MODEL.BACKBONE.VIT: ViT-B/16 by default.

    Raises:
        ConfigError: PRETRAIN without a PRETRAIN_PATH.
    """
    backbone = cfg.MODEL.BACKBONE
    if backbone.PRETRAIN:  # and no path, or `with_local_weights` had turned it off
        raise ConfigError(f"MODEL.BACKBONE.PRETRAIN=True without a PRETRAIN_PATH. {VIT_WEIGHTS}.")
    return {
        "img_size": cfg.INPUT.SIZE_TRAIN,
        "patch_size": backbone.VIT.PATCH_SIZE,
        "stride_size": backbone.STRIDE_SIZE,
        "embed_dim": backbone.VIT.EMBED_DIM,
        "depth": backbone.VIT.DEPTH,
        "num_heads": backbone.VIT.NUM_HEADS,
        "mlp_ratio": backbone.VIT.MLP_RATIO,
        "qkv_bias": True,
        "drop_rate": backbone.DROP_RATIO,
        "attn_drop_rate": backbone.ATT_DROP_RATE,
        "drop_path_rate": backbone.DROP_PATH_RATIO,
    }


@BACKBONE_REGISTRY.register()
@with_local_weights
def build_vif_vit_backbone(cfg: Any) -> VisionTransformer:
    """fastreid's VisionTransformer in the size of MODEL.BACKBONE.VIT; PRETRAIN loads PRETRAIN_PATH.

    Images (B, 3, H, W) of INPUT.SIZE_TRAIN in, class tokens (B, D, 1, 1) out.
    """
    return VisionTransformer(**vit_arguments(cfg))
