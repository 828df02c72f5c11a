"""`vif index` and `vif search`."""

import json
import sys

import numpy as np
import pytest
from vif.cli import main
from vif.features import FeatureTable
from vif.inference import cli as inference_cli
from vif.inference.images import ImageFailure
from vif.retrieval import open_gallery

from tests.retrieval.people import FINGERPRINT, people


@pytest.fixture
def features(tmp_path):
    table = people(30)
    table.splits = np.where(np.arange(30) < 5, "query", "gallery")
    table.save(str(tmp_path / "features.npz"))
    return str(tmp_path / "features.npz")


@pytest.fixture
def gallery(features, tmp_path, capsys):
    folder = str(tmp_path / "gallery")
    assert main(["index", "--features", features, "--out", folder]) == 0
    capsys.readouterr()
    return folder


def search(gallery, *arguments, tmp_path):
    assert main(["search", gallery, *map(str, arguments), "--json", str(tmp_path / "out.json")]) == 0
    return json.loads((tmp_path / "out.json").read_text())


def ids(content):
    return [[row["id"] for row in query["neighbours"]] for query in content]


def test_a_feature_file_becomes_a_gallery(features, tmp_path, capsys):
    folder = str(tmp_path / "g")
    assert main(["index", "--features", features, "--out", folder, "--split", "gallery", "--root", "."]) == 0
    expected = f"{folder}: <Gallery of 25 rows, 16 dimensions, index flat, weights {FINGERPRINT}>\n"
    assert capsys.readouterr().out == expected
    opened = open_gallery(folder)
    assert opened.rows().columns["paths"].tolist() == people(30).paths[5:].tolist()
    assert opened.meta["root"].startswith("/")
    assert main(["index", "--features", features, "--out", folder, "--split", "gallery"]) == 1
    assert "is a gallery" in capsys.readouterr().err
    arguments = ["index", "--features", features, "--out", folder]
    assert main([*arguments, "--split", "query", "--index", "hnsw", "--overwrite"]) == 0
    assert len(open_gallery(folder)) == 5
    assert open_gallery(folder).index.kind == "hnsw"
    assert main([*arguments, "--split", "gallery", "--add"]) == 0
    assert len(open_gallery(folder)) == 30


def test_a_row_of_the_feature_file_finds_itself(gallery, features, tmp_path, capsys):
    content = search(gallery, "--features", features, "--rows", 3, 7, "--top", 2, tmp_path=tmp_path)
    assert [row[0] for row in ids(content)] == [3, 7]
    assert [query["query"] for query in content] == ["a/3.jpg", "a/7.jpg"]
    out = capsys.readouterr().out
    assert out.startswith("a/3.jpg\n| rank   | id   | distance   | path ")
    assert "| 1      | 3    | 0.0000 " in out
    content = search(gallery, "--features", features, "--split", "query", "--top", 1, tmp_path=tmp_path)
    assert ids(content) == [[0], [1], [2], [3], [4]]


def test_by_id_and_with_filters(gallery, tmp_path):
    table = people(30)
    everything = ids(search(gallery, "--ids", 4, "--top", 30, tmp_path=tmp_path))[0]
    assert sorted(everything) == [i for i in range(30) if i != 4]
    for arguments, passes in (
        (["--views", "aerial"], table.views == "aerial"),
        (["--camids", 1, 2], np.isin(table.camids, [1, 2])),
        (["--among", 4, 8, 9], np.isin(np.arange(30), [4, 8, 9])),
        (["--other-cameras"], table.camids != table.camids[4]),
    ):
        found = ids(search(gallery, "--ids", 4, "--top", 30, *arguments, tmp_path=tmp_path))[0]
        assert found == [id_ for id_ in everything if passes[id_]]


def test_labels_give_times_to_filter_by(features, tmp_path):
    folder, labels = str(tmp_path / "g"), tmp_path / "labels.csv"
    times = [f"a/{i}.jpg,2026-03-01T{i // 2:02d}:{30 * (i % 2):02d}" for i in range(30)]
    labels.write_text("\n".join(["path,time", *times]))
    assert main(["index", "--features", features, "--out", folder, "--labels", str(labels)]) == 0
    span = ["--since", "2026-03-01T02:00", "--until", "2026-03-01T03:30Z"]
    assert sorted(ids(search(folder, "--ids", 20, *span, tmp_path=tmp_path))[0]) == [4, 5, 6]


class FakePredictor:
    """Features that hang on the name of the image alone."""

    fingerprint = FINGERPRINT

    def __init__(self, *arguments):
        self.arguments = arguments

    def __call__(self, images):
        table = people(30)
        return np.stack([table.features[int(str(name).split("/")[-1].split(".")[0])] for name in images])

    def folder(self, path):
        return people(30), [ImageFailure("broken.jpg", "is broken")]


