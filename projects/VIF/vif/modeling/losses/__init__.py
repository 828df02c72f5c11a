"""Losses of VIF: plain arguments, no config, no fastreid."""

from .statistics import pair_statistics
from .vial import VIALLoss, cosine_matrix, pair_masks, vial_loss

__all__ = ["VIALLoss", "cosine_matrix", "pair_masks", "pair_statistics", "vial_loss"]
