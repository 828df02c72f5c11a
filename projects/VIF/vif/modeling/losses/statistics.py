"""What a batch of embeddings looks like: the numbers that show a collapse the losses hide."""

from typing import Dict

import torch

from .vial import cosine_matrix, pair_masks


@torch.no_grad()
def pair_statistics(
    features: torch.Tensor, targets: torch.Tensor, margin: float = 0.5
) -> Dict[str, torch.Tensor]:
    """Geometry of one batch.

    Args:
        features: (N, D) embeddings before the BNNeck.
        targets: (N,) identities.
        margin: M, a negative is hard above cosine 1 - M.

    Returns:
        0-d float32 tensors: `pos_cos` and `neg_cos`, mean cosine over positive and negative pairs, -1..1
        (NaN without such a pair); `hard_share`, hard negatives among negatives, 0..1; `feat_norm`, mean
        Euclidean norm.
    """
    with torch.autocast(features.device.type, enabled=False):
        cos = cosine_matrix(features.float())
        positive, negative = pair_masks(targets)
        pos_cos = cos.masked_fill(~positive, 0).sum() / positive.sum()
        neg_cos = cos.masked_fill(~negative, 0).sum() / negative.sum()
        hard_share = (negative & (cos > 1 - margin)).sum() / negative.sum()
        return {
            "pos_cos": pos_cos,
            "neg_cos": neg_cos,
            "hard_share": hard_share,
            "feat_norm": features.float().norm(dim=1).mean(),
        }
