"""Rank-k, AP and INP by the Market-1501 rule: exact, within bounded memory, ties counted against the model.

Q queries, G gallery images, D feature dimension, V valid queries (those with a match after the same-camera
filter).

The gallery is never sorted as a whole. A query's matches are few; with their distances in ascending order,
p_1 <= ... <= p_m, and n_i the number of images of other identities at a distance <= p_i, match i has rank
n_i + i. So only n_1 ... n_m are counted, and the negative ranks first where distances are equal:

    first = n_1 + 1,    AP = 1/m sum_i i / (n_i + i),    INP = m / (n_m + m),    cmc_k = share of first <= k

References: Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015 (filter, AP); Ye et al.,
Deep Learning for Person Re-identification: A Survey and Outlook, TPAMI 2022 (INP).
"""

from dataclasses import dataclass
from typing import Any, Dict, List, Sequence, Tuple, Union

import numpy as np
import torch

from ..errors import EvaluationError
from ..progress import bar
from .counting import count_near
from .distances import Array as Array
from .distances import FeatureDistances, MatrixDistances
from .labels import Matches

BLOCK_BYTES = 512 << 20
Distances = Union[FeatureDistances, MatrixDistances]


@dataclass(frozen=True, eq=False)
class Ranking:
    """What a ranking of the gallery for every query amounts to.

    Attributes:
        cmc: (max_rank,) float64; entry k - 1 is Rank-k as a fraction of the valid queries.
        ap: (V,) float64 average precision, in (0, 1].
        inp: (V,) float64 inverse negative penalty: number of matches / rank of the hardest match, in (0, 1].
        first: (V,) int64 rank of the first match, from 1.
        valid: (V,) int64 indices of the queries with a match, ascending; the others are in no mean.
        num_queries: Q.
        num_gallery: G.
    """

    cmc: np.ndarray
    ap: np.ndarray
    inp: np.ndarray
    first: np.ndarray
    valid: np.ndarray
    num_queries: int
    num_gallery: int

    def scores(self, ranks: Sequence[int] = (1, 5, 10)) -> Dict[str, float]:
        """``Rank-k`` for every k of ``ranks``, ``mAP`` and ``mINP`` in percent, then the three counts."""
        row = {f"Rank-{k}": 100.0 * float(np.mean(self.first <= k)) for k in ranks}
        row["mAP"] = 100.0 * float(np.mean(self.ap))
        row["mINP"] = 100.0 * float(np.mean(self.inp))
        row["queries"] = self.num_queries
        row["valid_queries"] = len(self.valid)
        row["gallery"] = self.num_gallery
        return row

    def _repr_html_(self) -> str:
        from ..notebook import card, grid

        scores = self.scores()
        names = ("valid_queries", "queries", "gallery")
        counts = [(name.replace("_", " "), f"{scores.pop(name):,}") for name in names]
        return card("Ranking", counts, grid(list(scores), [[f"{value:.2f}" for value in scores.values()]]))


