"""Plots of sweeps: curves over grids (Figure 4), effects on the baseline. Equal results give equal files."""

import itertools
import os
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..errors import DataError, EvaluationError
from ..files import atomic_path
from .formats import protocol_label
from .results import VALID, Cell, Results
from .summary import Arm, Estimate, arms, find_baseline, t_interval
from .tables import Entry, Section

INK, PALE = "#1f3b5c", "#8a8a8a"  # apart in grey, too
CURVE_METRICS = ("Rank-1", "mAP")
MEAN = "mean over seeds, 95 % t-interval"
_MEAN: Dict[str, Any] = {
    "color": INK,
    "marker": "o",
    "markersize": 4.5,
    "linewidth": 1.4,
    "capsize": 3,
    "zorder": 3,
}
_POINT: Dict[str, Any] = {"color": PALE, "markersize": 4.5, "linestyle": "none", "zorder": 2}
# Symbol and chosen value of the paper, by config key.
_PAPER: Dict[str, Tuple[str, float]] = {
    "MODEL.LOSSES.VIAL.BETA": (r"$\beta$", 5),
    "MODEL.LOSSES.VIAL.LAMBDA": (r"$\lambda$", 0.5),
    "MODEL.LOSSES.VIAL.MARGIN": (r"$\mathcal{M}$", 0.5),
    "INPUT.PLRM.PROB": (r"$P_{img}$", 0.5),
    "INPUT.PLRM.BASE_PROB": (r"$P_0$", 0.3),
    "INPUT.PLRM.CENTER_WEIGHT": (r"$C_{weight}$", 0.8),
    "INPUT.PLRM.PATCH_SIZE": (r"$n$", 16),
    "INPUT.PLRM.MAX_ANGLE": (r"$\theta_{max}$ (degrees)", 45),
    "INPUT.PLRM.ALPHA": (r"$\alpha$", 0.5),
}


def draw(
    sections: Sequence[Section], folder: str, protocols: Sequence[str] = (), metrics: Sequence[str] = ()
) -> List[str]:
    """Write every plot that there is: curves over grids of one key, and effects on a baseline.

    Args:
        sections: tables made of results files.
        folder: where to write; made if it is missing.
        protocols: of the curves; empty: ALL, as Figure 4, or the first where there is no ALL.
        metrics: of the curves; empty: Rank-1 and mAP.

    Returns:
        Paths, SWEEP-DATA-PROTOCOL.png and .svg, SWEEP-DATA-effects.png and .svg.

    Raises:
        EvaluationError: there is nothing to draw.
        DataError: two plots would have one name; matplotlib is missing.
    """
    figures: Dict[str, Any] = {}
    for section in sections:
        results = section.results
        if results is not None:
            stem = f"{results.sweep}-{results.data}"
            for cell in _curve_cells(results, protocols):
                _put(figures, f"{stem}-{cell[1]}", curves(results, cell, metrics or CURVE_METRICS))
            _put(figures, f"{stem}-effects", effects(section))
    if not figures:
        raise EvaluationError(
            "nothing to draw: plots need results with finished runs of a grid of one key, or of arms beside "
            "their baseline."
        )
    return [path for name, figure in figures.items() for path in save(figure, os.path.join(folder, name))]


def curves(results: Results, cell: Cell, metrics: Sequence[str] = CURVE_METRICS) -> Optional[Any]:
    """One column of panels per grid of one numeric key, one row per metric.

    A point is the mean over seeds with its 95 % t-interval, pale circles are the seeds (crosses: collapsed),
    the dotted line is the paper's value, the dashed one the baseline.

    Returns:
        matplotlib Figure; None without a finished point.
    """
    grids = _grids(results, cell)
    if not grids:
        return None
    size = (2.6 * len(grids) + 0.8, 2.0 * len(metrics) + 1.0)
    figure, panels = _panels(len(metrics), len(grids), size, sharey="row")
    baseline = find_baseline(results)
    for column, (key, points) in zip(panels.T, grids.items()):
        symbol, chosen = _PAPER.get(key, (key.split(".")[-1], None))
        for axes, metric in zip(column, metrics):
            _curve(axes, key, points, cell, metric)
            if chosen is not None:
                axes.axvline(
                    chosen, color=PALE, linestyle=":", linewidth=1.4, zorder=1, label="paper's value"
                )
            level = baseline.estimate(cell, metric) if baseline else None
            if level:
                label = f"{results.baseline}, mean"
                axes.axhline(level.mean, color=INK, linestyle="--", linewidth=1, zorder=1, label=label)
        column[-1].set_xlabel(symbol)
    for axes, metric in zip(panels[:, 0], metrics):
        axes.set_ylabel(f"{metric} (%)")
    valid = next(run.scores[cell][VALID] for run in results.runs if cell in run.scores)
    figure.suptitle(f"{protocol_label(cell)} on {cell[0]}, {valid:,.0f} valid queries", fontsize=9)
    _legend(figure, panels)
    return figure


