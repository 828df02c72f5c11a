"""Post-processing of features and distances, without labels: k-reciprocal re-ranking and query expansion.

Q queries, G gallery images, N = Q + G, D feature dimension, K neighbours. Everything is sparse: besides the
features and the (Q, G) result, memory grows with N K. Images that a protocol leaves out of query and gallery
take no part; those that its same-camera filter ignores do, since telling them apart needs the identities.
"""

from typing import Any, Tuple

import numpy as np

from ..errors import EvaluationError
from ..progress import bar
from .distances import METRICS, Array, as_matrix, require_finite

_PAIR_BYTES = 64 << 20  # features gathered at a time
_SEARCH_ROWS = 4096  # rows searched at a time


def rerank_distances(
    query_features: Array,
    gallery_features: Array,
    *,
    metric: str = "cosine",
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
) -> np.ndarray:
    """Distances after k-reciprocal encoding (Zhong et al., CVPR 2017), as fastreid's evaluator defines them.

    An image's code is a sparse vector over its expanded k-reciprocal neighbours (eq. 5), softmax of minus the
    squared Euclidean distance, averaged over its k2 nearest neighbours (eq. 11); with the Jaccard distance of
    two codes (eq. 10), the result is ``(1 - weight) * jaccard + weight * distance`` (eq. 12).

    Args:
        query_features: (Q, D) floating point array or tensor.
        gallery_features: (G, D) floating point array or tensor.
        metric: ``cosine`` (features are normalised first, distance 1 - cos) or ``euclidean`` (squared).
        k1: neighbours, the image itself included, for the reciprocal test.
        k2: neighbours, the image itself included, for the average; 1: none.
        weight: share of the original distance, in 0..1 (lambda).

    Returns:
        (Q, G) float32.

    Raises:
        EvaluationError: an argument is out of range, an empty side, mixed dimensions, NaN or infinity.
    """
    if k1 < 1 or k2 < 1 or not 0 <= weight <= 1:
        raise EvaluationError(
            f"re-ranking: expected k1 and k2 of at least 1 and a weight in 0..1, got {k1}, {k2} and {weight}."
        )
    features, queries = _joined(query_features, gallery_features, metric)
    near = nearest(features, min(max(k1, k2), len(features)))[1]
    codes = _average(_encode(features, near[:, :k1], int(np.around(k1 / 2)) + 1), near[:, :k2])
    result = _jaccard(codes, queries)
    result *= 1 - weight
    result += weight * _distances(features, queries, metric)
    return result


def expand_queries(
    query_features: Array, gallery_features: Array, *, k: int = 10, alpha: float = 3.0, times: int = 1
) -> Tuple[np.ndarray, np.ndarray]:
    """Average query expansion (Chum et al., ICCV 2007; weights of Radenovic et al., TPAMI 2019).

    Each feature of both sides becomes the mean of its k nearest features by cosine, itself included, each
    times its cosine to the power of alpha. Negative cosines count as 0.

    Args:
        query_features: (Q, D) floating point array or tensor.
        gallery_features: (G, D) floating point array or tensor.
        k: neighbours to average.
        alpha: exponent of the weights; 0 is the plain mean.
        times: how often to repeat it.

    Returns:
        The new (Q, D) and (G, D) features, float32.

    Raises:
        EvaluationError: an argument is out of range, an empty side, mixed dimensions, NaN or infinity.
    """
    if k < 1 or times < 1 or alpha < 0:
        raise EvaluationError(
            f"query expansion: expected k and times of at least 1 and alpha of at least 0, got {k}, {times} "
            f"and {alpha}."
        )
    features, queries = _joined(query_features, gallery_features, "euclidean")
    for _ in range(times):
        unit = _normalised(features)
        near = nearest(unit, min(k, len(unit)))[1]
        cosine = np.concatenate(
            [np.einsum("nd,nkd->nk", unit[rows], unit[near[rows]]) for rows in _row_blocks(near, unit)]
        )
        shares = np.maximum(cosine, 0) ** np.float32(alpha) / np.float32(near.shape[1])
        features = np.concatenate(
            [np.einsum("nk,nkd->nd", shares[rows], features[near[rows]]) for rows in _row_blocks(near, unit)]
        )
    return features[:queries], features[queries:]


def nearest(features: np.ndarray, k: int) -> Tuple[np.ndarray, np.ndarray]:
    """Each row's k nearest rows by FAISS: squared Euclidean distances (N, k) float32, indices int64."""
    import faiss

    index = faiss.IndexFlatL2(features.shape[1])
    index.add(features)
    starts = range(0, len(features), _SEARCH_ROWS)
    found = [index.search(features[i : i + _SEARCH_ROWS], k) for i in bar(starts, "neighbours", "block")]
    distances, indices = (np.concatenate(parts) for parts in zip(*found))
    return distances, indices


