"""Attention of fastreid's vision transformers by torch's fused kernels, with fastreid's weights.

Shape letters: B batch, T tokens, D embedding, H heads.
"""

import contextlib
from typing import Iterator

import torch
from fastreid.modeling.backbones.vision_transformer import Attention
from torch import nn
from torch.nn import functional as F

from ..errors import ConfigError


class FusedAttention(Attention):
    """fastreid's Attention through `scaled_dot_product_attention`, which keeps no matrix of weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, T, D) in and out."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, T, D / H) each
        dropout = self.attn_drop.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=self.scale)
        return self.proj_drop(self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim)))


_CLASSES = {"eager": Attention, "sdpa": FusedAttention}


def check_attention(name: str) -> None:
    """Refuse what this torch does not have.

    Raises:
        ConfigError: "sdpa" on torch before 2.1.
    """
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if name == "sdpa" and version < (2, 1):
        raise ConfigError(
            f"MODEL.BACKBONE.VIT.ATTENTION='sdpa' needs torch 2.1 or newer, this is {torch.__version__}; "
            "take 'eager'."
        )


def set_attention(model: nn.Module, name: str) -> None:
    """Let all of fastreid's attention modules below `model` compute one way; weights and names stay.

    Args:
        model: any module; one without such attention stays as it is.
        name: "eager" as fastreid does, "sdpa" fused.
    """
    for module in model.modules():
        if type(module) in _CLASSES.values():
            module.__class__ = _CLASSES[name]


@contextlib.contextmanager
def eager_attention(model: nn.Module) -> Iterator[None]:
    """Inside the `with`, attention is fastreid's own: `attn_drop` sees the weights (B, H, T, T)."""
    before = [(module, type(module)) for module in model.modules() if type(module) in _CLASSES.values()]
    try:
        set_attention(model, "eager")
        yield
    finally:
        for module, kind in before:
            module.__class__ = kind
