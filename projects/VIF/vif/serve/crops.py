"""The images of a gallery's rows, from the folder that the gallery names and from nowhere else."""

import io
import os

from ..errors import DataError
from ..inference.images import ImageFailure, load_image

MAX_SIDE = 2048


class Crops:
    """Image files below a folder, as JPEGs.

    Args:
        root: the folder.

    Raises:
        DataError: there is no such folder.
    """

    def __init__(self, root: str) -> None:
        if not os.path.isdir(root):
            raise DataError(
                f"there is no folder {root!r} of images; name the one they are in now with --root."
            )
        self._root = os.path.realpath(root)

    def jpeg(self, path: str, size: int = MAX_SIDE) -> bytes:
        """An image decoded and encoded anew, so that what is no image, or hides in one, is not sent.

        Args:
            path: relative to the folder, or absolute and inside it.
            size: the longer side has at most so many pixels, >= 1.

        Raises:
            DataError: it lies outside the folder, is not there, or is no image.
        """
        from PIL import Image

        try:
            real = os.path.realpath(os.path.join(self._root, path))
            inside = os.path.commonpath([self._root, real]) == self._root
        except ValueError:  # a zero byte, or another drive
            inside = False
        if not inside:
            raise DataError(f"image {path!r} lies outside the gallery's folder of images; it is not read.")
        pixels = load_image(real)
        if isinstance(pixels, ImageFailure):
            raise DataError(f"image {path!r}: {pixels.reason}.")
        image = Image.fromarray(pixels)
        image.thumbnail((size, size))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=90, subsampling=0)
        return out.getvalue()