def test_images(tmp_path, capsys, monkeypatch):
    made = []
    monkeypatch.setattr(inference_cli, "build_predictor", lambda *a: made.append(a) or FakePredictor())
    folder = str(tmp_path / "g")
    assert main(["index", "--images", str(tmp_path), "--onnx", "m.onnx", "--out", folder]) == 0
    assert made.pop() == (None, None, "m.onnx", [])
    assert capsys.readouterr().err == "image broken.jpg: is broken\n"
    assert open_gallery(folder).meta["root"] == str(tmp_path)
    network = ["--config-file", "c.yml", "--weights", "w.pth", "--set", "TEST.FLIP.ENABLED", "True"]
    content = search(folder, "--images", "x/2.jpg", "y/1.jpg", "--top", "1", *network[:4], tmp_path=tmp_path)
    assert made.pop() == ("c.yml", "w.pth", None, [])
    assert ids(content) == [[2], [1]]
    assert [query["query"] for query in content] == ["x/2.jpg", "y/1.jpg"]
    camera = str(people(30).camids[2])
    arguments = ["--images", "x/2.jpg", "--other-cameras", "--query-camid", camera, "--json"]
    assert main(["search", folder, *arguments, str(tmp_path / "o.json"), *network]) == 0
    assert made.pop()[3] == ["TEST.FLIP.ENABLED", "True"]
    (query,) = json.loads((tmp_path / "o.json").read_text())
    assert len(query["neighbours"]) == 10
    assert int(camera) not in {row["camid"] for row in query["neighbours"]}
    FakePredictor.folder = lambda self, path: (FeatureTable(**{**vars(people(1)), **EMPTY}), [1, 2])
    assert main(["index", "--images", str(tmp_path), "--onnx", "m.onnx", "--out", folder + "2"]) == 1
    assert "none of the 2 images" in capsys.readouterr().err


def test_what_cannot_work_is_refused_before_images_are_read(gallery, tmp_path, capsys, monkeypatch):
    """Reading them takes hours."""
    monkeypatch.setattr(inference_cli, "build_predictor", lambda *a: pytest.fail("reads images"))
    (tmp_path / "labels.csv").write_text("path,pid\na/0.jpg,x\n")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "thesis.tex").write_text("x")
    images = ["index", "--images", str(tmp_path), "--onnx", "m.onnx"]
    for arguments, message in (
        (["--out", gallery], f"there is a gallery {gallery} already: extend it by --add, or --overwrite it"),
        (["--out", str(tmp_path / "else")], "is no gallery and not empty ('thesis.tex')"),
        (["--out", "g", "--labels", "none.csv"], "no file of labels 'none.csv'"),
        (["--out", "g", "--labels", str(tmp_path / "labels.csv")], "line 2: pid 'x' cannot be read"),
        (["--out", gallery, "--add", "--labels", "none.csv"], "no file of labels 'none.csv'"),
        (["--out", "g", "--root", str(tmp_path / "else")], "lies outside"),
    ):
        assert main([*images, *arguments]) == 1
        assert message in capsys.readouterr().err


EMPTY = {
    "features": np.zeros((0, 16), np.float32),
    **dict.fromkeys(("pids", "camids"), np.zeros(0, np.int64)),
    **dict.fromkeys(("views", "paths", "splits"), np.full(0, "")),
}


def test_other_weights_are_refused(gallery, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(FakePredictor, "fingerprint", "feed")
    monkeypatch.setattr(inference_cli, "build_predictor", lambda *a: FakePredictor())
    assert main(["search", gallery, "--images", "x/2.jpg", "--onnx", "m.onnx"]) == 1
    assert "the queries are of the weights feed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "--images", ".", "--out", "g"], "images need --config-file and --weights, or --onnx"),
        (["index", "--images", ".", "--out", "g", "--onnx", "m", "--weights", "w"], "--onnx FILE alone"),
        (["index", "--images", ".", "--out", "g", "--weights", "w"], "images need --config-file"),
        (
            ["index", "--features", "f.npz", "--out", "g", "--add", "--index", "flat"],
            "leave it out with --add",
        ),
        (["index", "--features", "f.npz", "--out", "g", "--add", "--overwrite"], "leave it out with --add"),
        (["index", "--features", "f.npz", "--out", "g.db", "--index", "flat"], "Milvus chooses its own"),
        (
            ["index", "--features", "f.npz", "--out", "g", "--split", "train"],
            "has no split 'train'; it has gallery",
        ),
        (["search", "g", "--features", "f.npz"], "'g' is no gallery"),
        (["search", "g", "--ids", "1", "--query-camid", "1"], "a row of the gallery has its own camera"),
        (["search", "g", "--ids", "1", "--since", "5", "--until", "4"], "no row could pass"),
        (["search", "g", "--ids", "1", "--rows", "1"], "--rows is for --features"),
        (["search", "g", "--images", "a.jpg", "--split", "query"], "--split is for --features"),
        (["search", "g", "--features", "f.npz", "--onnx", "m"], "--onnx is for --images"),
        (["index", "--features", "f.npz", "--out", "g", "--add", "--root", "."], "leave it out with --add"),
        (["index", "--features", "f.npz", "--out", "g", "--config-file", "c"], "--config-file is for --im"),
    ],
)
def test_arguments_that_cannot_work(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    people(3).save("f.npz")
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_a_row_that_the_file_lacks(gallery, features, capsys):
    assert main(["search", gallery, "--features", features, "--rows", "30"]) == 1
    assert "has no row 30; rows are 0 to 29" in capsys.readouterr().err
    assert main(["search", gallery, "--ids", "30"]) == 1
    assert "id 30 is not in the gallery" in capsys.readouterr().err


def test_a_time_that_is_none(capsys):
    with pytest.raises(SystemExit):
        main(["search", "g", "--ids", "1", "--since", "noon"])
    assert "time 'noon' is neither" in capsys.readouterr().err


def test_a_library_to_read_images_with_that_is_missing(gallery, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "vif.inference.predictor", None)  # importing it fails
    assert main(["search", gallery, "--images", "x.jpg", "--onnx", "m.onnx"]) == 1
    assert "is needed: pip install -r requirements.txt" in capsys.readouterr().err


def test_milvus_that_is_missing(features, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    assert main(["index", "--features", features, "--out", str(tmp_path / "g.db")]) == 1
    assert "pip install pymilvus milvus-lite" in capsys.readouterr().err
