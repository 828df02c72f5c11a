"""Statistics of a sweep: means over seeds, paired differences to the baseline, and what is missing.

Student's t-interval takes the seeds as a sample of those one could have drawn, and their scores as normal:
mean +- t(0.975, n - 1) * s / sqrt(n). It covers the spread over trainings and not that over queries
(`vif.evaluation.confidence`).
"""

from dataclasses import dataclass
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from .results import Cell, Results, Run

LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean over seeds.

    Attributes:
        mean: percent or points.
        low: lower end of its 95 % t-interval; None for a single seed, which has none.
        high: upper end.
        seeds: their number.
    """

    mean: float
    low: Optional[float]
    high: Optional[float]
    seeds: int

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves out 0; never for a single seed."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def t_interval(values: Sequence[float]) -> Estimate:
    """Mean of at least one value with its t-interval."""
    from scipy import stats

    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return Estimate(mean, None, None, 1)
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return Estimate(mean, mean - half, mean + half, count)


@dataclass(frozen=True)
class Arm:
    """The runs of one arm, or of one point of a grid; `runs` has one per seed."""

    name: str
    grid: str
    values: Dict[str, Any]
    runs: Tuple[Run, ...]

    def by_seed(self, cell: Cell, metric: str) -> Dict[int, float]:
        """Seed -> score of the finished runs that have this cell."""
        return {run.seed: run.scores[cell][metric] for run in self.runs if cell in run.scores}

    def estimate(self, cell: Cell, metric: str) -> Optional[Estimate]:
        """Mean over seeds; None without a finished run."""
        values = self.by_seed(cell, metric)
        return t_interval(list(values.values())) if values else None

    def effect(self, baseline: "Arm", cell: Cell, metric: str) -> Optional[Estimate]:
        """Mean of this arm minus `baseline`, seed by seed, over the seeds that both have; None without any.

        Pairing cancels what a seed does to both: the order of batches and the weights they share.
        """
        ours, theirs = self.by_seed(cell, metric), baseline.by_seed(cell, metric)
        differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        return t_interval(differences) if differences else None

    def seeds(self, status: str) -> List[int]:
        """Seeds of the runs that are "done", "failed", "waiting", or done and "collapsed"."""
        return [r.seed for r in self.runs if (r.collapsed if status == "collapsed" else r.status == status)]

    def state(self) -> str:
        """How many runs are done, and what is wrong: "2 of 3, failed: seed 1, collapsed: seed 0"."""
        parts = [f"{len(self.seeds('done'))} of {len(self.runs)}"]
        for status in ("failed", "waiting", "collapsed"):
            if self.seeds(status):
                parts.append(f"{status}: seed {' '.join(map(str, self.seeds(status)))}")
        return ", ".join(parts)


def arms(results: Results) -> List[Arm]:
    """Arms and points of grids, in the order of the file."""
    runs: Dict[Tuple[str, str], List[Run]] = {}
    for run in results.runs:
        runs.setdefault((run.grid, run.arm), []).append(run)
    return [Arm(name, grid, found[0].values, tuple(found)) for (grid, name), found in runs.items()]


def find_baseline(results: Results) -> Optional[Arm]:
    """The arm that differences are taken to; None where the sweep has none."""
    return next((a for a in arms(results) if not a.grid and results.baseline == a.name), None)
