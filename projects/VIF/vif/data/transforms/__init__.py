"""Image transforms: `op(image, rng) -> image` on uint8 RGB arrays (H, W, 3), and readers of image files."""

from vif.data.transforms.alternatives import PatchShuffle, RandomRotation
from vif.data.transforms.base import Compose, Transform
from vif.data.transforms.erasing import RandomErasing
from vif.data.transforms.geometry import HorizontalFlip, PadCrop, Resize
from vif.data.transforms.pil_ops import CenterCrop, ColorJitter, PILTransform, RandomAffine, RandomResizedCrop
from vif.data.transforms.plrm import PatchLevelRotateMix, patch_probability
from vif.data.transforms.reading import read_image, read_image_fast
from vif.data.transforms.rotate_mix import rotate_mix

__all__ = [
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "HorizontalFlip",
    "PILTransform",
    "PadCrop",
    "PatchLevelRotateMix",
    "PatchShuffle",
    "RandomAffine",
    "RandomErasing",
    "RandomResizedCrop",
    "RandomRotation",
    "Resize",
    "Transform",
    "patch_probability",
    "read_image",
    "read_image_fast",
    "rotate_mix",
]
