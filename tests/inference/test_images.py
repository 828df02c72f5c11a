"""Images of every kind as pixels: those of evaluation, or as decided here, or a failure with its reason."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from vif.data.transforms import read_image
from vif.errors import ConfigError, DataError
from vif.inference import images
from vif.inference.folder import ENDINGS, find_images
from vif.inference.images import FORMATS, ImageFailure, check_colour, load_image

GREY = (128, 128, 128)


def noise(height=37, width=23, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def png_header(width, height):
    """A PNG that claims a size and holds next to nothing."""
    chunks = b""
    for name, body in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
    ):
        chunks += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return b"\x89PNG\r\n\x1a\n" + chunks


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(noise(), "JPEG", exif=exif)


def animated(kind):
    frames = [Image.fromarray(noise(seed=seed)) for seed in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


ORDINARY = {
    "rgb.jpg": lambda: encoded(noise(), "JPEG"),
    "grey.jpg": lambda: encoded(noise(channels=1), "JPEG"),
    "cmyk.jpg": lambda: encoded(Image.fromarray(noise()).convert("CMYK"), "JPEG"),
    "progressive.jpg": lambda: encoded(noise(), "JPEG", progressive=True),
    "rgb.png": lambda: encoded(noise()),
    "grey.png": lambda: encoded(noise(channels=1)),
    "palette.png": lambda: encoded(Image.fromarray(noise()).quantize(16)),
    "bilevel.png": lambda: encoded(Image.fromarray(noise()).convert("1")),
    "opaque.png": lambda: encoded(Image.fromarray(noise()).convert("RGBA")),
    "x.bmp": lambda: encoded(noise(), "BMP"),
    "x.webp": lambda: encoded(noise(), "WEBP"),
    "x.tif": lambda: encoded(noise(), "TIFF"),
    "x.ppm": lambda: encoded(noise(), "PPM"),
    "animated.gif": lambda: animated("GIF"),
    "animated.png": lambda: animated("PNG"),
    "animated.webp": lambda: animated("WEBP"),
    **{f"turned{k}.jpg": (lambda k=k: oriented(k)) for k in range(1, 9)},
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_files_have_the_pixels_of_evaluation(tmp_path, name):
    data = ORDINARY[name]()
    (tmp_path / name).write_bytes(data)
    expected = read_image(tmp_path / name)
    for source in (tmp_path / name, str(tmp_path / name), data, bytearray(data), memoryview(data)):
        np.testing.assert_array_equal(load_image(source), expected)
    np.testing.assert_array_equal(load_image(Image.open(tmp_path / name)), expected)
    assert expected.shape == (
        (23, 37, 3) if name in {f"turned{k}.jpg" for k in (5, 6, 7, 8)} else (37, 23, 3)
    )


def test_an_animation_gives_its_first_frame():
    still = encoded(Image.fromarray(noise(seed=0)), "GIF")
    np.testing.assert_array_equal(load_image(animated("GIF")), load_image(still))
    np.testing.assert_array_equal(load_image(animated("PNG")), noise(seed=0))


def test_all_formats_are_pillows():
    Image.init()
    known = {ending: name for ending, name in Image.registered_extensions().items() if name in FORMATS}
    for name, endings in FORMATS.items():
        for ending in endings:
            assert known.get(ending, name) == name
    assert {"JPEG", "PNG", "GIF", "TIFF", "WEBP"} <= set(FORMATS) & set(Image.OPEN)
    assert "EPS" not in FORMATS


def over(background, image):
    """Colour over background by opacity, pixel by pixel."""
    result = np.zeros((*image.shape[:2], 3))
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            opacity = int(image[row, column, 3]) / 255
            for channel in range(3):
                colour = int(image[row, column, channel])
                result[row, column, channel] = opacity * colour + (1 - opacity) * background[channel]
    return result


def test_transparent_pixels_lie_over_the_background(tmp_path):
    image, background = noise(channels=4), (10, 120, 250)
    image[:5, :, 3], image[5:9, :, 3] = 0, 255
    expected = over(background, image)
    for source in (
        encoded(image),
        image,
        Image.fromarray(image),
        encoded(image, "WEBP", lossless=True, exact=True),
    ):
        found = load_image(source, background=background)
        assert np.abs(found - expected).max() < 1
        assert (found[:5] == background).all()
        np.testing.assert_array_equal(found[5:9], image[5:9, :, :3])
    # what lies under full transparency is invisible, and has no effect; evaluation shows it
    path = tmp_path / "x.png"
    path.write_bytes(encoded(image))
    np.testing.assert_array_equal(read_image(path), image[..., :3])
    image[:5, :, :3] = 77
    np.testing.assert_array_equal(load_image(encoded(image), background=background), found)


def test_other_kinds_of_transparency_lie_over_the_background():
    grey = noise(channels=4)
    grey[..., 1] = grey[..., 2] = grey[..., 0]
    found = load_image(encoded(Image.fromarray(grey).convert("LA")))
    assert np.abs(found - over(GREY, grey)).max() < 1
    flat = np.zeros((4, 6, 3), dtype=np.uint8)
    flat[:, 3:] = (9, 200, 30)
    assert (load_image(encoded(flat, transparency=(9, 200, 30)))[:, 3:] == GREY).all()
    palette = Image.fromarray(flat).quantize(2)
    index = palette.getpixel((5, 0))
    for kind in ("PNG", "GIF"):
        found = load_image(encoded(palette, kind, transparency=index))
        assert (found[:, 3:] == GREY).all()
        assert (found[:, :3] == 0).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "I"])
def test_16_bits_are_scaled_to_8(kind):
    values = np.random.default_rng(0).integers(0, 65536, (9, 7)).astype(np.uint16)
    values[0, :4] = 0, 257, 32768, 65535
    image = (
        Image.fromarray(values.astype(np.int32)) if kind == "I" else encoded(Image.fromarray(values), kind)
    )
    found = load_image(image)
    assert found[0, :4, 0].tolist() == [0, 1, 128, 255]
    np.testing.assert_array_equal(found, np.repeat(np.rint(values / 257)[..., None], 3, axis=2))


def test_arrays_of_both_orders():
    image, clear = noise(), noise(channels=4)
    clear[..., 3] = 255
    np.testing.assert_array_equal(load_image(image), image)
    np.testing.assert_array_equal(load_image(image[..., ::-1], colour="BGR"), image)
    np.testing.assert_array_equal(load_image(clear[..., [2, 1, 0, 3]], colour="BGR"), clear[..., :3])
    for grey in (image[..., 0], image[..., :1]):
        np.testing.assert_array_equal(load_image(grey, colour="BGR"), np.stack([image[..., 0]] * 3, axis=2))


def test_inputs_stay_as_they_were():
    for array in (noise(), noise(channels=4), noise(channels=1)):
        before = array.copy()
        load_image(array, colour="BGR")
        np.testing.assert_array_equal(array, before)
    picture = Image.fromarray(noise(channels=4))
    before = picture.tobytes()
    load_image(picture)
    assert (picture.mode, picture.tobytes()) == ("RGBA", before)


def test_where_only_exif_is_broken_the_pixels_count():
    upright = load_image(encoded(noise()))
    no_header = encoded(noise(), exif=b"Exif\0\0no such header")
    with pytest.raises(SyntaxError):
        Image.open(io.BytesIO(no_header)).getexif()
    np.testing.assert_array_equal(load_image(no_header), upright)
    # turned to the right, and a resolution that is text
    tags = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHI4s", 0x011A, 2, 3, b"no\0\0")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(4)
    broken = Image.open(io.BytesIO(encoded(noise(), exif=exif)))
    with pytest.raises(TypeError):
        ImageOps.exif_transpose(broken)
    np.testing.assert_array_equal(load_image(broken), np.rot90(upright, -1))


BROKEN = {
    "empty.jpg": (b"", "an empty file; copy it again"),
    "cut.jpg": (encoded(noise(200, 100), "JPEG")[:2000], "cannot be decoded (image file is truncated"),
    "cut.png": (encoded(noise(200, 100))[:2000], "cannot be decoded ("),
    "cut.gif": (encoded(noise(200, 100), "GIF")[:2000], "cannot be decoded ("),
    "start.jpg": (encoded(noise(), "JPEG")[:20], "no image of a known format"),
    "text.jpg": (b"this is no image", "no image of a known format (JPEG, "),
    "program.jpg": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "no image of a known format",
    ),
    "huge.png": (
        png_header(12000, 8000),
        "too large to be a photo of a person: 12000 x 8000 is above max_pixels",
    ),
    "bomb.png": (png_header(60000, 60000), "too large to be a photo of a person"),
    "float.tif": (encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating point pixels"),
    "deep.tif": (encoded(Image.fromarray(np.full((4, 4), 70000, np.int32)), "TIFF"), "32-bit pixels have no"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_failures_that_say_why(tmp_path, name):
    data, reason = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(data)
    failure = load_image(path)
    assert isinstance(failure, ImageFailure)
    assert failure.path == str(path)
    assert failure.reason.startswith(reason)
    assert str(failure) == f"image {path}: {failure.reason}"
    if data:
        failure = load_image(data)
        assert (failure.path, failure.reason.startswith(reason)) == ("bytes", True)


def test_a_failure_is_one_line_whatever_its_file_is_called():
    assert str(ImageFailure("a\nb\x1b[2J.jpg", "broken")) == "image 'a\\nb\\x1b[2J.jpg': broken"
    assert str(ImageFailure("bad\udcff.jpg", "broken")) == "image 'bad\\udcff.jpg': broken"
    assert str(ImageFailure("Zoë 1.jpg", "broken")) == "image Zoë 1.jpg: broken"


def test_the_largest_image_is_a_setting():
    image = noise(20, 10)
    assert load_image(encoded(image), max_pixels=200).shape == (20, 10, 3)
    failure = load_image(encoded(image), max_pixels=199)
    assert "10 x 20 is above max_pixels=199; cut out the person" in failure.reason


def test_files_that_are_none(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for name, reason in (
        ("pipe.jpg", "not a regular file"),
        ("folder.jpg", "a folder, where an image is expected"),
        ("none.jpg", "there is no such file"),
        ("x\0.jpg", "no path: "),
    ):
        failure = load_image(f"{tmp_path}/{name}")
        assert failure.reason.startswith(reason)
        assert failure.path == f"{tmp_path}/{name}"

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x.jpg").write_bytes(encoded(noise(), "JPEG"))
    monkeypatch.setattr(images, "open", refuse, raising=False)
    assert load_image(tmp_path / "x.jpg").reason == "cannot be read: Permission denied; check its permissions"


@pytest.mark.parametrize(
    ("source", "name", "reason"),
    [
        (np.zeros((0, 5, 3), np.uint8), "array", "expected a uint8 array (H, W), .* got uint8 (0, 5, 3)"),
        (np.zeros((5, 0), np.uint8), "array", "got uint8 (5, 0)"),
        (np.zeros((5, 5, 2), np.uint8), "array", "got uint8 (5, 5, 2)"),
        (np.zeros((3, 5, 5, 3), np.uint8), "array", "got uint8 (3, 5, 5, 3)"),
        (np.zeros((5, 5, 3), np.float32), "array", "got float32 (5, 5, 3)"),
        (np.zeros((5, 5), np.uint16), "array", "got uint16 (5, 5)"),
        (Image.new("RGB", (0, 5)), "Image", "an image of 0 x 5 has no pixels"),
        (Image.new("La", (5, 5)), "Image", "La pixels do not become RGB"),
        (7, "int", "expected a path, bytes, a PIL image or a uint8 array"),
        (b"", "bytes", "no image of a known format"),
    ],
)
def test_sources_that_are_no_image(source, name, reason):
    failure = load_image(source)
    assert failure.path == name
    for part in reason.split(" .* "):
        assert part in failure.reason


def test_the_order_of_colours_is_checked():
    assert check_colour("BGR") == "BGR"
    with pytest.raises(ConfigError, match="colour='bgr' is unknown; choose RGB or BGR"):
        load_image(noise(), colour="bgr")


def test_images_below_a_folder_come_sorted(tmp_path):
    names = ["b.jpg", "a.PNG", "sub/c.jpeg", "sub/deep/d.tif", "sub.jpg/e.gif", "Z.webp"]
    for name in [*names, "notes.txt", ".hidden.jpg", ".folder/x.jpg", "sub/Thumbs.db"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert find_images(str(tmp_path)) == (sorted(names), [])
    assert find_images(str(tmp_path) + "/") == (sorted(names), [])
    assert all(ending == ending.lower() for ending in ENDINGS)


def test_links_stay_in_the_folder(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "root-of-others"
    for folder in (root / "sub", outside):
        folder.mkdir(parents=True)
        (folder / "x.jpg").write_bytes(b"x")
    (root / "inside.jpg").symlink_to(root / "sub" / "x.jpg")
    (root / "outside.jpg").symlink_to(outside / "x.jpg")
    (root / "round").symlink_to(root)
    (root / "away").symlink_to(outside)
    (tmp_path / "door").symlink_to(root)
    for folder in (root, tmp_path / "door"):
        paths, failures = find_images(str(folder))
        assert paths == ["inside.jpg", "sub/x.jpg"]
        reasons = {failure.path: failure.reason for failure in failures}
        assert set(reasons) == {"outside.jpg", "round", "away"}
        assert "a link out of the folder" in reasons["outside.jpg"]
        assert "a link to a folder, which is not followed" in reasons["round"]


def test_a_folder_that_cannot_be_listed_is_a_failure(tmp_path, monkeypatch):
    (tmp_path / "shut").mkdir()
    (tmp_path / "x.jpg").write_bytes(b"x")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    paths, failures = find_images(str(tmp_path))
    assert paths == ["x.jpg"]
    assert [str(failure) for failure in failures] == [
        "image shut: the folder cannot be listed: Permission denied; check its permissions"
    ]
    with pytest.raises(DataError, match="there is no folder '.*none' of images"):
        find_images(str(tmp_path / "none"))
