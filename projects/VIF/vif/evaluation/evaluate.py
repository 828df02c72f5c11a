"""From a FeatureTable to the scores of a protocol, and to the table that is printed."""

import contextlib
from dataclasses import dataclass
from typing import Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from ..errors import EvaluationError
from ..features import FeatureTable
from .confidence import intervals
from .distances import FeatureDistances, MatrixDistances
from .processing import Processing
from .protocols import Protocol
from .ranking import BLOCK_BYTES, Ranking, rank_distances, rank_metrics
from .rerank import expand_queries, rerank_distances

SCORES = ("Rank-1", "Rank-5", "Rank-10", "mAP", "mINP")
HEADERS = ("Protocol", *SCORES, "valid queries / queries", "gallery")
PLAIN = Processing()


@dataclass(frozen=True, eq=False)
class Sides:
    """Query and gallery of one protocol as they are ranked, after post-processing.

    Attributes:
        query: (Q,) rows of the table.
        gallery: (G,) rows of the table.
        labels: query pids, gallery pids, query and gallery labels of the same-camera filter.
        features: (Q, D) and (G, D).
        metric: of the features.
        matrix: (Q, G) distances that stand in place of the features', or None.
    """

    query: np.ndarray
    gallery: np.ndarray
    labels: Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    features: Tuple[np.ndarray, np.ndarray]
    metric: str
    matrix: Optional[np.ndarray] = None

    def distances(self) -> Union[FeatureDistances, MatrixDistances]:
        """Strips of the distances that the ranking compares."""
        if self.matrix is not None:
            return MatrixDistances(self.matrix)
        return FeatureDistances(*self.features, self.metric, chunk_bytes=BLOCK_BYTES // 16)

    def rank(self, max_rank: int = 50, block_bytes: int = BLOCK_BYTES) -> Ranking:
        """The ranking; arguments and errors as in `evaluate_table`."""
        if self.matrix is not None:
            return rank_distances(self.matrix, *self.labels, max_rank=max_rank)
        return rank_metrics(
            *self.features, *self.labels, metric=self.metric, max_rank=max_rank, block_bytes=block_bytes
        )


def evaluate_table(
    table: FeatureTable,
    protocol: Protocol,
    processing: Processing = PLAIN,
    *,
    max_rank: int = 50,
    block_bytes: int = BLOCK_BYTES,
) -> Ranking:
    """Rank a protocol's gallery for each of its queries.

    Args:
        table: features and labels; in any order, the scores do not depend on it.
        protocol: the row to score. Post-processing sees its query and gallery and no other image.
        processing: metric and post-processing.
        max_rank: length of the CMC curve.
        block_bytes: most memory to use beside the table and the protocol's part of it; re-ranking needs the
            distances of all pairs on top.

    Returns:
        Ranking; ``valid`` indexes ``table.rows(protocol.query_split, protocol.query_view)``.

    Raises:
        EvaluationError: a side is empty or no query valid; names the protocol, and what splits and views
            there are.
    """
    sides = protocol_sides(table, protocol, processing)
    with _named(protocol):
        return sides.rank(max_rank, block_bytes)


def protocol_sides(table: FeatureTable, protocol: Protocol, processing: Processing = PLAIN) -> Sides:
    """What `evaluate_table` ranks; arguments as there.

    Raises:
        EvaluationError: a side is empty, or its features cannot be used.
    """
    query = _side(table, protocol, "query", protocol.query_split, protocol.query_view)
    gallery = _side(table, protocol, "gallery", protocol.gallery_split, protocol.gallery_view)
    cameras = camera_labels(table, protocol)
    features = _take(table.features, query), _take(table.features, gallery)
    labels = table.pids[query], table.pids[gallery], cameras[query], cameras[gallery]
    metric, expansion, rerank = processing
    matrix = None
    with _named(protocol):
        if expansion is not None:
            features = expand_queries(*features, **expansion._asdict())
        if rerank is not None:
            matrix = rerank_distances(*features, metric=metric, **rerank._asdict())
    return Sides(query, gallery, labels, features, metric, matrix)


@contextlib.contextmanager
def _named(protocol: Protocol) -> Iterator[None]:
    """Put the protocol's name in front of an error's message."""
    try:
        yield
    except EvaluationError as error:
        raise EvaluationError(f"protocol {protocol.name}: {error}") from error


def camera_labels(table: FeatureTable, protocol: Protocol) -> np.ndarray:
    """(N,) int64 labels that the protocol's same-camera filter compares."""
    if protocol.cameras == "camid":
        return table.camids
    if protocol.cameras == "view":
        return np.unique(table.views, return_inverse=True)[1].reshape(-1).astype(np.int64)
    raise EvaluationError(
        f"protocol {protocol.name}: cameras is {protocol.cameras!r}; it can be 'camid' or 'view'."
    )


def format_table(
    rankings: Mapping[str, Ranking], protocols: Sequence[Protocol], level: Optional[float] = None
) -> str:
    """The scores of some protocols as text, one a row, with the counts that identify a protocol.

    Args:
        rankings: what was scored, by protocol name.
        protocols: rows to print, in this order.
        level: of the bootstrap intervals beside Rank-1, mAP and mINP, e.g. 0.95; None prints none.
    """
    from tabulate import tabulate

    rows = score_cells(rankings, protocols, level)
    align = ("left", *["right"] * (len(HEADERS) - 1))
    return str(tabulate(rows, headers=HEADERS, tablefmt="github", colalign=align, disable_numparse=True))


def score_cells(
    rankings: Mapping[str, Ranking], protocols: Sequence[Protocol], level: Optional[float] = None
) -> List[Tuple[str, ...]]:
    """The cells under `HEADERS` of each protocol; arguments as in `format_table`."""
    rows = []
    for protocol in protocols:
        ranking = rankings[protocol.name]
        scores = ranking.scores()
        ends = intervals(ranking, level=level) if level else {}
        cells = [f"{scores[name]:.2f}" for name in SCORES]
        for name, (low, high) in ends.items():
            cells[SCORES.index(name)] += f" [{low:.1f}, {high:.1f}]"
        counts = (f"{scores['valid_queries']:,.0f} / {scores['queries']:,.0f}", f"{scores['gallery']:,.0f}")
        rows.append((protocol.label, *cells, *counts))
    return rows


def _side(table: FeatureTable, protocol: Protocol, side: str, split: str, view: object) -> np.ndarray:
    rows = table.rows(split, None if view is None else str(view))
    if len(rows) == 0:
        wanted = f"split {split!r}" + ("" if view is None else f" of view {view!r}")
        splits = ", ".join(f"{name} ({count})" for name, count in table.split_names().items()) or "none"
        views = ", ".join(repr(str(name)) for name in np.unique(table.views)) or "none"
        raise EvaluationError(
            f"protocol {protocol.name}: the {side} side, {wanted}, is empty. The table's splits are "
            f"{splits}, its views {views}."
        )
    return rows


def _take(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of the features; adjacent ones without a copy."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return features[rows[0] : rows[-1] + 1]
    return features[rows]
