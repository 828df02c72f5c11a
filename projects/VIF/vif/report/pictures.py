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
_INCHES = (0.78, 1.62)  # of one crop with its words


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
    """The ranked lists of a protocol: a row a query, its title on the left of it."""
    from matplotlib.figure import Figure

    rows = [(title, found) for title, group in block.groups.items() for found in group]
    columns = 1 + max(len(found.hits) for _, found in rows)
    size = (_INCHES[0] * columns + 0.3, (_INCHES[1] + 0.22) * len(rows) + 0.4)
    figure = Figure(figsize=size, facecolor="none")
    figure.suptitle(
        block.protocol.label, fontsize=10, color=palette.ink, x=0.01, ha="left", y=1 - 0.12 / size[1]
    )
    for number, (title, found) in enumerate(rows):
        _draw_list(figure, size, number, title, found, table, crops, palette)
    return figure


def _draw_list(
    figure: Any,
    size: Any,
    number: int,
    title: str,
    found: RankedList,
    table: FeatureTable,
    crops: Crops,
    palette: Palette,
) -> None:
    width, height = size
    top = height - 0.4 - number * (_INCHES[1] + 0.22)
    head = f"{title}: AP {100 * found.ap:.1f} %, first match at rank {found.first:,}"
    figure.text(0.08 / width, (top - 0.02) / height, head, fontsize=7, color=palette.muted, va="top")
    cells = [(found.row, "query", _QUERY, "-", "")]
    for hit in found.hits:
        colour = {SAME: MATCH, IGNORED: palette.muted}.get(hit.kind, IMPOSTOR)
        cells.append(
            (hit.row, mark(hit), colour, "--" if hit.kind == IGNORED else "-", f"d {hit.distance:.3f}")
        )
    for column, (row, sign, colour, dash, distance) in enumerate(cells):
        left = 0.08 + column * _INCHES[0] + (0.12 if column else 0)
        box = (left / width, (top - 1.3) / height, 0.62 / width, 1.12 / height)
        axes = figure.add_axes(box, xticks=[], yticks=[])
        pixels = crops.pixels(str(table.paths[row]))
        if pixels is not None:
            axes.imshow(pixels, aspect="auto", interpolation="lanczos", alpha=0.6 if dash == "--" else 1.0)
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=2.2, linestyle=dash)
        words = labels(table, row).replace(", ", "\n").replace("\ncam", ", cam")
        figure.text(
            left / width,
            (top - 1.34) / height,
            f"{sign} {distance}".strip(),
            fontsize=6,
            color=colour,
            va="top",
            weight="bold",
        )
        figure.text(left / width, (top - 1.45) / height, words, fontsize=5, color=palette.muted, va="top")
