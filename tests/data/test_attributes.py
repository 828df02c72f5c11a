"""Attribute files: hand-made values come back, every image gets its identity's, errors say what to do."""

import shutil
from pathlib import Path

import vif
import numpy as np
import pytest
from fastreid.data.datasets import DATASET_REGISTRY
from scipy.io import savemat
from vif.data.build import build_train_loader
from vif.data.datasets.attributes import find_attributes, read_attributes
from vif.data.synth import plan_synthag, sample_identity, write_synthag
from vif.data.synth.attributes import VALUES, attribute_bytes, describe
from vif.errors import ConfigError, DataError

from tests import fake_trees
from tests.tiny import tiny_cfg


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    fake_trees.make_cargo(root, ids=4)
    fake_trees.make_synthag(root, ids=4)
    fake_trees.make_agreidv1(root, ids=4)
    fake_trees.make_agreidv2(root, ids=4, nested=True)  # the file lies where the lists do
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(root))
        yield root


def dataset(root, name, **kwargs):
    return DATASET_REGISTRY.get(name)(root=str(root), **kwargs)


def test_hand_made_values(tmp_path):
    train = {
        6021400: {"uppershirt": 2, "headhat": 1, "bagnormal": 2},
        7: {"uppershirt": 1, "headhat": 1, "bagnormal": 2},
    }
    test = {102214012: {"uppershirt": 1, "headhat": 2, "bagnormal": 1}}
    found = read_attributes(str(fake_trees.write_attributes(tmp_path / "a.mat", train, test)))
    assert found.names == ("bagnormal", "headhat", "uppershirt")
    assert {pid: row.tolist() for pid, row in found.rows.items()} == {
        6021400: [1, 0, 1],
        7: [1, 0, 0],
        102214012: [0, 1, 0],
    }
    rows = found.of([7, 102214012, 7])
    assert (rows.dtype, rows.tolist()) == (np.float32, [[1, 0, 0], [0, 1, 0], [1, 0, 0]])


def test_identities_as_numbers_columns_and_a_single_one(tmp_path):
    """Other ways in which MATLAB code writes the same file."""
    part = {
        "image_index": np.array([[6021400.0], [7.0]]),
        "bag": np.array([[1.0], [2.0]]),
        "hat": np.array([[2], [2]]),
    }
    savemat(tmp_path / "a.mat", {"x": {"train": part, "test": {"hat": 1, "bag": 2, "image_index": "0009"}}})
    found = read_attributes(str(tmp_path / "a.mat"))
    assert found.names == ("bag", "hat")
    assert {pid: row.tolist() for pid, row in found.rows.items()} == {6021400: [0, 1], 7: [1, 1], 9: [1, 0]}


@pytest.mark.parametrize("name", ["AGReIDv1", "AGReIDv2"])
def test_every_training_image_gets_the_row_of_its_identity(root, name):
    data = dataset(root, name)
    rows = data.train_labels("attributes")
    assert (rows.dtype, rows.shape) == (np.float32, (len(data.train), 88))
    names = sorted(group + value for group, values in fake_trees.QUT.items() for value in values.split())
    for (path, _, _), row in zip(data.train, rows):
        file = Path(path).name  # P0006T02140A0C0F1831.jpg
        expected = fake_trees.qut_row(int(file[1:5] + file[6:11] + file[12]))
        assert row.tolist() == [expected[field] - 1 for field in names]
    assert len({row.tobytes() for row in rows}) == 4


def test_an_attribute_row_follows_its_image_into_the_batch(root, tmp_path):
    loader = build_train_loader(tiny_cfg("AGReIDv1/explain.yml", tmp_path))
    data = dataset(root, "AGReIDv1")
    expected = dict(zip((path for path, _, _ in data.train), data.train_labels("attributes")))
    batch = next(iter(loader))
    np.testing.assert_array_equal(batch["attributes"], [expected[path] for path in batch["img_paths"]])


