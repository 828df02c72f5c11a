"""Gallery: images to search in, their vectors and what is known of them, in memory and in a folder."""

import os
from typing import Any, Mapping, Optional, Sequence, Union

import numpy as np

from ..errors import ConfigError, DataError
from ..features import FeatureTable
from . import store
from .base import AbstractGallery, Found
from .filters import Filter
from .kinds import Flat, Kind, choose, kind_from_json, kind_to_json, parse_kind
from .rows import COLUMNS, Rows, check_new, empty_rows, positions, provenance
from .searcher import Searcher, gpus
from .state import State

# removed rows and rows that came after the index was built: at this share of all the index is built again
STALE_SHARE = 0.25


class Gallery(AbstractGallery):
    """A gallery in memory and in a folder, searched by FAISS.

    Any number of threads may search while one of them changes the gallery: a search sees the gallery as it
    was when it began. New rows are found at once: those that the index does not cover are searched exactly.

    Args:
        dim: D.
        fingerprint: names the weights that make the vectors.
        index: "auto" (by size, see `vif.retrieval.kinds.choose`), "flat", "hnsw", "ivfpq", or one of
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
        super().__init__(dim, {**(meta or {}), "fingerprint": fingerprint})
        self._chosen = parse_kind(index)  # None: by size
        self._folder, self._version = "", ""
        self._state = State(empty_rows(dim), np.zeros(0, dtype=bool), self._chosen or Flat(), None)

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
            gallery._state = State(rows, alive, kind, searcher)
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
    def index(self) -> Kind:
        """What searches use now."""
        return self._state.kind

    def rows(self, ids: Any = None, vectors: bool = True) -> Rows:
        """Rows of these ids, in their order, or all in the order they came."""
        state = self._state
        rows = state.rows if vectors else state.rows.without_vectors()
        chosen = np.flatnonzero(state.alive)
        if ids is not None:
            chosen = chosen[positions(rows.ids[chosen], ids)]
        elif len(chosen) == len(rows):
            return rows
        return rows.take(chosen)

    def remove(self, ids: Any) -> None:
        """Take rows out. Their vectors leave the files with the next `rebuild` and `save`.

        Raises:
            DataError: an id is not there; nothing is removed.
        """
        with self._writer:
            self._append(self._without(ids), None)

    def rebuild(self, index: Union[str, Kind, None] = None) -> None:
        """Drop removed rows for good and build the index anew.

        Args:
            index: another kind, as in the constructor; None: as chosen before.

        Raises:
            ConfigError: unknown.
        """
        with self._writer:
            chosen = self._chosen if index is None else parse_kind(index)
            rows = self.rows()
            kind = chosen or choose(len(rows))
            searcher = Searcher.build(kind, rows.vectors)
            self._state = State(rows, np.ones(len(rows), dtype=bool), kind, searcher)
            self._chosen = chosen

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
            base = None if overwrite else self._version if target == self._folder else ""
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

    def _next_id(self) -> int:
        ids = self._state.rows.ids[self._state.alive]
        return int(ids.max()) + 1 if len(ids) else 0

    def _insert(self, rows: Rows) -> None:
        self._append(self._state.alive, rows)

    def _replace(self, rows: Rows) -> None:
        self._append(self._without(rows.ids), rows)

    def _snapshot(self) -> State:
        return self._state

    def _nearest(self, snapshot: State, vectors: np.ndarray, k: int, where: Filter, camid: int) -> Found:
        return (*snapshot.find(vectors, k, where, camid), snapshot.rows)

    def _without(self, ids: Any) -> np.ndarray:
        alive = np.flatnonzero(self._state.alive)
        keep = self._state.alive.copy()
        keep[alive[positions(self._state.rows.ids[alive], ids)]] = False
        return keep

    def _append(self, alive: np.ndarray, more: Optional[Rows]) -> None:
        """The rows that are alive, then more; builds the index again where it has become stale."""
        state, rows = self._state, self._state.rows
        if more is not None:
            check_new(more, rows.ids[alive], rows.columns["paths"][alive])
            rows = rows.followed_by(more)
            alive = np.concatenate([alive, np.ones(len(more), dtype=bool)])
        self._state = State(rows, alive, state.kind, state.searcher)
        stale = int((~alive).sum())
        kind = self._chosen or choose(len(self))
        if not isinstance(kind, Flat) or gpus():
            stale += len(rows) - state.indexed
        if type(kind) is not type(state.kind) or stale > STALE_SHARE * len(rows):
            try:
                self.rebuild()
            except BaseException:  # all of the change or none of it
                self._state = state
                raise
