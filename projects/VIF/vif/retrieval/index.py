"""Index kinds: how candidates are found. What comes out is ranked by its exact cosine (`exact.rank`).

An index covers the first rows of a gallery and never changes once it is built, so any number of threads may
search it. A kind is a small frozen dataclass of its parameters; `KINDS` lists them by name.
"""

import threading
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Dict, Optional, Tuple, Type, Union

import numpy as np

from ..errors import ConfigError
from .exact import SPARE, exact_search, import_faiss, rank

# `choose`: up to here every row is looked at, then a graph, then codes that need an eighth of its memory
FLAT_ROWS = 50_000
HNSW_ROWS = 2_000_000
_GPU_WIDTH = 2048  # most candidates that FAISS's GPU indices return


@dataclass(frozen=True)
class Flat:
    """Exact search of all rows: on the CPU in the gallery's own vectors, without a copy."""

    kind: ClassVar[str] = "flat"

    def least(self) -> int:
        """Rows that an index needs; fewer are searched exactly."""
        return 1


@dataclass(frozen=True)
class HNSW:
    """Graph of Malkov and Yashunin (TPAMI 2020) over vectors of one byte a dimension. CPU only.

    Attributes:
        links: neighbours of a node, twice as many on the lowest level.
        ef_construction: candidates while building.
        ef_search: candidates while searching; more is slower and nearer to exact.
    """

    kind: ClassVar[str] = "hnsw"
    links: int = 32
    ef_construction: int = 100
    ef_search: int = 128

    def least(self) -> int:
        """Rows that an index needs; fewer are searched exactly."""
        return 1

    def build(self, vectors: np.ndarray) -> Any:
        """faiss.IndexHNSWSQ of (N, D) float32."""
        faiss = import_faiss()
        index = faiss.IndexHNSWSQ(
            vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, self.links, faiss.METRIC_L2
        )
        index.hnsw.efConstruction = self.ef_construction
        index.train(np.ascontiguousarray(_sample(vectors, 100_000)))
        _add(index, vectors)
        return index

    def width(self, k: int) -> int:
        """Candidates for k neighbours."""
        return k + SPARE

    def parameters(self, width: int, selector: Any, spread: float) -> Any:
        """Search parameters; `spread` >= 1: rows for each row that passes the selector."""
        effort = max(width, int(self.ef_search * spread))
        return import_faiss().SearchParametersHNSW(efSearch=effort, sel=selector)


