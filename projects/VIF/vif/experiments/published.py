"""The paper's tables, and scores of later systems, as published: rows of published.csv."""

import csv
import functools
from importlib import resources
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..errors import DataError

TITLES = {
    "1": "Systems on CARGO",
    "2": "Systems on AG-ReIDv1",
    "3": "Components of VIF",
    "4": "PLRM against other augmentations",
    "5": "VIAL with and without penalty and hard negatives",
}
LATER = "later"
"""The `table` of systems newer than the paper; their `source` says where the number stands."""

SYSTEMS = {"1": "CARGO", "2": "AGReIDv1"}
"""Tables of whole systems, which later systems can be added to, and their data sets."""

# Derived from published scores, which are multiples of 1 / number (docs/protocols.md). The other data sets'
# scores do not tell.
_VALID_QUERIES = {"CARGO": {"ALL": 312, "GG": 112, "AA": 40, "AG": 160, "A2G": 94, "G2A": 66}}


class Published(NamedTuple):
    """One printed number.

    Attributes:
        table: "1" to "5", or "later".
        dataset: as registered, e.g. "AGReIDv1".
        method: as the table's first column calls it.
        protocol: name of the row in `vif.evaluation.PROTOCOLS`.
        metric: "Rank-1", "mAP" or "mINP".
        value: percent.
        source: where it is printed.
    """

    table: str
    dataset: str
    method: str
    protocol: str
    metric: str
    value: float
    source: str


@functools.cache
def published() -> Tuple[Published, ...]:
    """All rows, in the order of the tables."""
    text = resources.files(__package__).joinpath("published.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return tuple(Published(**{**row, "value": float(row["value"])}) for row in rows)  # type: ignore[arg-type]


def table_rows(table: str, later_on: Sequence[str] = ()) -> List[Published]:
    """Rows of one table.

    Args:
        table: "1" to "5", or "later".
        later_on: data sets whose later systems are appended.

    Raises:
        DataError: there is no such table; lists those there are.
    """
    if table not in (*TITLES, LATER):
        raise DataError(f"published.csv has no table {table!r}; there are {', '.join((*TITLES, LATER))}.")
    rows = [row for row in published() if row.table == table]
    return rows + [row for row in published() if row.table == LATER and row.dataset in later_on]


def valid_queries(dataset: str, protocol: str) -> Optional[int]:
    """Number of queries behind the published scores; None where it is not known."""
    counts: Dict[str, int] = _VALID_QUERIES.get(dataset, {})
    return counts.get(protocol)
