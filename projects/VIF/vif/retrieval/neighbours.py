"""Neighbours: what a search found, as arrays, a table, JSON, or in a notebook.

Shape letters: Q queries, K neighbours.
"""

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Dict, List

import numpy as np

from .rows import Rows

_SHOWN = 5  # queries that a print shows
_SHOWN_IMAGES = 10  # of each query, in a notebook
_THUMBNAIL = (96, 80)  # pixels of height, JPEG quality


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest rows of each query, nearest first; equal distances in the order of their ids.

    Attributes:
        ids: (Q, K) int64; -1 where fewer than K rows passed the filter, always at the end.
        distances: (Q, K) float32, 1 - cosine, 0..2; infinite where the id is -1.
        columns: (Q, K) arrays by name, the rows' metadata: ``paths``, ``pids``, ``camids``, ``views``,
            ``times``, ...; empty, -1 or NaN where unknown, and where the id is -1.
        queries: (Q,) str, what the queries are called; "" where nothing is known.
        root: folder that paths are relative to, "" where it is not known; a notebook shows images below it.
    """

    ids: np.ndarray
    distances: np.ndarray
    columns: Dict[str, np.ndarray] = field(default_factory=dict)
    queries: np.ndarray = field(default_factory=lambda: np.full(0, ""))
    root: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, query: int) -> List[Dict[str, Any]]:
        """One query's neighbours, nearest first, as plain dicts: None where nothing is known."""
        rows = []
        for place in range(int((self.ids[query] >= 0).sum())):
            row = {
                "rank": place + 1,
                "id": int(self.ids[query, place]),
                "distance": float(self.distances[query, place]),
            }
            for name, column in self.columns.items():
                row[_singular(name)] = _plain(name, column[query, place])
            rows.append(row)
        return rows

    def to_json(self) -> List[Dict[str, Any]]:
        """All queries as what `json.dumps` takes: ``[{"query": ..., "neighbours": [...]}]``, see `of`."""
        return [{"query": self._name(query), "neighbours": self.of(query)} for query in range(len(self))]

    def __str__(self) -> str:
        return self._tables("github", "{}\n{}")

    def _repr_html_(self) -> str:
        from html import escape

        from ..report.crops import Crops

        crops = Crops([self.root] if self.root else [])
        return self._tables("html", "<p>{}</p>{}", escape, crops)

    def _name(self, query: int) -> str:
        return str(self.queries[query]) or f"query {query}"

    def _strip(self, rows: List[Dict[str, Any]], crops: Any) -> str:
        """HTML of the images that can be read below the root."""
        from ..notebook import thumbnail

        pictures = []
        for row in rows[:_SHOWN_IMAGES]:
            uri = crops.uri(row.get("path") or "", *_THUMBNAIL)
            words = f"{row['rank']}: {row['distance']:.4f}"
            pictures += [thumbnail(uri, f"neighbour {words}", words)] if uri else []
        return "".join(pictures)

    def _tables(self, style: str, form: str, escape: Any = str, crops: Any = None) -> str:
        from tabulate import tabulate

        parts = []
        for query in range(min(len(self), _SHOWN)):
            rows = self.of(query)
            names = [name for name in (rows[0] if rows else {}) if any(row[name] is not None for row in rows)]
            cells = [[_cell(name, row[name]) for name in names] for row in rows]
            table = (
                tabulate(cells, names, tablefmt=style, disable_numparse=True)
                if rows
                else "no row passes the filter"
            )
            strip = "" if crops is None else self._strip(rows, crops)
            parts.append(form.format(escape(self._name(query)), strip + table))
        if len(self) > _SHOWN:
            parts.append(f"... and {len(self) - _SHOWN} further queries")
        return "\n\n".join(parts)


def gather(rows: Rows, slots: np.ndarray, distances: np.ndarray, queries: np.ndarray) -> Neighbours:
    """Neighbours from positions (Q, K) in `rows`, -1 for none."""
    found = slots >= 0
    columns = {}
    for name, column in rows.columns.items():
        unknown: Any = {"i": -1, "f": np.nan, "U": ""}[column.dtype.kind]
        values = np.full(slots.shape, unknown, dtype=column.dtype)
        values[found] = column[slots[found]]
        columns[name] = values
    ids = np.full(slots.shape, -1, dtype=np.int64)
    ids[found] = rows.ids[slots[found]]
    return Neighbours(ids, np.where(found, distances, np.float32(np.inf)), columns, queries)


def join(parts: List[Neighbours], order: np.ndarray, root: str = "") -> Neighbours:
    """Parts one after another, then put in this order; a column that a part lacks is empty there."""
    names = dict.fromkeys(name for part in parts for name in part.columns)
    columns = {
        name: np.concatenate([part.columns.get(name, np.full(part.ids.shape, "")) for part in parts])[order]
        for name in names
    }
    ids, distances, queries = (
        np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ("ids", "distances", "queries")
    )
    return Neighbours(ids, distances, columns, queries, root)


def _singular(name: str) -> str:
    return name[:-1] if name in ("paths", "pids", "camids", "views", "times", "splits") else name


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return str(value) or None
    if name in ("pids", "camids"):
        return int(value) if value >= 0 else None
    return None if np.isnan(value) else float(value)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "distance":
        return f"{value:.4f}"
    return when(value) if name == "time" else str(value)


def when(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, or as a number where no calendar reaches."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g} s"
