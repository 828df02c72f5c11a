"""RotateMix: rotate the patches of an image, each within its own square, and mix them with the original.

H x W image, C channels, n patch side, gh x gw = H/n x W/n patches, K selected patches.

One bilinear gather serves all selected patches. With ``zeros`` the patches are first laid out with one
empty row and column between them and coordinates stop there; with ``border`` and ``reflect`` coordinates
are folded back into the patch. So no patch ever reads its neighbour.
"""

from functools import lru_cache
from typing import Any, Tuple

import cv2
import numpy as np

from vif.data.transforms import checks
from vif.errors import ConfigError, DataError

FILLS = ("zeros", "border", "reflect")
_REMAP_LIMIT = 32767  # cv2.remap holds rows and columns as int16
# OpenCV 5 has a fast, exact kernel for one and four channels; before, three are faster than four
_PREFERS_FOUR = int(cv2.__version__.split(".")[0]) >= 5


def rotate_mix(image: Any, angles: Any, mask: Any, patch_size: int, alpha: float, fill: str = "zeros") -> Any:
    """Rotate the selected patches and mix: ``alpha * rotated + (1 - alpha) * original`` (eq. 5).

    A patch turns about its centre ((n-1)/2, (n-1)/2), bilinear.

    Args:
        image: uint8 or floating array (H, W, C) or (H, W), or a PIL image of mode RGB or L. Not modified.
        angles: (H/n, W/n) degrees, counter-clockwise positive as the image is shown.
        mask: (H/n, W/n) bool, True where a patch is rotated and mixed.
        patch_size: n, >= 1; has to divide both sides.
        alpha: share of the rotated patch, in [0, 1].
        fill: what lies outside the patch: ``zeros``, ``border`` (nearest edge pixel) or ``reflect``
            (mirror without repeating the edge).

    Returns:
        A new image of the same type, shape and dtype. Floating images are computed in float64. uint8 ones
        are rounded twice (rotation, mix), so at most 0.5 + alpha / 2 from the exact value with OpenCV >= 5;
        older releases quantise coordinates to 1/32 pixel: at most 9 * alpha more (white noise, on average
        0.5 * alpha more).

    Raises:
        ConfigError: an argument is out of range, or n does not divide the sides.
        DataError: the image is of another type, or angles or mask of another shape.
    """
    pixels = _pixels(image)
    alpha = checks.number("alpha", alpha, 0.0, 1.0)
    checks.choice("fill", fill, FILLS)
    grid = grid_shape(pixels.shape[0], pixels.shape[1], patch_size)
    angles, mask = np.asarray(angles, dtype=np.float64), np.asarray(mask, dtype=bool)
    for name, values in (("angles", angles), ("mask", mask)):
        if values.shape != grid:
            raise DataError(f"{name} must have the grid's shape {grid}, got {values.shape}")

    mixed = pixels.copy()
    rows, cols = np.nonzero(mask)
    if rows.size:
        mix = _mix_uint8 if _fits_remap(pixels, patch_size, rows.size) else _mix_float
        mix(mixed, rows, cols, angles[rows, cols], patch_size, alpha, fill)
    if pixels is image:
        return mixed
    from PIL import Image

    return Image.fromarray(mixed)


def grid_shape(height: int, width: int, patch_size: int) -> Tuple[int, int]:
    """(H/n, W/n), or a ConfigError when n < 1 or n does not divide both sides."""
    n = checks.integer("patch_size", patch_size, 1)
    if height % n or width % n:
        raise ConfigError(f"patch_size must divide the sides: {n} does not divide {height} x {width} (H x W)")
    return height // n, width // n


def _pixels(image: Any) -> np.ndarray:
    """The image's array; PIL images are converted, arrays pass through."""
    if isinstance(image, np.ndarray):
        if image.ndim in (2, 3) and (image.dtype == np.uint8 or np.issubdtype(image.dtype, np.floating)):
            return image
        raise DataError(
            f"rotate_mix takes uint8 or floating arrays (H, W[, C]), got {image.dtype} {image.shape}"
        )
    mode = getattr(image, "mode", type(image).__name__)
    if mode not in ("RGB", "L"):
        raise DataError(f"rotate_mix takes arrays and PIL images of mode RGB or L, got {mode}")
    return np.asarray(image)


