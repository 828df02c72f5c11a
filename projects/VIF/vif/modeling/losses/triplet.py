"""Triplet loss over a batch, batch-hard or batch-weighted."""

import torch
import torch.nn.functional as F

from .vial import pair_masks


def batch_triplet_loss(
    features: torch.Tensor, targets: torch.Tensor, *, hard: bool = True, margin: float = 0.0
) -> torch.Tensor:
    """Triplet loss of one batch with every image as an anchor (VV, IJCNN 2019, sampling variants BH and BW).

    With Euclidean distances d, each anchor has one positive distance d_p and one negative distance d_n.
    Batch-hard: the largest to its identity and the smallest to any other. Batch-weighted: the mean over its
    identity weighted with softmax(d), the mean over the others weighted with softmax(-d); the anchor itself
    is no positive. Its cost is log(1 + exp(d_p - d_n)), or max(0, margin + d_p - d_n). Computed in float32
    (float64 stays), also under autocast.

    Args:
        features: (N, D) embeddings, any floating dtype; they are not normalised.
        targets: (N,) integer identities.
        hard: True batch-hard, False batch-weighted.
        margin: >= 0; 0 takes the soft margin.

    Returns:
        0-d tensor, >= 0: the mean over anchors with a positive and a negative; 0 with a graph without such.

    Raises:
        ValueError: features are not (N, D), or targets are not (N,).
    """
    if features.dim() != 2 or targets.shape != features.shape[:1]:
        raise ValueError(
            "batch_triplet_loss takes features (N, D) and targets (N,), "
            f"got {tuple(features.shape)} and {tuple(targets.shape)}"
        )
    with torch.autocast(features.device.type, enabled=False):
        if features.dtype in (torch.float16, torch.bfloat16):
            features = features.float()
        positive, negative = pair_masks(targets)
        anchors = positive.any(dim=1) & negative.any(dim=1)
        if not anchors.any():
            return (features * 0).sum()
        # its gradient at distance 0 is 0, that of a plain square root is not finite
        distance = torch.cdist(features[anchors], features, compute_mode="donot_use_mm_for_euclid_dist")
        positive, negative = positive[anchors], negative[anchors]
        to_positive = distance.masked_fill(~positive, -torch.inf)
        to_negative = distance.masked_fill(~negative, torch.inf)
        if hard:
            d_p, d_n = to_positive.amax(dim=1), to_negative.amin(dim=1)
        else:
            d_p = (to_positive.softmax(dim=1) * distance).sum(dim=1)
            d_n = ((-to_negative).softmax(dim=1) * distance).sum(dim=1)
        cost = (d_p - d_n + margin).clamp(min=0) if margin > 0 else F.softplus(d_p - d_n)
        return cost.mean()