@dataclass(frozen=True)
class IVFPQ:
    """Inverted lists of product-quantised vectors (Jegou et al., TPAMI 2011), refined by the exact cosine.

    Attributes:
        lists: clusters of vectors; 0: a power of 2 near 4 sqrt(N), with 39 rows or more a list.
        code_bytes: bytes of a code, at most; the largest divisor of D up to here is taken.
        probes: lists that a query looks into.
        refine: candidates for each neighbour, ranked by their exact cosine.
    """

    kind: ClassVar[str] = "ivfpq"
    lists: int = 0
    code_bytes: int = 64
    probes: int = 64
    refine: int = 16

    def least(self) -> int:
        """Rows that an index needs: 256 train a code of a byte; fewer are searched exactly."""
        return max(256, self.lists)

    def build(self, vectors: np.ndarray) -> Any:
        """faiss.IndexIVFPQ of (N, D) float32."""
        faiss = import_faiss()
        count, dim = vectors.shape
        lists = self.lists or max(1, min(2 ** round(np.log2(4 * count**0.5 + 1)), count // 39))
        size = max(size for size in range(1, min(self.code_bytes, dim) + 1) if dim % size == 0)
        quantizer = faiss.IndexFlatIP(dim)
        index = faiss.IndexIVFPQ(quantizer, dim, lists, size, 8, faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1  # no warnings
        index.train(np.ascontiguousarray(_sample(vectors, max(65_536, 64 * lists))))
        _add(index, vectors)
        index.nprobe = self.probes  # copied to GPUs
        return index

    def width(self, k: int) -> int:
        """Candidates for k neighbours."""
        return max(100, self.refine * k)

    def parameters(self, width: int, selector: Any, spread: float) -> Any:
        """Search parameters; `spread` >= 1: rows for each row that passes the selector."""
        return import_faiss().SearchParametersIVF(nprobe=int(self.probes * spread), sel=selector)


Kind = Union[Flat, HNSW, IVFPQ]
KINDS: Dict[str, Type[Any]] = {cls.kind: cls for cls in (Flat, HNSW, IVFPQ)}


def choose(rows: int) -> Kind:
    """The kind for a number of rows: flat to 50,000, HNSW to 2,000,000, then IVF-PQ."""
    if rows <= FLAT_ROWS:
        return Flat()
    return HNSW() if rows <= HNSW_ROWS else IVFPQ()


def parse_kind(kind: Union[str, Kind, None]) -> Optional[Kind]:
    """A kind by name or as it is; None for "auto".

    Raises:
        ConfigError: an unknown name.
    """
    if kind is None or kind == "auto":
        return None
    if isinstance(kind, str):
        if kind not in KINDS:
            raise ConfigError(f"index {kind!r} is unknown; there are auto, {', '.join(KINDS)}.")
        return KINDS[kind]()
    return kind


def kind_to_json(kind: Kind) -> Dict[str, Any]:
    """Name and parameters."""
    return {"kind": kind.kind, **asdict(kind)}


def kind_from_json(content: Dict[str, Any]) -> Kind:
    """The inverse of `kind_to_json`.

    Raises:
        ConfigError: an unknown name or parameter.
    """
    cls = KINDS.get(str(content.get("kind")))
    numbers = {name: value for name, value in content.items() if name != "kind"}
    known = {item.name for item in fields(cls)} if cls else set()
    if cls is None or set(numbers) != known or not all(type(v) is int for v in numbers.values()):
        raise ConfigError(f"index {content!r} is unknown; there are {', '.join(KINDS)}.")
    return cls(**numbers)


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
            near = self._on_gpus if keep is None and k + SPARE <= _GPU_WIDTH else None
            slots = None if keep is None else np.flatnonzero(keep)
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
    for start in range(0, len(found), 256):  # a few MiB of vectors at a time
        part = slice(start, start + 256)
        products = np.matmul(vectors[found[part]], queries[part, :, None])[:, :, 0]
        products[found[part] < 0] = -np.inf
        order = np.argpartition(-products, count - 1, axis=1)[:, :count]
        best[part] = np.take_along_axis(found[part], order, axis=1)
    return best


def gpus() -> int:
    """GPUs that FAISS sees; 0 in a build for CPUs."""
    return int(getattr(import_faiss(), "get_num_gpus", int)())


def _to_gpus(kind: Union[Flat, IVFPQ], index: Any, vectors: np.ndarray) -> Any:
    """A copy of the index on all GPUs, each with a share of the rows; None where there is no GPU."""
    if not gpus():
        return None
    faiss = import_faiss()
    if index is None:
        index = faiss.IndexFlatIP(vectors.shape[1])
        _add(index, vectors)
    options = faiss.GpuMultipleClonerOptions()
    options.shard = True
    options.useFloat16 = isinstance(kind, IVFPQ)  # its look-up tables, which are too large otherwise
    return faiss.index_cpu_to_all_gpus(index, co=options)


def _sample(vectors: np.ndarray, count: int) -> np.ndarray:
    """At most `count` rows, always the same."""
    if len(vectors) <= count:
        return vectors
    return vectors[np.sort(np.random.default_rng(0).choice(len(vectors), count, replace=False))]


def _add(index: Any, vectors: np.ndarray) -> None:
    for start in range(0, len(vectors), 65_536):
        index.add(np.ascontiguousarray(vectors[start : start + 65_536]))
