"""Index kinds: how candidates are found. A kind is a small frozen dataclass of its parameters.

`KINDS` lists them by name; `choose` takes one by size. `searcher.Searcher` searches what they build.
"""

from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, Dict, Mapping, Optional, Type, Union

import numpy as np

from ..errors import ConfigError
from .exact import SPARE, import_faiss

# `choose`: up to here every row is looked at, then a graph, then codes that need an eighth of its memory
FLAT_ROWS = 50_000
HNSW_ROWS = 2_000_000
_BLOCK = 65_536


@dataclass(frozen=True)
class Flat:
    """Exact search of all rows: on the CPU in the gallery's own vectors, without a copy."""

    kind: ClassVar[str] = "flat"

    def least(self) -> int:
        """Rows that an index needs; fewer are searched exactly."""
        return 1


@dataclass(frozen=True)
class HNSW:
    """Graph of Malkov and Yashunin (TPAMI 2020) over principal components of one byte each. CPU only.

    Attributes:
        links: neighbours of a node, twice as many on the lowest level.
        ef_construction: candidates while building.
        ef_search: candidates while searching; more is slower and nearer to exact.
        variance: percent of the vectors' variance that the components hold; 100: all dimensions.

    Raises:
        ConfigError: a parameter that cannot work.
    """

    kind: ClassVar[str] = "hnsw"
    links: int = 32
    ef_construction: int = 100
    ef_search: int = 160
    variance: int = 98

    def __post_init__(self) -> None:
        _check(self, {"links": 2, "ef_construction": 1, "ef_search": 1, "variance": 1}, {"variance": 100})

    def least(self) -> int:
        """Rows that an index needs; fewer are searched exactly."""
        return 1

    def build(self, vectors: np.ndarray) -> Any:
        """faiss.IndexPreTransform of (N, D) float32: PCA, then a faiss.IndexHNSWSQ."""
        faiss = import_faiss()
        sample = np.ascontiguousarray(_sample(vectors, 100_000))
        components = _components(sample, self.variance)
        graph = faiss.IndexHNSWSQ(
            components.d_out, faiss.ScalarQuantizer.QT_8bit, self.links, faiss.METRIC_L2
        )
        graph.hnsw.efConstruction = self.ef_construction
        index = faiss.IndexPreTransform(components, graph)
        index.train(sample)
        add_vectors(index, vectors)
        return index

    def width(self, k: int) -> int:
        """Candidates for k neighbours."""
        return k + SPARE

    def parameters(self, width: int, selector: Any, spread: float) -> Any:
        """Search parameters; `spread` >= 1: rows for each row that passes the selector."""
        faiss = import_faiss()
        effort = max(width, int(self.ef_search * spread))
        of_graph = faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
        return faiss.SearchParametersPreTransform(index_params=of_graph)


@dataclass(frozen=True)
class IVFPQ:
    """Inverted lists of product-quantised vectors (Jegou et al., TPAMI 2011), refined by the exact cosine.

    Attributes:
        lists: clusters of vectors; 0: a power of 2 near 4 sqrt(N), with 39 rows or more a list.
        code_bytes: bytes of a code, at most; the largest divisor of D up to here is taken.
        probes: lists that a query looks into.
        refine: candidates for each neighbour, ranked by their exact cosine.

    Raises:
        ConfigError: a parameter that cannot work.
    """

    kind: ClassVar[str] = "ivfpq"
    lists: int = 0
    code_bytes: int = 64
    probes: int = 256
    refine: int = 16

    def __post_init__(self) -> None:
        _check(self, {"lists": 0, "code_bytes": 1, "probes": 1, "refine": 1})

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
        add_vectors(index, vectors)
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
        ConfigError: an unknown name or parameter, or one that cannot work.
    """
    cls = KINDS.get(str(content.get("kind")))
    numbers = {name: value for name, value in content.items() if name != "kind"}
    known = {item.name for item in fields(cls)} if cls else set()
    if cls is None or set(numbers) != known or not all(type(v) is int for v in numbers.values()):
        raise ConfigError(f"index {content!r} is unknown; there are {', '.join(KINDS)}.")
    return cls(**numbers)


def _check(kind: Any, least: Dict[str, int], most: Mapping[str, int] = MappingProxyType({})) -> None:
    """Refuse parameters that are no integers, or outside their range."""
    for name, low in least.items():
        value = getattr(kind, name)
        if type(value) is not int or value < low or value > most.get(name, value):
            allowed = f"{low} to {most[name]}" if name in most else f"{low} or more"
            raise ConfigError(f"{type(kind).__name__}({name}={value!r}): expected an integer, {allowed}.")


def _components(sample: np.ndarray, variance: int) -> Any:
    """Trained faiss.PCAMatrix to the fewest components, in sixteens, of this percentage of the variance."""
    faiss = import_faiss()
    pca = faiss.PCAMatrix(sample.shape[1], min(sample.shape))
    pca.train(sample)
    held = np.cumsum(faiss.vector_to_array(pca.eigenvalues)[: pca.d_out].clip(0))
    needed = np.searchsorted(held, held[-1] * variance / 100) + 1
    pca.d_out = int(min(pca.d_out, -(-needed // 16) * 16))
    pca.prepare_Ab()
    return pca


def _sample(vectors: np.ndarray, count: int) -> np.ndarray:
    """At most `count` rows, always the same."""
    if len(vectors) <= count:
        return vectors
    return vectors[np.sort(np.random.default_rng(0).choice(len(vectors), count, replace=False))]


def add_vectors(index: Any, vectors: np.ndarray) -> None:
    """Add (N, D) float32 vectors, which may be memory-mapped, to a FAISS index."""
    for start in range(0, len(vectors), _BLOCK):
        index.add(np.ascontiguousarray(vectors[start : start + _BLOCK]))
