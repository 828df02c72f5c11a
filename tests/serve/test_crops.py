"""Images of rows: nothing but images, from nowhere but the gallery's folder."""

import io
import os

import numpy as np
import pytest
from PIL import Image
from vif.errors import DataError
from vif.serve.crops import Crops

SECRET = b"root:x:0:0"


def save(path, size=(20, 40), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path):
    save(tmp_path / "images" / "a.png")
    save(tmp_path / "images" / "sub" / "b.png")
    save(tmp_path / "outside.png")
    save(tmp_path / "images-of-others" / "c.png")
    (tmp_path / "secret.txt").write_bytes(SECRET)
    return tmp_path / "images"


def decoded(data):
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    return image


def test_an_image_comes_as_jpeg_with_its_pixels(root):
    image = decoded(Crops(str(root)).jpeg("sub/b.png"))
    expected = np.asarray(Image.open(root / "sub" / "b.png"), dtype=int)
    assert np.abs(np.asarray(image, dtype=int) - expected).mean() < 8


def test_the_longer_side_is_at_most_the_size_asked_for(root):
    save(root / "large.png", (600, 1000))
    assert decoded(Crops(str(root)).jpeg("large.png", 100)).size == (60, 100)
    assert decoded(Crops(str(root)).jpeg("large.png")).size == (600, 1000)
    assert decoded(Crops(str(root)).jpeg("a.png", 100)).size == (20, 40)


def test_a_path_may_be_absolute_where_it_is_inside(root):
    assert decoded(Crops(str(root)).jpeg(str(root / "a.png"))).size == (20, 40)


@pytest.mark.parametrize(
    "path",
    [
        "../outside.png",
        "sub/../../outside.png",
        "../images-of-others/c.png",
        "{parent}/outside.png",
        "{parent}/images-of-others/c.png",
        "/etc/passwd",
        "link.png",
        "folder/outside.png",
    ],
)
def test_no_path_leads_out_of_the_folder(path, root):
    os.symlink(root.parent / "outside.png", root / "link.png")
    os.symlink(root.parent, root / "folder")
    path = path.replace("{parent}", str(root.parent))
    with pytest.raises(DataError, match="lies outside the gallery's folder of images; it is not read"):
        Crops(str(root)).jpeg(path)


def test_a_link_inside_the_folder_is_followed_and_the_folder_may_be_a_link(root, tmp_path):
    os.symlink(root / "a.png", root / "again.png")
    os.symlink(root, tmp_path / "linked")
    assert Crops(str(tmp_path / "linked")).jpeg("again.png") == Crops(str(root)).jpeg("a.png")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("text.jpg", "no image of a known format"),
        ("page.png", "no image of a known format"),
        ("sub", "a folder, where an image is expected"),
        ("pipe.jpg", "not a regular file"),
        ("gone.jpg", "there is no such file"),
        ("", "a folder"),
        ("a.png\0", "lies outside|no path: embedded null byte"),  # by the release of Python
    ],
)
def test_what_is_no_image_is_not_sent(path, message, root):
    (root / "text.jpg").write_bytes(SECRET)
    (root / "page.png").write_text("<script>alert(1)</script>")
    os.mkfifo(root / "pipe.jpg")
    with pytest.raises(DataError, match=message):
        Crops(str(root)).jpeg(path)


def test_what_hides_in_an_image_is_not_sent(root):
    exif = Image.Exif()
    exif[0x010E] = "a comment"
    save(root / "exif.jpg", exif=exif)
    with open(root / "exif.jpg", "ab") as file:
        file.write(SECRET)
    data = Crops(str(root)).jpeg("exif.jpg")
    assert SECRET not in data
    assert b"a comment" not in data
    assert not decoded(data).getexif()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="there is no folder .*gone.* of images; name .* with --root"):
        Crops(str(tmp_path / "gone"))
