"""The plots of a report, each from plain values and a palette to a matplotlib Figure."""

from typing import Any, Dict, List, Mapping, Sequence

import numpy as np

from ..evaluation.protocols import view_code
from ..evaluation.ranking import Ranking
from .canvas import DASHES, IMPOSTOR, MARKERS, MATCH, SERIES, Palette, panels
from .embedding import FeatureMap
from .pairs import PairCounts
from .training import Series, Training

_IDENTITY_COLOURS = (*SERIES, "#d96fb0", "#5f9e2f", "#c9b100", "#4c5fd7")


def cmc_curves(rankings: Mapping[str, Ranking], palette: Palette) -> Any:
    """Rank-k over k, a line a protocol; a legend names each with its valid queries."""
    figure, axes = panels(1, 1, (7.2, 3.6), palette)
    (plot,) = axes.flat
    for index, (label, ranking) in enumerate(rankings.items()):
        ranks = np.arange(1, len(ranking.cmc) + 1)
        name = f"{label}, {len(ranking.valid):,} valid queries"
        plot.plot(ranks, 100 * ranking.cmc, label=name, linewidth=1.6, **_line(index))
    plot.set(xlabel="rank k", ylabel="Rank-k (%)", xlim=(1, len(ranking.cmc)), ylim=(0, 101))
    plot.set_xticks([1, *range(10, len(ranking.cmc) + 1, 10)])
    _legend(figure, axes, palette, "outside right center", 1)
    return figure


