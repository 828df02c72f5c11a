"""Figures in the colours of a page or of paper, as inline SVG and as PNG."""

import contextlib
import io
import os
import re
from typing import Any, Callable, Iterator, NamedTuple, Tuple

from ..files import atomic_path


class Palette(NamedTuple):
    """Colours by what they are for; MATCH and IMPOSTOR differ in lightness, too."""

    ink: str
    muted: str
    grid: str


MATCH, IMPOSTOR = "#1f9d63", "#d1495b"
SERIES = ("#2f7fd6", "#e08a1e", "#1f9d63", "#8e6fd1", "#d1495b", "#7a8594", "#b0763a", "#19a5b8")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
MARKERS = ("o", "^", "s", "D", "v", "P")
PAPER = Palette("#1c2733", "#66707c", "#e3e6ea")
# Colours of no figure, which a page's style sheet replaces: so one SVG serves light and dark.
PAGE = Palette("#010203", "#040506", "#070809")
_ROLES = {PAGE.ink: "currentColor", PAGE.muted: "var(--muted)", PAGE.grid: "var(--grid)"}


class Drawing(NamedTuple):
    """A figure of a report.

    Attributes:
        name: file name without its ending.
        alt: what it shows, for those who do not see it.
        caption: how to read it.
        draw: from a palette to a matplotlib Figure.
    """

    name: str
    alt: str
    caption: str
    draw: Callable[[Palette], Any]


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """Text as it is: labels come from files, and a "$" in one is no formula."""
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False, "svg.fonttype": "none", "font.size": 9}):
        yield


def panels(
    rows: int, columns: int, size: Tuple[float, float], palette: Palette, **shared: Any
) -> Tuple[Any, Any]:
    """Figure of `size` inches without a background, and its (rows, columns) axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", facecolor="none")
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    for each in axes.flat:
        each.set_facecolor("none")
        each.spines[["top", "right"]].set_visible(False)
        each.spines[["left", "bottom"]].set_color(palette.muted)
        each.grid(color=palette.grid, linewidth=0.6)
        each.set_axisbelow(True)
        each.tick_params(labelsize=8, colors=palette.muted, labelcolor=palette.ink)
        for text in (each.xaxis.label, each.yaxis.label, each.title):
            text.set_color(palette.ink)
    return figure, axes


def svg(drawing: Drawing) -> str:
    """The figure as SVG to put into HTML: no declaration, no metadata, no address; colours are CSS's."""
    from matplotlib import rc_context

    out = io.StringIO()
    with _style(), rc_context({"svg.hashsalt": drawing.name}):
        drawing.draw(PAGE).savefig(out, format="svg", metadata={"Date": None, "Creator": None}, dpi=144)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r"(<g) id=\"[^\"]*\"", r"\1", text)  # counters, the same in every figure
    text = re.sub(
        r'<svg ([^>]*?)width="([\d.]+)pt" height="([\d.]+)pt"', r'<svg \1style="max-width: \2pt"', text
    )
    for colour, role in _ROLES.items():
        text = text.replace(colour, role)
    return text


def save_png(figure: Callable[[Palette], Any], path: str) -> None:
    """Write the figure as it looks on paper; the file appears when it is complete."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with _style(), atomic_path(path) as partial:
        figure(PAPER).savefig(partial, format="png", dpi=150, facecolor="white", metadata={"Software": None})
