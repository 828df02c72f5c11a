"""Each figure of a report as a PNG file, ranked lists included."""

import functools
import os
from typing import Any, List

from ..features import FeatureTable
from .blocks import Lists, Report
from .canvas import IMPOSTOR, MATCH, Palette, save_png
from .crops import Crops
from .lists import IGNORED, RankedList
from .lists import MATCH as SAME
from .page import labels, mark

_QUERY = "#1f66b8"
_PITCH = (0.78, 1.84)  # inches from crop to crop and from list to list
_CROP = (0.62, 1.12)  # inches of a crop


def write_pictures(report: Report, crops: Crops, folder: str) -> List[str]:
    """Write a PNG file for each figure, and `queries-PROTOCOL.png` for the ranked lists of each protocol.

    Returns:
        The paths.
    """
    paths = []
    for drawing in report.drawings():
        paths.append(os.path.join(folder, f"{drawing.name}.png"))
        save_png(drawing.draw, paths[-1])
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Lists):
                name = "".join(c if c.isalnum() else "-" for c in block.protocol.name)
                paths.append(os.path.join(folder, f"queries-{name}.png"))
                save_png(functools.partial(lists_figure, block, report.shown, crops), paths[-1])
    return paths


def lists_figure(block: Lists, table: Any, crops: Crops, palette: Palette) -> Any:
    """The ranked lists of a protocol: a row a query, its title above it."""
    from matplotlib.figure import Figure

    rows = [(title, found) for title, group in block.groups.items() for found in group]
    columns = 1 + max(len(found.hits) for _, found in rows)
    width, height = _PITCH[0] * columns + 0.3, _PITCH[1] * len(rows) + 0.4
    figure = Figure(figsize=(width, height), facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))  # inches from the top left
    axes.axis("off")
    axes.text(0.08, 0.12, block.protocol.label, fontsize=10, color=palette.ink, va="top")
    for number, (title, found) in enumerate(rows):
        _draw_list(axes, 0.4 + number * _PITCH[1], title, found, table, crops, palette)
    return figure


def _draw_list(
    axes: Any, top: float, title: str, found: RankedList, table: FeatureTable, crops: Crops, palette: Palette
) -> None:
    """One list, `top` inches from above."""
    head = f"{title}: AP {100 * found.ap:.1f} %, first match at rank {found.first:,}"
    axes.text(0.08, top + 0.02, head, fontsize=7, color=palette.muted, va="top")
    _draw_crop(axes, 0.08, top + 0.18, found.row, _QUERY, False, "query", table, crops, palette)
    for column, hit in enumerate(found.hits, start=1):
        colour = {SAME: MATCH, IGNORED: palette.muted}.get(hit.kind, IMPOSTOR)
        left, words = 0.2 + column * _PITCH[0], f"{mark(hit)} d {hit.distance:.3f}"
        ignored = hit.kind == IGNORED
        _draw_crop(axes, left, top + 0.18, hit.row, colour, ignored, words, table, crops, palette)


def _draw_crop(
    axes: Any,
    left: float,
    top: float,
    row: int,
    colour: str,
    ignored: bool,
    words: str,
    table: FeatureTable,
    crops: Crops,
    palette: Palette,
) -> None:
    """An image in a frame, with words and what is known of it below."""
    from matplotlib.patches import Rectangle

    pixels, below = crops.pixels(str(table.paths[row])), top + _CROP[1]
    if pixels is not None:
        where = (left, left + _CROP[0], below, top)
        axes.imshow(
            pixels, extent=where, aspect="auto", interpolation="lanczos", alpha=0.6 if ignored else 1.0
        )
    dash = "--" if ignored else "-"
    axes.add_patch(
        Rectangle((left, top), *_CROP, fill=False, edgecolor=colour, linewidth=2.2, linestyle=dash)
    )
    axes.text(left, below + 0.04, words, fontsize=6, color=colour, va="top", weight="bold")
    known = labels(table, row).replace(", ", "\n").replace("\ncam", ", cam")
    axes.text(left, below + 0.15, known, fontsize=5, color=palette.muted, va="top")
