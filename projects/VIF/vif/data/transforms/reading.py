"""Image files as uint8 RGB arrays (H, W, 3)."""

import errno
import io
import os
import stat
import warnings
from typing import Optional, Union

import cv2
import numpy as np

from vif.errors import DataError, UnreadableImage, shown

PathLike = Union[str, "os.PathLike[str]"]

_FAST_PIXELS = 2**24  # larger JPEGs take Pillow's way, which knows about decompression bombs
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # the machine is at its limits, the image is not bad
# JPEG markers: start of frame, baseline and progressive; those that carry no length; the scan
_FRAMES = (0xC0, 0xC1, 0xC2)
_SCAN = 0xDA


def read_image(path: PathLike) -> np.ndarray:
    """Read an image file, EXIF orientation applied, pixels as Pillow decodes them.

    Equal to fastreid's reader for RGB and grey files. Palette and transparent files are converted to RGB
    (fastreid's data set would pass palette indices or a fourth channel on to the model).

    Args:
        path: file name.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        UnreadableImage: the file is missing, no regular file, empty, cut short, no image, or has so many
            pixels that Pillow takes it for a decompression bomb; names the file.
        DataError: the machine has no memory or file descriptor left.
    """
    return _decode_pillow(_read_bytes(path), path)


def read_image_fast(path: PathLike) -> np.ndarray:
    """As `read_image`, for training: plain JPEG files are decoded by OpenCV, in about half the time.

    Both libraries use libjpeg; where their builds differ (libjpeg against libjpeg-turbo) pixels may differ by
    a grey level or two. Other files, and JPEGs cut short or above 16 megapixels, go to Pillow.
    """
    data = _read_bytes(path)
    if _is_plain_jpeg(data):
        image = _decode_opencv(data)
        if image is not None:
            return image
    return _decode_pillow(data, path)


def _read_bytes(path: PathLike) -> bytes:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            data = file.read() if regular else b""
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        if getattr(error, "errno", None) in _EXHAUSTED:
            raise DataError(f"cannot read image {shown(path)}: {reason}, of which it is no fault") from error
        raise UnreadableImage(
            f"cannot read image {shown(path)}: {reason}; check the path and the data set's root folder"
        ) from error
    if not regular:
        raise UnreadableImage(f"image {shown(path)} is no regular file; take it out")
    if not data:
        raise UnreadableImage(f"image {shown(path)} is an empty file; copy it again from its source")
    return data


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting: a pipe that nobody writes to would stop the run for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _decode_pillow(data: bytes, path: PathLike) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(
            f"image {shown(path)} is too large to be a photo of a person: {error}"
        ) from error
    except MemoryError as error:
        raise DataError(f"no memory to decode image {shown(path)}") from error
    except UnidentifiedImageError as error:
        raise UnreadableImage(
            f"image {shown(path)} cannot be decoded (no image of a known format); replace it or take it out"
        ) from error
    except Exception as error:  # Pillow's plugins raise SyntaxError, struct.error, ValueError, OSError, ...
        raise UnreadableImage(
            f"image {shown(path)} cannot be decoded ({error}); replace it or take it out"
        ) from error


def _decode_opencv(data: bytes) -> Optional[np.ndarray]:
    """OpenCV's decoder, None when it fails."""
    buffer = np.frombuffer(data, dtype=np.uint8)
    flag = getattr(cv2, "IMREAD_COLOR_RGB", None)
    if flag is not None:
        return cv2.imdecode(buffer, flag)
    image = cv2.imdecode(buffer, cv2.IMREAD_COLOR)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether both decoders agree on it: a whole 8-bit JPEG of one or three channels and sane size."""
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return False
    at, end = 2, len(data) - 10
    while at < end and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _FRAMES:
            height = int.from_bytes(data[at + 5 : at + 7], "big")
            width = int.from_bytes(data[at + 7 : at + 9], "big")
            return data[at + 4] == 8 and data[at + 9] in (1, 3) and 0 < height * width <= _FAST_PIXELS
        if marker == _SCAN or length < 2:
            return False
        at += 2 + length
    return False