def test_the_file_may_lie_elsewhere(root, tmp_path):
    other = fake_trees.write_attributes(
        tmp_path / "own.mat", {k: {"tall": 1 + k % 2} for k in range(1, 5)}, {9: {"tall": 1}}
    )
    rows = dataset(root, "CARGO", attributes=str(other)).train_labels("attributes")
    assert rows.shape == (4 * 13, 1)
    assert rows.sum() == 2 * 13
    cfg = tiny_cfg("SynthAG/explain.yml", tmp_path, "DATASETS.ATTRIBUTES", str(other))
    assert next(iter(build_train_loader(cfg)))["attributes"].shape == (8, 1)


# ---- SynthAG


def test_synthags_file_is_what_its_people_look_like(tmp_path):
    write_synthag(tmp_path / "SynthAG", ids=8, seed=3, coverage=0.0, size=(16, 16), workers=1, progress=False)
    found = read_attributes(find_attributes("SynthAG", str(tmp_path)))
    assert set(found.rows) == {image.pid for image in plan_synthag(ids=8, seed=3, coverage=0.0)}
    for pid, row in found.rows.items():
        who = sample_identity(3, pid)
        on = {name for name, value in zip(found.names, row) if value}
        height = "short" if who.height < 1.65 else "tall" if who.height > 1.79 else "medium"
        weight = "thin" if who.girth < 0.93 else "fat" if who.girth > 1.07 else "medium"
        assert on == {
            "height" + height,
            "weight" + weight,
            "skin" + who.skin.name.replace(" ", ""),
            "hairstyle" + who.hair,
            "haircolor" + who.hair_colour.name.replace(" ", ""),
            "beardon" if who.beard else "beardoff",
            "glasseson" if who.glasses else "glassesoff",
            "head" + who.hat,
            "upper" + who.upper,
            "sleeves" + who.sleeves,
            "uppercolor" + who.upper_colour.name,
            "lower" + who.lower,
            "lowercolor" + who.lower_colour.name,
            "bag" + who.bag,
        }
    assert dataset(tmp_path, "SynthAG").train_labels("attributes").shape[1] == len(found.names) == 96


def test_every_person_has_one_of_the_values_of_each_attribute():
    said = [describe(sample_identity(0, pid)) for pid in range(300)]
    for group, values in VALUES.items():
        assert {s[group] for s in said} <= set(values)
    assert {
        group: {s[group] for s in said} for group in ("height", "weight", "hairstyle", "bag", "lower")
    } == {group: set(VALUES[group]) for group in ("height", "weight", "hairstyle", "bag", "lower")}


def test_same_seed_same_bytes_at_any_time(monkeypatch):
    one = attribute_bytes(5, [1, 2], [3, 4])
    monkeypatch.setattr("time.asctime", lambda *_: "Thu Jan  1 00:00:00 1970")
    assert attribute_bytes(5, [1, 2], [3, 4]) == one
    assert b"1970" not in one
    assert attribute_bytes(6, [1, 2], [3, 4]) != one


def test_an_older_synthag_gets_its_file_and_keeps_its_pictures(tmp_path):
    arguments = {"ids": 4, "coverage": 0.0, "size": (16, 16), "workers": 1, "progress": False}
    write_synthag(tmp_path / "a", **arguments)
    file = tmp_path / "a" / "synthag_attributes.mat"
    before = file.read_bytes()
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*.jpg")}
    file.unlink()
    assert write_synthag(tmp_path / "a", **arguments)["written"] == 0
    assert file.read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*.jpg")} == times


# ---- errors


def test_cargo_has_no_attributes(root):
    with pytest.raises(
        DataError, match="CARGO comes without attributes; AGReIDv1, AGReIDv2, SynthAG have them"
    ):
        dataset(root, "CARGO").train_labels("attributes")
    with pytest.raises(DataError, match=r"Annotate it .* DATASETS\.ATTRIBUTES"):
        dataset(root, "CARGO_AG").train_labels("attributes")


