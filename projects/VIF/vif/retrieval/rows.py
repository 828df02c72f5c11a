"""Rows of a gallery: ids, vectors of length 1 and metadata by column, checked once where they enter.

Shape letters: N rows, D embedding.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from ..errors import DataError
from ..features import FeatureTable

# columns that every gallery has, with what stands where nothing is known; further columns are text
COLUMNS: Dict[str, Any] = {"paths": "", "pids": -1, "camids": -1, "views": "", "times": np.nan, "splits": ""}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
# names of a gallery's files, and of a neighbour's values in results
_RESERVED = (
    *COLUMNS,
    *(name[:-1] for name in COLUMNS),
    *("id", "ids", "vectors", "alive", "index", "manifest", "features", "rank", "distance", "query"),
)


@dataclass(eq=False)
class Rows:
    """N images as a gallery keeps them.

    Attributes:
        ids: (N,) int64, unique, >= 0.
        vectors: (N, D) float32, rows of length 1.
        columns: (N,) arrays by name: ``paths`` (unique), ``views``, ``splits`` and columns of your own str,
            ``pids`` and ``camids`` int64, -1 where unknown, ``times`` float64 seconds, NaN where unknown.
    """

    ids: np.ndarray
    vectors: np.ndarray
    columns: Dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def without_vectors(self) -> "Rows":
        """The same rows with vectors of no dimension."""
        return Rows(self.ids, np.zeros((len(self), 0), np.float32), self.columns)

    def take(self, index: np.ndarray) -> "Rows":
        """The rows at these positions, in this order."""
        columns = {name: column[index] for name, column in self.columns.items()}
        return Rows(self.ids[index], self.vectors[index], columns)

    def followed_by(self, more: "Rows") -> "Rows":
        """These rows, then `more`; a column that one side lacks is empty there."""
        names = [*self.columns, *(name for name in more.columns if name not in self.columns)]
        columns = {
            name: np.concatenate([_column(self, name), _column(more, name)]) for name in names
        }  # text becomes as wide as the longest
        return Rows(
            np.concatenate([self.ids, more.ids]), np.concatenate([self.vectors, more.vectors]), columns
        )


def empty_rows(dim: int) -> Rows:
    """No row, of `dim` dimensions."""
    columns = {name: np.full(0, unknown) for name, unknown in COLUMNS.items()}
    return Rows(np.zeros(0, np.int64), np.zeros((0, dim), np.float32), columns)


def make_rows(
    table: FeatureTable,
    ids: Any,
    times: Optional[Sequence[float]] = None,
    extra: Optional[Mapping[str, Sequence[str]]] = None,
) -> Rows:
    """Rows of a table.

    Args:
        table: N images.
        ids: (N,) integers >= 0.
        times: (N,) seconds since 1970, NaN where unknown; None: nowhere known.
        extra: further columns, (N,) text each, by name of lower-case letters, digits and "_".

    Raises:
        DataError: a vector is NaN, infinite or zero, ids are negative or repeat, a column has another length,
            type or name.
    """
    chosen = np.asarray(ids)
    if chosen.shape != (len(table),) or (chosen.size and chosen.dtype.kind not in "iu"):
        raise DataError(f"ids: expected {len(table)} integers, got {chosen.dtype} of shape {chosen.shape}.")
    chosen = chosen.astype(np.int64)
    if (chosen < 0).any():
        raise DataError(f"ids: {int(chosen.min())} is negative; ids start at 0.")
    unique, counts = np.unique(chosen, return_counts=True)
    if len(unique) < len(chosen):
        raise DataError(f"ids: {int(unique[counts.argmax()])} comes twice; an id names one row.")
    moments = np.full(len(table), np.nan) if times is None else np.asarray(times)
    if moments.shape != (len(table),) or moments.dtype.kind not in "iuf" or np.isinf(moments).any():
        raise DataError(f"times: expected {len(table)} numbers of seconds, NaN where unknown.")
    columns = {
        "paths": table.paths,
        "pids": table.pids,
        "camids": table.camids,
        "views": table.views,
        "times": moments.astype(np.float64),
        "splits": table.splits,
    }
    for name, values in (extra or {}).items():
        check_name(name)
        column = np.asarray(values)
        if column.shape != (len(table),) or (column.size and column.dtype.kind != "U"):
            raise DataError(
                f"extra column {name!r}: expected {len(table)} texts, got {column.dtype} of shape "
                f"{column.shape}."
            )
        columns[name] = column.astype(np.str_)
    return Rows(chosen, unit_vectors(table.features, table.paths), columns)


def check_name(name: str) -> None:
    """Refuse a name that a further column cannot have.

    Raises:
        DataError: it has other characters, or is the gallery's own.
    """
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise DataError(
            f"extra column {name!r}: choose lower-case letters, digits and '_', and none of the gallery's "
            f"own names ({', '.join(_RESERVED)})."
        )


def unit_vectors(vectors: Any, names: Any = None) -> np.ndarray:
    """(N, D) float32 rows divided by their length.

    Args:
        vectors: (N, D) floats.
        names: (N,) text, what an error calls the rows; None: nothing.

    Raises:
        DataError: another shape or type, or a row that is NaN, infinite or zero; names the first of them.
    """
    given = np.asarray(vectors)
    if given.ndim != 2 or given.dtype.kind != "f":
        raise DataError(f"vectors: expected (N, D) floats, got {given.dtype} of shape {given.shape}.")
    lengths = np.sqrt(np.einsum("nd,nd->n", given, given, dtype=np.float64))
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if len(bad):
        row = int(bad[0])
        what = "zero" if lengths[row] == 0 else "NaN or infinite"
        named = f" ({str(names[row])!r})" if names is not None else ""
        raise DataError(
            f"vectors: row {row}{named} is {what}, as are {len(bad) - 1} further rows; a vector of length 1 "
            "cannot be made of it. Leave these images out."
        )
    return np.ascontiguousarray(given / lengths[:, None], dtype=np.float32)


def check_new(rows: Rows, ids: np.ndarray, paths: np.ndarray) -> None:
    """Refuse rows whose id or path a gallery has already.

    Raises:
        DataError: names one of them.
    """
    known = np.flatnonzero(np.isin(rows.ids, ids))
    if len(known):
        raise DataError(
            f"id {int(rows.ids[known[0]])} is in the gallery already, as are {len(known) - 1} further ids; "
            "use update, or leave ids out to have new ones."
        )
    added = set(rows.columns["paths"].tolist())
    repeated: List[str] = [path for path in paths.tolist() if path in added]
    if repeated:
        raise DataError(
            f"image {repeated[0]!r} is in the gallery already, as are {len(repeated) - 1} further images; "
            "use update to replace it."
        )


def positions(ids: np.ndarray, wanted: Any) -> np.ndarray:
    """(K,) positions in `ids` of `wanted`, in its order.

    Raises:
        DataError: `wanted` is no list of unique integers, or not all are there; names one.
    """
    asked = np.asarray(wanted)
    if asked.ndim != 1 or (asked.size and asked.dtype.kind not in "iu"):
        raise DataError(f"ids: expected a list of integers, got {asked.dtype} of shape {asked.shape}.")
    asked = asked.astype(np.int64)
    if len(np.unique(asked)) < len(asked):
        raise DataError("ids: one comes twice; name each row once.")
    order = np.argsort(ids, kind="stable")
    place = np.searchsorted(ids, asked, sorter=order)
    found = np.zeros(len(asked), dtype=bool)
    inside = place < len(ids)
    found[inside] = ids[order[place[inside]]] == asked[inside]
    if not found.all():
        missing = asked[~found]
        raise DataError(
            f"id {int(missing[0])} is not in the gallery, nor are {len(missing) - 1} further ids; it has "
            f"{len(ids):,} rows."
        )
    return order[place]


def provenance(table: FeatureTable, fingerprint: Optional[str]) -> str:
    """Fingerprint of the weights that made a table: its own, or the one named where it has none.

    Raises:
        DataError: it has none and none is named, or both differ.
    """
    own = table.meta.get("fingerprint")
    if own is None and not fingerprint:
        raise DataError(
            "the feature table names no weights (meta['fingerprint']), so nothing can tell whether its "
            "vectors belong with others. Extract it again with `vif extract`, or name its weights with a "
            "word of your own: fingerprint=... (`--fingerprint` of `vif index`)."
        )
    if own is not None and fingerprint and own != fingerprint:
        raise DataError(
            f"the feature table is of the weights {own}, not of {fingerprint}; leave fingerprint out."
        )
    return str(own or fingerprint)


def check_same_network(
    what: str, dim: int, fingerprint: Optional[str], own_dim: int, own_fingerprint: str
) -> None:
    """Refuse vectors that do not belong with a gallery's.

    Raises:
        DataError: other weights or another dimension.
    """
    if fingerprint is not None and fingerprint != own_fingerprint:
        raise DataError(
            f"{what} are of the weights {fingerprint}, the gallery's of {own_fingerprint}: their distances "
            "would mean nothing. Extract with the gallery's weights, or build another gallery."
        )
    if dim != own_dim:
        raise DataError(f"{what} have {dim} dimensions, the gallery's {own_dim}; use the same network.")


def _column(rows: Rows, name: str) -> np.ndarray:
    return rows.columns[name] if name in rows.columns else np.full(len(rows), "")
