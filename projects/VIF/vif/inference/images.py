"""Images of any origin as uint8 RGB arrays (H, W, 3), or the reason why not.

Ordinary files give the pixels that evaluation reads (`vif.data.transforms.read_image`). What evaluation
leaves to Pillow is decided here: transparent pixels lie over a background, 16 bits are scaled to 8.
"""

import io
import os
import stat
from dataclasses import dataclass
from typing import Any, Dict, Tuple, Union

import numpy as np

from ..errors import ConfigError, DataError, shown

Pixels = np.ndarray
Colour = Tuple[int, int, int]

MAX_PIXELS = 89_478_485  # Pillow's own limit, at which evaluation stops too
# Pillow's formats with the endings of their files; others are not decoded (EPS, for one, runs a program)
FORMATS: Dict[str, Tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k"),
    "AVIF": (".avif",),
}
_COLOURS = ("RGB", "BGR")
_ORIENTATION = 0x0112  # EXIF's tag, and what makes its values upright
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@dataclass(frozen=True)
class ImageFailure:
    """An image that gave no feature.

    Attributes:
        path: its file, or what it was ("PIL image", "array", "bytes").
        reason: why, and what to do.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f"image {shown(self.path)}: {self.reason}"


def load_image(
    source: Any, colour: str = "RGB", background: Colour = (128, 128, 128), max_pixels: int = MAX_PIXELS
) -> Union[Pixels, ImageFailure]:
    """Pixels of one image; never raises for what the image is.

    Args:
        source: path, bytes of a file, PIL image, or uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).
        colour: order of an array's channels, "RGB" or "BGR"; a fourth one is opacity.
        background: colour, 0..255, over which transparent pixels lie.
        max_pixels: images with more are not decoded.

    Returns:
        uint8 (H, W, 3), RGB, upright (EXIF); or an `ImageFailure`.
    """
    try:
        if isinstance(source, np.ndarray):
            return _from_array(source, check_colour(colour), background)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return _decode(io.BytesIO(source), background, max_pixels)
        if isinstance(source, (str, os.PathLike)):
            return _from_file(os.fspath(source), background, max_pixels)
        return _from_pillow(source, background, max_pixels)
    except DataError as error:
        return ImageFailure(describe(source), str(error))


def describe(source: Any) -> str:
    """What a failure calls this source."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "bytes"
    return "array" if isinstance(source, np.ndarray) else type(source).__name__


def check_colour(colour: str) -> str:
    """`colour`, "RGB" or "BGR".

    Raises:
        ConfigError: another value.
    """
    if colour not in _COLOURS:
        raise ConfigError(f"colour={colour!r} is unknown; choose {' or '.join(_COLOURS)}.")
    return colour


def _from_file(path: str, background: Colour, max_pixels: int) -> Pixels:
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise DataError("a folder, where an image is expected; give a folder alone, not among images")
        if not stat.S_ISREG(found.st_mode):
            raise DataError("not a regular file; take it out")
        if not found.st_size:
            raise DataError("an empty file; copy it again from its source")
        with open(path, "rb") as file:
            return _decode(file, background, max_pixels)
    except FileNotFoundError:
        raise DataError("there is no such file; check the path, or whether it was removed") from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}; check its permissions") from error
    except DataError:
        raise
    except ValueError as error:  # a zero byte in it
        raise DataError(f"no path: {error}; check where it comes from") from error


def _decode(file: Any, background: Colour, max_pixels: int) -> Pixels:
    from PIL import Image

    Image.init()  # all formats; by itself Pillow knows a few at first
    try:
        image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError as error:
        raise DataError(f"too large to be a photo of a person: {error} Cut out the person") from error
    except Exception as error:  # of Pillow's plugins, of any kind
        raise DataError(
            f"no image of a known format ({', '.join(FORMATS)}), or its start is broken; take it out"
        ) from error
    return _from_pillow(image, background, max_pixels)


def _from_pillow(image: Any, background: Colour, max_pixels: int) -> Pixels:
    """First frame of a PIL image, which may not be decoded yet."""
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise DataError("expected a path, bytes, a PIL image or a uint8 array")
    if not image.width * image.height:
        raise DataError(f"an image of {image.width} x {image.height} has no pixels; take it out")
    if image.width * image.height > max_pixels:
        raise DataError(
            f"too large to be a photo of a person: {image.width} x {image.height} is above "
            f"max_pixels={max_pixels}; cut out the person, or raise max_pixels"
        )
    try:
        image.load()
        image = _upright(image)
    except Exception as error:  # of Pillow's plugins: OSError, SyntaxError, struct.error, ValueError, ...
        raise DataError(f"cannot be decoded ({error}); copy it again, or take it out") from error
    if image.mode.startswith("I"):
        return _from_16_bits(np.asarray(image))
    if image.mode == "F":
        raise DataError("floating point pixels have no known range; save them as 8 or 16 bits")
    try:
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            below = Image.new("RGBA", image.size, (*background, 255))
            image = Image.alpha_composite(below, image.convert("RGBA"))
        return np.asarray(image.convert("RGB"))
    except Exception as error:  # a mode that Pillow cannot convert, such as La
        raise DataError(f"{image.mode} pixels do not become RGB ({error}); save them as RGB") from error


def _upright(image: Any) -> Any:
    """The image turned as its EXIF part says; a broken part turns nothing and is no failure.

    `ImageOps.exif_transpose` turns the same way, but writes the other tags again and fails at broken ones.
    """
    from PIL import Image

    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # a broken part: SyntaxError, struct.error, ...
        return image
    turn = _TURNS.get(orientation)
    return image.transpose(Image.Transpose[turn]) if turn else image


def _from_16_bits(values: np.ndarray) -> Pixels:
    """Grey integers (H, W), 0..65535, to 0..255."""
    if values.min() < 0 or values.max() > 65535:
        raise DataError("32-bit pixels have no known range; save them as 8 or 16 bits")
    grey = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _from_array(array: np.ndarray, colour: str, background: Colour) -> Pixels:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        raise DataError(
            "expected a uint8 array (H, W), (H, W, 3) or (H, W, 4) with pixels, "
            f"got {array.dtype} {array.shape}"
        )
    if channels == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if colour == "BGR":
        array = array[..., [2, 1, 0, 3][:channels]]
    if channels == 3:
        return np.ascontiguousarray(array)
    from PIL import Image

    return _from_pillow(Image.fromarray(np.ascontiguousarray(array)), background, array.size)
