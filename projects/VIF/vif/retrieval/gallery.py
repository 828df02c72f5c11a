"""Gallery: images to search in, their vectors and what is known of them, in memory and in a folder."""

import os
import threading
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Sequence, Union

import numpy as np

from ..errors import ConfigError, DataError
from ..features import FeatureTable
from . import store
from .exact import exact_search
from .filters import Filter, query_cameras
from .index import Flat, Kind, Searcher, choose, kind_from_json, kind_to_json, parse_kind
from .neighbours import Neighbours, gather
from .rows import (
    COLUMNS,
    Rows,
    check_new,
    check_same_network,
    empty_rows,
    make_rows,
    positions,
    provenance,
    unit_vectors,
)

# a filter that leaves fewer rows than this, or than a tenth, is searched exactly
EXACT_ROWS = 20_000
# removed rows and rows that came after the index was built: at this share of all the index is built again
STALE_SHARE = 0.25

Queries = Union[FeatureTable, np.ndarray]


@dataclass(frozen=True, eq=False)
class _State:
    """All that a search reads; replaced as a whole, never changed. `searcher` covers the first rows."""

    rows: Rows
    alive: np.ndarray  # (N,) bool, False for removed rows
    kind: Kind
    searcher: Optional[Searcher]

    @property
    def indexed(self) -> int:
        return self.searcher.rows if self.searcher else 0


