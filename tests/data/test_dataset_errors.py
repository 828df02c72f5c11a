"""What the readers refuse, and what they say: malformed copies of tiny fake trees."""

import os
import shutil

import pytest
import vif.data.datasets as datasets
from vif.data.datasets import agreid, cargo, tree
from vif.data.datasets.checks import check_splits
from vif.errors import DataError
from vif.records import ImageRecord

from tests.fake_trees import agreid_name, make_agreidv1, make_agreidv2, make_cargo, make_synthag

READERS = {
    "CARGO": (make_cargo, datasets.read_cargo),
    "SynthAG": (make_synthag, datasets.read_synthag),
    "AGReIDv1": (make_agreidv1, datasets.read_agreidv1),
    "AGReIDv2": (make_agreidv2, datasets.read_agreidv2),
}
every_data_set = pytest.mark.parametrize("name", sorted(READERS))


def fails(reader, root, *parts):
    with pytest.raises(DataError) as error:
        reader(str(root))
    for part in parts:
        assert str(part) in str(error.value)


@every_data_set
def test_missing_data_set(tmp_path, name):
    read = READERS[name][1]
    layout = {"CARGO": cargo.CARGO, "SynthAG": cargo.SYNTHAG, "AGReIDv1": agreid.AGREIDV1}.get(
        name, agreid.AGREIDV2
    )
    fails(
        read,
        tmp_path,
        *[tmp_path / f for f in layout.folders],
        layout.tree,
        layout.remedy,
        "FASTREID_DATASETS",
    )


def test_missing_synthag_says_how_to_make_it(tmp_path):
    fails(datasets.read_synthag, tmp_path, "`vif synth --out <root>/SynthAG --ids 600 --seed 0`")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("CARGO", "gallery"),
        ("SynthAG", "train"),
        ("AGReIDv1", "bounding_box_test_all_c0"),
        ("AGReIDv2", "train_all"),
    ],
)
def test_missing_folder_is_named(tmp_path, name, folder):
    make, read = READERS[name]
    home = make(tmp_path)
    shutil.rmtree(home / folder)
    fails(read, tmp_path, f"{home} lacks {folder}", "FASTREID_DATASETS")


def test_a_whole_copy_is_found_behind_a_broken_one(tmp_path):
    (tmp_path / "AG-ReIDv1" / "query_all_c0").mkdir(parents=True)
    make_agreidv1(tmp_path, ids=1, name="AG-ReID")
    assert datasets.read_agreidv1(str(tmp_path))["train"]


@pytest.mark.parametrize(
    ("name", "folder", "split"),
    [("CARGO", "query", "query"), ("SynthAG", "train", "train"), ("AGReIDv2", "train_all", "train")],
)
def test_empty_split(tmp_path, name, folder, split):
    make, read = READERS[name]
    home = make(tmp_path)
    shutil.rmtree(home / folder)
    (home / folder).mkdir()
    fails(read, tmp_path, f"split {split} has no image", home)


def test_empty_list(tmp_path):
    home = make_agreidv2(tmp_path)
    (home / agreid.LISTS["W2A"]).write_text("\r\n")
    fails(datasets.read_agreidv2, tmp_path, "split query@W2A has no image")


@pytest.mark.parametrize(
    ("name", "bad", "pattern"),
    [
        ("CARGO", "train/Cam1/x.jpg", "Cam{1..13}_{day|night}_{pid}_{index}.jpg"),
        ("SynthAG", "query/Cam3/Cam3_day_1.png", "Cam2_day_2519_320.jpg"),
        ("AGReIDv1", "query_all_c0/x.JPG", "P0006T02140A0C0F1831.jpg"),
        ("AGReIDv2", "train_all/P0000T04041A0/x.jpeg", "P0006T02140A0C0F1831.jpg"),
    ],
)
def test_unparsable_name(tmp_path, name, bad, pattern):
    make, read = READERS[name]
    home = make(tmp_path)
    (home / bad).parent.mkdir(exist_ok=True)
    (home / bad).write_bytes(b"")
    fails(read, tmp_path, home / bad, pattern)


@pytest.mark.skipif(os.name == "nt", reason="needs a file system that takes any bytes")
def test_name_that_is_no_text(tmp_path):
    home = make_cargo(tmp_path)
    with open(os.fsencode(home / "train" / "Cam1") + b"/\xff.jpg", "wb"):
        pass
    fails(datasets.read_cargo, tmp_path, "\\udcff.jpg")


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("CARGO", "train/Cam2/Cam1_day_1_9.jpg", "belongs in a folder Cam1/"),
        ("CARGO", "train/Cam1_day_1_9.jpg", "belongs in a folder Cam1/"),
        ("AGReIDv1", "query_all_c0/" + agreid_name(0, 3, 9), "of camera C3; only C0 belongs here"),
        (
            "AGReIDv1",
            "bounding_box_train/" + agreid_name(0, 2, 9),
            "of camera C2; only C0 or C3 belongs here",
        ),
        (
            "AGReIDv2",
            "train_all/P0000T04041A0/" + agreid_name(0, 1, 9, 4041),
            "only C0 or C2 or C3 belongs here",
        ),
        (
            "AGReIDv2",
            "train_all/P0000T04041A0/" + agreid_name(1, 0, 9, 4041),
            "not of identity P0000T04041A0",
        ),
    ],
)
def test_name_in_the_wrong_folder(tmp_path, name, bad, message):
    make, read = READERS[name]
    home = make(tmp_path)
    (home / bad).write_bytes(b"")
    fails(read, tmp_path, home / bad, message)


