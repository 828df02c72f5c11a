"""What the readers of CARGO, SynthAG, AG-ReIDv1 and AG-ReIDv2 find on tiny fake trees."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import vif.data.datasets as datasets
from vif.data.datasets import agreid, tree
from vif.records import ImageRecord

from tests.fake_trees import make_agreidv1, make_agreidv2, make_cargo, make_synthag, write_image

READERS = {
    "CARGO": (make_cargo, datasets.read_cargo),
    "SynthAG": (make_synthag, datasets.read_synthag),
    "AGReIDv1": (make_agreidv1, datasets.read_agreidv1),
    "AGReIDv2": (make_agreidv2, datasets.read_agreidv2),
}
every_data_set = pytest.mark.parametrize("name", sorted(READERS))


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
    assert tree.scan_images(str(tmp_path / "loop"), str(tmp_path / "loop")) == []


def test_home_is_expanded(tmp_path, monkeypatch):
    make_cargo(tmp_path / "data", ids=1)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(datasets.read_cargo("~/data")["train"]) == 13


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
