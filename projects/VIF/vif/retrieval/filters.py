"""Filter: which rows of a gallery a search may return."""

from dataclasses import dataclass
from typing import Mapping, Optional, Sequence

import numpy as np

from ..errors import ConfigError


@dataclass(frozen=True)
class Filter:
    """All named conditions hold; None names none.

    Attributes:
        camids: cameras.
        views: kinds of camera, as "aerial".
        since: seconds since 1970; rows at this time or later. Rows without a time never pass a time.
        until: rows before this time.
        ids: ids of rows.
        other_cameras: not the query's own camera; rows of an unknown camera pass.

    Raises:
        ConfigError: no list, values of another type, or a time range that holds no time.
    """

    camids: Optional[Sequence[int]] = None
    views: Optional[Sequence[str]] = None
    since: Optional[float] = None
    until: Optional[float] = None
    ids: Optional[Sequence[int]] = None
    other_cameras: bool = False

    def __post_init__(self) -> None:
        for name, kinds, what in (
            ("camids", "iu", "integers"),
            ("views", "U", "texts"),
            ("ids", "iu", "integers"),
        ):
            value = getattr(self, name)
            if isinstance(value, (str, bytes)) or (value is not None and np.ndim(value) != 1):
                raise ConfigError(f"Filter: {name}={value!r} is no list; write [{value!r}].")
            if value is not None and len(value) and np.asarray(value).dtype.kind not in kinds:
                raise ConfigError(f"Filter: {name}={value!r} must be {what}.")
        for name in ("since", "until"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, str) or not np.isfinite(value)):
                raise ConfigError(f"Filter: {name}={value!r} is no time; leave it out for an open end.")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ConfigError(
                f"Filter: since={self.since} is not before until={self.until}; no row could pass."
            )

    @property
    def empty(self) -> bool:
        """Whether every row passes."""
        return not self.other_cameras and all(
            condition is None for condition in (self.camids, self.views, self.since, self.until, self.ids)
        )

    def mask(self, ids: np.ndarray, columns: Mapping[str, np.ndarray], camid: Optional[int]) -> np.ndarray:
        """(N,) bool: rows that pass for a query of camera `camid` (used by `other_cameras` only)."""
        keep = np.ones(len(ids), dtype=bool)
        if self.camids is not None:
            keep &= np.isin(columns["camids"], np.asarray(self.camids, dtype=np.int64))
        if self.views is not None:
            keep &= np.isin(columns["views"], np.asarray(self.views, dtype=np.str_))
        if self.since is not None:
            keep &= columns["times"] >= self.since  # False for NaN
        if self.until is not None:
            keep &= columns["times"] < self.until
        if self.ids is not None:
            keep &= np.isin(ids, np.asarray(self.ids, dtype=np.int64))
        if self.other_cameras:
            keep &= columns["camids"] != camid
        return keep


def query_cameras(where: Filter, camids: Optional[Sequence[int]], queries: int) -> np.ndarray:
    """(Q,) int64 camera of each query, -1 where it does not matter.

    Raises:
        ConfigError: `other_cameras` without a camera for each query, or another number of cameras.
    """
    if camids is None:
        found = np.full(queries, -1, dtype=np.int64)
    else:
        found = np.asarray(camids)
        if found.shape != (queries,) or (found.size and found.dtype.kind not in "iu"):
            raise ConfigError(f"camids: expected {queries} integers, one a query, got shape {found.shape}.")
        found = found.astype(np.int64)
    if not where.other_cameras:
        return np.full(queries, -1, dtype=np.int64)
    unknown = np.flatnonzero(found < 0)
    if len(unknown):
        raise ConfigError(
            f"Filter(other_cameras=True) needs the queries' cameras, and query {int(unknown[0])} has none; "
            "give camids (`--query-camid`)."
        )
    return found
