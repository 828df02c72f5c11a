"""Resize, crop and flip on uint8 RGB arrays (H, W, 3)."""

from typing import Tuple

import cv2
import numpy as np

from vif.data.transforms import checks
from vif.data.transforms.base import Params, Transform
from vif.data.transforms.checks import Size
from vif.errors import ConfigError

_BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "edge": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
    "symmetric": cv2.BORDER_REFLECT,
}


class Resize(Transform):
    """Bicubic resize with antialiasing, as fastreid does it (`T.Resize(size, interpolation=3)`).

    Args:
        size: (height, width), or one number for the shorter side, the ratio kept.
        exact: True gives Pillow's pixels, bit by bit: use it at test time. False gives torchvision's kernel
            of the same formula, 3 to 5 times faster, whose 16-bit weights put pixels up to two grey levels
            off (0.1 to 0.3 on average): fit for training. torchvision < 0.16 lacks it: then Pillow's.
    """

    arguments = ("size", "exact")

    def __init__(self, size: Size, exact: bool = True):
        checks.height_width("size", size)
        self.size: Tuple[int, ...] = (size,) if isinstance(size, int) else tuple(size)
        self.exact = exact

    def apply(self, image: np.ndarray, params: Params) -> np.ndarray:
        """The resized image; the input itself where its size is right."""
        height, width = self._target(*image.shape[:2])
        if (height, width) == image.shape[:2]:
            return image
        if not self.exact:
            try:
                return _resize_torch(image, height, width)
            except ImportError:
                pass
        from PIL import Image

        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))

    def _target(self, height: int, width: int) -> Tuple[int, int]:
        if len(self.size) == 2:
            return self.size[0], self.size[1]
        short = self.size[0]
        if height <= width:
            return short, int(short * width / height)
        return int(short * height / width), short


def _resize_torch(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """torchvision's uint8 bicubic kernel, on the array's memory."""
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2.functional import resize_image

    tensor = torch.from_numpy(image if image.flags.writeable else image.copy()).permute(2, 0, 1)
    resized = resize_image(tensor, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return np.ascontiguousarray(resized.permute(1, 2, 0).numpy())


class PadCrop(Transform):
    """Pad all sides, then crop a window at a uniform place (torchvision's Pad and RandomCrop).

    Args:
        size: (height, width) of the result, or one number for a square.
        padding: pixels added on each side, >= 0.
        mode: what is added, ``constant`` (0), ``edge``, ``reflect`` (edge not repeated) or ``symmetric``.

    Raises:
        ConfigError: an argument is out of range; on use, when the padded image is smaller than the window.
    """

    arguments = ("size", "padding", "mode")

    def __init__(self, size: Size, padding: int = 0, mode: str = "constant"):
        self.size = checks.height_width("size", size)
        self.padding = checks.integer("padding", padding, 0)
        self.mode = checks.choice("mode", mode, tuple(_BORDERS))

    def sample(self, rng: np.random.Generator, height: int, width: int) -> Params:
        """``top`` and ``left`` of the window in the padded image, whole numbers."""
        spare = height + 2 * self.padding - self.size[0], width + 2 * self.padding - self.size[1]
        if min(spare) < 0:
            raise ConfigError(
                f"size {self.size} must not exceed the padded image, {height} x {width} with "
                f"padding {self.padding} on each side"
            )
        return {"top": int(rng.integers(spare[0] + 1)), "left": int(rng.integers(spare[1] + 1))}

    def apply(self, image: np.ndarray, params: Params) -> np.ndarray:
        """The window, (height, width, 3)."""
        pad, border = self.padding, _BORDERS[self.mode]
        padded = cv2.copyMakeBorder(image, pad, pad, pad, pad, border, value=0) if pad else image
        top, left = params["top"], params["left"]
        return np.ascontiguousarray(padded[top : top + self.size[0], left : left + self.size[1]])


class HorizontalFlip(Transform):
    """Mirror left and right with probability `prob`, in [0, 1]."""

    arguments = ("prob",)

    def __init__(self, prob: float = 0.5):
        self.prob = checks.number("prob", prob, 0.0, 1.0)

    def sample(self, rng: np.random.Generator, height: int, width: int) -> Params:
        """``flip``, a bool."""
        return {"flip": bool(rng.random() < self.prob)}

    def apply(self, image: np.ndarray, params: Params) -> np.ndarray:
        """The mirrored image, or the input itself."""
        return cv2.flip(image, 1) if params["flip"] else image
