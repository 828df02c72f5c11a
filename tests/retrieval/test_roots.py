"""Paths below a root: the images of all rows are found, whatever folder they came from."""

import os

import numpy as np
import pytest
from vif.cli import main
from vif.errors import DataError
from vif.features import FeatureTable
from vif.inference import cli as inference_cli
from vif.inference.folder import find_images
from vif.retrieval import open_gallery
from vif.retrieval.roots import of_folder, relative_to

from tests.retrieval.people import FINGERPRINT, people


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Working directory with photos/{monday,tuesday}/{0,1,2}.jpg and elsewhere/0.jpg."""
    for folder in ("photos/monday", "photos/tuesday", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
        for name in range(1 if folder == "elsewhere" else 3):
            (tmp_path / folder / f"{name}.jpg").write_text(f"{folder}/{name}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_paths_below_a_root(place):
    given = [str(place / "photos/monday/0.jpg"), "photos/tuesday/1.jpg", "monday/2.jpg", "elsewhere/0.jpg"]
    expected = ["monday/0.jpg", "tuesday/1.jpg", "monday/2.jpg", "elsewhere/0.jpg"]
    assert relative_to("photos", given).tolist() == expected
    assert relative_to(str(place / "photos"), given).tolist() == expected
    assert relative_to(str(place / "photo"), given[:2]).tolist() == given[:2]  # no folder of that name
    os.chdir("photos")  # where a path may be meant from here or from the root, it is the root's
    assert relative_to("..", ["elsewhere/0.jpg", "monday/0.jpg"]).tolist() == [
        "elsewhere/0.jpg",
        "photos/monday/0.jpg",
    ]
    assert relative_to(".", []).dtype.kind == "U"


def test_a_folder_below_a_root_and_one_outside(place):
    assert of_folder("photos", "photos", ["monday/0.jpg"]).tolist() == ["monday/0.jpg"]
    assert of_folder("photos", "photos/monday/", ["0.jpg"]).tolist() == ["monday/0.jpg"]
    assert of_folder("", "elsewhere", ["0.jpg"]).tolist() == [str(place / "elsewhere/0.jpg")]
    with pytest.raises(DataError, match="elsewhere lies outside photos.* build the gallery again"):
        of_folder("photos", "elsewhere", ["0.jpg"])


class Names:
    """Stands in for a Predictor: any features, of the images that are there."""

    fingerprint = FINGERPRINT

    def folder(self, folder):
        names, failures = find_images(folder)
        table = people(len(names), seed=sum(map(ord, str(folder))))
        return FeatureTable(**{**vars(table), "paths": np.array(names, dtype=np.str_)}), failures


@pytest.mark.parametrize("root", [[], ["--root", "photos"]])
def test_images_that_are_added_are_found_below_the_root(root, place, monkeypatch, capsys):
    monkeypatch.setattr(inference_cli, "build_predictor", lambda *_: Names())
    first = "photos/monday" if root else "photos"
    assert main(["index", "--images", first, "--onnx", "m", "--out", "g", *root]) == 0
    assert open_gallery("g").meta["root"] == str(place / "photos")
    (place / "photos/late").mkdir()
    (place / "photos/late/0.jpg").write_text("photos/late/0")
    later = "photos/tuesday" if root else "photos/late"
    assert main(["index", "--images", later, "--onnx", "m", "--out", "g", "--add"]) == 0
    gallery = open_gallery("g")
    paths = gallery.rows().columns["paths"].tolist()
    assert len(paths) == len(set(paths)) == (6 if root else 7)
    for path in paths:
        assert (place / "photos" / path).read_text() == f"photos/{path[:-4]}"
    capsys.readouterr()
    assert main(["index", "--images", "elsewhere", "--onnx", "m", "--out", "g", "--add"]) == 1
    assert "elsewhere lies outside" in capsys.readouterr().err
    assert len(open_gallery("g")) == len(paths)


def test_a_feature_file_names_its_images_below_the_root(place):
    table = people(3)
    table.paths = np.array(["photos/monday/0.jpg", str(place / "photos/tuesday/1.jpg"), "monday/2.jpg"])
    table.save("f.npz")
    assert main(["index", "--features", "f.npz", "--root", "photos", "--out", "g"]) == 0
    expected = ["monday/0.jpg", "tuesday/1.jpg", "monday/2.jpg"]
    assert open_gallery("g").rows().columns["paths"].tolist() == expected
    table.paths = np.array(["photos/monday/1.jpg", "photos/monday/2.jpg", "elsewhere/0.jpg"])
    table.save("f.npz")
    assert main(["index", "--features", "f.npz", "--out", "g", "--add"]) == 1  # one is there already
    table.paths = np.array(["photos/monday/1.jpg", "photos/tuesday/0.jpg", "elsewhere/0.jpg"])
    table.save("f.npz")
    assert main(["index", "--features", "f.npz", "--out", "g", "--add"]) == 0
    assert open_gallery("g").rows().columns["paths"].tolist()[3:] == [
        "monday/1.jpg",
        "tuesday/0.jpg",
        "elsewhere/0.jpg",
    ]


def test_without_a_root_images_that_are_added_are_absolute_and_an_empty_gallery_is_one(place, monkeypatch):
    monkeypatch.setattr(inference_cli, "build_predictor", lambda *_: Names())
    people(1).save("f.npz")
    assert main(["index", "--features", "f.npz", "--out", "g"]) == 0
    gallery = open_gallery("g")
    gallery.remove([0])
    gallery.save()
    assert main(["index", "--images", "elsewhere", "--onnx", "m", "--out", "g", "--add"]) == 0
    gallery = open_gallery("g")
    assert gallery.rows().columns["paths"].tolist() == [str(place / "elsewhere/0.jpg")]
    assert "root" not in gallery.meta
