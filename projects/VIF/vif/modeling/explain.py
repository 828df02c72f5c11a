"""Explain: the method of AG-ReIDv1 (Aerial-Ground Person Re-ID, ICME 2023), two streams.

The first stream is a re-ID transformer, the second an interpreter that learns, by attribute-guided metric
distillation (AMD, ICCV 2021), to take the distance of two images apart into components of attributes. It
reads attributes in training, and none at test time. Shape letters: B batch, K attributes, T tokens (class and
one a patch), P patches, D embedding.
"""

import contextlib
import copy
from typing import Any, Dict, Iterator, Tuple

import torch
from fastreid.config import configurable
from fastreid.modeling.backbones.vision_transformer import VisionTransformer
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.baseline import Baseline
from torch import nn

from ..compat import register
from ..errors import ConfigError, DataError
from .losses.attribute import attribute_prior_loss, metric_distillation_loss, pair_distances

_HIDDEN = 256  # channels between the two convolutions, as published


class Interpreter(nn.Module):
    """From tokens inside a ViT to one positive map an attribute.

    Args:
        blocks: the interpreter's own transformer blocks.
        norm: its own last layer norm.
        grid: patches (rows, columns); rows * columns = P.
        dim: D.
        attributes: K.
    """

    def __init__(
        self, *, blocks: nn.ModuleList, norm: nn.Module, grid: Tuple[int, int], dim: int, attributes: int
    ) -> None:
        super().__init__()
        self.blocks = blocks
        self.norm = norm
        self.grid = grid
        self.maps = nn.Sequential(
            nn.Conv2d(dim, _HIDDEN, 3, padding=1, bias=False), nn.Conv2d(_HIDDEN, attributes, 1, bias=False)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (B, T, D), before the own blocks -> maps (B, K, P) > 0: exp(x), but sqrt(1 + x) if x > 0."""
        for block in self.blocks:
            tokens = block(tokens)
        patches = self.norm(tokens)[:, 1:]
        logits = self.maps(patches.transpose(1, 2).unflatten(2, self.grid)).flatten(2).float()
        return torch.where(logits < 0, logits.clamp(max=0).exp(), (1 + logits.clamp(min=0)).sqrt())


@contextlib.contextmanager
def _tapped(backbone: VisionTransformer, block: int) -> Iterator[Dict[str, torch.Tensor]]:
    """What a forward pass inside the `with` has beside the class token that it returns, as (B, T, D).

    Yields:
        A dict that the pass fills: "shared", what enters that block, and "last", all tokens at the end.
    """
    seen: Dict[str, torch.Tensor] = {}
    hooks = [
        backbone.blocks[block].register_forward_pre_hook(lambda _, inputs: seen.update(shared=inputs[0])),
        backbone.norm.register_forward_hook(lambda _, inputs, output: seen.update(last=output)),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@register(META_ARCH_REGISTRY)
class Explain(Baseline):
    """Identity and triplet loss of a ViT + metric distillation + attribute prior of its interpreter.

    The feature of an attribute is the mean of the ViT's last patch tokens, weighted by the attribute's map;
    the distance of two images' features, by K, is the attribute's component of their distance. The sum of
    the components is distilled from the distance of the class tokens, which is detached; through the
    attributes' features the losses train the ViT as well. In training a batch holds `attributes`, (B, K) of 0
    and 1. At test time the interpreter is idle: the result is the BNNeck's output of the class token, (B, D).

    Args:
        num_attributes: K.
        share: part of the ViT's blocks that the interpreter shares, in [0, 1]; it copies the others (at
            least one) and trains the copies.
        distillation_weight: weight of `metric_distillation_loss`.
        prior_weight: weight of `attribute_prior_loss`.
        kwargs: what Baseline takes; the backbone is fastreid's VisionTransformer.

    Raises:
        ConfigError: the backbone is another.
    """

    LABELS = ("attributes",)  # read from the batch: check_config asks for exactly these in DATALOADER.LABELS

    @configurable
    def __init__(
        self,
        *,
        num_attributes: int,
        share: float,
        distillation_weight: float,
        prior_weight: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(self.backbone, VisionTransformer):
            raise ConfigError(
                f"Explain reads the patch tokens of fastreid's VisionTransformer, not of "
                f"{type(self.backbone).__name__}; set MODEL.BACKBONE.NAME to build_vit_backbone or "
                "build_vif_vit_backbone."
            )
        blocks, embed = self.backbone.blocks, self.backbone.patch_embed
        self.shared = min(int(share * len(blocks)), len(blocks) - 1)
        self.num_attributes = num_attributes
        self.distillation_weight = distillation_weight
        self.prior_weight = prior_weight
        self.interpreter = Interpreter(
            blocks=copy.deepcopy(blocks[self.shared :]),
            norm=copy.deepcopy(self.backbone.norm),
            grid=(embed.num_y, embed.num_x),
            dim=self.backbone.embed_dim,
            attributes=num_attributes,
        )

    @classmethod
    def from_config(cls, cfg: Any) -> Dict[str, Any]:
        """Plain arguments of `__init__`."""
        explain = cfg.MODEL.EXPLAIN
        return {
            **super().from_config(cfg),
            "num_attributes": explain.NUM_ATTRIBUTES,
            "share": explain.SHARE,
            "distillation_weight": explain.DISTILLATION_WEIGHT,
            "prior_weight": explain.PRIOR_WEIGHT,
        }

    def forward(self, batched_inputs: Any) -> Any:
        """Losses by name, each times its weight (training), or embeddings (B, D).

        Raises:
            DataError: a training batch carries no attributes.
            ConfigError: it carries another number of them than MODEL.EXPLAIN.NUM_ATTRIBUTES.
        """
        if not self.training:
            return super().forward(batched_inputs)
        attributes = self._attributes(batched_inputs)
        targets = batched_inputs["targets"]
        with _tapped(self.backbone, self.shared) as tokens:
            features = self.backbone(self.preprocess_image(batched_inputs))
        losses = self.losses(self.heads(features, targets), targets)
        components = self.components(tokens["shared"], tokens["last"][:, 1:])
        distances = pair_distances(features.flatten(1))
        return {
            **losses,
            "loss_distillation": self.distillation_weight * metric_distillation_loss(components, distances),
            "loss_prior": self.prior_weight * attribute_prior_loss(components, attributes),
        }

    def components(self, shared: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """What each attribute adds to the distance of each pair.

        Args:
            shared: tokens (B, T, D) that enter the interpreter.
            patches: the ViT's last patch tokens (B, P, D).

        Returns:
            float32 (K, B, B), >= 0.
        """
        maps = self.interpreter(shared)
        with torch.autocast(maps.device.type, enabled=False):
            features = torch.einsum("bkp,bpd->kbd", maps, patches.float()) / patches.shape[1]
        return pair_distances(features) / self.num_attributes

    def _attributes(self, batched_inputs: Dict[str, Any]) -> torch.Tensor:
        if "attributes" not in batched_inputs:
            raise DataError(
                "Explain trains on attributes and the batch has none; set DATALOADER.LABELS to "
                "('attributes',) and take the batches of VIFTrainer's loader."
            )
        attributes: torch.Tensor = batched_inputs["attributes"]
        if attributes.shape[1] != self.num_attributes:
            raise ConfigError(
                f"MODEL.EXPLAIN.NUM_ATTRIBUTES={self.num_attributes} and the training set has "
                f"{attributes.shape[1]}; set it to that number."
            )
        return attributes
