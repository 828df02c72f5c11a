"""AGManifest: the CSV file of one's own images."""

import csv
import itertools
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vif.data.datasets import read_manifest
from vif.errors import DataError
from vif.records import ImageRecord

from tests.fake_trees import make_manifest, write_image, write_manifest

ROWS = [
    ("train", "a.jpg", "p1", "drone", "aerial"),
    ("train", "b.jpg", "p1", "door", "ground"),
    ("query", "c.jpg", "p0", "drone", "aerial"),
    ("gallery", "c.jpg", "p0", "drone", "aerial"),
    ("gallery", "sub/d.jpg", "p0", "belt", "wearable"),
]


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "home"
    for name in ("a.jpg", "b.jpg", "c.jpg", "sub/d.jpg"):
        write_image(home / name, 0)
    return home


def write(home, rows=(), header=None):
    return write_manifest(home / "list.csv", [*ROWS, *rows], header)


def fails(file, *parts):
    with pytest.raises(DataError) as error:
        read_manifest(str(file))
    for part in parts:
        assert str(part) in str(error.value)


def test_content(home):
    assert read_manifest(str(write(home))) == {
        "train": [ImageRecord(f"{home}/a.jpg", 1, 2, "aerial"), ImageRecord(f"{home}/b.jpg", 1, 1, "ground")],
        "query": [ImageRecord(f"{home}/c.jpg", 0, 2, "aerial")],
        "gallery": [
            ImageRecord(f"{home}/c.jpg", 0, 2, "aerial"),
            ImageRecord(f"{home}/sub/d.jpg", 0, 0, "wearable"),
        ],
    }


def test_order_of_rows_does_not_matter(home):
    expected = read_manifest(str(write(home)))
    assert read_manifest(str(write_manifest(home / "list.csv", reversed(ROWS)))) == expected


def test_numbers_are_kept(home):
    rows = [
        (s, p, {"p0": 70, "p1": "007"}[pid], {"drone": 5, "door": 9, "belt": 10}[cam], v)
        for s, p, pid, cam, v in ROWS
    ]
    splits = read_manifest(str(write_manifest(home / "list.csv", rows)))
    assert [(r.pid, r.camid) for r in splits["train"] + splits["gallery"]] == [
        (7, 5),
        (7, 9),
        (70, 5),
        (70, 10),
    ]


def test_bom_windows_line_ends_spaces_and_blank_lines(home):
    expected = read_manifest(str(write(home)))
    text = "\r\n\r\n".join(" , ".join(row) for row in [("split", "path", "pid", "camid", "view"), *ROWS])
    (home / "list.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_manifest(str(home / "list.csv")) == expected


def test_file_named_relative_to_the_working_directory(home, monkeypatch):
    write(home)
    monkeypatch.chdir(home)
    assert read_manifest("list.csv")["train"][0].path == os.path.join(".", "a.jpg")
    monkeypatch.setenv("HOME", str(home))
    assert read_manifest("~/list.csv")["train"][0].path == f"{home}/a.jpg"


@pytest.mark.parametrize("kept", [("train",), ("query", "gallery")])
def test_training_or_testing_alone(home, kept):
    file = write_manifest(home / "list.csv", [row for row in ROWS if row[0] in kept])
    assert [split for split, records in read_manifest(str(file)).items() if records] == list(kept)


@pytest.mark.parametrize("missing", ["query", "gallery"])
def test_one_test_side_alone_is_refused(home, missing):
    fails(
        write_manifest(home / "list.csv", [r for r in ROWS if r[0] != missing]),
        f"split {missing} has no image",
    )


def test_no_rows(home):
    fails(write_manifest(home / "list.csv", []), "split train has no image", home / "list.csv")


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_manifest_named(nothing):
    with pytest.raises(
        DataError, match=r"none was named: set DATASETS\.MANIFEST .*split,path,pid,camid,view"
    ):
        read_manifest(nothing)


def test_missing_manifest(tmp_path):
    fails(tmp_path / "x.csv", tmp_path / "x.csv", "does not exist", "DATASETS.MANIFEST")


@pytest.mark.parametrize("content", [b"\xff\xfe", b'split,path,pid,camid,view\ntrain,"a', b"x" * 200_000])
def test_unreadable_manifest(tmp_path, content):
    (tmp_path / "list.csv").write_bytes(content)
    fails(tmp_path / "list.csv", tmp_path / "list.csv", "cannot be read as a UTF-8 CSV file")


def test_folder_as_manifest(tmp_path):
    fails(tmp_path, "cannot be read as a UTF-8 CSV file")


def test_wrong_header(home):
    fails(
        write(home, header=("path", "split", "pid", "camid", "view")), "line 1", "'path,split,pid,camid,view'"
    )
    (home / "list.csv").write_text("")
    fails(home / "list.csv", "line 1", "not 'split,path,pid,camid,view'")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("train", "a.jpg", "1", "1"), "4 cells, expected 5"),
        (("train", "a.jpg", "1", "1", "aerial", ""), "6 cells, expected 5"),
        (("train", "a.jpg", "", "1", " "), "pid, view is empty"),
        (("test", "a.jpg", "1", "1", "aerial"), "split 'test' is none of train, query, gallery"),
        (("train", "a.jpg", "1", "1", "bird's eye"), 'view "bird\'s eye" is not one word'),
        (("train", "/etc/hostname", "1", "1", "aerial"), "must be relative to"),
        (("train", "C:\\x.jpg", "1", "1", "aerial"), "must be relative to"),
        (("train", "c:/x.jpg", "1", "1", "aerial"), "must be relative to"),
        (("train", "..\\x.jpg", "1", "1", "aerial"), "must be relative to"),
        (("train", "../home/a.jpg", "1", "1", "aerial"), "must be relative to"),
        (("train", "sub/../a.jpg", "1", "1", "aerial"), "must be relative to"),
        (("train", "e.jpg", "1", "1", "aerial"), "'e.jpg' is not on disk"),
        (("train", "a.jpg/b.jpg", "1", "1", "aerial"), "is not on disk"),
        (("train", "x" * 5000, "1", "1", "aerial"), "is not on disk"),
        (("train", "sub", "1", "1", "aerial"), "'sub' is not a file"),
        (("train", ".", "1", "1", "aerial"), "'.' is not a file"),
        (
            ("train", "b.jpg", "p1", "drone", "ground"),
            "camera 'drone' has view 'ground' here and 'aerial' above",
        ),
    ],
)
def test_bad_row(home, row, message):
    file = write(home, [row])
    fails(file, message, f"{file}, line 7")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("train", "a.jpg", "-1", "drone", "aerial"), "pid -1 is negative"),
        (("train", "a.jpg", "p1", "-2", "aerial"), "camid -2 is negative"),
        (("train", "a.jpg", "p1", "drone", "aerial"), "a.jpg is twice in split train"),
        (("train", "./a.jpg", "p1", "drone", "aerial"), "a.jpg is twice in split train"),
        (("query", "sub/d.jpg", "p2", "belt", "wearable"), "sub/d.jpg has two labels"),
        (("train", "c.jpg", "p0", "drone", "aerial"), "1 identities are in train and in test: 0 ("),
    ],
)
def test_rows_that_contradict_each_other(home, row, message):
    file = write(home, [row])
    fails(file, message, file)