def _fits_remap(pixels: np.ndarray, n: int, count: int) -> bool:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    longest = max(count, n * n, (max(pixels.shape[:2]) // n + 1) * (n + 1))
    return pixels.dtype == np.uint8 and channels in (1, 3, 4) and longest < _REMAP_LIMIT


@lru_cache(maxsize=16)
def _offsets(n: int, dtype: Any) -> np.ndarray:
    """(2, n * n): x and y of each pixel of a patch, relative to the patch's centre."""
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    return np.stack([x.ravel(), y.ravel()]).astype(dtype)


def _coordinates(
    rows: np.ndarray, cols: np.ndarray, angles: np.ndarray, n: int, fill: str, dtype: Any
) -> np.ndarray:
    """Where the pixels of K patches come from: x and y, (2, K, n * n), in the array made by ``_lay_out``."""
    radians = np.deg2rad(angles)
    turns = np.empty((2, rows.size, 2), dtype=dtype)
    turns[0, :, 0] = turns[1, :, 1] = np.cos(radians)
    turns[1, :, 0] = np.sin(radians)
    turns[0, :, 1] = -turns[1, :, 0]
    places = (turns.reshape(-1, 2) @ _offsets(n, dtype)).reshape(2, rows.size, n * n)
    centre, margin = (n - 1) / 2, _margin(fill)
    if fill == "reflect":
        np.copysign(centre - np.abs(np.abs(places) - centre), places, out=places)
    else:
        np.clip(places, -centre - margin, centre + margin, out=places)
    places += (np.stack([cols, rows]) * (n + margin) + margin + centre).astype(dtype)[..., None]
    return places


def _margin(fill: str) -> int:
    return 1 if fill == "zeros" else 0


def _lay_out(pixels: np.ndarray, n: int, fill: str) -> np.ndarray:
    """The image (H, W, C), for ``zeros`` with an empty line around every patch (and some more at the end)."""
    if fill != "zeros":
        return pixels
    patches = _patches(pixels, n)
    gh, _, gw, _, channels = patches.shape
    spread = np.zeros((gh + 1, n + 1, gw + 1, n + 1, channels), dtype=pixels.dtype)
    spread[:gh, 1:, :gw, 1:] = patches
    return spread.reshape((gh + 1) * (n + 1), (gw + 1) * (n + 1), channels)


def _patches(pixels: np.ndarray, n: int) -> np.ndarray:
    """View (gh, n, gw, n, C) of a contiguous image."""
    return pixels.reshape(pixels.shape[0] // n, n, pixels.shape[1] // n, n, -1)


def _mix_uint8(
    mixed: np.ndarray, rows: np.ndarray, cols: np.ndarray, angles: np.ndarray, n: int, alpha: float, fill: str
) -> None:
    """In place, by one cv2.remap."""
    patches = _patches(mixed, n)
    widen = _PREFERS_FOUR and patches.shape[-1] == 3
    source = cv2.cvtColor(mixed, cv2.COLOR_RGB2RGBA) if widen else mixed.reshape(mixed.shape[:2] + (-1,))
    x, y = _coordinates(rows, cols, angles, n, fill, np.float32)
    rotated = cv2.remap(_lay_out(source, n, fill), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    if widen:
        rotated = cv2.cvtColor(rotated, cv2.COLOR_RGBA2RGB)
    original = patches[rows, :, cols]
    flat = rotated.reshape(-1)
    cv2.addWeighted(flat, alpha, original.reshape(-1), 1 - alpha, 0.0, dst=flat)
    patches[rows, :, cols] = flat.reshape(original.shape)


def _mix_float(
    mixed: np.ndarray, rows: np.ndarray, cols: np.ndarray, angles: np.ndarray, n: int, alpha: float, fill: str
) -> None:
    """In place, in float64: floating images, and uint8 ones that cv2.remap cannot take."""
    source = mixed.reshape(mixed.shape[:2] + (-1,)).astype(np.float64)
    spread = _lay_out(source, n, fill)
    x, y = _coordinates(rows, cols, angles, n, fill, np.float64)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, bottom = np.minimum(left + 1, spread.shape[1] - 1), np.minimum(top + 1, spread.shape[0] - 1)
    wx, wy = (x - left)[..., None], (y - top)[..., None]
    above = spread[top, left] * (1 - wx) + spread[top, right] * wx
    below = spread[bottom, left] * (1 - wx) + spread[bottom, right] * wx
    rotated = (above * (1 - wy) + below * wy).reshape(rows.size, n, n, -1)
    blended = alpha * rotated + (1 - alpha) * _patches(source, n)[rows, :, cols]
    if mixed.dtype == np.uint8:
        blended = np.rint(blended)
    _patches(mixed, n)[rows, :, cols] = blended.astype(mixed.dtype)
