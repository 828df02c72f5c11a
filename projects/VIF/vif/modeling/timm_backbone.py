"""Any vision transformer of timm as a backbone: ViT, DeiT, DINOv2, DINOv3, image towers of CLIP and SigLIP.

Shape letters: B batch, D embedding, H x W image.
"""

import logging
import os
from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from torch import nn

from ..errors import ConfigError
from ..weight_files import TIMM
from .timm_models import create_model, inspect_model

logger = logging.getLogger(__name__)


class TimmBackbone(nn.Module):
    """A timm vision transformer without its classifier: images (B, 3, H, W) in, features (B, D, 1, 1) out.

    The feature is the model's own, `timm.create_model(name, num_classes=0)(images)`: the class token, the
    mean of class and distillation token (DeiT), the mean of the patches (DINOv3, as timm builds it) or
    attention pooling (SigLIP). timm resizes position embeddings to the image.

    Args:
        name: timm's name of the model, with the tag of its weights or without.
        image_size: (H, W).
        stride: step of the patches, vertical and horizontal; below the patch's side they overlap.
        weights: None for random weights, a file or timm://NAME, "" to let timm download its own.
        options: further arguments of `timm.create_model`.

    Raises:
        ConfigError, DataError: as `inspect_model`, `create_model` and `token_grid`.
    """

    def __init__(
        self,
        name: str,
        image_size: Sequence[int],
        stride: Sequence[int],
        weights: Optional[str] = None,
        **options: Any,
    ) -> None:
        super().__init__()
        patch = inspect_model(name, **options).patch
        rows, columns = token_grid(image_size, patch, stride)
        # timm counts image // patch tokens: name it the image that has as many without an overlap
        self.model = create_model(name, weights, img_size=(rows * patch[0], columns * patch[1]), **options)
        embed = self.model.patch_embed
        embed.img_size, embed.strict_img_size, embed.proj.stride = tuple(image_size), True, tuple(stride)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (B, 3, H, W) in, features (B, D, 1, 1) out."""
        return self.model(images)[:, :, None, None]


@BACKBONE_REGISTRY.register()
def build_vif_timm_backbone(cfg: Any) -> TimmBackbone:
    """The model of MODEL.BACKBONE.TIMM.NAME for images of INPUT.SIZE_TRAIN."""
    check_timm_backbone(cfg)
    backbone, rates = cfg.MODEL.BACKBONE, _drop_rates(cfg)
    facts = inspect_model(backbone.TIMM.NAME, **rates)
    for key, trained in (("PIXEL_MEAN", facts.mean), ("PIXEL_STD", facts.std)):
        if backbone.PRETRAIN and max(abs(a - b) for a, b in zip(cfg.MODEL[key], trained)) > 0.5:
            text = "MODEL.%s is %s; the weights of timm's %s were trained with %s"
            logger.warning(
                text, key, list(cfg.MODEL[key]), backbone.TIMM.NAME, [round(x, 3) for x in trained]
            )
    weights = backbone.PRETRAIN_PATH if backbone.PRETRAIN else None
    return TimmBackbone(backbone.TIMM.NAME, cfg.INPUT.SIZE_TRAIN, backbone.STRIDE_SIZE, weights, **rates)


def check_timm_backbone(cfg: Any) -> None:
    """Raise ConfigError where the config does not go with the model; allocates and reads no weights."""
    backbone, size = cfg.MODEL.BACKBONE, cfg.INPUT.SIZE_TRAIN
    facts = inspect_model(backbone.TIMM.NAME, **_drop_rates(cfg))
    if facts.feat_dim != backbone.FEAT_DIM:
        raise ConfigError(
            f"MODEL.BACKBONE.FEAT_DIM={backbone.FEAT_DIM}, but MODEL.BACKBONE.TIMM.NAME="
            f"{backbone.TIMM.NAME!r} gives {facts.feat_dim} numbers; set it to {facts.feat_dim}."
        )
    token_grid(size, facts.patch, backbone.STRIDE_SIZE)
    if list(size) != list(cfg.INPUT.SIZE_TEST):
        raise ConfigError(
            f"INPUT.SIZE_TEST={cfg.INPUT.SIZE_TEST} is not INPUT.SIZE_TRAIN={size}, for which the position "
            "embeddings are made; set both to the same."
        )
    path = backbone.PRETRAIN_PATH
    if backbone.PRETRAIN and path and not (path.startswith(TIMM) or os.path.isfile(path)):
        raise ConfigError(
            f"MODEL.BACKBONE.PRETRAIN_PATH={path!r} is no file. Download {facts.source} "
            "and put it there, set the path to '' to let timm download it, or start from random weights with "
            "MODEL.BACKBONE.PRETRAIN False."
        )


def token_grid(image_size: Sequence[int], patch: Sequence[int], stride: Sequence[int]) -> Tuple[int, int]:
    """Rows and columns of tokens of an image.

    Raises:
        ConfigError: the step is beyond the patch's side; patches that do not overlap do not fill the image.
    """
    if any(not 1 <= step <= side for step, side in zip(stride, patch)):
        raise ConfigError(
            f"MODEL.BACKBONE.STRIDE_SIZE={tuple(stride)} does not go with patches of {patch[0]} x {patch[1]} "
            f"pixels; set it to {tuple(patch)}, or below for patches that overlap."
        )
    if any(n < p or (p == s and n % p) for n, p, s in zip(image_size, patch, stride)):
        near = [max(round(n / p), 1) * p for n, p in zip(image_size, patch)]
        raise ConfigError(
            f"INPUT.SIZE_TRAIN={tuple(image_size)} is not filled by patches of {patch[0]} x {patch[1]} "
            f"pixels; set it and INPUT.SIZE_TEST to {near}."
        )
    rows, columns = ((n - p) // s + 1 for n, p, s in zip(image_size, patch, stride))
    return rows, columns


def _drop_rates(cfg: Any) -> Dict[str, float]:
    """timm's names of fastreid's rates; those at zero are left out, as some models lack one or the other."""
    backbone = cfg.MODEL.BACKBONE
    rates = {
        "drop_path_rate": backbone.DROP_PATH_RATIO,
        "pos_drop_rate": backbone.DROP_RATIO,
        "proj_drop_rate": backbone.DROP_RATIO,
        "attn_drop_rate": backbone.ATT_DROP_RATE,
    }
    return {name: rate for name, rate in rates.items() if rate}
