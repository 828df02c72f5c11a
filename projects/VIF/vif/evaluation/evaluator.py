"""The evaluator that the trainer calls: every protocol of a data set from one FeatureTable."""

import logging
from typing import Any, Dict, Optional, Sequence

from fastreid.config import configurable

from ..features import FeatureTable
from ..registries import EVALUATOR_REGISTRY
from . import left_out
from .evaluate import evaluate_table, format_table
from .processing import Expansion, Processing, Rerank
from .protocols import Protocol

logger = logging.getLogger(__name__)


@EVALUATOR_REGISTRY.register()
class ProtocolEvaluator:
    """Score protocols one by one and print their table; they are never merged.

    Args:
        processing: metric and post-processing.
        level: of the printed bootstrap intervals, in (0, 1); None prints none.
    """

    @configurable
    def __init__(self, *, processing: Processing, level: Optional[float] = None) -> None:
        self.processing = processing
        self.level = level

    @classmethod
    def from_config(cls, cfg: Any) -> Dict[str, Any]:
        """Plain arguments of `__init__` from TEST.METRIC, TEST.AQE, TEST.RERANK and TEST.CONFIDENCE."""
        aqe, rerank = cfg.TEST.AQE, cfg.TEST.RERANK
        return {
            "processing": Processing(
                cfg.TEST.METRIC,
                Expansion(aqe.QE_K, aqe.ALPHA, aqe.QE_TIME) if aqe.ENABLED else None,
                Rerank(rerank.K1, rerank.K2, rerank.LAMBDA) if rerank.ENABLED else None,
            ),
            "level": cfg.TEST.CONFIDENCE or None,
        }

    def evaluate(self, table: FeatureTable, protocols: Sequence[Protocol]) -> Dict[str, Dict[str, float]]:
        """Scores by protocol name: Rank-1, Rank-5, Rank-10, mAP, mINP in percent, and the three counts.

        Where images may be left out, also unreadable_query and unreadable_gallery, how many were.
        """
        rankings = {p.name: evaluate_table(table, p, self.processing) for p in protocols}
        heading = ", ".join(filter(None, [table.meta.get("dataset"), table.meta.get("flip")]))
        note = ", ".join(filter(None, [self.processing.describe(), left_out.describe(table)]))
        logger.info("%s: %s\n%s", heading, note, format_table(rankings, protocols, self.level))
        return {p.name: {**rankings[p.name].scores(), **left_out.counts(table, p)} for p in protocols}
