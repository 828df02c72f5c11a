"""What every gallery does, wherever its rows are kept: checks of queries, filters by camera, results."""

import threading
from abc import ABC, abstractmethod
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from ..errors import ConfigError
from ..features import FeatureTable
from .filters import Filter, query_cameras
from .neighbours import Neighbours, gather, join
from .rows import Rows, check_same_network, make_rows, provenance, unit_vectors

Queries = Union[FeatureTable, np.ndarray]
Found = Tuple[
    np.ndarray, np.ndarray, Rows
]  # cosines (Q, K), positions (Q, K) or -1, and the rows they are in


class AbstractGallery(ABC):
    """Rows to search in by cosine: ids, vectors, paths, cameras, views, identities, times.

    Attributes:
        dim: D.
        meta: text by name; "fingerprint" names the weights, "root" the folder that paths are relative to.
    """

    def __init__(self, dim: int, meta: Dict[str, str]) -> None:
        self.dim, self.meta = dim, meta
        self._writer = threading.RLock()

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Names the weights of the vectors."""
        return self.meta["fingerprint"]

    def _repr_html_(self) -> str:
        from ..notebook import card, grid

        views, counts = np.unique(self.rows(vectors=False).columns["views"], return_counts=True)
        facts = [("rows", f"{len(self):,}"), ("dimensions", self.dim), ("index", getattr(self, "index", ""))]
        cells = [(view or "unknown", f"{count:,}") for view, count in zip(views.tolist(), counts.tolist())]
        title = type(self).__name__
        return card(title, [*facts, *sorted(self.meta.items())], grid(("view", "rows"), cells))

    @abstractmethod
    def rows(self, ids: Any = None, vectors: bool = True) -> Rows:
        """Rows of these ids, in their order, or all.

        Args:
            ids: (K,) integers, each once; None: all.
            vectors: False: metadata alone, with vectors of (K, 0), so that none is read or copied.

        Raises:
            DataError: an id is not there.
        """

    def add(
        self,
        table: FeatureTable,
        *,
        ids: Any = None,
        times: Optional[Sequence[float]] = None,
        extra: Optional[Mapping[str, Sequence[str]]] = None,
        fingerprint: Optional[str] = None,
    ) -> np.ndarray:
        """Add N rows; none of them if one cannot be added. A call has a cost of its own: add many at once.

        Args:
            table: vectors of any length, paths and labels.
            ids: (N,) integers >= 0; None: the numbers after the largest id.
            times: (N,) seconds since 1970, NaN where unknown.
            extra: further columns, (N,) text each, by name.
            fingerprint: names the weights of a table whose meta does not.

        Returns:
            (N,) int64 ids.

        Raises:
            DataError: other weights or another dimension, an id or path that is there, a vector that is NaN,
                infinite or zero.
        """
        with self._writer:
            self._check(table, fingerprint)
            if ids is None:
                first = self._next_id()
                ids = np.arange(first, first + len(table))
            rows = make_rows(table, ids, times, extra)
            self._insert(rows)
            return rows.ids

    def update(
        self,
        ids: Any,
        table: FeatureTable,
        *,
        times: Optional[Sequence[float]] = None,
        extra: Optional[Mapping[str, Sequence[str]]] = None,
        fingerprint: Optional[str] = None,
    ) -> None:
        """Put row i of the table in place of the row with id i of `ids`, all of it.

        Raises:
            DataError: an id is not there, or as in `add`; nothing is changed.
        """
        with self._writer:
            self._check(table, fingerprint)
            self._replace(make_rows(table, ids, times, extra))

    @abstractmethod
    def remove(self, ids: Any) -> None:
        """Take rows out.

        Raises:
            DataError: an id is not there; nothing is removed.
        """

    @abstractmethod
    def save(self) -> None:
        """Keep what was changed."""

    def to_table(self) -> FeatureTable:
        """All rows as a `FeatureTable`; ids, times and columns of your own stay behind."""
        rows = self.rows()
        names = ("paths", "pids", "camids", "views", "splits")
        columns = {name: np.array(rows.columns[name]) for name in names}
        return FeatureTable(features=np.array(rows.vectors), meta=dict(self.meta), **columns)

    def search(
        self,
        queries: Queries,
        k: int = 10,
        where: Filter = Filter(),  # noqa: B008  (frozen)
        camids: Optional[Sequence[int]] = None,
    ) -> Neighbours:
        """The k nearest rows of each query.

        Args:
            queries: (Q, D) or (D,) floats, or a `FeatureTable`, whose weights are compared.
            k: at most this many.
            where: which rows may be found.
            camids: (Q,) cameras of the queries, for `Filter(other_cameras=True)`; a table has its own.

        Raises:
            DataError: other weights or another dimension; a query that is NaN, infinite or zero.
            ConfigError: k below 1, or a filter that cannot work.
        """
        given: Any = queries
        names, fingerprint = None, None
        if isinstance(queries, FeatureTable):
            given, names, fingerprint = queries.features, queries.paths, queries.meta.get("fingerprint")
            camids = queries.camids.tolist() if camids is None else camids
        vectors = unit_vectors(np.atleast_2d(given), names)
        check_same_network("the queries", vectors.shape[1], fingerprint, self.dim, self.fingerprint)
        return self._search(vectors, k, where, camids, np.full(len(vectors), "") if names is None else names)

    def similar(self, ids: Any, k: int = 10, where: Filter = Filter()) -> Neighbours:  # noqa: B008
        """The k nearest other rows of rows of the gallery.

        Raises:
            DataError: an id is not there.
            ConfigError: as in `search`.
        """
        asked = self.rows(ids)
        camids = asked.columns["camids"].tolist()
        return self._search(asked.vectors, k, where, camids, asked.columns["paths"], asked.ids)

    @abstractmethod
    def _next_id(self) -> int:
        """The largest id + 1, or 0."""

    @abstractmethod
    def _insert(self, rows: Rows) -> None:
        """Add checked rows, unless an id or path is there."""

    @abstractmethod
    def _replace(self, rows: Rows) -> None:
        """Put checked rows in place of those of the same ids, unless one is missing or a path is there."""

    @abstractmethod
    def _snapshot(self) -> Any:
        """What `_nearest` reads for all parts of one search."""

    @abstractmethod
    def _nearest(self, snapshot: Any, vectors: np.ndarray, k: int, where: Filter, camid: int) -> Found:
        """The k nearest rows of queries of one camera; best first, equal cosines by id."""

    def _search(
        self,
        vectors: np.ndarray,
        k: int,
        where: Filter,
        camids: Optional[Sequence[int]],
        names: np.ndarray,
        own: Optional[np.ndarray] = None,
    ) -> Neighbours:
        """`own`: (Q,) ids that are not among their own neighbours."""
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise ConfigError(f"k={k!r} must be an integer of 1 or more.")
        cameras = query_cameras(where, camids, len(vectors))
        snapshot = self._snapshot()
        order = np.argsort(cameras, kind="stable")
        found: List[Tuple[np.ndarray, Found]] = []
        for camera in np.unique(cameras) if len(cameras) else [-1]:  # queries of one camera share a filter
            members = order[cameras[order] == camera]
            queries = np.ascontiguousarray(vectors[members])
            wanted = int(k) + (own is not None)
            found.append((members, self._nearest(snapshot, queries, wanted, where, int(camera))))
        width = min(int(k), max(slots.shape[1] for _, (_, slots, _) in found)) + (own is not None)
        parts: List[Neighbours] = []
        for members, (scores, slots, rows) in found:
            missing = ((0, 0), (0, max(0, width - slots.shape[1])))
            slots = np.pad(slots, missing, constant_values=-1)
            scores = np.pad(scores, missing, constant_values=-np.inf)
            if own is not None:
                itself = np.append(rows.ids, -1)[slots] == own[members, None]  # position -1 is the last
                itself[:, -1] |= ~itself.any(axis=1)  # the filter has left it out: drop the farthest
                slots, scores = (a[~itself].reshape(len(members), -1) for a in (slots, scores))
            parts.append(gather(rows, slots, np.float32(1) - scores, names[members]))
        return join(parts, np.argsort(order, kind="stable"), self.meta.get("root", ""))

    def _check(self, table: FeatureTable, fingerprint: Optional[str]) -> None:
        word = provenance(table, fingerprint)
        check_same_network("the vectors", table.features.shape[1], word, self.dim, self.fingerprint)
