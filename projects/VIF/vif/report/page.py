"""A report as one HTML file that needs nothing beside it, never larger than its limit."""

import os
from typing import Any, Iterator, NamedTuple

from ..errors import EvaluationError
from ..features import FeatureTable
from .blocks import Lists, Report
from .canvas import svg
from .crops import Crops
from .lists import IGNORED, MATCH, Hit

LIMIT = 5_000_000  # bytes
MARKS = {MATCH: "\u2713", IGNORED: "\u2013"}
_SAID = {MATCH: "same person", IGNORED: "ignored, same person and camera"}
_FULL = (128, 85)  # pixels of height and JPEG quality of a crop, then what else is tried
_SMALLER = ((112, 75), (96, 65), (80, 55), (64, 45), (48, 35))


class Budget(NamedTuple):
    """What a page spends on its crops: pixels of height, JPEG quality, queries of a kind; 0: no crops."""

    height: int
    quality: int
    queries: int


def budgets(queries: int) -> Iterator[Budget]:
    """From the best to the smallest page: smaller crops first, then fewer lists, then none."""
    for height, quality in (_FULL, *_SMALLER):
        yield Budget(height, quality, queries)
    height, quality = _SMALLER[-1]
    while queries > 1:
        queries //= 2
        yield Budget(height, quality, queries)
    yield Budget(0, 0, 1)


def render_page(report: Report, crops: Crops, queries: int, top: int, limit: int = LIMIT) -> str:
    """The page within its limit; its foot says what was made smaller for that.

    Args:
        report: what to show.
        crops: images.
        queries: lists of each kind and protocol.
        top: ranks of a list.
        limit: most bytes.

    Raises:
        EvaluationError: the page is too large even without crops.
    """
    drawn = {drawing.name: svg(drawing) for drawing in report.drawings()}
    for budget in budgets(queries):
        page = _render(report, crops, budget, queries, top, drawn)
        size = len(page.encode("utf-8"))
        if size <= limit:
            return page
    raise EvaluationError(
        f"the page has {size:,} bytes without any crop, above {limit:,}; score fewer protocols (--protocols)."
    )


def _render(
    report: Report, crops: Crops, budget: Budget, queries: int, top: int, drawn: "dict[str, str]"
) -> str:
    import jinja2
    from markupsafe import Markup

    loader = jinja2.FileSystemLoader(os.path.dirname(os.path.abspath(__file__)))
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    table: Any = report.shown

    def picture(row: int) -> str:
        return crops.uri(str(table.paths[row]), budget.height, budget.quality) if budget.height else ""

    return environment.get_template("page.html").render(
        report=report,
        budget=budget,
        first_lists=next((b for s in report.sections for b in s.blocks if isinstance(b, Lists)), None),
        top=top,
        footer=_footer(budget, queries),
        svg=lambda drawing: Markup(drawn[drawing.name]),  # matplotlib escapes its text
        picture=picture,
        name=lambda row: crops.name(str(table.paths[row])),
        labels=lambda row: labels(table, row),
        said=said,
        mark=mark,
    )


def labels(table: FeatureTable, row: int) -> str:
    """What is known of an image: identity, camera, view."""
    parts = [f"id {table.pids[row]}"] if table.pids[row] >= 0 else []
    parts += [f"cam {table.camids[row]}"] if table.camids[row] >= 0 else []
    return ", ".join([*parts, *([str(table.views[row])] if table.views[row] else [])])


def mark(hit: Hit) -> str:
    """The sign that stands beside the colour, with the rank."""
    sign = MARKS.get(hit.kind, "\u2717")
    return sign if hit.rank is None else f"{sign} {hit.rank}"


def said(hit: Hit) -> str:
    """The same in words."""
    what = _SAID.get(hit.kind, "another person")
    return what if hit.rank is None else f"rank {hit.rank}, {what}"


def _footer(budget: Budget, queries: int) -> str:
    text = "This page holds all its pictures, runs no script and loads nothing."
    if budget == Budget(*_FULL, queries):
        return text
    if not budget.height:
        return f"{text} Its crops are left out to keep it within its limit of size."
    fewer = (
        "" if budget.queries == queries else f", and {budget.queries} of {queries} lists of a kind are shown"
    )
    return (
        f"{text} To keep within its limit of size, crops are at most {budget.height} pixels high at JPEG "
        f"quality {budget.quality}{fewer}."
    )
