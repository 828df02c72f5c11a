"""What is known of a gallery's rows, without their vectors: to browse, to pick a query from, to filter by."""

from functools import cached_property
from typing import Any, Dict, List, Tuple

import numpy as np

from ..errors import DataError
from ..retrieval import Filter
from ..retrieval.neighbours import gather
from ..retrieval.rows import Rows


class Catalogue:
    """The rows of a gallery in the order they came, N of them.

    Args:
        rows: of `AbstractGallery.rows`; their vectors are let go of.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows.without_vectors()
        self._order = np.argsort(rows.ids, kind="stable")

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, id_: int) -> Dict[str, Any]:
        """A row as a plain dict: id, path, pid, camid, view, ...; None where nothing is known.

        Raises:
            DataError: the id is not there.
        """
        ids = self._rows.ids
        place = int(np.searchsorted(ids, id_, sorter=self._order))
        if place == len(ids) or ids[self._order[place]] != id_:
            raise DataError(f"id {id_} is not in the gallery; it has {len(ids):,} rows.")
        return self._plain(self._order[place : place + 1])[0]

    def page(self, where: Filter, find: str, offset: int, limit: int) -> Tuple[int, List[Dict[str, Any]]]:
        """How many rows pass, and `limit` of them from `offset` on.

        Args:
            where: which rows pass.
            find: only rows whose path contains this text, in any case, or whose id it is; "" for all.
            offset: rows to skip, >= 0.
            limit: at most this many, >= 1.
        """
        keep = where.mask(self._rows.ids, self._rows.columns, None)
        if find:
            named = np.char.find(self._lowered, find.lower()) >= 0
            keep &= named | np.isin(self._rows.ids.astype(np.str_), [find])
        passing = np.flatnonzero(keep)
        return len(passing), self._plain(passing[offset : offset + limit])

    @cached_property
    def _lowered(self) -> np.ndarray:
        return np.char.lower(self._rows.columns["paths"])

    @cached_property
    def summary(self) -> Dict[str, Any]:
        """Rows, views and cameras with their numbers of rows, and the span of times, None if none is known.

        A camera has a view where all its rows have the same.
        """
        columns = self._rows.columns
        views, counts = np.unique(columns["views"], return_counts=True)
        cameras = []
        for camid in np.unique(columns["camids"][columns["camids"] >= 0]):
            own = columns["views"][columns["camids"] == camid]
            view = str(own[0]) if (own == own[0]).all() else ""
            cameras.append({"camid": int(camid), "view": view or None, "rows": len(own)})
        times = columns["times"][~np.isnan(columns["times"])]
        return {
            "rows": len(self),
            "views": [{"view": str(v), "rows": int(n)} for v, n in zip(views, counts) if v],
            "cameras": cameras,
            "times": {"first": float(times.min()), "last": float(times.max())} if len(times) else None,
        }

    def _plain(self, places: np.ndarray) -> List[Dict[str, Any]]:
        found = gather(self._rows, places[None], np.zeros((1, len(places)), np.float32), np.full(1, ""))
        return [{k: v for k, v in row.items() if k not in ("rank", "distance")} for row in found.of(0)]
