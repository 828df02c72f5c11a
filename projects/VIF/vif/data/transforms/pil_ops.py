"""Transforms of other libraries that take PIL images and draw from global generators, made deterministic."""

import random
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Sequence, Tuple

import numpy as np

from vif.data.transforms import checks
from vif.data.transforms.base import Params, Transform
from vif.data.transforms.checks import Size


class PILTransform(Transform):
    """A callable `PIL image -> PIL image or array`, driven by our generator.

    Python's, numpy's and torch's global CPU generators are seeded from `rng` for the call and put back after
    it, so that the result depends on `rng` alone. Pickles when the callable does.

    Args:
        transform: e.g. a transform of torchvision, fastreid's AutoAugment or AugMix.
        prob: probability that it is called, in [0, 1].
    """

    arguments: Sequence[str] = ("transform", "prob")

    def __init__(self, transform: Callable[[Any], Any], prob: float = 1.0):
        self.transform = transform
        self.prob = checks.number("prob", prob, 0.0, 1.0)

    def sample(self, rng: np.random.Generator, height: int, width: int) -> Params:
        """``seed``, a whole number below 2^32, or None when the image stays as it is."""
        return {"seed": int(rng.integers(2**32)) if rng.random() < self.prob else None}

    def apply(self, image: np.ndarray, params: Params) -> np.ndarray:
        """The callable's result as an array, or the input itself."""
        from PIL import Image

        if params["seed"] is None:
            return image
        with _seeded(params["seed"]):
            return np.asarray(self.transform(Image.fromarray(image)))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    import torch

    # default_generator alone: torch.manual_seed would reseed the GPUs as well
    kept = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        torch.default_generator.set_state(kept[2])


class ColorJitter(PILTransform):
    """torchvision's ColorJitter with probability `prob`; fastreid's INPUT.CJ and its values."""

    arguments = ("prob", "brightness", "contrast", "saturation", "hue")

    def __init__(
        self,
        prob: float = 0.5,
        brightness: float = 0.15,
        contrast: float = 0.15,
        saturation: float = 0.1,
        hue: float = 0.1,
    ):
        from torchvision import transforms

        self.brightness = checks.number("brightness", brightness, 0.0)
        self.contrast = checks.number("contrast", contrast, 0.0)
        self.saturation = checks.number("saturation", saturation, 0.0)
        self.hue = checks.number("hue", hue, 0.0, 0.5)
        super().__init__(transforms.ColorJitter(brightness, contrast, saturation, hue), prob)


class RandomAffine(PILTransform):
    """torchvision's RandomAffine, nearest neighbour, corners 0; fastreid's INPUT.AFFINE and its values.

    Args:
        degrees: rotation from U(-degrees, degrees), >= 0.
        scale: (from, to), > 0.
        shear: degrees, along x from U(-shear, shear), >= 0.
    """

    arguments = ("degrees", "scale", "shear")

    def __init__(self, degrees: float = 10.0, scale: Tuple[float, float] = (0.9, 1.1), shear: float = 0.1):
        from torchvision import transforms

        self.degrees = checks.number("degrees", degrees, 0.0)
        self.scale = checks.interval("scale", scale, 1e-6)
        self.shear = checks.number("shear", shear, 0.0)
        super().__init__(transforms.RandomAffine(degrees, scale=self.scale, shear=shear, fill=0))


class RandomResizedCrop(PILTransform):
    """torchvision's RandomResizedCrop, bicubic; fastreid's INPUT.CROP at training time.

    Args:
        size: (height, width), or one number for a square.
        scale: (from, to), share of the image's area, in (0, 1].
        ratio: (from, to), width / height, > 0.
    """

    arguments = ("size", "scale", "ratio")

    def __init__(
        self,
        size: Size,
        scale: Tuple[float, float] = (0.16, 1.0),
        ratio: Tuple[float, float] = (3 / 4, 4 / 3),
    ):
        from torchvision import transforms

        self.size = checks.height_width("size", size)
        self.scale = checks.interval("scale", scale, 1e-6, 1.0)
        self.ratio = checks.interval("ratio", ratio, 1e-6)
        super().__init__(
            transforms.RandomResizedCrop(
                self.size, self.scale, self.ratio, interpolation=transforms.InterpolationMode.BICUBIC
            )
        )


class CenterCrop(PILTransform):
    """torchvision's CenterCrop, (height, width) or one number for a square; INPUT.CROP at test time."""

    arguments = ("size",)

    def __init__(self, size: Size):
        from torchvision import transforms

        self.size = checks.height_width("size", size)
        super().__init__(transforms.CenterCrop(self.size))