def pair_histograms(counts: Sequence[PairCounts], metric: str, palette: Palette) -> Any:
    """A panel a pair of views: shares of positives and negatives by distance, their medians dashed."""
    columns = min(3, len(counts))
    rows = -(-len(counts) // columns)
    figure, axes = panels(rows, columns, (max(3.2, 2.6 * columns), 2.3 * rows + 0.3), palette, sharex=True)
    for plot in axes.flat[len(counts) :]:
        plot.set_visible(False)
    for plot, pair in zip(axes.flat, counts):
        _negatives_and_positives(plot, pair)
        plot.set_title(pair_title(pair), fontsize=9, color=palette.ink, loc="left")
        plot.set_yticks([])
    for plot in axes[-1]:
        plot.set_xlabel(f"{metric} distance")
    for row in axes:
        row[0].set_ylabel("share of pairs")
    _legend(figure, axes, palette, "outside lower center", 2)
    return figure


def pair_title(pair: PairCounts) -> str:
    """The views, as "A-G"; "all images" where there are none."""
    codes = [view_code(view) if view else "?" for view in pair.views]
    return "-".join(codes) if any(pair.views) else "all images"


def median_of(edges: np.ndarray, counts: np.ndarray) -> float:
    """Middle of the bin that holds the median of a histogram; NaN where it is empty."""
    total = counts.sum()
    if not total:
        return float("nan")
    place = int(np.searchsorted(np.cumsum(counts), total / 2))
    return float(edges[place : place + 2].mean())


def _negatives_and_positives(plot: Any, pair: PairCounts) -> None:
    looks = (
        ("different people", pair.negatives, IMPOSTOR, "--"),
        ("same person", pair.positives, MATCH, "-"),
    )
    for label, counts, colour, dash in looks:
        if counts.sum():
            share = counts / counts.sum()
            plot.stairs(share, pair.edges, fill=True, color=colour, alpha=0.25)
            plot.stairs(share, pair.edges, color=colour, linewidth=1.4, linestyle=dash, label=label)
            plot.axvline(median_of(pair.edges, counts), color=colour, linewidth=1, linestyle=":")


def feature_map(found: FeatureMap, pids: np.ndarray, views: np.ndarray, palette: Palette) -> Any:
    """Two panels of one map: a few identities coloured and numbered, and all images by view."""
    figure, axes = panels(1, 2, (8.4, 4.4), palette)
    by_identity, by_view = axes.flat
    own, kinds = pids[found.rows], views[found.rows]
    names = np.unique(kinds)
    x, y = found.points.T
    rest = ~np.isin(own, found.identities)
    by_identity.scatter(x[rest], y[rest], s=5, c="#9aa3ad", alpha=0.35, linewidths=0, rasterized=True)
    for index, pid in enumerate(found.identities):
        colour = _IDENTITY_COLOURS[index % len(_IDENTITY_COLOURS)]
        for view, marker in zip(names, _cycled(MARKERS, len(names))):
            chosen = (own == pid) & (kinds == view)
            by_identity.scatter(
                x[chosen], y[chosen], s=26, c=colour, marker=marker, linewidths=0, rasterized=True
            )
        chosen = own == pid
        middle = (float(np.median(x[chosen])), float(np.median(y[chosen])))
        by_identity.annotate(str(pid), middle, fontsize=8, color=palette.ink, ha="center", weight="bold")
    for index, (view, marker) in enumerate(zip(names, _cycled(MARKERS, len(names)))):
        chosen = kinds == view
        label = f"{view or 'no view'} ({int(chosen.sum()):,})"
        look: Dict[str, Any] = {"s": 9, "c": SERIES[index % len(SERIES)], "marker": marker, "alpha": 0.7}
        by_view.scatter(x[chosen], y[chosen], label=label, linewidths=0, rasterized=True, **look)
    for plot, title in ((by_identity, "by identity"), (by_view, "by view")):
        plot.set_title(title, fontsize=9, color=palette.ink, loc="left")
        plot.set(xticks=[], yticks=[])
        plot.grid(False)
        plot.spines[["left", "bottom"]].set_visible(False)
    _legend(figure, axes, palette, "outside lower center", 6)
    return figure


def training_curves(training: Training, palette: Palette) -> Any:
    """A panel each for losses, learning rate, geometry and scores, of those that were logged."""
    groups: List[Any] = [("losses", training.losses), ("learning rate", training.rate)]
    groups.append(("geometry of a batch", training.geometry))
    groups += [
        (f"{metric} (%)", training.scores[metric])
        for metric in ("Rank-1", "mAP")
        if metric in training.scores
    ]
    groups = [group for group in groups if group[1]]
    columns = min(2, len(groups))
    rows = -(-len(groups) // columns)
    figure, axes = panels(rows, columns, (4.2 * columns, 2.6 * rows), palette, sharex=True)
    for plot in axes.flat[len(groups) :]:
        plot.set_visible(False)
    for plot, (title, lines) in zip(axes.flat, groups):
        for index, (name, series) in enumerate(lines.items()):
            plot.plot(series.x, series.y, label=name, linewidth=1.3, **_line(index), **_dot(series))
        plot.set_title(title, fontsize=9, color=palette.ink, loc="left")
        if len(lines) > 1:
            beside = {"loc": "upper left", "bbox_to_anchor": (1, 1), "borderaxespad": 0}
            plot.legend(fontsize=7, frameon=False, labelcolor=palette.ink, **beside)
    for plot in axes.flat[max(0, len(groups) - columns) : len(groups)]:
        plot.set_xlabel("iteration")
        plot.tick_params(labelbottom=True)
    return figure


def _dot(series: Series) -> Dict[str, Any]:
    return {"marker": "o", "markersize": 3} if len(series.x) < 30 else {}


def _line(index: int) -> Dict[str, Any]:
    return {"color": SERIES[index % len(SERIES)], "linestyle": DASHES[index % len(DASHES)]}


def _cycled(marks: Sequence[str], count: int) -> List[str]:
    return [marks[index % len(marks)] for index in range(count)]


def _legend(figure: Any, axes: Any, palette: Palette, place: str, columns: int) -> None:
    """One legend beside the panels, each label once."""
    handles: Dict[str, Any] = {}
    for plot in axes.flat:
        handles.update({label: handle for handle, label in zip(*plot.get_legend_handles_labels())})
    figure.legend(
        handles.values(), handles, loc=place, ncols=columns, fontsize=8, frameon=False, labelcolor=palette.ink
    )
