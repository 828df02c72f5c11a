"""Losses of VIF: plain arguments, no config, no fastreid."""

from .gather import Gathered, gather
from .statistics import pair_statistics
from .triplet import batch_triplet_loss
from .vial import VIALLoss, cosine_matrix, pair_masks, vial_loss

__all__ = [
    "Gathered",
    "VIALLoss",
    "batch_triplet_loss",
    "cosine_matrix",
    "gather",
    "pair_masks",
    "pair_statistics",
    "vial_loss",
]
