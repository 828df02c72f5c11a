"""What Table 4 of VIF-AGReID compares PLRM with: rotation of the whole image, and PatchShuffle."""

import cv2
import numpy as np

from vif.data.transforms import checks
from vif.data.transforms.base import Params, Transform
from vif.data.transforms.rotate_mix import grid_shape


class RandomRotation(Transform):
    """Turn the whole image about its centre, bilinear, black outside.

    The defaults are PLRM's P_img and theta_max, since the paper gives none for this comparison.

    Args:
        prob: probability that an image is turned, in [0, 1].
        max_angle: degrees, in [0, 180]; angles are uniform in [-max_angle, max_angle), counter-clockwise
            positive.
    """

    arguments = ("prob", "max_angle")

    def __init__(self, prob: float = 0.5, max_angle: float = 45.0):
        self.prob = checks.number("prob", prob, 0.0, 1.0)
        self.max_angle = checks.number("max_angle", max_angle, 0.0, 180.0)

    def sample(self, rng: np.random.Generator, height: int, width: int) -> Params:
        """``angle`` in degrees, 0 for an image that stays as it is."""
        turned = rng.random() < self.prob
        return {"angle": float(rng.uniform(-self.max_angle, self.max_angle)) if turned else 0.0}

    def apply(self, image: np.ndarray, params: Params) -> np.ndarray:
        """The turned image, or the input itself."""
        if not params["angle"]:
            return image
        height, width = image.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), params["angle"], 1.0)
        return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)


class PatchShuffle(Transform):
    """Shuffle the pixels inside every n x n patch of an image ("PatchShuffle Regularization", 2017).

    Each patch has a permutation of its own; a pixel keeps its colour. That paper mostly shuffles 2 x 2
    patches; the probability is PLRM's P_img, since VIF-AGReID gives none for this comparison.

    Args:
        prob: probability that an image is shuffled, in [0, 1].
        patch_size: n, pixels, >= 2; has to divide the sides of every image.
    """

    arguments = ("prob", "patch_size")

    def __init__(self, prob: float = 0.5, patch_size: int = 2):
        self.prob = checks.number("prob", prob, 0.0, 1.0)
        self.patch_size = checks.integer("patch_size", patch_size, 2)

    def sample(self, rng: np.random.Generator, height: int, width: int) -> Params:
        """``order`` int (patches, n * n), the pixel that each place of a patch gets; None: none moves."""
        rows, cols = grid_shape(height, width, self.patch_size)
        if rng.random() >= self.prob:
            return {"order": None}
        identity = np.arange(self.patch_size**2)
        return {"order": rng.permuted(np.broadcast_to(identity, (rows * cols, identity.size)), axis=1)}

    def apply(self, image: np.ndarray, params: Params) -> np.ndarray:
        """The shuffled image, or the input itself."""
        if params["order"] is None:
            return image
        n, (rows, cols) = self.patch_size, grid_shape(image.shape[0], image.shape[1], self.patch_size)
        patches = image.reshape(rows, n, cols, n, -1).swapaxes(1, 2).reshape(rows * cols, n * n, -1)
        shuffled = np.take_along_axis(patches, params["order"][..., None], axis=1)
        return shuffled.reshape(rows, cols, n, n, -1).swapaxes(1, 2).reshape(image.shape)
