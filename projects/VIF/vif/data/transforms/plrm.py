"""Patch-Level RotateMix (PLRM), equations 1-5 of VIF-AGReID.

H x W image, n patch side, gh x gw = H/n x W/n patches, patch (i, j) in row i and column j from 0.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from vif.data.transforms import checks
from vif.data.transforms.base import Params, Transform
from vif.data.transforms.rotate_mix import FILLS, grid_shape, rotate_mix

MODES = ("center", "literal", "uniform")


def patch_probability(
    grid_h: int, grid_w: int, base_prob: float, center_weight: float, mode: str = "center"
) -> np.ndarray:
    """Probability of each patch to be rotated and mixed: clip(P_0 + C_weight * (1 - distance), 0, 1).

    The distance in it depends on the mode:

    * ``center``, this project's reading: patch (i, j), from 0, lies at (i + 1/2, j + 1/2); its distance is
      taken to the middle of the grid (gh/2, gw/2) and divided by the half diagonal sqrt((gh/2)^2 + (gw/2)^2).
      The probability grows from the edges to the centre, as the paper's text says.
    * ``literal``, equation 3 as printed: i = 1..gh and j = 1..gw as in equation 2, the distance is taken to
      (H/n, W/n) = (gh, gw), which is the bottom right patch, and divided by sqrt(gh^2 + gw^2).
    * ``uniform``: every patch gets the mean of the ``center`` grid, to tell what the pattern adds.

    Args:
        grid_h: number of patch rows gh, >= 1.
        grid_w: number of patch columns gw, >= 1.
        base_prob: P_0, in [0, 1].
        center_weight: C_weight, in [0, 1].
        mode: ``center``, ``literal`` or ``uniform``.

    Returns:
        float64 (gh, gw) in [0, 1].

    Raises:
        ConfigError: an argument is out of range.
    """
    checks.integer("grid_h", grid_h, 1)
    checks.integer("grid_w", grid_w, 1)
    checks.number("base_prob", base_prob, 0.0, 1.0)
    checks.number("center_weight", center_weight, 0.0, 1.0)
    checks.choice("mode", mode, MODES)
    rows, cols = np.mgrid[:grid_h, :grid_w].astype(np.float64)
    if mode == "literal":
        distance = np.hypot(rows + 1 - grid_h, cols + 1 - grid_w) / np.hypot(grid_h, grid_w)
    else:
        distance = np.hypot(rows + 0.5 - grid_h / 2, cols + 0.5 - grid_w / 2) / np.hypot(
            grid_h / 2, grid_w / 2
        )
    grid = np.clip(base_prob + center_weight * (1 - distance), 0.0, 1.0)
    return np.full_like(grid, grid.mean()) if mode == "uniform" else grid


_cached_probability = lru_cache(maxsize=32)(patch_probability)


class PatchLevelRotateMix(Transform):
    """Patch-Level RotateMix as a transform; place it after crop, pad and flip and before random erasing.

    Paper: "View-Invariant Feature Learning for Aerial-Ground Person Re-Identification", section 3.2. The
    defaults are the paper's values, except fill and mode, which it leaves open or contradicts.

    Args:
        prob: P_img, probability that an image is transformed, in [0, 1] (eq. 1).
        base_prob: P_0, in [0, 1] (eq. 3).
        center_weight: C_weight, in [0, 1] (eq. 3).
        patch_size: n, pixels, >= 2; has to divide the sides of every image (eq. 2).
        max_angle: theta_max, degrees, in [0, 180]; angles are uniform in [-theta_max, theta_max) (eq. 4).
        alpha: share of the rotated patch in the mix, in [0, 1] (eq. 5).
        fill: corners of a rotated patch, ``zeros``, ``border`` or ``reflect``; see `rotate_mix`.
        mode: pattern of the probabilities, ``center``, ``literal`` or ``uniform``; see `patch_probability`.

    Raises:
        ConfigError: an argument is out of range; on use, when n does not divide the image's sides.
    """

    arguments = (
        "prob",
        "base_prob",
        "center_weight",
        "patch_size",
        "max_angle",
        "alpha",
        "fill",
        "mode",
    )

    def __init__(
        self,
        prob: float = 0.5,
        base_prob: float = 0.3,
        center_weight: float = 0.8,
        patch_size: int = 16,
        max_angle: float = 45.0,
        alpha: float = 0.5,
        fill: str = "zeros",
        mode: str = "center",
    ):
        self.prob = checks.number("prob", prob, 0.0, 1.0)
        self.base_prob = checks.number("base_prob", base_prob, 0.0, 1.0)
        self.center_weight = checks.number("center_weight", center_weight, 0.0, 1.0)
        self.patch_size = checks.integer("patch_size", patch_size, 2)
        self.max_angle = checks.number("max_angle", max_angle, 0.0, 180.0)
        self.alpha = checks.number("alpha", alpha, 0.0, 1.0)
        self.fill = checks.choice("fill", fill, FILLS)
        self.mode = checks.choice("mode", mode, MODES)

    def sample(self, rng: np.random.Generator, height: int, width: int) -> Params:
        """Draw what one image gets.

        Returns:
            ``mask`` bool (gh, gw), all False when the image stays as it is (probability 1 - P_img), and
            ``angles`` float64 (gh, gw), degrees, counter-clockwise positive.
        """
        grid = grid_shape(height, width, self.patch_size)
        if rng.random() >= self.prob:
            return {"mask": np.zeros(grid, dtype=bool), "angles": np.zeros(grid)}
        probability = _cached_probability(*grid, self.base_prob, self.center_weight, self.mode)
        mask = rng.random(grid) < probability
        return {"mask": mask, "angles": rng.uniform(-self.max_angle, self.max_angle, grid)}

    def apply(self, image: Any, params: Params) -> Any:
        """`rotate_mix` with the drawn parameters; takes what that takes, PIL images too."""
        return rotate_mix(image, params["angles"], params["mask"], self.patch_size, self.alpha, self.fill)

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        """Sample for this image's size, and apply."""
        if isinstance(image, np.ndarray):
            height, width = image.shape[:2]
        else:
            width, height = image.size
        return self.apply(image, self.sample(rng, height, width))
