"""File names, lists, CSV files and attribute files of any content: read, or an error of the project's own."""

import csv
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vif.data import datasets
from vif.data.datasets import agreid, cargo
from vif.data.datasets.attributes import read_attributes
from vif.errors import DataError, VIFError
from vif.features import FeatureTable
from vif.records import ImageRecord
from vif.retrieval.labels import parse_time, read_labels

from tests import fake_trees
from tests.faults.fuzz import fuzz, mutated, own_errors, some

digits = st.text("0123456789", max_size=6)
cargo_like = st.builds(
    "Cam{}_{}_{}_{}.{}".format,
    st.one_of(st.integers(-1, 20).map(str), st.text(max_size=2)),
    st.sampled_from(["day", "night", "Day", "noon", ""]),
    st.one_of(digits, st.text(max_size=3), st.just("٣")),
    st.one_of(digits, st.text(max_size=3)),
    st.sampled_from(["jpg", "JPG", "png", "jpeg", "jpg\n", "gif", ""]),
)
agreid_like = st.builds(
    "P{}T{}A{}C{}F{}{}.{}".format,
    st.one_of(digits, st.just("0006")),
    st.one_of(digits, st.just("02140")),
    st.one_of(digits, st.just("0")),
    st.one_of(digits, st.sampled_from("023")),
    digits,
    st.sampled_from(["", "Z", "z", "ZZ", "é"]),
    st.sampled_from(["jpg", "JPG", "png", "jpg\n", ""]),
)


@fuzz(300)
@given(st.one_of(cargo_like, st.text(max_size=40)))
def test_a_cargo_name_says_what_it_is_made_of_or_is_refused(name):
    try:
        found = cargo.parse_name(name)
    except DataError:
        return
    stem, _, ending = name.rpartition(".")
    parts = stem.split("_")
    assert name.isascii()
    assert ending.lower() in ("jpg", "jpeg", "png")
    assert (parts[0], int(parts[2])) == (f"Cam{found.camid}", found.pid)
    assert found.view == ("aerial" if found.camid <= 5 else "ground")


@fuzz(300)
@given(st.one_of(agreid_like, st.text(max_size=40)))
def test_an_agreid_name_round_trips_or_is_refused(name):
    try:
        found = agreid.parse_name(name)
    except DataError:
        return
    assert name.startswith(f"{agreid.decode_identity(found.pid)}C{found.camid}F")


@pytest.fixture(scope="module")
def v2(tmp_path_factory):
    return fake_trees.make_agreidv2(tmp_path_factory.mktemp("v2"), ids=2)


def test_fuzzed_lists_of_agreidv2(v2):
    path = v2 / "exp1_aerial_to_cctv.txt"
    whole = path.read_bytes()
    lines = st.lists(
        st.one_of(
            st.sampled_from(whole.decode().split()),
            st.text(max_size=30),
            st.sampled_from(["../x.jpg", "/etc/passwd", "query/../../x.jpg", "query\\x.jpg", "C:/x.jpg"]),
        ),
        max_size=8,
    ).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass"))

    @fuzz(60)
    @given(st.one_of(some(whole), lines))
    def read(content):
        path.write_bytes(content)
        try:
            splits = datasets.read_agreidv2(str(v2.parent))
        except VIFError:
            return
        read_paths = {r.path for split in ("query@A2C", "gallery@A2C") for r in splits[split]}
        listed = {
            str(v2 / line) for line in content.decode("utf-8-sig").split("\n") for line in [line.strip()]
        }
        assert read_paths == listed - {str(v2 / "")}

    read()
    path.write_bytes(whole)


cell = st.one_of(
    st.sampled_from(
        ["train", "query", "gallery", "a.jpg", "b.jpg", "sub/c.jpg", "1", "01", "aerial", "ground"]
    ),
    st.sampled_from(
        ["../a.jpg", "/a.jpg", "nan", "-1", "1e5", "9" * 30, "\0", "a\r\nb", '"', " ", "", "\ufeff"]
    ),
    st.text(max_size=6),
)
row = st.one_of(
    st.tuples(
        st.sampled_from(["train", "query", "gallery"]),
        st.sampled_from(["a.jpg", "b.jpg", "sub/c.jpg", "./a.jpg"]),
        st.sampled_from(["1", "2", "01", "x"]),
        st.sampled_from(["1", "2"]),
        st.sampled_from(["aerial", "ground"]),
    ),
    st.lists(cell, max_size=7),
)


