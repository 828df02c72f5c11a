"""Attention roll-out (Abnar & Zuidema, Quantifying Attention Flow in Transformers, ACL 2020).

Shape letters: B images, T tokens, P patches, h x w patch grid.
"""

import contextlib
from typing import Any, Iterator, List, Sequence, Tuple

import numpy as np
import torch

from ..errors import ConfigError

RESIDUAL = 0.5  # share of the skip connection


def rollout(attentions: Sequence[np.ndarray], residual: float = RESIDUAL) -> np.ndarray:
    """Attention of the last layer's tokens to the first layer's.

    Each layer is residual * I + (1 - residual) * attention; the layers are multiplied, the last on the left.

    Args:
        attentions: of each block in order, (B, T, T) averaged over heads, rows sum to 1.
        residual: in [0, 1].

    Returns:
        (B, T, T) float64; rows sum to 1.
    """
    flow = np.eye(attentions[0].shape[-1])
    for attention in attentions:
        flow = (residual * np.eye(flow.shape[-1]) + (1 - residual) * attention.astype(np.float64)) @ flow
    return np.broadcast_to(flow, attentions[0].shape)


@contextlib.contextmanager
def captured(model: Any) -> Iterator[List[np.ndarray]]:
    """What a forward pass of the model inside the `with` attends to, in the order of the blocks.

    Yields:
        A list that the pass fills, (B, T, T) float32 averaged over heads for each block.

    Raises:
        ConfigError: the backbone does not show its attention.
    """
    from ..modeling.attention import eager_attention

    seen: List[np.ndarray] = []

    def keep(_: Any, inputs: Tuple[torch.Tensor]) -> None:
        seen.append(inputs[0].detach().float().mean(dim=1).cpu().numpy())

    hooks = [module.register_forward_pre_hook(keep) for module in _attention_modules(model)]
    try:
        with eager_attention(model):  # a fused kernel keeps no weights
            yield seen
    finally:
        for hook in hooks:
            hook.remove()


def patch_grid(model: Any) -> Tuple[int, int]:
    """(h, w) of the backbone's patches.

    Raises:
        ConfigError: as `captured`.
    """
    _attention_modules(model)
    return model.backbone.patch_embed.num_y, model.backbone.patch_embed.num_x


def class_attention(model: Any, images: torch.Tensor) -> np.ndarray:
    """Roll-out of the class token over the patches.

    Args:
        model: fastreid meta architecture in eval mode.
        images: (B, 3, H, W) as the model takes them.

    Returns:
        (B, h, w) float64, >= 0; with what goes to class and further tokens it would sum to 1.

    Raises:
        ConfigError: as `captured`.
    """
    h, w = patch_grid(model)
    with torch.no_grad(), captured(model) as seen:
        model({"images": images.clone()})  # fastreid normalises in place
    flow = rollout(seen)
    return flow[:, 0, flow.shape[-1] - h * w :].reshape(-1, h, w)


def _attention_modules(model: Any) -> List[Any]:
    """The dropout behind each softmax of fastreid's VisionTransformer: its input is the attention."""
    backbone = getattr(model, "backbone", None)
    blocks = list(getattr(backbone, "blocks", ()))
    modules = [getattr(getattr(block, "attn", None), "attn_drop", None) for block in blocks]
    if not modules or None in modules or not hasattr(getattr(backbone, "patch_embed", None), "num_x"):
        raise ConfigError(
            f"attention cannot be read from {type(backbone).__name__}: convolutions have none, and timm's "
            "models do not hand it out. It works with MODEL.BACKBONE.NAME build_vif_vit_backbone, "
            "build_vit_backbone and build_vdt_backbone."
        )
    return modules
