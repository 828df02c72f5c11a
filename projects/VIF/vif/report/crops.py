"""Small pictures of a table's images: read below a root only, shrunk, as JPEG."""

import base64
import io
import os
from typing import Dict, Optional, Sequence

import numpy as np

from ..inference.images import ImageFailure, load_image

_KEPT = 160  # pixels of height that are kept in memory
_MAX_PIXELS = 1 << 24


class Crops:
    """Images by the name that a table has for them.

    A path, absolute or relative to the working directory or to a root, is read only where it lies below a
    root after all links; any other is as if it were not there.

    Args:
        roots: folders.
    """

    def __init__(self, roots: Sequence[str]) -> None:
        self.roots = [os.path.realpath(root) for root in roots if os.path.isdir(root)]
        self._pixels: Dict[str, Optional[np.ndarray]] = {}
        self._encoded: Dict[object, str] = {}

    def find(self, path: str) -> Optional[str]:
        """The file below a root, or None."""
        for start in ("", *self.roots):
            file = os.path.realpath(os.path.join(start, path))
            inside = any(file.startswith(os.path.join(root, "")) for root in self.roots)
            if inside and os.path.isfile(file):
                return file
        return None

    def name(self, path: str) -> str:
        """The path relative to its root; its last part where it is below none."""
        file = os.path.realpath(path)
        for root in self.roots:
            if file.startswith(os.path.join(root, "")):
                return os.path.relpath(file, root).replace(os.sep, "/")
        return os.path.basename(path) if os.path.isabs(path) or ".." in path.split("/") else path

    def pixels(self, path: str) -> Optional[np.ndarray]:
        """uint8 (H, W, 3), at most `_KEPT` rows; None where the image cannot be had."""
        if path not in self._pixels:
            file = self.find(path)
            image = load_image(file, max_pixels=_MAX_PIXELS) if file else None
            usable = image is not None and not isinstance(image, ImageFailure)
            self._pixels[path] = _shrink(image, _KEPT) if usable else None  # type: ignore[arg-type]
        return self._pixels[path]

    def uri(self, path: str, height: int, quality: int) -> str:
        """A data URI of the image as JPEG; "" where it cannot be had."""
        pixels = self.pixels(path)
        if pixels is None:
            return ""
        key = (path, height, quality)
        if key not in self._encoded:
            self._encoded[key] = jpeg_uri(_shrink(pixels, height), quality)
        return self._encoded[key]


def jpeg_uri(pixels: np.ndarray, quality: int) -> str:
    """A data URI of uint8 (H, W, 3)."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def _shrink(pixels: np.ndarray, height: int) -> np.ndarray:
    """At most `height` rows and twice as many columns, in proportion."""
    from PIL import Image

    scale = min(1.0, height / pixels.shape[0], 2 * height / pixels.shape[1])
    if scale == 1.0:
        return pixels
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