def rank_metrics(
    query_features: Array,
    gallery_features: Array,
    query_pids: Any,
    gallery_pids: Any,
    query_camids: Any,
    gallery_camids: Any,
    *,
    metric: str = "cosine",
    max_rank: int = 50,
    block_bytes: int = BLOCK_BYTES,
) -> Ranking:
    """Rank the gallery for every query by the distance of their features.

    Comparisons are exact on the distances as computed (`vif.evaluation.distances.FeatureDistances`): float32
    features are multiplied in float32. With CUDA tensors, products and counting take place on the GPU.

    Args:
        query_features: (Q, D) floating point array or tensor.
        gallery_features: (G, D) floating point array or tensor.
        query_pids: (Q,) integers, identities.
        gallery_pids: (G,) integers, identities.
        query_camids: (Q,) integers; a gallery image of the same identity and camera is ignored.
        gallery_camids: (G,) integers.
        metric: ``cosine`` or ``euclidean``.
        max_rank: length of ``cmc``.
        block_bytes: most memory to use beside the arguments and the labels; 1 MiB is about the least.

    Raises:
        EvaluationError: no valid query, an empty side, lengths or dimensions that differ, NaN or infinite
            features, an unknown metric.
    """
    _require_positive(max_rank=max_rank, block_bytes=block_bytes)
    distances = FeatureDistances(query_features, gallery_features, metric, chunk_bytes=block_bytes // 16)
    matches = Matches(query_pids, gallery_pids, query_camids, gallery_camids, distances.shape)
    return _rank(distances, matches, max_rank, block_bytes)


def rank_distances(
    dist: Array,
    query_pids: Any,
    gallery_pids: Any,
    query_camids: Any,
    gallery_camids: Any,
    *,
    max_rank: int = 50,
) -> Ranking:
    """Rank the gallery for every query by distances that exist already.

    Args:
        dist: (Q, G) array or tensor, smaller is nearer; compared exactly, in its own precision.
        query_pids: as in `rank_metrics`, like the other labels.
        gallery_pids: see there.
        query_camids: see there.
        gallery_camids: see there.
        max_rank: length of ``cmc``.

    Raises:
        EvaluationError: as `rank_metrics`.
    """
    _require_positive(max_rank=max_rank)
    distances = MatrixDistances(dist)
    matches = Matches(query_pids, gallery_pids, query_camids, gallery_camids, distances.shape)
    return _rank(distances, matches, max_rank, BLOCK_BYTES)


def _rank(distances: Distances, matches: Matches, max_rank: int, block_bytes: int) -> Ranking:
    # Most of the memory is for a strip, which has at least 32 rows, or the matrix product would crawl.
    strip_bytes = block_bytes * 5 // 8
    width = min(distances.shape[1], max(32, strip_bytes // (32 * distances.itemsize)))
    columns = [slice(i, min(i + width, distances.shape[1])) for i in range(0, distances.shape[1], width)]
    row_bytes = width * distances.itemsize + distances.row_bytes
    rows_of = list(matches.blocks(row_bytes, strip_bytes))
    blocks = [_score(distances, matches, rows, columns) for rows in bar(rows_of, "ranking", "block")]
    ap, inp, first = (np.concatenate(parts) for parts in zip(*blocks))
    return Ranking(
        cmc=np.searchsorted(np.sort(first), np.arange(1, max_rank + 1), side="right") / len(first),
        ap=ap,
        inp=inp,
        first=first,
        valid=matches.valid,
        num_queries=distances.shape[0],
        num_gallery=distances.shape[1],
    )


def _score(
    distances: Distances, matches: Matches, rows: np.ndarray, columns: List[slice]
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AP, INP and rank of the first match, each (R,), of the queries in ``rows``."""
    counts, gallery, ignored = matches.pairs(rows)
    row = np.repeat(np.arange(len(rows)), counts)
    # A strip that spans the gallery serves both passes; otherwise each is computed twice, to the same bits.
    strip = distances.strip(rows, columns[0])
    same = _gather(strip, row, gallery, columns[0])
    for part in columns[1:]:
        strip = distances.strip(rows, part)
        same = np.where(_inside(gallery, part), _gather(strip, row, gallery, part), same)
    split = np.cumsum(counts)[:-1]
    own = np.split(same, split)
    near = [np.sort(s[~i]) for s, i in zip(own, np.split(ignored, split))]
    total = count_near(strip, near)
    for part in columns[:-1]:
        total = [a + b for a, b in zip(total, count_near(distances.strip(rows, part), near))]
    negatives = [t - np.searchsorted(np.sort(s), n, side="right") for t, s, n in zip(total, own, near)]
    count = np.array([len(n) for n in near])
    begin = np.cumsum(count) - count
    hits = np.arange(1, count.sum() + 1) - np.repeat(begin, count)  # 1..m for each query
    rank = np.concatenate(negatives) + hits
    return np.add.reduceat(hits / rank, begin) / count, count / rank[begin + count - 1], rank[begin]


def _inside(gallery: np.ndarray, part: slice) -> np.ndarray:
    return (gallery >= part.start) & (gallery < part.stop)


def _gather(strip: torch.Tensor, row: np.ndarray, gallery: np.ndarray, part: slice) -> np.ndarray:
    """Distances (P,) of pairs (row, gallery image); those outside ``part`` get values without meaning."""
    column = np.clip(gallery - part.start, 0, part.stop - part.start - 1)
    row_index, column_index = (torch.as_tensor(i).to(strip.device) for i in (row, column))
    return strip[row_index, column_index].cpu().numpy()


def _require_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise EvaluationError(f"{name}: expected at least 1, got {value}.")
