"""Exact cosine search in blocks of bounded memory; equal cosines are told apart by id.

FAISS finds candidates in float32. Their cosines are then computed in float64 one pair at a time, so that
equal vectors have equal cosines wherever they lie, and rounded to float32. Where a row that FAISS left out
could still be among the K nearest, given the rounding of a float32 product, all rows are gone through.

Shape letters: Q queries, N rows, K neighbours, C candidates, D embedding.
"""

import contextlib
from typing import Any, Callable, Iterator, Optional, Tuple

import numpy as np

BLOCK_ROWS = 65_536
BLOCK_BYTES = 64 << 20  # of vectors taken out of a gallery at a time
SPARE = 16  # candidates beyond K, so that the rounding can be seen through
Products = Callable[[np.ndarray, int], Tuple[np.ndarray, np.ndarray]]


def import_faiss() -> Any:
    """The module.

    Raises:
        ConfigError: it is missing; says how to get it.
    """
    try:
        import faiss
    except ImportError as error:
        from ..errors import ConfigError

        raise ConfigError("searching a gallery needs FAISS: `pip install faiss-cpu`.") from error
    return faiss


def exact_search(
    queries: np.ndarray,
    vectors: np.ndarray,
    ids: np.ndarray,
    k: int,
    slots: Optional[np.ndarray] = None,
    products: Optional[Products] = None,
) -> Tuple[np.ndarray, np.ndarray]:
    """The K nearest rows of each query.

    Args:
        queries: (Q, D) float32 of length 1.
        vectors: (N, D) float32 of length 1; may be memory-mapped.
        ids: (N,) int64.
        k: K >= 1.
        slots: (M,) ascending positions of the rows to look at; None: all.
        products: (queries, C) -> the C largest float32 products (Q, C), descending, and positions, of all
            rows, as a GPU gives them; None: computed here.

    Returns:
        Cosines (Q, k) float32 and positions (Q, k) int64, nearest first; -inf and -1 where M < k.
    """
    count = len(vectors) if slots is None else len(slots)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    found = np.full((len(queries), k), -1, dtype=np.int64)
    k = min(k, count)
    if not k:
        return scores, found
    width = min(k + SPARE, count)
    for start in range(0, len(queries), 4096):
        part = slice(start, start + 4096)
        if products is None:
            fast, candidates = _candidates(queries[part], vectors, width, slots)
        else:
            fast, candidates = products(queries[part], width)
        scores[part, :k], found[part, :k] = rank(queries[part], vectors, ids, candidates, k)
        if width < count:
            # a float32 product of two unit vectors is off by less than D / 2^24, the rounding by 2^-24
            reach = fast[:, -1] + np.float32((queries.shape[1] + 2) * 1.05 / 2**24)
            for row in np.flatnonzero(reach >= scores[part, k - 1]) + start:
                scores[row, :k], found[row, :k] = _through_all(queries[row], vectors, ids, k, slots)
    return scores, found


def rank(
    queries: np.ndarray, vectors: np.ndarray, ids: np.ndarray, candidates: np.ndarray, k: int
) -> Tuple[np.ndarray, np.ndarray]:
    """The k nearest of given candidates, as `exact_search` returns them.

    Args:
        candidates: (Q, C) int64 positions, each at most once a query; -1 for none.
        k: k <= C.
    """
    scores = np.empty((len(queries), k), dtype=np.float32)
    found = np.empty((len(queries), k), dtype=np.int64)
    step = max(1, BLOCK_BYTES // (8 * max(1, candidates.shape[1]) * queries.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        slots = candidates[part]
        cosines = _cosines(vectors[slots], queries[part, None])
        cosines[slots < 0] = -np.inf
        order = np.lexsort((ids[slots], -cosines), axis=1)[:, :k]
        scores[part] = np.take_along_axis(cosines, order, axis=1)
        found[part] = np.take_along_axis(slots, order, axis=1)
    return scores, found


def _candidates(
    queries: np.ndarray, vectors: np.ndarray, width: int, slots: Optional[np.ndarray]
) -> Tuple[np.ndarray, np.ndarray]:
    """`width` rows of the largest float32 products: these (Q, width), descending, and positions."""
    faiss = import_faiss()
    heap = faiss.ResultHeap(len(queries), width, keep_max=True)
    with _threads(len(queries)):
        for start in range(0, len(vectors) if slots is None else len(slots), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS) if slots is None else slots[start : start + BLOCK_ROWS]
            block = np.ascontiguousarray(vectors[rows])
            k = min(width, len(block))
            products, place = faiss.knn(queries, block, k, metric=faiss.METRIC_INNER_PRODUCT)
            place = place + start if slots is None else slots[start + place]
            heap.add_result(products, np.ascontiguousarray(place, dtype=np.int64))
    heap.finalize()
    return heap.D, heap.I


@contextlib.contextmanager
def _threads(queries: int) -> Iterator[None]:
    """At most a thread a query: two on one query's rows take three times as long as one (FAISS 1.15)."""
    faiss = import_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(max(1, min(before, queries)))  # of the calling thread alone
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _through_all(
    query: np.ndarray, vectors: np.ndarray, ids: np.ndarray, k: int, slots: Optional[np.ndarray]
) -> Tuple[np.ndarray, np.ndarray]:
    """The k nearest of one query (D,), each row's cosine computed as `rank` does."""
    rows = np.arange(len(vectors)) if slots is None else slots
    step = max(1, BLOCK_BYTES // (8 * len(query)))
    starts = range(0, len(rows), step)
    cosines = np.concatenate([_cosines(vectors[rows[i : i + step]], query) for i in starts])
    least = np.partition(cosines, len(cosines) - k)[len(cosines) - k]
    near = np.flatnonzero(cosines >= least)
    order = near[np.lexsort((ids[rows[near]], -cosines[near]))[:k]]
    return cosines[order], rows[order]


def _cosines(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Row by row in float64, then float32: the same two vectors give the same bits in any company."""
    return np.multiply(vectors, queries, dtype=np.float64).sum(axis=-1).astype(np.float32)