def _encode(features: np.ndarray, near: np.ndarray, half: int) -> Any:
    """Codes (N, N) CSR: each row a softmax over the expanded k-reciprocal neighbours, at most a few dozen."""
    from scipy.sparse import csr_matrix

    reciprocal = _reciprocal(near)
    small = _reciprocal(near[:, :half])
    # A neighbour's own small set joins in if more than 2/3 of it are neighbours already.
    shared = (reciprocal @ small.T).multiply(reciprocal).tocoo()
    size = np.asarray(small.sum(axis=1)).reshape(-1)
    joins = shared.data > 2 / 3 * size[shared.col]
    joining = csr_matrix(
        (np.ones(joins.sum(), np.float32), (shared.row[joins], shared.col[joins])), small.shape
    )
    codes = (reciprocal + joining @ small).tocsr()
    codes.sort_indices()
    row = np.repeat(np.arange(len(near)), np.diff(codes.indptr))
    weights = -_pair_distances(features, row, codes.indices)
    # Every image has itself as neighbour unless it has many exact copies; such a row may be empty.
    filled = np.flatnonzero(np.diff(codes.indptr))
    top = np.maximum.reduceat(weights, codes.indptr[filled])
    count = np.diff(codes.indptr)[filled]
    weights = np.exp(weights - np.repeat(top, count))
    weights /= np.repeat(np.add.reduceat(weights, codes.indptr[filled]), count)
    codes.data = weights.astype(np.float32)
    return codes


def _reciprocal(near: np.ndarray) -> Any:
    """(N, N) CSR of ones: j in the neighbours of i and i in those of j."""
    forward = _incidence(near)
    return forward.multiply(forward.T).tocsr()


def _incidence(near: np.ndarray) -> Any:
    from scipy.sparse import csr_matrix

    count, k = near.shape
    indptr = np.arange(0, count * k + 1, k)
    return csr_matrix((np.ones(count * k, np.float32), near.reshape(-1), indptr), shape=(count, count))


def _average(codes: Any, near: np.ndarray) -> Any:
    if near.shape[1] == 1:
        return codes
    return (_incidence(near) @ codes).tocsr() * np.float32(1 / near.shape[1])


def _jaccard(codes: Any, queries: int) -> np.ndarray:
    """(Q, G) float32 Jaccard distances of the first Q codes to the others: 1 - sum(min) / sum(max)."""
    gallery = codes[queries:].tocsc()
    count = gallery.shape[0]
    out = np.empty((queries, count), np.float32)
    for q in bar(range(queries), "Jaccard distances", "query"):
        entries = slice(codes.indptr[q], codes.indptr[q + 1])
        columns = codes.indices[entries]
        begin, length = gallery.indptr[columns], np.diff(gallery.indptr)[columns]
        ends = np.cumsum(length)
        position = np.arange(ends[-1] if len(ends) else 0) + np.repeat(begin - (ends - length), length)
        minima = np.minimum(np.repeat(codes.data[entries], length), gallery.data[position])
        shared = np.bincount(gallery.indices[position], weights=minima, minlength=count)
        out[q] = 1 - shared / (2 - shared)
    return np.maximum(out, 0, out=out)


def _pair_distances(features: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances (P,) float32 of pairs of rows."""
    out = np.empty(len(row), np.float32)
    step = max(1, _PAIR_BYTES // features[:1].nbytes)
    for start in range(0, len(row), step):
        part = slice(start, start + step)
        difference = features[row[part]]
        difference -= features[column[part]]
        out[part] = np.einsum("pd,pd->p", difference, difference)
    return out


def _distances(features: np.ndarray, queries: int, metric: str) -> np.ndarray:
    query, gallery = features[:queries], features[queries:]
    product = query @ gallery.T
    if metric == "cosine":
        return np.subtract(1, product, out=product)
    product *= -2
    product += np.square(query).sum(axis=1)[:, None]
    product += np.square(gallery).sum(axis=1)
    return product


def _joined(query: Array, gallery: Array, metric: str) -> Tuple[np.ndarray, int]:
    """Both sides as one contiguous (N, D) float32 array, normalised for ``cosine``, and Q."""
    if metric not in METRICS:
        raise EvaluationError(f"metric: got {metric!r}; there are {', '.join(METRICS)}.")
    sides = []
    for values, what in ((query, "query features"), (gallery, "gallery features")):
        matrix = as_matrix(values, what)
        require_finite(matrix, what)
        sides.append(matrix.cpu().float().numpy())
    if sides[0].shape[1] != sides[1].shape[1]:
        raise EvaluationError(
            f"query features have {sides[0].shape[1]} dimensions, gallery features {sides[1].shape[1]}. Both "
            "must come from the same network and the same layer."
        )
    features = np.concatenate(sides)
    return (_normalised(features) if metric == "cosine" else features), len(sides[0])


def _normalised(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _row_blocks(near: np.ndarray, features: np.ndarray) -> Any:
    step = max(1, _PAIR_BYTES // (features[:1].nbytes * near.shape[1]))
    return (slice(start, start + step) for start in range(0, len(near), step))
