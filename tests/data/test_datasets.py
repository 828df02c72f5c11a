"""The readers of CARGO, SynthAG, AG-ReIDv1 and AG-ReIDv2, on tiny fake trees."""

import ast
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import vif.data.datasets as datasets
from hypothesis import given
from hypothesis import strategies as st
from vif.data.datasets import agreid, cargo, counts, tree
from vif.data.datasets.checks import check_splits
from vif.errors import DataError
from vif.records import ImageRecord

from tests.fake_trees import agreid_name, make_agreidv1, make_agreidv2, make_cargo, make_synthag, write_image

READERS = {
    "CARGO": (make_cargo, datasets.read_cargo),
    "SynthAG": (make_synthag, datasets.read_synthag),
    "AGReIDv1": (make_agreidv1, datasets.read_agreidv1),
    "AGReIDv2": (make_agreidv2, datasets.read_agreidv2),
}
every_data_set = pytest.mark.parametrize("name", sorted(READERS))


@pytest.fixture
def warnings():
    """Messages that the count check logs."""

    messages = []

    class Collect(logging.Handler):
        def emit(self, record):
            messages.append((record.levelname, record.getMessage()))

    handler = Collect()
    counts.logger.addHandler(handler)
    yield messages
    counts.logger.removeHandler(handler)


def fails(reader, root, *parts):
    with pytest.raises(DataError) as error:
        reader(str(root))
    for part in parts:
        assert str(part) in str(error.value)


# Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Cam2_day_2519_320.jpg", (2519, 2, "aerial")),
        ("Cam5_night_0_0.JPEG", (0, 5, "aerial")),
        ("Cam6_day_1_7.png", (1, 6, "ground")),
        ("Cam13_night_4999_12.jpg", (4999, 13, "ground")),
    ],
)
def test_cargo_name(name, expected):
    assert tuple(cargo.parse_name(name)) == expected


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Cam0_day_1_1.jpg",
        "Cam14_day_1_1.jpg",
        "Cam1_noon_1_1.jpg",
        "Cam1_day_-1_1.jpg",
        "Cam1_day_1.jpg",
        "Cam1_day_1_1.bmp",
        "Cam1_day_1_1.jpg\n",
        "Cam1_day_٣_1.jpg",
    ],
)
def test_cargo_name_refused(name):
    with pytest.raises(DataError, match="is not named Cam") as error:
        cargo.parse_name(name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize(
    ("name", "identity", "camid"),
    [
        ("P0006T02140A0C0F1831.jpg", "P0006T02140A0", 0),
        ("P0000T04041A2C2F8671Z.jpg", "P0000T04041A2", 2),
        ("P9999T12311A9C3F01111.jpg", "P9999T12311A9", 3),
    ],
)
def test_agreid_name(name, identity, camid):
    parsed = agreid.parse_name(name)
    assert (agreid.decode_identity(parsed.pid), parsed.camid) == (identity, camid)


def test_agreid_identity_is_person_time_and_altitude_together():
    names = [
        "P0006T02140A0C0F1.jpg",
        "P0006T02141A0C0F1.jpg",
        "P0006T02140A1C0F1.jpg",
        "P0007T02140A0C0F1.jpg",
    ]
    assert len({agreid.parse_name(name).pid for name in names}) == 4
    assert agreid.parse_name(names[0]).pid == int(
        "0006" + "02140" + "0"
    )  # as the data set's own tools number it


@pytest.mark.parametrize(
    "name",
    ["", "P6T02140A0C0F1.jpg", "P0006T2140A0C0F1.jpg", "P0006T02140A0C0.jpg", "P0006T02140A0C0F1ZZ.jpg"],
)
def test_agreid_name_refused(name):
    with pytest.raises(DataError, match="is not named P") as error:
        agreid.parse_name(name)
    assert repr(name) in str(error.value)


name_like = st.one_of(
    st.text(),
    st.from_regex(r"Cam[0-9]*_(day|night)?_[0-9]*_?[0-9]*\.?(jpg)?"),
    st.from_regex(r"P?[0-9]*T?[0-9]*A[0-9]?C[0-9]?F[0-9]*[A-Z]?\.?(jpg)?"),
)


@given(name_like)
def test_any_name_is_read_or_refused_with_a_data_error(name):
    for parse in (cargo.parse_name, agreid.parse_name):
        try:
            parsed = parse(name)
        except DataError:
            continue
        assert 0 <= parsed.pid < 2**63
        assert parsed.camid >= 0


@given(st.integers(0, 9999), st.integers(0, 99999), st.integers(0, 9), st.sampled_from((0, 2, 3)))
def test_agreid_identity_goes_there_and_back(person, time, altitude, camera):
    name = agreid_name(person, camera, 1, time, altitude)
    assert name.startswith(agreid.decode_identity(agreid.parse_name(name).pid) + f"C{camera}")


# Contents


@pytest.mark.parametrize("name", ["CARGO", "SynthAG"])
def test_cargo_content(tmp_path, name):
    make, read = READERS[name]
    home = make(tmp_path, ids=3, images=2)
    splits = read(str(tmp_path))
    assert {s: len(r) for s, r in splits.items()} == {
        "train": 3 * 13 * 2,
        "query": 3 * 2,
        "gallery": 3 * 13 * 2,
    }
    assert {r.pid for r in splits["train"]} == {1, 2, 3}
    assert {r.pid for r in splits["query"]} == {r.pid for r in splits["gallery"]} == {4, 5, 6}
    assert {(r.camid, r.view) for r in splits["gallery"]} == {
        (c, "aerial" if c <= 5 else "ground") for c in range(1, 14)
    }
    assert ImageRecord(str(home / "query/Cam13/Cam13_day_4_2.jpg"), 4, 13, "ground") in splits["query"]


def test_agreidv1_content(tmp_path):
    make_agreidv1(tmp_path, ids=2, images=3)
    splits = datasets.read_agreidv1(str(tmp_path))
    assert {s: len(r) for s, r in splits.items()} == {"train": 12, "query": 12, "gallery": 12}
    for split, folder in (("query", "query_all"), ("gallery", "bounding_box_test_all")):
        for view, camid in (("aerial", 0), ("ground", 3)):
            found = [r for r in splits[split] if r.view == view]
            assert len(found) == 6
            assert {r.camid for r in found} == {camid}
            assert {Path(r.path).parent.name for r in found} == {f"{folder}_c{camid}"}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\n\n", " \r\n\r\n"])
@pytest.mark.parametrize("last_line_end", [False, True])
def test_agreidv2_content(tmp_path, nested, line_end, last_line_end):
    make_agreidv2(tmp_path, ids=2, images=3, nested=nested, line_end=line_end, last_line_end=last_line_end)
    splits = datasets.read_agreidv2(str(tmp_path))
    cameras = {"A": (0, "aerial"), "W": (2, "wearable"), "C": (3, "cctv")}
    assert len(splits["train"]) == 2 * 3 * 3
    assert set(splits) == {"train"} | {
        f"{s}@{p}" for s in ("query", "gallery") for p in ("A2C", "A2W", "C2A", "W2A")
    }
    for split, records in splits.items():
        if split != "train":
            side, _, (first, _, last) = split.partition("@")
            assert len(records) == 6
            assert {(r.camid, r.view) for r in records} == {cameras[first if side == "query" else last]}
            assert {Path(r.path).parts[-3] for r in records} == {side}
            assert all(os.path.isfile(r.path) for r in records)
    assert sum(r.path.endswith("Z.jpg") for r in splits["query@W2A"]) == 2


def test_agreidv2_lists_may_lie_beside_the_nested_images(tmp_path):
    home = make_agreidv2(tmp_path, nested=True)
    for file in agreid.LISTS.values():
        shutil.move(home.parent / file, home / file)
    assert len(datasets.read_agreidv2(str(tmp_path))["query@A2C"]) == 6


@pytest.mark.parametrize("folder", agreid.AGREIDV1.folders)
def test_agreidv1_folder_names(tmp_path, folder):
    make_agreidv1(tmp_path, ids=1, images=1, name=folder)
    assert len(datasets.read_agreidv1(str(tmp_path))["train"]) == 2


@pytest.mark.parametrize("folder", agreid.AGREIDV2.folders)
def test_agreidv2_folder_names(tmp_path, folder):
    make_agreidv2(tmp_path, ids=1, images=1, name=folder)
    assert len(datasets.read_agreidv2(str(tmp_path))["train"]) == 3


@every_data_set
def test_lists_are_sorted_whatever_the_disk_says(tmp_path, name, monkeypatch):
    make, read = READERS[name]
    make(tmp_path)
    expected = read(str(tmp_path))
    scandir = os.scandir

    class Backwards:
        def __init__(self, folder):
            self.entries = sorted(scandir(folder), key=lambda e: e.name[::-1], reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(tree.os, "scandir", Backwards)
    found = read(str(tmp_path))
    assert found == expected
    for records in found.values():
        paths = [r.path for r in records]
        assert paths == sorted(paths)


@every_data_set
def test_no_image_is_opened(tmp_path, name):
    make, read = READERS[name]
    home = make(tmp_path)
    expected = read(str(tmp_path))
    for path in home.rglob("*.jpg"):
        path.write_bytes(b"")
    assert read(str(tmp_path)) == expected


@every_data_set
def test_junk_of_desktops_is_ignored(tmp_path, name):
    make, read = READERS[name]
    home = make(tmp_path)
    expected = read(str(tmp_path))
    for folder in [p for p in home.rglob("*") if p.is_dir()]:
        for junk in ("Thumbs.db", ".DS_Store", "._Cam1_day_1_1.jpg", "._P0006T02140A0C0F1.jpg", "notes.txt"):
            (folder / junk).write_bytes(b"x")
        write_image(folder / "__MACOSX" / "x.jpg", 0)
    assert read(str(tmp_path)) == expected


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    home = make_cargo(tmp_path / "disk", ids=2)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "CARGO").symlink_to(home)
    assert len(datasets.read_cargo(str(tmp_path / "root"))["train"]) == 26
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "again").symlink_to(tmp_path / "loop")
    assert tree.scan_images(str(tmp_path / "loop")) == []


