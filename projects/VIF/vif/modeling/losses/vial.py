"""View-Invariant Angular Loss with hard negative mining (VIAL-HNM), equations 6-10 of VIF-AGReID.

Shape letters: N samples of a batch, D embedding.
"""

from typing import Tuple

import torch
from torch import nn


def cosine_matrix(features: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of every pair, equation 6: (N, D) -> (N, N), in float32 or wider.

    A zero row has cosine 0 with everything and receives no gradient.
    """
    features = features if features.dtype == torch.float64 else features.float()
    squared = features.square().sum(dim=1, keepdim=True)
    alive = squared > torch.finfo(features.dtype).tiny
    inverse = torch.where(alive, squared, torch.ones_like(squared)).rsqrt() * alive
    unit = features * inverse
    return unit @ unit.t()


def pair_masks(targets: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """Ordered positive pairs i != j and negative pairs: targets (N,) -> two bool masks (N, N)."""
    same = targets[:, None] == targets[None, :]
    itself = torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    return same & ~itself, ~same


def vial_loss(
    features: torch.Tensor,
    targets: torch.Tensor,
    *,
    beta: float = 5.0,
    lam: float = 0.5,
    margin: float = 0.5,
    penalty: bool = True,
    hard_negatives: bool = True,
) -> torch.Tensor:
    """VIAL-HNM of one batch, equation 10.

    Over ordered pairs with cosine c: a positive pair costs (1 - c) * (1 + lam * exp(-beta * c)), a hard
    negative pair (other identity, c > 1 - margin) costs c - (1 - margin); the sum is divided by the number
    of both. Computed in float32 (float64 stays), also under autocast.

    Args:
        features: (N, D) embeddings before the BNNeck, any floating dtype, need not be normalised.
        targets: (N,) integer identities.
        beta: decay rate of the penalty, paper 5, > 0.
        lam: strength of the penalty, lambda, paper 0.5, >= 0.
        margin: M, a negative is hard above cosine 1 - M, paper 0.5, 0 < M <= 2.
        penalty: False leaves out the exponential factor ("Angular Loss" of Table 5).
        hard_negatives: False leaves out the negatives ("VIAL w/o HNM" of Table 5).

    Returns:
        0-d tensor, >= 0; 0 with a graph behind it when there is no pair to count.

    Raises:
        ValueError: features are not (N, D), or targets are not (N,).
    """
    if features.dim() != 2 or targets.shape != features.shape[:1]:
        raise ValueError(
            "vial_loss takes features (N, D) and targets (N,), "
            f"got {tuple(features.shape)} and {tuple(targets.shape)}"
        )
    with torch.autocast(features.device.type, enabled=False):
        cos = cosine_matrix(features)
        positive, negative = pair_masks(targets)
        # Only pairs that count reach exp: a large beta cannot make inf * 0 of the others.
        c = torch.where(positive, cos, torch.ones_like(cos))
        cost = 1 - c
        if penalty:
            cost = cost * (1 + lam * torch.exp(-beta * c))
        total, count = cost.masked_fill(~positive, 0).sum(), positive.sum()
        if hard_negatives:
            hard = negative & (cos > 1 - margin)
            total = total + (cos - (1 - margin)).masked_fill(~hard, 0).sum()
            count = count + hard.sum()
        return total / count.clamp(min=1)


class VIALLoss(nn.Module):
    """`vial_loss` as a module, times `weight` (delta of equation 13)."""

    def __init__(
        self,
        *,
        beta: float = 5.0,
        lam: float = 0.5,
        margin: float = 0.5,
        penalty: bool = True,
        hard_negatives: bool = True,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.beta, self.lam, self.margin = beta, lam, margin
        self.penalty, self.hard_negatives = penalty, hard_negatives
        self.weight = weight

    def forward(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(N, D) features and (N,) targets -> 0-d loss."""
        loss = vial_loss(
            features,
            targets,
            beta=self.beta,
            lam=self.lam,
            margin=self.margin,
            penalty=self.penalty,
            hard_negatives=self.hard_negatives,
        )
        return self.weight * loss

    def extra_repr(self) -> str:
        """Show the arguments in the model's print-out."""
        return (
            f"beta={self.beta}, lam={self.lam}, margin={self.margin}, penalty={self.penalty}, "
            f"hard_negatives={self.hard_negatives}, weight={self.weight}"
        )
