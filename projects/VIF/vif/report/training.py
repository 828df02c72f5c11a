"""Series of a training run, from the lines of metrics.json."""

from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from ..evaluation.evaluate import SCORES

GEOMETRY = ("pos_cos", "neg_cos", "hard_share")
_POINTS = 400  # of a drawn line; more are averaged


class Series(NamedTuple):
    """Values over iterations, both (N,) float64."""

    x: np.ndarray
    y: np.ndarray


class Training(NamedTuple):
    """What training wrote, by panel; an empty panel was not logged.

    Attributes:
        losses: by name, the total first.
        rate: learning rate.
        geometry: of `GEOMETRY`.
        scores: metric -> protocol -> evaluations, of one data set; a single evaluation is no curve.
    """

    losses: Dict[str, Series]
    rate: Dict[str, Series]
    geometry: Dict[str, Series]
    scores: Dict[str, Dict[str, Series]]


def read_training(rows: Sequence[Dict[str, float]], dataset: str) -> Training:
    """Sort the lines of metrics.json into panels.

    Args:
        rows: as `vif.report.run.parse_metrics` returns them.
        dataset: whose scores, as results.json names it.
    """
    names = sorted({name for row in rows for name in row})
    losses = sorted((n for n in names if "loss" in n), key=lambda n: (n != "total_loss", n))
    scores: Dict[str, Dict[str, Series]] = {}
    for name in names:
        parts = name.rsplit("/", 2)
        if len(parts) == 3 and parts[0] == dataset and parts[2] in SCORES:
            series = _series(rows, name)
            if len(series.x) > 1:
                scores.setdefault(parts[2], {})[parts[1]] = series
    return Training(
        {name: thin(_series(rows, name)) for name in losses},
        {name: thin(_series(rows, name)) for name in names if name == "lr"},
        {name: thin(_series(rows, name)) for name in GEOMETRY if name in names},
        scores,
    )


def thin(series: Series) -> Series:
    """Means over runs of neighbours, so that at most `_POINTS` remain."""
    size = -(-len(series.x) // _POINTS)
    starts = np.arange(0, len(series.x), size)
    if size == 1:
        return series
    count = np.diff(np.append(starts, len(series.x)))
    return Series(*(np.add.reduceat(values, starts) / count for values in series))


def _series(rows: Sequence[Dict[str, float]], name: str) -> Series:
    found: List[Tuple[float, float]] = [
        (row["iteration"], row[name]) for row in rows if name in row and np.isfinite(row[name])
    ]
    values = np.array(found, dtype=np.float64).reshape(-1, 2)
    return Series(values[:, 0] + 1, values[:, 1])
