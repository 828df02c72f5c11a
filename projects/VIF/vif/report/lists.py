"""Ranked lists: what a protocol puts in front of a query, with what its same-camera filter ignores."""

from dataclasses import dataclass
from typing import List, NamedTuple, Optional, Sequence

import numpy as np

from ..evaluation.evaluate import Sides
from ..evaluation.ranking import Ranking

MATCH, IMPOSTOR, IGNORED = "match", "impostor", "ignored"


class Hit(NamedTuple):
    """One gallery image of a list.

    Attributes:
        row: of the table.
        kind: MATCH (same identity), IMPOSTOR, or IGNORED by the same-camera filter.
        rank: from 1; None for an ignored image.
        distance: as the ranking compares it.
    """

    row: int
    kind: str
    rank: Optional[int]
    distance: float


@dataclass(frozen=True)
class RankedList:
    """A query and what its gallery begins with.

    Attributes:
        row: of the query, in the table.
        ap: average precision, 0..1.
        first: rank of the first match.
        hits: nearest first; the last may be the first match from further behind.
        passed: ignored images that are not among the hits though nearer than the last.
    """

    row: int
    ap: float
    first: int
    hits: List[Hit]
    passed: int


def choose_queries(ranking: Ranking, count: int) -> "dict[str, np.ndarray]":
    """Positions in `ranking.valid` of the best, typical and worst queries by AP, at most `count` of each.

    Typical: those nearest to the median AP. No query comes twice; equal APs are in the order of the queries.
    """
    order = np.argsort(-ranking.ap, kind="stable")
    count = max(1, min(count, len(order) // 3)) if len(order) >= 3 else 1
    best, worst = order[:count], order[count:][::-1][:count]
    between = np.setdiff1d(order, np.concatenate([best, worst]))
    distance = np.abs(ranking.ap[between] - np.median(ranking.ap))
    typical = between[np.argsort(distance, kind="stable")[:count]]
    chosen = {"Best": best, "Typical": typical, "Worst": worst}
    return {name: positions for name, positions in chosen.items() if len(positions)}


def ranked_lists(
    sides: Sides, ranking: Ranking, positions: Sequence[int], top: int, ignored: int = 3
) -> List[RankedList]:
    """The lists of some queries.

    Equal distances stand as the scores count them: other identities first, then by gallery row.

    Args:
        sides: of the protocol.
        ranking: its ranking.
        positions: in `ranking.valid`.
        top: ranks to list.
        ignored: at most so many ignored images in between.
    """
    distances = sides.distances()
    return [
        _list(
            sides, ranking, int(p), top, ignored, _row(distances, int(ranking.valid[p]), len(sides.gallery))
        )
        for p in positions
    ]


def _row(distances: "object", query: int, width: int) -> np.ndarray:
    strip = distances.strip(np.array([query]), slice(0, width))  # type: ignore[attr-defined]
    return np.array(strip[0].cpu().numpy())  # the next strip overwrites it


def _list(
    sides: Sides, ranking: Ranking, position: int, top: int, ignored: int, distances: np.ndarray
) -> RankedList:
    query = int(ranking.valid[position])
    query_pids, gallery_pids, query_cameras, gallery_cameras = sides.labels
    same = gallery_pids == query_pids[query]
    filtered = same & (gallery_cameras == query_cameras[query])
    order = np.lexsort((same, distances))
    ranks = np.cumsum(~filtered[order])
    hits: List[Hit] = []
    passed = 0
    first = int(ranking.first[position])
    for place, g in enumerate(order):
        rank = int(ranks[place])
        if rank > top or (rank == top and filtered[g]):
            break
        if filtered[g]:
            if sum(hit.kind == IGNORED for hit in hits) < ignored:
                hits.append(Hit(int(sides.gallery[g]), IGNORED, None, float(distances[g])))
            else:
                passed += 1
        else:
            kind = MATCH if same[g] else IMPOSTOR
            hits.append(Hit(int(sides.gallery[g]), kind, rank, float(distances[g])))
    if first > top:
        matches = order[same[order] & ~filtered[order]]
        hits.append(Hit(int(sides.gallery[matches[0]]), MATCH, first, float(distances[matches[0]])))
    return RankedList(int(sides.query[query]), float(ranking.ap[position]), first, hits, passed)
