"""Labels from a CSV file."""

import numpy as np
import pytest
from vif.errors import DataError
from vif.retrieval.labels import parse_time, read_labels

from tests.retrieval.people import people


def write(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_labels_come_to_their_images(tmp_path):
    table = people(3)
    text = "\ufeffpath,time,pid,camid,view,weather\n"
    text += "a/2.jpg,1970-01-01T00:01:00,5,7,drone,sun\na/9.jpg,,,,,\n\na/0.jpg,,6,,,\na/1.jpg,2.5,,,,rain\n"
    labelled, times, extra = read_labels(write(tmp_path, text), table)
    assert labelled.paths.tolist() == table.paths.tolist()
    assert labelled.pids.tolist() == [6, table.pids[1], 5]
    assert labelled.camids.tolist() == [*table.camids[:2], 7]
    assert labelled.views.tolist() == [*table.views[:2], "drone"]
    np.testing.assert_array_equal(times, [np.nan, 2.5, 60])
    assert extra == {"weather": ["", "rain", "sun"]}
    assert labelled.meta == table.meta


def test_a_column_of_ones_own_may_have_any_name(tmp_path):
    text = "path,where,what\na/0.jpg,roof,x\na/1.jpg,,y\n"
    _, _, extra = read_labels(write(tmp_path, text), people(2))
    assert extra == {"where": ["roof", ""], "what": ["x", "y"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,pid\na/0.jpg,1\n", r"lacks 1 of 2 images, such as 'a/1.jpg'"),
        ("path,pid\na/0.jpg,x\na/1.jpg,1\n", r"line 2: pid 'x' cannot be read"),
        ("path,pid\na/0.jpg,9223372036854775808\na/1.jpg,1\n", r"line 2: pid '92.*' cannot be read"),
        ("path,time\na/0.jpg,noon\na/1.jpg,1\n", r"line 2: time 'noon' cannot be read"),
        ("path,pid\na/0.jpg\n", r"line 2: 1 cells, expected 2"),
        ("path,pid\na/0.jpg,1\na/0.jpg,2\n", r"line 3: 'a/0.jpg' is listed a second time"),
        ("file,pid\na/0.jpg,1\n", r"line 1: expected a header with path"),
        ("path,pid,pid\n", r"line 1: expected a header with path"),
        ("", r"line 1: expected a header with path"),
        ('path,pid\n"a/0.jpg,1\n', r"cannot be read as a UTF-8 CSV file"),
    ],
)
def test_what_cannot_be_read_is_named(text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_labels(write(tmp_path, text), people(2))


def test_no_file():
    with pytest.raises(DataError, match="no file of labels 'none.csv'"):
        read_labels("none.csv", people(2))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12.5", 12.5),
        ("1970-01-01T00:00:01", 1),
        ("1970-01-02", 86400),
        ("1970-01-01T01:00:00Z", 3600),
        ("1970-01-01T01:00:00+01:00", 0),
    ],
)
def test_times(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["nan", "inf", "", "yesterday"])
def test_no_times(text):
    with pytest.raises(DataError, match="neither seconds since 1970 nor ISO 8601"):
        parse_time(text)