def effects(section: Section) -> Optional[Any]:
    """One row of panels per data set and protocol, one column per metric: the arms' effects on the baseline.

    Filled circles are ours with the 95 % t-interval, hollow diamonds the published effects. Points of grids
    are left out: curves show them.

    Returns:
        matplotlib Figure; None without an effect of ours.
    """
    shown = [e for e in section.entries if e.effect and not e.grid]
    if not shown:
        return None
    cells = list(dict.fromkeys(e.cell for e in shown))
    metrics = list(dict.fromkeys(e.metric for e in shown))
    names = list(dict.fromkeys(e.arm for e in shown))
    size = (2.2 * len(metrics) + 1.6, (0.36 * len(names) + 0.6) * len(cells) + 0.9)
    figure, panels = _panels(len(cells), len(metrics), size, sharey=False)
    for (cell, metric), axes in zip(itertools.product(cells, metrics), panels.flat):
        axes.axvline(0, color=PALE, linewidth=1, zorder=1)
        axes.set_yticks(range(len(names)), [""] * len(names))
        axes.set_ylim(len(names) - 0.5, -0.5)  # the first arm on top
        for entry in shown:
            if (entry.cell, entry.metric) == (cell, metric):
                _effect(axes, names.index(entry.arm), entry)
    for cell, axes in zip(cells, panels[:, 0]):
        collapsed = {e.arm: f" ({e.collapsed} collapsed)" for e in shown if e.collapsed and e.cell == cell}
        axes.set_yticklabels([name + collapsed.get(name, "") for name in names])
        valid = next(e.valid for e in shown if e.cell == cell)
        axes.set_title(
            f"{protocol_label(cell)} on {cell[0]}, {valid:,} valid queries", fontsize=9, loc="left"
        )
    for metric, axes in zip(metrics, panels[-1]):
        axes.set_xlabel(f"{metric}, points over {section.baseline}", fontsize=9)
    _legend(figure, panels)
    return figure


def save(figure: Any, stem: str) -> List[str]:
    """Write `stem`.png and `stem`.svg, without date or version; returns their paths."""
    from matplotlib import rc_context

    os.makedirs(os.path.dirname(os.path.abspath(stem)), exist_ok=True)
    paths = []
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        path = f"{stem}.{kind}"
        with rc_context({"svg.hashsalt": "vif"}), atomic_path(path) as partial:
            figure.savefig(partial, format=kind, dpi=150, metadata=metadata)
        paths.append(path)
    return paths


def _put(figures: Dict[str, Any], name: str, figure: Optional[Any]) -> None:
    if figure is None:
        return
    if name in figures:
        raise DataError(f"two results files would both be drawn as {name}; draw them into different folders.")
    figures[name] = figure


def _curve_cells(results: Results, protocols: Sequence[str]) -> List[Cell]:
    """Cells to draw, of the sweep's own data set where it was scored."""
    cells = results.cells()
    cells = [c for c in cells if c[0] == results.data] or cells
    if protocols:
        return [c for c in cells if c[1] in protocols]
    return [c for c in cells if c[1] == "ALL"][:1] or cells[:1]


def _grids(results: Results, cell: Cell) -> Dict[str, List[Arm]]:
    """Config key -> its finished points in rising order, of the grids that vary one numeric key."""
    found: Dict[str, List[Arm]] = {}
    for arm in arms(results):
        numeric = all(isinstance(value, (int, float)) for value in arm.values.values())
        if arm.grid and len(arm.values) == 1 and numeric and any(cell in run.scores for run in arm.runs):
            found.setdefault(next(iter(arm.values)), []).append(arm)
    return {key: sorted(points, key=lambda arm: arm.values[key]) for key, points in found.items()}


def _curve(axes: Any, key: str, points: List[Arm], cell: Cell, metric: str) -> None:
    for arm in points:
        for run in arm.runs:
            if cell in run.scores:
                look = {"marker": "x"} if run.collapsed else {"marker": "o", "markerfacecolor": "none"}
                label = "collapsed seed" if run.collapsed else "one seed"
                axes.plot(arm.values[key], run.scores[cell][metric], **_POINT, **look, label=label)
    xs = [arm.values[key] for arm in points]
    estimates = [t_interval(list(arm.by_seed(cell, metric).values())) for arm in points]
    axes.errorbar(xs, [e.mean for e in estimates], yerr=[_half(e) for e in estimates], **_MEAN, label=MEAN)
    axes.set_xticks(xs, [f"{x:g}" for x in xs])


def _effect(axes: Any, y: int, entry: Entry) -> None:
    if entry.effect:
        label = f"{entry.cell[0]}: {MEAN}"
        axes.errorbar(entry.effect.mean, y - 0.1, xerr=_half(entry.effect), **_MEAN, label=label)
    if entry.published and entry.published_effect is not None:
        look = {"marker": "D", "markerfacecolor": "white"}
        label = f"{entry.published.dataset}: published"
        axes.plot(entry.published_effect, y + 0.2, **_POINT, **look, label=label)


def _half(estimate: Estimate) -> float:
    """Half of the interval's length; 0 for a single seed."""
    return 0.0 if estimate.high is None else estimate.high - estimate.mean


def _panels(rows: int, columns: int, size: Tuple[float, float], sharey: Any) -> Tuple[Any, Any]:
    """Figure of `size` inches and its (rows, columns) axes; a column has one x axis."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError("plots need `pip install matplotlib`; tables do not.") from error
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex="col", sharey=sharey)
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
    return figure, panels


def _legend(figure: Any, panels: Any) -> None:
    """One legend below the panels, each label once."""
    handles: Dict[str, Any] = {}
    for axes in panels.flat:
        handles.update({label: handle for handle, label in zip(*axes.get_legend_handles_labels())})
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
