"""State: all that a search of a folder's gallery reads.

Shape letters: Q queries, N rows, K neighbours, D embedding.
"""

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from .exact import exact_search
from .filters import Filter
from .kinds import Kind
from .rows import Rows
from .searcher import Searcher

# a filter that leaves fewer rows than this, or than a tenth, is searched exactly
EXACT_ROWS = 20_000


@dataclass(frozen=True, eq=False)
class State:
    """Replaced as a whole, never changed, so that a search sees one gallery from beginning to end.

    Attributes:
        rows: N rows, removed ones among them.
        alive: (N,) bool, False for removed rows.
        kind: what the gallery's index is.
        searcher: covers the first rows; None where all are searched exactly.
    """

    rows: Rows
    alive: np.ndarray
    kind: Kind
    searcher: Optional[Searcher]

    @property
    def indexed(self) -> int:
        """Rows that the index covers."""
        return self.searcher.rows if self.searcher else 0

    def find(self, queries: np.ndarray, k: int, where: Filter, camid: int) -> Tuple[np.ndarray, np.ndarray]:
        """The nearest rows that pass a filter.

        Args:
            queries: (Q, D) float32 of length 1, of one camera.
            k: at most this many.
            where: which rows pass.
            camid: the queries' camera.

        Returns:
            Cosines (Q, K) and positions in `rows` (Q, K), as `exact_search`; K is k or the number of rows.
        """
        keep = self.alive
        if not where.empty:
            keep = keep & where.mask(self.rows.ids, self.rows.columns, camid)
        width = max(1, min(k, len(self.rows)))
        return self._nearest(queries, width, None if keep.all() else keep)

    def _nearest(
        self, queries: np.ndarray, k: int, keep: Optional[np.ndarray]
    ) -> Tuple[np.ndarray, np.ndarray]:
        """Of the rows that are kept."""
        rows = self.rows
        count = len(rows) if keep is None else int(keep.sum())
        slots = None if keep is None else np.flatnonzero(keep)
        few = keep is not None and count < max(EXACT_ROWS, len(rows) / 10)
        if self.searcher is None or few:
            return exact_search(queries, rows.vectors, rows.ids, k, slots)
        indexed = self.indexed
        kept = None if keep is None or keep[:indexed].all() else keep[:indexed]
        scores, found = self.searcher.search(queries, rows.vectors, rows.ids, k, kept)
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
