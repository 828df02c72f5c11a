"""Losses of attribute-guided metric distillation (AMD, ICCV 2021), after its published code.

Shape letters: N images of a batch, K attributes, D embedding. "Exclusive" attributes of a pair are those that
differ between its two people, "common" ones those that do not.
"""

import torch


def pair_distances(features: torch.Tensor) -> torch.Tensor:
    """Euclidean distance of every pair: (..., N, D) -> (..., N, N), in float32; no gradient at distance 0."""
    with torch.autocast(features.device.type, enabled=False):
        features = features.float()
        squared = features.square().sum(dim=-1)
        product = features @ features.transpose(-2, -1)
        return (squared[..., :, None] + squared[..., None, :] - 2 * product).clamp(min=1e-12).sqrt()


def metric_distillation_loss(components: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over pairs of |sum of the attributes' components - distance of the target model|.

    Args:
        components: (K, N, N), what each attribute adds to a distance, >= 0.
        target: (N, N) distances of the target model; they teach, so no gradient reaches them.

    Returns:
        0-d float32 tensor, >= 0.
    """
    gap = (components.float().sum(dim=0) - target.detach().float()).abs()
    return _mean_over_pairs(gap)


def attribute_prior_loss(
    components: torch.Tensor, attributes: torch.Tensor, each_weight: float = 10.0
) -> torch.Tensor:
    """Exclusive attributes shall explain a distance, and common ones shall not.

    A pair has E exclusive attributes, p_k is the share of attribute k in its distance. All exclusive ones
    together shall have t = sqrt(E / K) of it or more, the common ones 1 - t or less; and each exclusive one g
    or more, each common one g or less, where g is the geometric mean of the two mean shares, t / E and
    (1 - t) / (K - E). Each violation costs its amount.

    Args:
        components: (K, N, N), what each attribute adds to a distance, >= 0.
        attributes: (N, K) of 0 and 1.
        each_weight: weight of the demands on single attributes, published 10.

    Returns:
        0-d float32 tensor, >= 0: the mean over pairs. Pairs of an image with itself cost nothing.
    """
    with torch.autocast(components.device.type, enabled=False):
        components, attributes = components.float(), attributes.float()
        number = float(len(components))
        share = components / components.sum(dim=0).clamp(min=1e-12)
        columns = attributes.t()
        exclusive = (columns[:, :, None] != columns[:, None, :]).float()  # (K, N, N)
        count = exclusive.sum(dim=0)  # E
        together = (count / number).sqrt()  # t
        ratio = _ratio_of_shares(number, count)  # sqrt of (t / E) / ((1 - t) / (K - E))
        least = exclusive * together / (count.clamp(min=1e-6) * ratio)
        most = ratio * (1 - together) / (number - count).clamp(min=1e-6)
        # twice: shares add up to 1, so the demand on the common ones together is the same as on the exclusive
        sums = 2 * (together - (share * exclusive).sum(dim=0)).relu()
        each = (least - share).relu() + (share * (1 - exclusive) - most).relu()
        return _mean_over_pairs(sums + each_weight * each.sum(dim=0))


def _ratio_of_shares(number: float, count: torch.Tensor) -> torch.Tensor:
    """Square root of the ratio of the two mean shares; published constants bound it where E is 0 or K."""
    count = count.clamp(max=number - 0.1)
    together = (count / number).sqrt()
    return (((number - count) * together + 4e-3) / (count * (1 - together) + 1e-3)).sqrt()


def _mean_over_pairs(cost: torch.Tensor) -> torch.Tensor:
    """Mean over all N * N pairs, as published, of which an image with itself costs nothing."""
    itself = torch.eye(len(cost), dtype=torch.bool, device=cost.device)
    return cost.masked_fill(itself, 0.0).mean()
