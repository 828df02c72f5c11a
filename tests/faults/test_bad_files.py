"""Reading one bad file: refused by its name, on one line, without waiting for anybody."""

import errno
import io

import numpy as np
import pytest
from PIL import Image
from vif.data.transforms import read_image, read_image_fast
from vif.errors import DataError, UnreadableImage

from tests import fake_trees
from tests.faults.bad_files import KINDS, png

KIND = pytest.mark.parametrize("kind", KINDS)


@KIND
@pytest.mark.parametrize("read", [read_image, read_image_fast])
def test_a_bad_file_is_named_in_one_line_and_waits_for_nobody(tmp_path, kind, read):
    path = fake_trees.write_image(tmp_path / "x.jpg", 0)
    spoil, reason = KINDS[kind]
    spoil(path)
    with pytest.raises(UnreadableImage, match=reason) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_bomb_is_small_on_disk_and_a_whole_image():
    assert len(png(20_000, 20_000)) < 200_000
    Image.MAX_IMAGE_PIXELS, limit = None, Image.MAX_IMAGE_PIXELS
    try:
        assert Image.open(io.BytesIO(png(300, 200))).convert("RGB").size == (300, 200)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@pytest.mark.parametrize("read", [read_image, read_image_fast])
def test_an_image_under_another_formats_ending_is_read(tmp_path, read):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x.jpg")
    np.testing.assert_array_equal(read(tmp_path / "x.jpg"), pixels)


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\x1b[2Jb.jpg", "ü ж 人.jpg", " .jpg"])
def test_odd_names_are_read_and_named_on_one_line(tmp_path, name):
    path = fake_trees.write_image(tmp_path / name, 0)
    assert read_image(path).shape == (64, 32, 3)
    path.write_bytes(b"")
    with pytest.raises(UnreadableImage) as error:
        read_image(path)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("read", [read_image, read_image_fast])
def test_a_machine_at_its_limits_is_no_fault_of_an_image(tmp_path, read, monkeypatch):
    path = fake_trees.write_image(tmp_path / "x.jpg", 0)

    def full(*args, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("vif.data.transforms.reading.open", full, raising=False)
    with pytest.raises(DataError, match="Too many open files") as error:
        read(path)
    assert not isinstance(error.value, UnreadableImage)
