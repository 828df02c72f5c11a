"""Network: a trained model as one function of a tensor, which is what gets exported."""

import copy
from typing import Any, Dict

import torch
from torch import nn
from torch.nn import functional as F

from .metadata import Signature


class Network(nn.Module):
    """A fastreid meta architecture behind the input and output of a `Signature`.

    The weights are shared with `model`, which stays as it is: its own normalisation, in place on its input,
    is switched off in a shallow copy.

    Args:
        model: returns features (B, D) in eval mode.
        signature: where normalisation happens, and whether features get length 1.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: nn.Module, signature: Signature) -> None:
        super().__init__()
        model = copy.copy(model)
        model.preprocess_image = _given  # type: ignore[assignment, unused-ignore]
        self.model = model.eval()
        self.uint8_input, self.l2_output = signature.uint8_input, signature.l2_output
        self.register_buffer("mean", torch.tensor(signature.mean))
        self.register_buffer("std", torch.tensor(signature.std))
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, H, W, 3) uint8, or (B, 3, H, W) float32 that are normalised -> (B, D) float32."""
        if self.uint8_input:
            images = ((images.float() - self.mean) / self.std).permute(0, 3, 1, 2).contiguous()
        features = self.model({"images": images})
        return F.normalize(features) if self.l2_output else features

    def example(self, height: int, width: int) -> torch.Tensor:
        """An input of two images; exporters would take a batch of one for a constant."""
        if self.uint8_input:
            return torch.zeros(2, height, width, 3, dtype=torch.uint8)
        return torch.zeros(2, 3, height, width)


def _given(batched_inputs: Dict[str, Any]) -> Any:
    return batched_inputs["images"]