@pytest.mark.parametrize(
    ("name", "file", "remedy"),
    [
        ("AGReIDv1", "qut_attribute_v4_88_attributes.mat", "get it from the authors of AGReIDv1"),
        ("AGReIDv2", "qut_attribute_v8.mat", "get it from the authors of AGReIDv2"),
        ("SynthAG", "synthag_attributes.mat", "write it with `vif synth`, called once more"),
    ],
)
def test_a_missing_file(root, tmp_path, name, file, remedy):
    shutil.copytree(root, tmp_path / "data", ignore=shutil.ignore_patterns("*.mat"))
    with pytest.raises(
        DataError, match=rf"{name} is not on disk \(looked for .*{file} and .*; {remedy}.*, and put"
    ):
        dataset(tmp_path / "data", name).train_labels("attributes")


def test_a_named_file_that_is_missing(root, tmp_path):
    with pytest.raises(DataError, match=r"AGReIDv1 is not on disk \(looked for /nowhere/a\.mat\)"):
        dataset(root, "AGReIDv1", attributes="/nowhere/a.mat").train_labels("attributes")
    with pytest.raises(ConfigError, match=r"DATASETS\.ATTRIBUTES='/nowhere/a.mat' is no file"):
        vif.check_config(tiny_cfg("AGReIDv1/explain.yml", tmp_path, "DATASETS.ATTRIBUTES", "/nowhere/a.mat"))


def test_identities_without_a_row(root, tmp_path):
    other = fake_trees.write_attributes(
        tmp_path / "a.mat", {1: {"tall": 1}, 3: {"tall": 2}}, {9: {"tall": 1}}
    )
    with pytest.raises(
        DataError, match=r"a\.mat has no attributes of 2 training identities, such as 2, 4; .*these images"
    ):
        dataset(root, "SynthAG", attributes=str(other)).train_labels("attributes")


GOOD = {"image_index": ["1", "2"], "hat": [1, 2]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"x": {"train": GOOD}}, "'test' is no struct of image_index and attributes"),
        (
            {"x": {"train": {"hat": [1, 2]}, "test": GOOD}},
            "'train' is no struct of image_index and attributes",
        ),
        ({"x": {"train": {"image_index": ["1"]}, "test": GOOD}}, "'train' is no struct of image_index"),
        (
            {"x": {"train": GOOD, "test": {**GOOD, "bag": [1, 1]}}},
            "only one of train and test has the attributes bag",
        ),
        (
            {"x": {"train": {**GOOD, "hat": [0, 1]}, "test": GOOD}},
            r"train\.hat is no vector of 2 values 1 \(no\) or 2",
        ),
        ({"x": {"train": GOOD, "test": {**GOOD, "hat": [1, 2, 1]}}}, r"test\.hat is no vector of 2 values"),
        ({"x": {"train": {**GOOD, "hat": ["a", "b"]}, "test": GOOD}}, r"train\.hat is no vector of 2 values"),
        (
            {"x": {"train": {**GOOD, "image_index": ["1", "P2"]}, "test": GOOD}},
            r"train\.image_index holds .*P2.*6021400",
        ),
        (
            {"x": {"train": GOOD, "test": {**GOOD, "hat": [2, 2]}}},
            "identity 1 has two different rows; keep one",
        ),
        ({"x": {"train": GOOD, "test": GOOD}, "y": 1}, "does not hold one struct of train and test"),
        ({"x": [1, 2]}, "does not hold one struct of train and test"),
    ],
)
def test_another_form(tmp_path, content, words):
    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return np.array(
            value, dtype=object if isinstance(value, list) and isinstance(value[0], str) else None
        )

    savemat(tmp_path / "a.mat", plain(content))
    with pytest.raises(DataError, match=rf"a\.mat.*{words}"):
        read_attributes(str(tmp_path / "a.mat"))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF"]
)
def test_no_such_matlab_file(tmp_path, content):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mat cannot be read as a MATLAB file of version 5 to 7\.2 .*-v7"):
        read_attributes(str(tmp_path / "a.mat"))


def test_attributes_of_two_data_sets_do_not_mix(tmp_path):
    cfg = tiny_cfg("AGReIDv1/explain.yml", tmp_path, "DATASETS.NAMES", ("AGReIDv1", "AGReIDv2"))
    with pytest.raises(ConfigError, match=r"attributes of its own: train on one of them"):
        build_train_loader(cfg)
