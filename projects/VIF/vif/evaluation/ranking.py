"""Rank-k, AP and INP by the Market-1501 rule: exact, within bounded memory, ties counted against the model.

Q queries, G gallery images, D feature dimension, V valid queries (with a match left after the same-camera filter).

The gallery is never sorted as a whole. The matches of a query are few; with their distances in ascending order,
p_1 <= ... <= p_m, and n_i the number of images of other identities at a distance <= p_i, match i has rank n_i + i.
So only n_1 ... n_m are counted, and the negative ranks first where distances are equal:

    first = n_1 + 1,    AP = 1/m sum_i i / (n_i + i),    INP = m / (n_m + m),    cmc_k = share of first <= k

(Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015, for the filter and AP; Ye et al., Deep
Learning for Person Re-identification: A Survey and Outlook, TPAMI 2022, for INP.)
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Sequence, Tuple, Union

import numpy as np
import torch

from vif.errors import EvaluationError
from vif.evaluation.counting import count_near, count_near_on_device
from vif.evaluation.distances import Array, FeatureDistances, MatrixDistances
from vif.evaluation.labels import Matches

BLOCK_BYTES = 512 << 20


@dataclass(frozen=True, eq=False)
class Ranking:
    """What a ranking of the gallery for every query amounts to.

    Attributes:
        cmc: (max_rank,) float64; entry k - 1 is Rank-k as a fraction of the valid queries.
        ap: (V,) float64 average precision, in (0, 1].
        inp: (V,) float64 inverse negative penalty: number of matches / rank of the hardest match, in (0, 1].
        first: (V,) int64 rank of the first match, from 1.
        valid: (V,) int64 indices of the queries with a match, ascending; the others are left out of every mean.
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

    Comparisons are exact on the distances as computed, see `vif.evaluation.distances.FeatureDistances`: float32
    features are multiplied in float32. On CUDA tensors the distances and the counting stay on the GPU.

    Args:
        query_features: (Q, D) floating point array or tensor.
        gallery_features: (G, D) floating point array or tensor.
        query_pids: (Q,) integers, identities.
        gallery_pids: (G,) integers, identities.
        query_camids: (Q,) integers; a gallery image of the same identity and camera is ignored.
        gallery_camids: (G,) integers.
        metric: ``cosine`` or ``euclidean``.
        max_rank: length of ``cmc``.
        block_bytes: most memory to use beside the arguments and the labels. 1 MiB is about the least that works.

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


def _rank(
    distances: Union[FeatureDistances, MatrixDistances], matches: Matches, max_rank: int, block_bytes: int
) -> Ranking:
    # A strip takes up to 3/4 of the memory; it has at least 32 rows, or the matrix product would crawl.
    strip_bytes = block_bytes * 3 // 4
    width = min(distances.shape[1], max(32, strip_bytes // (32 * distances.itemsize)))
    columns = [slice(i, min(i + width, distances.shape[1])) for i in range(0, distances.shape[1], width)]
    per_row = width * distances.itemsize if isinstance(distances, FeatureDistances) else 0
    ranks: List[np.ndarray] = []
    for rows in _row_blocks(matches.valid, matches.same_count, per_row + distances.row_bytes, strip_bytes):
        ranks.extend(_match_ranks(distances, matches, rows, columns))
    first = np.array([r[0] for r in ranks], dtype=np.int64)
    return Ranking(
        cmc=np.searchsorted(np.sort(first), np.arange(1, max_rank + 1), side="right") / len(first),
        ap=np.array([np.mean(np.arange(1, len(r) + 1) / r) for r in ranks]),
        inp=np.array([len(r) / r[-1] for r in ranks]),
        first=first,
        valid=matches.valid,
        num_queries=distances.shape[0],
        num_gallery=distances.shape[1],
    )
