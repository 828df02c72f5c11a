"""Attention roll-out over images of each view: what the class token looks at."""

from typing import Any, Dict, List, NamedTuple, Sequence

import numpy as np
import torch

from ..data.transforms import Compose
from ..features import FeatureTable
from .canvas import Palette
from .rollout import class_attention


class Attended(NamedTuple):
    """One image: view, words above it, pixels (H, W, 3) uint8 as the network sees them, roll-out (h, w)."""

    view: str
    words: str
    pixels: np.ndarray
    weights: np.ndarray


def attend(model: Any, transform: Compose, images: Sequence[Any], device: str) -> List[Attended]:
    """Roll-out of (view, words, uint8 image) triples."""
    pixels = [transform(image, np.random.default_rng(0)) for _, _, image in images]
    batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().to(device)
    weights = class_attention(model, batch)
    return [Attended(view, words, p, w) for (view, words, _), p, w in zip(images, pixels, weights)]


def choose_people(table: FeatureTable, count: int, seed: int) -> Dict[str, List[int]]:
    """Rows by view: the same people in every view where there are enough of them, drawn with a seed."""
    rng = np.random.default_rng(seed)
    views = np.unique(table.views)
    found = [set(table.pids[table.views == view].tolist()) for view in views]
    shared = sorted(set.intersection(*found))
    pool = np.array(shared if len(shared) >= count else sorted(set.union(*found)))
    people = rng.permutation(pool)[:count]
    chosen: Dict[str, List[int]] = {}
    for view in views:
        rows = [np.flatnonzero((table.views == view) & (table.pids == pid)) for pid in people]
        chosen[str(view)] = [int(rng.choice(some)) for some in rows if len(some)]
    return chosen


def attention_figure(found: Sequence[Attended], palette: Palette) -> Any:
    """Two rows a view: images, and the same under their roll-out, each scaled to its own largest weight."""
    from matplotlib.figure import Figure

    views = list(dict.fromkeys(one.view for one in found))
    columns = max(sum(one.view == view for one in found) for view in views)
    ratio = found[0].pixels.shape[0] / found[0].pixels.shape[1]
    size = (0.9 * columns + 0.5, len(views) * (1.8 * ratio + 0.35))
    figure = Figure(figsize=size, layout="constrained", facecolor="none")
    axes = figure.subplots(2 * len(views), columns, squeeze=False)
    for plot in axes.flat:
        plot.set(xticks=[], yticks=[])
        plot.spines[:].set_visible(False)
    for index, view in enumerate(views):
        above, below = axes[2 * index], axes[2 * index + 1]
        above[0].set_ylabel(view or "images", fontsize=8, color=palette.ink)
        below[0].set_ylabel("roll-out", fontsize=8, color=palette.muted)
        for top, bottom, one in zip(above, below, [one for one in found if one.view == view]):
            top.imshow(one.pixels, interpolation="nearest")
            top.set_title(one.words, fontsize=6, color=palette.muted, pad=2)
            bottom.imshow(overlay(one.pixels, one.weights), interpolation="nearest")
    return figure


def overlay(pixels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The image with weights, scaled to 0..1 and up to its size, as a heat map over it: uint8 (H, W, 3)."""
    from matplotlib import colormaps
    from PIL import Image

    scaled = (weights - weights.min()) / max(float(np.ptp(weights)), 1e-12)
    size = (pixels.shape[1], pixels.shape[0])
    fine = np.asarray(Image.fromarray(scaled.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    fine = np.clip(fine, 0, 1)[..., None]
    heat = 255 * colormaps["inferno"](fine[..., 0])[..., :3]
    grey = pixels.mean(axis=2, keepdims=True)
    share = 0.25 + 0.55 * fine
    return np.clip((1 - share) * grey + share * heat, 0, 255).astype(np.uint8)