class Gallery:
    """Rows to search in by cosine: ids, vectors, paths, cameras, views, identities, times.

    Any number of threads may search while one of them changes the gallery: a search sees the gallery as it was
    when it began. New rows are found at once: those that the index does not cover yet are searched exactly.

    Args:
        dim: D.
        fingerprint: names the weights that make the vectors.
        index: "auto" (by size, see `vif.retrieval.index.choose`), "flat", "hnsw", "ivfpq", or one of
            `Flat`, `HNSW`, `IVFPQ` with its parameters.
        meta: text by name, such as "root", the folder that paths are relative to.

    Attributes:
        dim: D.
        meta: text by name; "fingerprint" is the weights'.

    Raises:
        ConfigError: `index` is unknown or `dim` below 1.
    """

    def __init__(
        self,
        dim: int,
        fingerprint: str,
        index: Union[str, Kind] = "auto",
        meta: Optional[Mapping[str, str]] = None,
    ) -> None:
        if dim < 1:
            raise ConfigError(f"dim={dim} must be 1 or more.")
        self.dim = dim
        self.meta: Dict[str, str] = {**(meta or {}), "fingerprint": fingerprint}
        self._chosen = parse_kind(index)  # None: by size
        self._writer = threading.RLock()
        self._folder, self._version = "", ""
        self._set(empty_rows(dim), np.zeros(0, dtype=bool), self._chosen or Flat(), None)

    @classmethod
    def build(
        cls,
        table: FeatureTable,
        *,
        ids: Any = None,
        times: Optional[Sequence[float]] = None,
        extra: Optional[Mapping[str, Sequence[str]]] = None,
        fingerprint: Optional[str] = None,
        index: Union[str, Kind] = "auto",
    ) -> "Gallery":
        """A gallery of a table's rows, whose meta it keeps; arguments as in `add` and the constructor."""
        word = provenance(table, fingerprint)
        gallery = cls(max(1, table.features.shape[1]), word, index, table.meta)
        gallery.add(table, ids=ids, times=times, extra=extra, fingerprint=word)
        return gallery

    @classmethod
    def load(cls, folder: str, verify: bool = True) -> "Gallery":
        """What `save` has written; vectors and metadata stay on disk and are mapped into memory.

        Args:
            folder: of a gallery.
            verify: compare every file with its sha256, which reads all of them once; otherwise their sizes.

        Raises:
            DataError: no gallery, or a file of it is missing or changed; names it.
        """
        manifest, arrays, index = store.read(folder, verify)
        try:
            rows = Rows(arrays.pop("ids"), arrays.pop("vectors"), {})
            alive = np.array(arrays.pop("alive"))
            rows.columns = {name: arrays[name] for name in [*COLUMNS, *sorted(set(arrays) - set(COLUMNS))]}
            kind = kind_from_json(manifest["index"])
            gallery = cls(int(manifest["dim"]), manifest["meta"]["fingerprint"], meta=manifest["meta"])
            lengths = {len(rows.vectors), len(alive), *(len(column) for column in rows.columns.values())}
            if rows.vectors.shape[1] != gallery.dim or lengths != {len(rows)}:
                raise ValueError("its files are of different sizes")
            gallery._chosen = None if manifest["chosen"] == "auto" else kind
            indexed = manifest["indexed"] if index is not None else len(rows)
            searcher = None
            if index is not None and (index.ntotal != indexed or index.d != gallery.dim):
                raise ValueError("index.faiss is of other vectors")
            if index is not None:
                searcher = Searcher(kind, index, rows.vectors[:indexed])
            elif isinstance(kind, Flat):
                searcher = Searcher.build(kind, rows.vectors)
            gallery._set(rows, alive, kind, searcher)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"gallery {folder!r} is not whole ({error}); restore it, or build it again."
            ) from error
        gallery._folder, gallery._version = os.path.realpath(folder), manifest["version"]
        return gallery

    def __len__(self) -> int:
        return int(self._state.alive.sum())

    def __repr__(self) -> str:
        return (
            f"<Gallery of {len(self):,} rows, {self.dim} dimensions, index {self.index.kind}, "
            f"weights {self.fingerprint}>"
        )

    @property
    def fingerprint(self) -> str:
        """Names the weights of the vectors."""
        return self.meta["fingerprint"]

    @property
    def index(self) -> Kind:
        """What searches use now."""
        return self._state.kind

    def rows(self, ids: Any = None) -> Rows:
        """Rows of these ids, in their order, or all in the order they came.

        Raises:
            DataError: an id is not there.
        """
        alive = self._alive(self._state)
        return alive if ids is None else alive.take(positions(alive.ids, ids))

    def to_table(self) -> FeatureTable:
        """All rows as a `FeatureTable`; ids, times and columns of your own stay behind."""
        rows = self.rows()
        names = ("paths", "pids", "camids", "views", "splits")
        columns = {name: np.array(rows.columns[name]) for name in names}
        return FeatureTable(features=np.array(rows.vectors), meta=dict(self.meta), **columns)

    def add(
        self,
        table: FeatureTable,
        *,
        ids: Any = None,
        times: Optional[Sequence[float]] = None,
        extra: Optional[Mapping[str, Sequence[str]]] = None,
        fingerprint: Optional[str] = None,
    ) -> np.ndarray:
        """Add N rows, or none of them if one cannot be added. Each call copies the gallery: add many at once.

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
            known = self._alive(self._state)
            first = int(known.ids.max()) + 1 if len(known) else 0
            more = make_rows(
                table, np.arange(first, first + len(table)) if ids is None else ids, times, extra
            )
            check_new(more, known.ids, known.columns["paths"])
            self._append(self._state.alive, more)
            return more.ids

    def remove(self, ids: Any) -> None:
        """Take rows out. Their vectors leave the files with the next `rebuild` and `save`.

        Raises:
            DataError: an id is not there; nothing is removed.
        """
        with self._writer:
            self._append(self._without(ids), None)

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
            alive = self._without(ids)
            more = make_rows(table, ids, times, extra)
            rest = self._state.rows
            check_new(more, rest.ids[alive], rest.columns["paths"][alive])
            self._append(alive, more)

    def rebuild(self, index: Union[str, Kind, None] = None) -> None:
        """Drop removed rows for good and build the index anew.

        Args:
            index: another kind, as in the constructor; None: as chosen before.

        Raises:
            ConfigError: unknown, or ivfpq of too few rows.
        """
        with self._writer:
            chosen = self._chosen if index is None else parse_kind(index)
            rows = self._alive(self._state)
            kind = chosen or choose(len(rows))
            self._set(rows, np.ones(len(rows), dtype=bool), kind, Searcher.build(kind, rows.vectors))
            self._chosen = chosen

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
        names = np.full(0, "")
        if isinstance(queries, FeatureTable):
            own = queries.meta.get("fingerprint")
            check_same_network("the queries", self.dim, own, self.dim, self.fingerprint)
            names, camids = queries.paths, queries.camids if camids is None else camids
            queries = queries.features
        vectors = unit_vectors(np.atleast_2d(queries), names if len(names) else None)
        check_same_network("the queries", vectors.shape[1], None, self.dim, self.fingerprint)
        return self._search(self._state, vectors, k, where, camids, names)

    def similar(self, ids: Any, k: int = 10, where: Filter = Filter()) -> Neighbours:  # noqa: B008
        """The k nearest other rows of rows of the gallery.

        Raises:
            DataError: an id is not there.
            ConfigError: as in `search`.
        """
        state = self._state
        alive = np.flatnonzero(state.alive)
        asked = state.rows.take(alive[positions(state.rows.ids[alive], ids)])
        columns = asked.columns
        found = self._search(state, asked.vectors, k, where, columns["camids"], columns["paths"], asked.ids)
        return found

    def save(self, folder: Optional[str] = None, overwrite: bool = False) -> None:
        """Write the gallery; a process that ends while writing leaves the folder's old gallery whole.

        Args:
            folder: is made when missing; None: where the gallery was loaded from or saved last.
            overwrite: replace another gallery, or what another process has saved since.

        Raises:
            ConfigError: no folder is known.
            DataError: the folder holds something else, or cannot be written.
        """
        with self._writer:
            target = os.path.realpath(folder) if folder else self._folder
            if not target:
                raise ConfigError("this gallery has no folder yet; name one: save(folder).")
            if isinstance(self.index, Flat) and not self._state.alive.all():
                self.rebuild()
            state = self._state
            base = self._version if target == self._folder else ""
            if overwrite:
                base = store.current_version(target)
            arrays = {"ids": state.rows.ids, "vectors": state.rows.vectors, "alive": state.alive}
            header = {
                "dim": self.dim,
                "metric": "cosine",
                "rows": len(self),
                "meta": self.meta,
                "index": kind_to_json(state.kind),
                "chosen": "auto" if self._chosen is None else "by hand",
                "indexed": state.indexed,
            }
            index = state.searcher.index if state.searcher else None
            self._version = store.write(target, {**arrays, **state.rows.columns}, index, header, base)
            self._folder = target

    def _search(
        self,
        state: _State,
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
        count = len(vectors)
        cameras = query_cameras(where, camids, count)
        width = min(int(k), len(state.rows)) + (own is not None)
        slots = np.full((count, width), -1, dtype=np.int64)
        scores = np.full((count, width), -np.inf, dtype=np.float32)
        for camera in np.unique(cameras):  # queries of one camera share a filter
            members = cameras == camera
            keep = state.alive
            if not where.empty:
                keep = keep & where.mask(state.rows.ids, state.rows.columns, int(camera))
            scores[members], slots[members] = _find(
                state, np.ascontiguousarray(vectors[members]), width, None if keep.all() else keep
            )
        if own is not None:
            itself = (state.rows.ids[slots] == own[:, None]) & (slots >= 0)
            itself[:, -1] |= ~itself.any(axis=1)  # the filter has left it out: drop the farthest
            slots, scores = (a[~itself].reshape(count, width - 1) for a in (slots, scores))
        distances = np.float32(1) - scores
        return gather(state.rows, slots, distances, names if len(names) else np.full(count, ""))

    def _check(self, table: FeatureTable, fingerprint: Optional[str]) -> None:
        word = provenance(table, fingerprint)
        check_same_network("the vectors", table.features.shape[1], word, self.dim, self.fingerprint)

    def _alive(self, state: _State) -> Rows:
        return state.rows if state.alive.all() else state.rows.take(np.flatnonzero(state.alive))

    def _without(self, ids: Any) -> np.ndarray:
        alive = np.flatnonzero(self._state.alive)
        keep = self._state.alive.copy()
        keep[alive[positions(self._state.rows.ids[alive], ids)]] = False
        return keep

    def _append(self, alive: np.ndarray, more: Optional[Rows]) -> None:
        """The rows that are alive, then more; builds the index again where it has become stale."""
        state, rows = self._state, self._state.rows
        if more is not None:
            rows = rows.followed_by(more)
            alive = np.concatenate([alive, np.ones(len(more), dtype=bool)])
        self._set(rows, alive, state.kind, state.searcher)
        stale = int((~alive).sum())
        kind = self._chosen or choose(len(self))
        if not isinstance(kind, Flat):
            stale += len(rows) - state.indexed
        if type(kind) is not type(state.kind) or stale > STALE_SHARE * len(rows):
            try:
                self.rebuild()
            except BaseException:
                self._state = state
                raise

    def _set(self, rows: Rows, alive: np.ndarray, kind: Kind, searcher: Optional[Searcher]) -> None:
        self._state = _State(rows, alive, kind, searcher)


def _find(
    state: _State, queries: np.ndarray, k: int, keep: Optional[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and positions (Q, k) of the nearest rows that are kept."""
    rows = state.rows
    count = len(rows) if keep is None else int(keep.sum())
    slots = None if keep is None else np.flatnonzero(keep)
    few = keep is not None and count < max(EXACT_ROWS, len(rows) / 10)
    if state.searcher is None or few:
        return exact_search(queries, rows.vectors, rows.ids, k, slots)
    indexed = state.indexed
    if keep is not None and keep[:indexed].all():
        keep = None if keep.all() else keep
    scores, found = state.searcher.search(
        queries, rows.vectors, rows.ids, k, None if keep is None or keep[:indexed].all() else keep[:indexed]
    )
    tail = np.arange(indexed, len(rows)) if keep is None else indexed + np.flatnonzero(keep[indexed:])
    if len(tail):
        more_scores, more = exact_search(queries, rows.vectors, rows.ids, k, tail)
        scores, found = np.hstack([scores, more_scores]), np.hstack([found, more])
        order = np.lexsort((rows.ids[found], -scores), axis=1)[:, :k]
        scores, found = (np.take_along_axis(a, order, axis=1) for a in (scores, found))
    short = (found[:, : min(k, count)] < 0).any(axis=1)  # an index that gave up early
    if short.any():
        scores[short], found[short] = exact_search(queries[short], rows.vectors, rows.ids, k, slots)
    return scores, found
