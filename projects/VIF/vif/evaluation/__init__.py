"""Evaluation: protocols, exact ranking, intervals; only `extract` and `evaluator` import fastreid."""

from .evaluate import evaluate_table, format_table
from .protocols import PROTOCOLS, Protocol, known_protocols, select, view_protocols
from .ranking import Ranking, rank_distances, rank_metrics

__all__ = [
    "PROTOCOLS",
    "Protocol",
    "Ranking",
    "evaluate_table",
    "format_table",
    "known_protocols",
    "rank_distances",
    "rank_metrics",
    "select",
    "view_protocols",
]
