"""The evaluator that the trainer calls: every protocol of a data set from one FeatureTable."""

from typing import Any, Dict, Sequence

from fastreid.config import configurable

from ..features import FeatureTable
from ..registries import EVALUATOR_REGISTRY
from .evaluate import evaluate_table
from .protocols import Protocol


@EVALUATOR_REGISTRY.register()
class ProtocolEvaluator:
    """Score protocols one by one; they are never merged.

    Args:
        metric: "cosine" or "euclidean".
    """

    @configurable
    def __init__(self, *, metric: str = "cosine") -> None:
        self.metric = metric

    @classmethod
    def from_config(cls, cfg: Any) -> Dict[str, Any]:
        """Plain arguments of `__init__`."""
        return {"metric": cfg.TEST.METRIC}

    def evaluate(self, table: FeatureTable, protocols: Sequence[Protocol]) -> Dict[str, Dict[str, float]]:
        """Scores by protocol name: Rank-1, Rank-5, Rank-10, mAP, mINP in percent, and the three counts."""
        return {p.name: evaluate_table(table, p, metric=self.metric).scores() for p in protocols}
