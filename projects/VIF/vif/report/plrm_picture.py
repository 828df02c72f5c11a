"""PLRM before and after, with the probabilities of the patches and what was drawn from them."""

from typing import Any, List, NamedTuple, Sequence

import numpy as np

from ..data.transforms import PatchLevelRotateMix, patch_probability
from .canvas import SERIES, Palette

_INCHES = (1.55, 0.34)  # width of a panel, height of its title


class Mixed(NamedTuple):
    """One image before and after.

    Attributes:
        title: what it is.
        image: uint8 (H, W, 3).
        mask: (gh, gw) bool, selected patches.
        angles: (gh, gw) degrees.
        result: uint8 (H, W, 3), what training would see.
    """

    title: str
    image: np.ndarray
    mask: np.ndarray
    angles: np.ndarray
    result: np.ndarray


def mix(images: Sequence[Any], plrm: PatchLevelRotateMix, seed: int) -> List[Mixed]:
    """Apply PLRM to (title, image) pairs; the images draw from one generator, in order."""
    rng = np.random.default_rng(seed)
    found = []
    for title, image in images:
        params = plrm.sample(rng, *image.shape[:2])
        found.append(Mixed(title, image, params["mask"], params["angles"], plrm.apply(image, params)))
    return found


def plrm_figure(rows: Sequence[Mixed], plrm: PatchLevelRotateMix, palette: Palette) -> Any:
    """A row an image: before, P of each patch, selected patches with their angles, after."""
    from matplotlib.figure import Figure

    height = max(row.image.shape[0] / row.image.shape[1] for row in rows) * _INCHES[0] + _INCHES[1]
    figure = Figure(
        figsize=(4 * _INCHES[0] + 1.0, height * len(rows)), layout="constrained", facecolor="none"
    )
    axes = figure.subplots(len(rows), 4, squeeze=False)
    for line, row in zip(axes, rows):
        gh, gw = row.mask.shape
        grid = patch_probability(gh, gw, plrm.base_prob, plrm.center_weight, plrm.mode)
        line[0].imshow(row.image, interpolation="nearest")
        shown = _heat(line[1], row.image, grid)
        _angles(line[2], row, plrm.patch_size, palette)
        line[3].imshow(row.result, interpolation="nearest")
        titles = (row.title, "P of a patch", "rotated, degrees", "after PLRM")
        for plot, title in zip(line, titles):
            plot.set(xticks=[], yticks=[])
            plot.set_title(title, fontsize=8, color=palette.ink)
            plot.spines[:].set_color(palette.grid)
        bar = figure.colorbar(shown, ax=line[1], shrink=0.7, aspect=14, pad=0.03)
        bar.ax.tick_params(labelsize=6, colors=palette.ink)
        bar.outline.set_edgecolor(palette.grid)
    return figure


def _heat(plot: Any, image: np.ndarray, grid: np.ndarray) -> Any:
    height, width = image.shape[:2]
    grey = image.mean(axis=2)
    plot.imshow(grey, cmap="gray", interpolation="nearest", vmin=0, vmax=255)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    shown = plot.imshow(
        grid, cmap="viridis", vmin=0, vmax=1, alpha=0.75, extent=extent, interpolation="nearest"
    )
    if grid.size <= 150:
        _numbers(plot, grid, width / grid.shape[1], "{:.2f}", "white")
    return shown


def _angles(plot: Any, row: Mixed, n: int, palette: Palette) -> None:
    from matplotlib.patches import Rectangle

    plot.imshow(row.image, interpolation="nearest", alpha=0.45)
    for i, j in zip(*np.nonzero(row.mask)):
        corner = (j * n - 0.5, i * n - 0.5)
        plot.add_patch(Rectangle(corner, n, n, fill=False, edgecolor=SERIES[0], linewidth=0.9))
    if row.mask.size <= 150:
        _numbers(plot, np.where(row.mask, row.angles, np.nan), n, "{:+.0f}", palette.ink)


def _numbers(plot: Any, values: np.ndarray, n: float, form: str, colour: str) -> None:
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            x, y = (j + 0.5) * n - 0.5, (i + 0.5) * n - 0.5
            plot.text(x, y, form.format(value), fontsize=4.5, color=colour, ha="center", va="center")
