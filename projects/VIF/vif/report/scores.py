"""Sections of scores: the table of protocols, and the CMC curves."""

from typing import TYPE_CHECKING, List

from ..evaluation.evaluate import HEADERS, SCORES, score_cells
from .blocks import Block, Contest, Lacking, Picture, Table, Text
from .canvas import Drawing
from .figures import cmc_curves
from .run import Run

if TYPE_CHECKING:
    from .build import Material

_ROUNDING = 0.01  # points that a score computed again may differ


def protocol_section(contests: List[Contest], run: Run, material: "Material", level: float) -> List[Block]:
    """The table of `vif evaluate`; without features what results.json holds."""
    stored = run.results.get(material.dataset, {})
    if not contests:
        return [_stored_table(stored), *_agreement(contests, run, material)]
    rankings = {c.protocol.name: c.ranking for c in contests}
    rows = score_cells(rankings, [c.protocol for c in contests], level)
    caption = (
        f"In percent; in brackets the {level:.0%} bootstrap interval over queries. A row is a protocol with "
        "its own queries, gallery and filter: rows are not to be compared with each other, nor averaged."
    )
    return [Table(caption, HEADERS, rows, numeric=True), *_agreement(contests, run, material)]


def _stored_table(stored: "dict[str, dict[str, float]]") -> Table:
    if not stored:
        raise Lacking("there are neither features nor scores of this data set in results.json")
    rows = []
    for name, scores in stored.items():
        cells = [f"{scores[key]:.2f}" if key in scores else "" for key in SCORES]
        valid, queries, gallery = (
            f"{scores.get(k, float('nan')):,.0f}" for k in ("valid_queries", "queries", "gallery")
        )
        rows.append((name, *cells, f"{valid} / {queries}", gallery))
    return Table(
        "In percent, from results.json; without features there are no intervals.", HEADERS, rows, numeric=True
    )


def _agreement(contests: List[Contest], run: Run, material: "Material") -> List[Block]:
    """Whether results.json, written when training ended, says the same."""
    stored = run.results.get(material.dataset, {})
    if not contests:
        return []
    if not stored:
        reason = run.missing.get("results.json", f"results.json has no scores of {material.dataset}")
        return [Text(f"Not compared with the run's own scores: {reason}.")]
    worst, count = 0.0, 0
    for contest in contests:
        again, then = contest.ranking.scores(), stored.get(contest.protocol.name, {})
        for name in set(again) & set(then):
            worst, count = max(worst, abs(again[name] - then[name])), count + 1
    if not count:
        return [Text("Not compared with the run's own scores: results.json has none of these protocols.")]
    if worst > _ROUNDING:
        text = (
            f"results.json differs by up to {worst:.2f}: it was written for other weights, features, "
            "protocols or processing than these."
        )
        return [Text(text, warning=True)]
    return [Text(f"The run's results.json holds the same numbers ({count}, largest difference {worst:.4f}).")]


def cmc_section(contests: List[Contest]) -> List[Block]:
    """One plot with a line a protocol."""
    rankings = {c.protocol.label: c.ranking for c in contests}
    parts = [
        f"{name} {100 * r.cmc[0]:.1f} % at rank 1 and {100 * r.cmc[-1]:.1f} % at {len(r.cmc)}"
        for name, r in rankings.items()
    ]
    caption = "Share of valid queries with a match within the first k; a line is a protocol."
    alt = "CMC curves: " + "; ".join(parts) + "."
    return [Picture(Drawing("cmc", alt, caption, lambda palette: cmc_curves(rankings, palette)))]
