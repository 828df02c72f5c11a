"""Searcher: finds candidates with FAISS and ranks them by their exact cosine (`exact.rank`).

An index covers the first rows of a gallery and never changes once it is built, so any number of threads may
search it.
"""

import logging
import threading
from typing import Any, Optional, Tuple, Union

import numpy as np

from . import exact
from .exact import SPARE, exact_search, import_faiss, rank
from .kinds import HNSW, IVFPQ, Flat, Kind, add_vectors

logger = logging.getLogger(__name__)
_GPU_WIDTH = 2048  # most candidates that FAISS's GPU indices return


class Searcher:
    """An index of a gallery's first rows, on the CPU and, where there are GPUs, on them too.

    Several GPUs hold a share of the rows each. They take one call at a time and no selector: filtered
    searches and graphs stay on the CPU.

    Args:
        kind: what was built.
        index: FAISS index on the CPU; None for `Flat`.
        vectors: (N, D) rows that it covers.

    Attributes:
        rows: N.
    """

    def __init__(self, kind: Kind, index: Any, vectors: np.ndarray) -> None:
        self.kind, self.index, self.rows = kind, index, len(vectors)
        self._lock = threading.Lock()
        self._gpu: Any = None if isinstance(kind, HNSW) else _to_gpus(kind, index, vectors)

    @classmethod
    def build(cls, kind: Kind, vectors: np.ndarray) -> Optional["Searcher"]:
        """Index of (N, D) float32 vectors; None where `exact_search` on the CPU serves."""
        if len(vectors) < kind.least():
            return None
        if isinstance(kind, Flat):
            return cls(kind, None, vectors) if gpus() else None
        return cls(kind, kind.build(vectors), vectors)

    def search(
        self, queries: np.ndarray, vectors: np.ndarray, ids: np.ndarray, k: int, keep: Optional[np.ndarray]
    ) -> Tuple[np.ndarray, np.ndarray]:
        """As `exact_search` on the first `rows` rows, exact for `Flat` only.

        Args:
            keep: (rows,) bool, rows to look at; None: all.
        """
        if isinstance(self.kind, Flat):
            on_gpus = self._gpu is not None and keep is None and k + SPARE <= _GPU_WIDTH
            slots = None if keep is None else np.flatnonzero(keep)
            near = self._on_gpus if on_gpus else None
            return exact_search(queries, vectors[: self.rows], ids, k, slots, near)
        width = min(self.kind.width(k), self.rows)
        if keep is None and self._gpu is not None and width <= _GPU_WIDTH:
            found = self._on_gpus(queries, width)[1]
        else:
            found = self._on_cpu(self.kind, queries, width, keep)
        if width > k + SPARE:
            found = _nearest_of(queries, vectors, found, k + SPARE)
        if width < k:
            found = np.pad(found, ((0, 0), (0, k - width)), constant_values=-1)
        return rank(queries, vectors, ids, found, k)

    def _on_cpu(
        self, kind: Union[HNSW, IVFPQ], queries: np.ndarray, width: int, keep: Optional[np.ndarray]
    ) -> np.ndarray:
        selector, spread = None, 1.0
        if keep is not None:
            bits = np.packbits(keep, bitorder="little")
            faiss = import_faiss()
            selector = faiss.IDSelectorBitmap(len(keep), faiss.swig_ptr(bits))
            spread = len(keep) / max(1, int(keep.sum()))
        params = kind.parameters(width, selector, spread)
        return np.asarray(self.index.search(queries, width, params=params)[1])

    def _on_gpus(self, queries: np.ndarray, width: int) -> Tuple[np.ndarray, np.ndarray]:
        with self._lock:
            products, found = self._gpu.search(queries, min(width, self.rows))
        return products, found


def _nearest_of(queries: np.ndarray, vectors: np.ndarray, found: np.ndarray, count: int) -> np.ndarray:
    """`count` of the candidates (Q, C), those of the largest float32 products."""
    best = np.empty((len(found), count), dtype=found.dtype)
    step = max(1, exact.BLOCK_BYTES // (4 * found.shape[1] * queries.shape[1]))
    for start in range(0, len(found), step):
        part = slice(start, start + step)
        products = np.matmul(vectors[found[part]], queries[part, :, None])[:, :, 0]
        products[found[part] < 0] = -np.inf
        order = np.argpartition(-products, count - 1, axis=1)[:, :count]
        best[part] = np.take_along_axis(found[part], order, axis=1)
    return best


def gpus() -> int:
    """GPUs that FAISS sees; 0 in a build for CPUs."""
    return int(getattr(import_faiss(), "get_num_gpus", int)())


def _to_gpus(kind: Union[Flat, IVFPQ], index: Any, vectors: np.ndarray) -> Any:
    """A copy of the index on all GPUs, each with a share of the rows; None where there is none or no room."""
    if not gpus():
        return None
    faiss = import_faiss()
    if index is None:
        index = faiss.IndexFlatIP(vectors.shape[1])
        add_vectors(index, vectors)
    options = faiss.GpuMultipleClonerOptions()
    options.shard = True
    options.useFloat16 = isinstance(kind, IVFPQ)  # its look-up tables, which are too large otherwise
    try:
        return faiss.index_cpu_to_all_gpus(index, co=options)
    except RuntimeError as error:  # too little memory, or a code size that FAISS's GPU code does not know
        logger.warning("FAISS cannot put the %s index on GPUs (%s): it stays on the CPU.", kind.kind, error)
        return None