def test_missing_list(tmp_path):
    home = make_agreidv2(tmp_path, nested=True)
    (home.parent / agreid.LISTS["A2W"]).unlink()
    fails(datasets.read_agreidv2, tmp_path, "lacks the list exp2_aerial_to_wearable.txt", home, home.parent)


def test_list_that_is_no_text(tmp_path):
    home = make_agreidv2(tmp_path)
    (home / agreid.LISTS["A2W"]).write_bytes(b"query/\xff\xfe")
    fails(datasets.read_agreidv2, tmp_path, home / agreid.LISTS["A2W"], "cannot be read as UTF-8")


IDENTITY = "P0000T02140A0"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hello", "is not query/<ID>/<image>"),
        (f"/query/{IDENTITY}/{IDENTITY}C0F1000.jpg", "is not query/<ID>/<image>"),
        (f"../query/{IDENTITY}/{IDENTITY}C0F1000.jpg", "is not query/<ID>/<image>"),
        (f"query/../{IDENTITY}C0F1000.jpg", "is not query/<ID>/<image>"),
        (f"query\\{IDENTITY}\\{IDENTITY}C0F1000.jpg", "is not query/<ID>/<image>"),
        (f"train_all/{IDENTITY}/{IDENTITY}C0F1000.jpg", "is not query/<ID>/<image>"),
        (f"query/{IDENTITY}/x.jpg", "is not named P"),
        (f"query/{IDENTITY}/P0001T02140A0C0F1000.jpg", f"not of identity {IDENTITY}"),
        (f"query/{IDENTITY}/{IDENTITY}C1F1000.jpg", "only C0 or C2 or C3"),
        (f"query/{IDENTITY}/{IDENTITY}C0F77.jpg", "is not on disk"),
        (
            f"query/{IDENTITY}/{IDENTITY}C0F1000.jpg\nquery/{IDENTITY}/{IDENTITY}C0F1000.jpg",
            "is twice in split query@",
        ),
    ],
)
def test_malformed_list_line(tmp_path, line, message):
    home = make_agreidv2(tmp_path)
    file = home / agreid.LISTS["A2C"]
    lines = file.read_text().split("\n")
    file.write_text("\n".join([lines[-2], "", line]))
    parts = [message] if "twice" in message else [message, f"{file}, line 3"]
    fails(datasets.read_agreidv2, tmp_path, *parts)


@pytest.mark.parametrize("link_folder", [False, True])
def test_listed_file_may_not_leave_through_a_link(tmp_path, link_folder):
    home = make_agreidv2(tmp_path / "root")
    inside = home / "query" / IDENTITY
    outside = tmp_path / "outside"
    shutil.move(inside, outside)
    if link_folder:
        inside.symlink_to(outside)
    else:
        inside.mkdir()
        for file in outside.iterdir():
            (inside / file.name).symlink_to(file)
    fails(datasets.read_agreidv2, tmp_path / "root", "leaves", "through a symbolic link")


def test_listed_links_inside_the_root_are_fine(tmp_path):
    home = make_agreidv2(tmp_path)
    shutil.move(home / "query", home / "all_queries")
    (home / "query").symlink_to(home / "all_queries")
    assert len(datasets.read_agreidv2(str(tmp_path))["query@A2C"]) == 6


def test_listed_folder_is_no_file(tmp_path):
    home = make_agreidv2(tmp_path)
    file = home / f"query/{IDENTITY}/{IDENTITY}C0F1000.jpg"
    file.unlink()
    file.mkdir()
    fails(datasets.read_agreidv2, tmp_path, "is not a file", file)


@every_data_set
def test_identity_in_train_and_test(tmp_path, name):
    make, read = READERS[name]
    home = make(tmp_path)
    source, target = {
        "CARGO": ("query/Cam1/Cam1_day_5_1.jpg", "train/Cam1/Cam1_day_5_1.jpg"),
        "SynthAG": ("query/Cam1/Cam1_day_5_1.jpg", "train/Cam1/Cam1_day_5_1.jpg"),
        "AGReIDv1": (f"query_all_c0/{IDENTITY}C0F1000.jpg", f"bounding_box_train/{IDENTITY}C0F1000.jpg"),
        "AGReIDv2": (
            f"query/{IDENTITY}/{IDENTITY}C0F1000.jpg",
            f"train_all/{IDENTITY}/{IDENTITY}C0F1000.jpg",
        ),
    }[name]
    (home / target).parent.mkdir(exist_ok=True)
    shutil.copy(home / source, home / target)
    pid = 5 if "Cam1" in source else 21400
    fails(read, tmp_path, "1 identities are in train and in test", f"{pid} ({home / target} and ")


def test_shared_identities_are_listed_up_to_a_few():
    def records(place):
        return [ImageRecord(f"{place}/{i}", i, 0, "aerial") for i in range(9)]

    splits = {"train": records("a"), "query": records("b"), "gallery": records("c")}
    with pytest.raises(DataError, match="9 identities are in train and in test") as error:
        check_splits("x", splits, ("train",))
    assert str(error.value).count(" and ") == 6  # five examples


def test_one_image_has_one_label():
    first = ImageRecord("a", 1, 0, "aerial")
    splits = {"train": [], "query": [first], "gallery": [first._replace(pid=2)]}
    with pytest.raises(
        DataError, match=r"a has two labels: pid, camid, view \(1, 0, 'aerial'\) and \(2, 0, 'aerial'\)"
    ):
        check_splits("x", splits, ("query", "gallery"))


def test_folder_that_fails_to_list(tmp_path, monkeypatch):
    make_cargo(tmp_path)
    monkeypatch.setattr(
        tree.os, "scandir", lambda _: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    fails(datasets.read_cargo, tmp_path, "cannot be read (Permission denied)", "train")
