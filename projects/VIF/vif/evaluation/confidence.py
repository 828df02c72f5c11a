"""How far a score can be trusted: percentile bootstrap over queries (Efron & Tibshirani, 1993, chapter 13).

The queries of a protocol are taken as a sample of those one could have asked: V valid queries are drawn with
replacement, R times, and the middle 95 % of the R means is the interval. It says nothing about another
training run: for that, train with several seeds. With few queries, or all scores 0 or 100, it is too narrow.
"""

from typing import Dict, Iterator, NamedTuple, Tuple, Union

import numpy as np

from ..errors import EvaluationError
from .ranking import Ranking

METRICS = ("Rank-1", "mAP", "mINP")
_CHUNK = 1 << 17  # draws at a time


class Difference(NamedTuple):
    """One score of b minus the same of a, in points.

    Attributes:
        difference: mean over queries, in -100..100.
        low: lower end of its interval.
        high: upper end of its interval.
        distinguishable: whether the interval leaves out 0.
    """

    difference: float
    low: float
    high: float
    distinguishable: bool


def intervals(
    ranking: Ranking,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: Union[int, np.random.Generator] = 0,
) -> Dict[str, Tuple[float, float]]:
    """Bootstrap intervals of Rank-1, mAP and mINP.

    Args:
        ranking: what was scored.
        resamples: R, number of times that the queries are drawn.
        level: share of the resampled means within the interval, between 0 and 1.
        seed: of the draws; equal seeds give equal intervals.

    Returns:
        (low, high) in percent by name; (0, 100) for a single query, which says nothing.

    Raises:
        EvaluationError: resamples or level is out of range.
    """
    ends = _percentiles(_values(ranking), resamples, level, seed)
    return {name: (max(0.0, low), min(100.0, high)) for name, (low, high) in zip(METRICS, ends)}


def paired_difference(
    a: Ranking,
    b: Ranking,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: Union[int, np.random.Generator] = 0,
) -> Dict[str, Difference]:
    """Differences b - a of Rank-1, mAP and mINP, with bootstrap intervals over the queries.

    Pairing cancels how hard each query is: models whose own intervals overlap may still differ for certain.

    Args:
        a: ranking of one model.
        b: ranking of the other, for the same protocol and the same queries in the same order.
        resamples: see `intervals`, like the other arguments.
        level: see there.
        seed: see there.

    Raises:
        EvaluationError: the rankings are not of the same queries, or as `intervals`.
    """
    if (a.num_queries, a.num_gallery) != (b.num_queries, b.num_gallery) or not np.array_equal(
        a.valid, b.valid
    ):
        raise EvaluationError(
            f"the two rankings are not of the same queries and gallery: {len(a.valid)} valid of "
            f"{a.num_queries} queries and {a.num_gallery} gallery images against {len(b.valid)} of "
            f"{b.num_queries} and {b.num_gallery}. Compare one protocol of one data set, with both tables in "
            "the order of their paths."
        )
    values = _values(b) - _values(a)
    ends = _percentiles(values, resamples, level, seed)
    return {
        name: Difference(float(mean), low, high, not low <= 0 <= high)
        for name, mean, (low, high) in zip(METRICS, values.mean(axis=0), ends)
    }


def _values(ranking: Ranking) -> np.ndarray:
    """(V, 3) percent: what each query adds to the means of `METRICS`."""
    return 100 * np.stack([ranking.first == 1, ranking.ap, ranking.inp], axis=1)


def _percentiles(
    values: np.ndarray, resamples: int, level: float, seed: Union[int, np.random.Generator]
) -> Iterator[Tuple[float, float]]:
    """Ends of the interval of each column's mean."""
    if resamples < 1 or not 0 < level < 1:
        raise EvaluationError(
            f"bootstrap: expected at least 1 resample and a level between 0 and 1, got {resamples} and "
            f"{level}."
        )
    count = len(values)
    if count == 1:
        return iter([(-100.0, 100.0)] * values.shape[1])
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK // count)
    means = np.empty((resamples, values.shape[1]))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = generator.integers(0, count, (size, count))
        drawn += np.arange(0, size * count, count)[:, None]
        times = np.bincount(drawn.reshape(-1), minlength=size * count).reshape(size, count)
        means[start : start + size] = times @ values / count
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0).tolist()
    return zip(low, high)
