"""The transforms that INPUT.TRANSFORMS can name: importing this module registers them."""

from typing import Any

from ..registries import TRANSFORM_REGISTRY
from . import transforms as T


@TRANSFORM_REGISTRY.register()
def PatchLevelRotateMix(cfg: Any) -> T.PatchLevelRotateMix:
    """PLRM from INPUT.PLRM."""
    plrm = cfg.INPUT.PLRM
    return T.PatchLevelRotateMix(
        prob=plrm.PROB,
        base_prob=plrm.BASE_PROB,
        center_weight=plrm.CENTER_WEIGHT,
        patch_size=plrm.PATCH_SIZE,
        max_angle=plrm.MAX_ANGLE,
        alpha=plrm.ALPHA,
        fill=plrm.FILL,
        mode=plrm.MODE,
    )


@TRANSFORM_REGISTRY.register()
def RandomRotation(cfg: Any) -> T.RandomRotation:
    """Rotation of the whole image from INPUT.ROTATION."""
    return T.RandomRotation(prob=cfg.INPUT.ROTATION.PROB, max_angle=cfg.INPUT.ROTATION.MAX_ANGLE)


@TRANSFORM_REGISTRY.register()
def PatchShuffle(cfg: Any) -> T.PatchShuffle:
    """PatchShuffle from INPUT.PATCH_SHUFFLE."""
    shuffle = cfg.INPUT.PATCH_SHUFFLE
    return T.PatchShuffle(prob=shuffle.PROB, patch_size=shuffle.PATCH_SIZE)
