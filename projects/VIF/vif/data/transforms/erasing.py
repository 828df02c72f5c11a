"""Random erasing on uint8 RGB arrays (H, W, 3)."""

import math
from typing import Sequence, Tuple

import numpy as np

from vif.data.transforms import checks
from vif.data.transforms.base import Params, Transform
from vif.errors import ConfigError

_ATTEMPTS = 10  # torchvision's


class RandomErasing(Transform):
    """Paint one random rectangle in one colour, distributed as torchvision's RandomErasing.

    Zhong et al., "Random Erasing Data Augmentation", AAAI 2020.

    Args:
        prob: probability that an image is erased, in [0, 1].
        value: colour (red, green, blue), 0..255, rounded to whole grey levels; fastreid's INPUT.REA.VALUE.
        scale: (from, to), share of the image's area, in [0, 1]; uniform.
        ratio: (from, to), height / width, > 0; log-uniform.

    Raises:
        ConfigError: an argument is out of range.
    """

    arguments = ("prob", "value", "scale", "ratio")

    def __init__(
        self,
        prob: float = 0.5,
        value: Sequence[float] = (123.675, 116.28, 103.53),
        scale: Tuple[float, float] = (0.02, 0.33),
        ratio: Tuple[float, float] = (0.3, 3.3),
    ):
        self.prob = checks.number("prob", prob, 0.0, 1.0)
        if len(value) != 3:
            raise ConfigError(f"value must hold three numbers (red, green, blue), got {value!r}")
        self.value = tuple(checks.number("value", part, 0.0, 255.0) for part in value)
        self.scale = checks.interval("scale", scale, 0.0, 1.0)
        self.ratio = checks.interval("ratio", ratio, 1e-6)

    def sample(self, rng: np.random.Generator, height: int, width: int) -> Params:
        """``top``, ``left``, ``height``, ``width`` of the rectangle; height 0 when nothing is erased.

        The rectangle is drawn up to ten times until it is smaller than the image in both directions.
        """
        if rng.random() < self.prob:
            for _ in range(_ATTEMPTS):
                area = height * width * rng.uniform(*self.scale)
                ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
                h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
                if h < height and w < width:
                    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
                    return {"top": int(top), "left": int(left), "height": h, "width": w}
        return {"top": 0, "left": 0, "height": 0, "width": 0}

    def apply(self, image: np.ndarray, params: Params) -> np.ndarray:
        """The image with the rectangle painted, or the input itself."""
        if not params["height"]:
            return image
        top, left = params["top"], params["left"]
        erased = image.copy()
        window = erased[top : top + params["height"], left : left + params["width"]]
        window[...] = np.rint(self.value).astype(np.uint8)
        return erased
