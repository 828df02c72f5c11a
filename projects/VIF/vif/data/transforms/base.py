"""The contract of every transform, and Compose.

A transform is `op(image, rng) -> image`: a uint8 RGB array (H, W, 3) and a numpy Generator in, such an array
out. It never writes to its input; it may return it when there is nothing to do. The same generator state
gives the same result; nothing else is random.
"""

from typing import Any, Callable, Dict, Sequence

import numpy as np

from vif.errors import DataError

Params = Dict[str, Any]
Op = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Transform:
    """Base of the project's transforms: `sample` draws the parameters, `apply` replays them exactly.

    A subclass defines both and lists its constructor's arguments, kept under the same names, in `arguments`.
    """

    arguments: Sequence[str] = ()

    def sample(self, rng: np.random.Generator, height: int, width: int) -> Params:
        """Parameters for an image of height x width; deterministic transforms have none."""
        return {}

    def apply(self, image: Any, params: Params) -> Any:
        """The transformed image; deterministic, the input is not modified."""
        raise NotImplementedError

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        """Sample for this image's size, and apply."""
        height, width = image.shape[:2]
        return self.apply(image, self.sample(rng, height, width))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.arguments)
        return f"{type(self).__name__}({values})"


class Compose:
    """Transforms one after the other, all drawing from one generator.

    Args:
        ops: callables `op(image, rng) -> image`.
    """

    def __init__(self, ops: Sequence[Op]):
        self.ops = list(ops)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The image after all transforms.

        Raises:
            DataError: an op returned something else than a uint8 array (H, W, 3); names the op.
        """
        for op in self.ops:
            image = op(image, rng)
            if not is_image(image):
                got = (
                    f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
                )
                raise DataError(f"transform {op!r} must return a uint8 array (H, W, 3), got {got}")
        return image

    def __repr__(self) -> str:
        return f"Compose([{', '.join(map(repr, self.ops))}])"


def is_image(image: Any) -> bool:
    """Whether this is a uint8 array (H, W, 3)."""
    return (
        isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    )
