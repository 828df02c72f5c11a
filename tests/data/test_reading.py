"""Readers of image files: equal to fastreid's, every broken file named."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from vif.data import transforms as T
from vif.errors import DataError


def noise(height=37, width=23, seed=0):
    """Smooth colours with some noise, as photos have; odd sides catch swapped ones."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 4, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + rng.integers(-12, 13, smooth.shape), 0, 255).astype(np.uint8)


def save(tmp_path, image, name, **options):
    path = tmp_path / name
    Image.fromarray(image).save(path, **options)
    return path


@pytest.fixture
def fastreid_read():
    pytest.importorskip("fastreid")
    import vif  # noqa: F401  installs the bridges that fastreid's import needs
    from fastreid.data.data_utils import read_image

    return read_image


@pytest.mark.parametrize("read", [T.read_image, T.read_image_fast])
@pytest.mark.parametrize("kind", ["jpg", "jpg-420", "progressive", "grey", "grey-png", "png", "bmp", "webp"])
def test_readers_equal_fastreids(tmp_path, fastreid_read, read, kind):
    image = noise(61, 35)
    options = {"jpg": {"quality": 90, "subsampling": 0}, "jpg-420": {"quality": 75, "subsampling": 2}}.get(
        kind, {}
    )
    if kind == "progressive":
        options = {"progressive": True, "quality": 90}
    if kind.startswith("grey"):
        image = image[..., 0]
    suffix = {"png": "png", "grey-png": "png", "bmp": "bmp", "webp": "webp"}.get(kind, "jpg")
    path = save(tmp_path, image, f"x.{suffix}", **options)
    expected = np.asarray(fastreid_read(str(path)))
    np.testing.assert_array_equal(read(path), expected)
    np.testing.assert_array_equal(read(str(path)), expected)


@pytest.mark.parametrize("read", [T.read_image, T.read_image_fast])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, fastreid_read, read, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, noise(31, 17), "x.jpg", exif=exif)
    result = read(path)
    np.testing.assert_array_equal(result, np.asarray(fastreid_read(str(path))))
    assert result.shape[:2] == ((31, 17) if orientation < 5 else (17, 31))


@pytest.mark.parametrize("read", [T.read_image, T.read_image_fast])
@pytest.mark.parametrize(
    ("mode", "name"), [("P", "x.png"), ("RGBA", "x.png"), ("P", "x.gif"), ("CMYK", "x.jpg")]
)
def test_other_modes_become_rgb(tmp_path, fastreid_read, read, mode, name):
    path = tmp_path / name
    Image.fromarray(noise()).convert(mode).save(path)
    result = read(path)
    assert result.shape == (37, 23, 3)
    np.testing.assert_array_equal(result, np.asarray(fastreid_read(str(path), format="RGB")))


def png_header(width, height):
    """A PNG that claims a size and holds next to nothing."""
    chunks = b""
    for name, body in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" * 100)),
        (b"IEND", b""),
    ):
        chunks += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return b"\x89PNG\r\n\x1a\n" + chunks


def jpeg_claiming(data, side):
    """A JPEG whose frame header claims side x side pixels."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", side, side) + data[at + 4 :]


@pytest.mark.parametrize("read", [T.read_image, T.read_image_fast])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda jpg: None, "cannot read image .*broken.jpg: No such file"),
        (lambda jpg: b"", "broken.jpg is an empty file"),
        (lambda jpg: jpg[: len(jpg) // 2], "broken.jpg cannot be decoded"),
        (lambda jpg: jpg[:-2], "broken.jpg cannot be decoded"),
        (lambda jpg: jpg[:2] + jpg[-2:], "broken.jpg cannot be decoded"),
        (lambda jpg: b"<html>not found</html>", "broken.jpg cannot be decoded"),
        (lambda jpg: png_header(20000, 20000), "broken.jpg is too large"),
        (lambda jpg: png_header(10000, 10000), "broken.jpg is too large"),
        (lambda jpg: jpeg_claiming(jpg, 60000), "broken.jpg is too large"),
    ],
)
def test_broken_files_are_named(tmp_path, read, make, message):
    data = make(save(tmp_path, noise(64, 48), "good.jpg", quality=95).read_bytes())
    if data is not None:
        (tmp_path / "broken.jpg").write_bytes(data)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "broken.jpg")


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(DataError, match=r"cannot read image .*: Is a directory"):
        T.read_image(tmp_path)


def test_a_jpeg_cut_short_never_reaches_opencv(tmp_path, monkeypatch):
    # OpenCV 4 decodes it without an error, the missing part grey
    monkeypatch.setattr(
        "vif.data.transforms.reading._decode_opencv", lambda data: np.zeros((1, 1, 3), np.uint8)
    )
    path = save(tmp_path, noise(64, 48), "cut.jpg", quality=95)
    assert T.read_image_fast(path).shape == (1, 1, 3)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"cut\.jpg cannot be decoded"):
        T.read_image_fast(path)


def test_pillow_decides_where_opencv_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("vif.data.transforms.reading._decode_opencv", lambda data: None)
    path = save(tmp_path, noise(), "x.jpg")
    np.testing.assert_array_equal(T.read_image_fast(path), T.read_image(path))
