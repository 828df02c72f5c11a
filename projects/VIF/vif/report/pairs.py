"""Distances of positive and negative pairs, counted by view pair: exact, within bounded memory."""

from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from ..evaluation.evaluate import Sides

BINS = 60
_BLOCK_BYTES = 64 << 20


class PairCounts(NamedTuple):
    """Pairs of a query and a gallery image, of one pair of views, by distance.

    Attributes:
        views: of the two images, sorted; ("", "") where views are unknown.
        edges: (BINS + 1,) float64 ends of the bins, which all pairs share.
        positives: (BINS,) int64 pairs of one identity, without those of one camera.
        negatives: (BINS,) int64 pairs of two identities.
    """

    views: Tuple[str, str]
    edges: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray


def count_pairs(
    contests: Sequence[Sides], views: np.ndarray, block_bytes: int = _BLOCK_BYTES
) -> List[PairCounts]:
    """Count every pair of the contests' queries and gallery images.

    Args:
        contests: sides whose filter compares cameras; each pair of a query and a gallery image counts once a
            contest.
        views: (N,) views of the table's rows.
        block_bytes: most memory to use, about.

    Returns:
        One entry a pair of views that has pairs, sorted by views.
    """
    names, codes = np.unique(views, return_inverse=True)
    codes = codes.reshape(-1)
    low, high = np.inf, -np.inf
    for block, _, _ in _blocks(contests, block_bytes):
        low, high = min(low, float(block.min())), max(high, float(block.max()))
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    size = len(names)
    totals = np.zeros((2, size * size, BINS), dtype=np.int64)
    for block, rows, sides in _blocks(contests, block_bytes):
        query_pids, gallery_pids, query_cameras, gallery_cameras = sides.labels
        bins = np.clip(np.searchsorted(edges, block, side="right") - 1, 0, BINS - 1)
        same = query_pids[rows, None] == gallery_pids
        ignored = same & (query_cameras[rows, None] == gallery_cameras)
        pair = codes[sides.query[rows]][:, None] * size + codes[sides.gallery]
        cell = pair * BINS + bins
        for kind, chosen in enumerate((same & ~ignored, ~same)):
            totals[kind] += np.bincount(cell[chosen], minlength=size * size * BINS).reshape(-1, BINS)
    return _merged(names, edges, totals.reshape(2, size, size, BINS))


def _blocks(contests: Sequence[Sides], block_bytes: int) -> Iterator[Tuple[np.ndarray, np.ndarray, Sides]]:
    """Distances (R, G), the queries' positions (R,), and whose they are."""
    for sides in contests:
        distances, width = sides.distances(), len(sides.gallery)
        step = max(1, block_bytes // (64 * width))
        for start in range(0, len(sides.query), step):
            rows = np.arange(start, min(start + step, len(sides.query)))
            yield distances.strip(rows, slice(0, width)).cpu().numpy(), rows, sides


def _merged(names: np.ndarray, edges: np.ndarray, totals: np.ndarray) -> List[PairCounts]:
    """A ground query with an aerial image is the same pair of views as the other way round."""
    found: Dict[Tuple[int, int], np.ndarray] = {}
    for a in range(len(names)):
        for b in range(len(names)):
            key = (min(a, b), max(a, b))
            found[key] = found.get(key, 0) + totals[:, a, b]
    return [
        PairCounts((str(names[a]), str(names[b])), edges, counts[0], counts[1])
        for (a, b), counts in sorted(found.items())
        if counts.sum()
    ]