def written(rows, header, line_end, bom):
    text = io.StringIO()
    csv.writer(text, lineterminator=line_end).writerows([header, *rows])
    return (b"\xef\xbb\xbf" if bom else b"") + text.getvalue().encode("utf-8", "surrogatepass")


HEADER = ["split", "path", "pid", "camid", "view"]
manifests = st.builds(
    written,
    st.lists(row, max_size=6),
    st.one_of(st.just(HEADER), st.just(HEADER), st.permutations(HEADER), st.lists(cell, max_size=5)),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)


def test_fuzzed_manifests(tmp_path):
    for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
        fake_trees.write_image(tmp_path / name, 0, size=(4, 4))
    file = tmp_path / "list.csv"
    plain = written([("train", "a.jpg", "1", "1", "aerial")], HEADER, "\n", False)

    @fuzz(250)
    @given(st.one_of(manifests, manifests, some(plain)))
    def read(content):
        file.write_bytes(content)
        try:
            splits = datasets.read_manifest(str(file))
        except VIFError:
            return
        for records in splits.values():
            for record in records:
                assert isinstance(record, ImageRecord)
                assert os.path.realpath(record.path).startswith(str(tmp_path))
        rows = [("split", "path", "pid", "camid", "view")]
        rows += [(s, os.path.relpath(r.path, tmp_path), *r[1:]) for s, rs in splits.items() for r in rs]
        assert (
            datasets.read_manifest(str(fake_trees.write_manifest(tmp_path / "again.csv", rows[1:]))) == splits
        )

    read()


def label_table():
    import numpy as np

    names = np.array(["a.jpg", "b.jpg"])
    zeros = np.zeros(2, np.int64)
    return FeatureTable(np.ones((2, 2), np.float32), zeros, zeros, names, names, names)


def test_fuzzed_labels_of_a_gallery(tmp_path):
    file = tmp_path / "labels.csv"
    names = ["path", "pid", "camid", "view", "split", "time", "own"]
    value = st.one_of(
        cell, st.sampled_from(["2026-03-01T12:30", "1e400", "-1e30", "9" * 25, "9" * 5000, "inf"])
    )
    images = [st.tuples(st.just(name), *[value] * 6).map(list) for name in ("a.jpg", "b.jpg")]
    contents = st.builds(
        written, st.tuples(*images), st.just(names), st.sampled_from(["\n", "\r\n"]), st.booleans()
    )
    plain = written([["a.jpg", *"1234"], ["b.jpg", *"1234"]], names[:5], "\n", False)

    @fuzz(250)
    @given(st.one_of(contents, some(plain)))
    def read(content):
        file.write_bytes(content)
        with own_errors():
            table, times, extra = read_labels(str(file), label_table())
            assert len(table) == len(times) == 2
            assert all(len(column) == 2 for column in extra.values())

    read()


@fuzz(200)
@given(st.one_of(st.text(max_size=30), st.datetimes().map(str), st.floats().map(str), st.integers().map(str)))
def test_fuzzed_times(text):
    with own_errors():
        assert abs(parse_time(text)) < float("inf")


def test_fuzzed_attribute_files(tmp_path):
    home = fake_trees.make_synthag(tmp_path, ids=2)
    file = home / "synthag_attributes.mat"
    whole = file.read_bytes()
    one = fake_trees.write_attributes(tmp_path / "one.mat", {1: {"a": 1}}, {2: {"a": 2}}).read_bytes()

    @fuzz(150)
    @given(st.one_of(mutated(whole), some(one)))
    def read(content):
        file.write_bytes(content)
        with own_errors():
            found = read_attributes(str(file))
            assert all(len(values) == len(found.names) for values in found.rows.values())

    read()