def test_home_is_expanded(tmp_path, monkeypatch):
    make_cargo(tmp_path / "data", ids=1)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(datasets.read_cargo("~/data")["train"]) == 13


# Errors


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
    fails(datasets.read_synthag, tmp_path, "`vif synth --out <root>/SynthAG --ids 400 --seed 0`")


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


# Published counts


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("CARGO", "query images 8 (published 312)"),
        ("AGReIDv1", "gallery ground images 6 (published 3,225)"),
        ("AGReIDv2", "gallery@A2W wearable images 6 (published 12,912)"),
    ],
)
def test_count_that_differs_is_a_warning(tmp_path, warnings, name, part):
    make, read = READERS[name]
    home = make(tmp_path)
    assert read(str(tmp_path))["train"]
    ((level, message),) = warnings
    assert level == "WARNING"
    assert f"{name} at {home} differs from the published copy" in message
    assert part in message


def published_copy(name):
    """Records with exactly the published counts."""
    rows = counts.PUBLISHED[name]
    by_view = {count.splits[0] for count in rows if count.view}
    images = [c for c in rows if c.what == "images" and (c.view or c.splits[0] not in by_view)]
    ids = {split: c.number for c in rows if c.what == "ids" for split in c.splits}
    if not any("train" in c.splits for c in images):
        images.append(counts.Count(("train",), None, "images", ids["train"]))
    splits = {c.splits[0]: [] for c in images}
    for (split,), view, _, number in images:
        splits[split] += [
            ImageRecord("", i % ids.get(split, 808), 0, view or "aerial") for i in range(number)
        ]
    return splits


@pytest.mark.parametrize("name", sorted(counts.PUBLISHED))
def test_published_copy_passes_in_silence_and_one_image_less_does_not(warnings, name):
    splits = published_copy(name)
    counts.warn_counts(name, "x", splits)
    assert warnings == []
    splits["train"].pop()
    counts.warn_counts(name, "x", splits)
    assert len(warnings) == 1


def test_synthag_has_no_published_counts(tmp_path, warnings):
    make_synthag(tmp_path)
    datasets.read_synthag(str(tmp_path))
    assert warnings == []


# Borders


def test_readers_know_nothing_of_fastreid():
    for file in Path(datasets.__file__).parent.glob("*.py"):
        if file.name != "registry.py":
            for node in ast.walk(ast.parse(file.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not any("fastreid" in n or "registry" in n for n in names), file.name


def test_readers_import_where_fastreid_is_not_installed():
    code = "import sys; sys.modules['fastreid'] = None; from vif.data.datasets import Splits; print('yes')"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "yes", done.stderr