@pytest.mark.parametrize("link_folder", [False, True])
def test_links_may_not_leave_the_folder(home, link_folder):
    secret = write_image(home.parent / "secret" / "x.jpg", 0)
    (home / "link").symlink_to(secret.parent if link_folder else secret)
    file = write(home, [("train", "link/x.jpg" if link_folder else "link", "p1", "drone", "aerial")])
    fails(file, "line 7", "leaves", "through a symbolic link")


def test_folder_whose_name_only_begins_like_the_root_is_outside(home):
    write_image(home.parent / "home2" / "x.jpg", 0)
    (home / "link").symlink_to(home.parent / "home2")
    fails(write(home, [("train", "link/x.jpg", "p1", "drone", "aerial")]), "through a symbolic link")


def test_links_that_stay_are_fine(home, tmp_path):
    (home / "link.jpg").symlink_to(home / "sub" / "d.jpg")
    write(home, [("train", "link.jpg", "p1", "door", "ground")])
    (tmp_path / "alias").symlink_to(home)
    assert len(read_manifest(str(tmp_path / "alias" / "list.csv"))["train"]) == 3


def test_fake_tree(tmp_path):
    splits = read_manifest(str(make_manifest(tmp_path, ids=3, images=2)))
    assert {split: len(records) for split, records in splits.items()} == {
        "train": 12,
        "query": 6,
        "gallery": 6,
    }


cells = st.one_of(
    st.sampled_from(["train", "query", "gallery", "a.jpg", "c.jpg", "..", "aerial", "1", "-1"]), st.text()
)
table = st.lists(st.lists(cells, max_size=6), max_size=6)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table)
def test_any_table_is_read_or_refused_with_a_data_error(home, rows):
    with open(home / "fuzz.csv", "w", newline="", encoding="utf-8", errors="surrogatepass") as f:
        csv.writer(f).writerows([("split", "path", "pid", "camid", "view"), *rows])
    check_read_or_refused(home)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(), st.booleans())
def test_any_bytes_are_read_or_refused_with_a_data_error(home, content, with_header):
    (home / "fuzz.csv").write_bytes((b"split,path,pid,camid,view\n" if with_header else b"") + content)
    check_read_or_refused(home)


def check_read_or_refused(home):
    try:
        splits = read_manifest(str(home / "fuzz.csv"))
    except DataError:
        return
    for record in itertools.chain(*splits.values()):
        assert os.path.isfile(record.path)
        assert 0 <= record.pid < 2**63
        assert 0 <= record.camid < 2**63


row_of_words = st.tuples(
    st.sampled_from(["train", "query", "gallery"]),
    st.sampled_from(["a.jpg", "b.jpg", "c.jpg", "sub/d.jpg", "./a.jpg", "x.jpg"]),
    st.sampled_from(["0", "1", "01", "x"]),
    st.sampled_from(["0", "1", "y"]),
    st.sampled_from(["aerial", "ground"]),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(row_of_words, max_size=6))
def test_plausible_rows_are_all_kept_or_refused(home, rows):
    write_manifest(home / "fuzz.csv", rows)
    try:
        splits = read_manifest(str(home / "fuzz.csv"))
    except DataError:
        return
    assert sum(map(len, splits.values())) == len(rows)
