"""OSNet's own head (ICCV 2019) for fastreid's backbone of it: fastreid's heads end in a batch norm."""

from typing import Any, Dict

from fastreid.config import configurable
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from fastreid.modeling.heads.embedding_head import EmbeddingHead
from torch import nn


@REID_HEADS_REGISTRY.register()
class OSNetHead(EmbeddingHead):
    """Pooling, a layer of MODEL.HEADS.EMBEDDING_DIM, batch norm, ReLU; the ReLU's output is the embedding.

    Args:
        kwargs: what fastreid's EmbeddingHead takes.
    """

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # fastreid keeps the bias of a BNNeck at 0, where the ReLU would cut half of each feature for good
        self.bottleneck[-1].bias.requires_grad_(True)
        self.bottleneck.append(nn.ReLU(inplace=True))

    @classmethod
    def from_config(cls, cfg: Any) -> Dict[str, Any]:
        """Plain arguments of `__init__`; the batch norm before the ReLU is always there."""
        return {**super().from_config(cfg), "with_bnneck": True}
