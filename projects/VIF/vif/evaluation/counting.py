"""How many gallery images lie at or before each match of a query."""

from typing import List, Sequence

import numpy as np
import torch

# Sorting a row costs about as much as comparing it with this many thresholds, one after the other.
_MANY = 40
_SHORT_ROW = 2048


def count_near(strip: torch.Tensor, thresholds: Sequence[np.ndarray]) -> List[np.ndarray]:
    """For every row, the number of entries <= each of the row's own thresholds.

    Args:
        strip: (R, C) distances, on the CPU or on a GPU, where the counting then takes place.
        thresholds: R arrays of ascending distances, each (m,) with m >= 1, of the strip's precision.

    Returns:
        R arrays (m,) int64.
    """
    if strip.device.type != "cpu":
        return _count_by_sorting(strip, thresholds)
    return [_count_row(row, near) for row, near in zip(strip.numpy(), thresholds)]


def _count_row(row: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(m,) counts of one row (C,): by comparison for few thresholds, else by sorting the near ones."""
    mask = row <= thresholds[-1]
    total = np.count_nonzero(mask)
    if total < len(row) // 8 or len(thresholds) > _MANY:
        row = row[mask]
    if len(thresholds) > _MANY or len(row) < _SHORT_ROW:
        return np.searchsorted(np.sort(row), thresholds, side="right")
    counts = [np.count_nonzero(row <= threshold) for threshold in thresholds[:-1]]
    return np.array([*counts, total], dtype=np.int64)


def _count_by_sorting(strip: torch.Tensor, thresholds: Sequence[np.ndarray]) -> List[np.ndarray]:
    """The same by tensor operations, for a GPU; in sixteenths, as a sort takes several times their memory."""
    width = max(len(near) for near in thresholds)
    padded = np.stack([np.pad(near, (0, width - len(near)), mode="edge") for near in thresholds])
    limits = torch.as_tensor(padded).to(strip.device)
    step = max(1, len(strip) // 16)
    counts = []
    for start in range(0, len(strip), step):
        nearest_first = strip[start : start + step].sort(dim=1).values
        counts.append(torch.searchsorted(nearest_first, limits[start : start + step], right=True))
    return [row[: len(near)] for row, near in zip(torch.cat(counts).cpu().numpy(), thresholds)]
