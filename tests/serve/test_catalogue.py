"""What is known of rows, against loops over them."""

import numpy as np
import pytest
from vif.errors import DataError
from vif.retrieval import Filter, Gallery
from vif.serve.catalogue import Catalogue

from tests.retrieval.people import people

TIMES = np.where(np.arange(30) % 3 == 0, np.nan, 1000.0 + np.arange(30))


@pytest.fixture
def gallery():
    ids = np.random.default_rng(3).permutation(100)[:30]
    return Gallery.build(people(30), ids=ids, times=TIMES, extra={"note": [f"n{i % 2}" for i in range(30)]})


def naive(gallery):
    rows, found = gallery.rows(), []
    for i in range(len(rows)):
        column = {name: values[i] for name, values in rows.columns.items()}
        found.append(
            {
                "id": int(rows.ids[i]),
                "path": str(column["paths"]),
                "pid": int(column["pids"]),
                "camid": int(column["camids"]),
                "view": str(column["views"]),
                "time": None if np.isnan(column["times"]) else float(column["times"]),
                "split": str(column["splits"]),
                "note": str(column["note"]),
            }
        )
    return found


def test_every_row_is_found_by_its_id_with_what_is_known_of_it(gallery):
    catalogue = Catalogue(gallery.rows(vectors=False))
    assert len(catalogue) == 30
    for row in naive(gallery):
        assert catalogue.row(row["id"]) == row


def test_an_id_that_is_not_there(gallery):
    taken = set(gallery.rows().ids.tolist())
    for id_ in (next(i for i in range(100) if i not in taken), 100, 2**62, -1):
        with pytest.raises(DataError, match=f"id {id_} is not in the gallery; it has 30 rows"):
            Catalogue(gallery.rows(vectors=False)).row(id_)


def test_removed_rows_are_gone(gallery):
    gone = gallery.rows().ids[4:6]
    gallery.remove(gone)
    catalogue = Catalogue(gallery.rows(vectors=False))
    assert len(catalogue) == 28
    with pytest.raises(DataError, match="is not in the gallery"):
        catalogue.row(int(gone[0]))


def test_pages_one_after_another_are_the_rows_that_pass(gallery):
    catalogue, rows = Catalogue(gallery.rows(vectors=False)), naive(gallery)
    for where, passes in (
        (Filter(), lambda row: True),
        (Filter(views=["aerial"]), lambda row: row["view"] == "aerial"),
        (Filter(camids=[1, 3]), lambda row: row["camid"] in (1, 3)),
        (Filter(since=1005, until=1020), lambda row: row["time"] and 1005 <= row["time"] < 1020),
        (Filter(views=["nowhere"]), lambda row: False),
    ):
        expected = [row for row in rows if passes(row)]
        pages = [catalogue.page(where, "", offset, 7) for offset in range(0, 35, 7)]
        assert {total for total, _ in pages} == {len(expected)}
        assert [row for _, page in pages for row in page] == expected


def test_finding_by_path_and_by_id(gallery):
    catalogue, rows = Catalogue(gallery.rows(vectors=False)), naive(gallery)
    for text in ("A/1", "9", str(rows[5]["id"]), ".JPG", "nothing"):
        expected = [row for row in rows if text.lower() in row["path"] or str(row["id"]) == text]
        assert catalogue.page(Filter(), text, 0, 100) == (len(expected), expected)


def test_paths_are_lowered_once(gallery, monkeypatch):
    lowered, lower = [], np.char.lower
    monkeypatch.setattr(np.char, "lower", lambda texts: lowered.append(len(texts)) or lower(texts))
    catalogue = Catalogue(gallery.rows(vectors=False))
    assert [catalogue.page(Filter(), find, 0, 9)[0] for find in ("A/7", "a/7.JPG", "b/")] == [1, 1, 0]
    assert lowered == [30]


def test_the_summary_counts_rows_of_views_and_cameras(gallery):
    rows, summary = naive(gallery), Catalogue(gallery.rows(vectors=False)).summary
    assert summary["rows"] == 30
    for view in summary["views"]:
        assert view["rows"] == sum(row["view"] == view["view"] for row in rows)
    assert [view["view"] for view in summary["views"]] == ["aerial", "ground"]
    assert [camera["camid"] for camera in summary["cameras"]] == [0, 1, 2, 3]
    for camera in summary["cameras"]:
        assert camera["rows"] == sum(row["camid"] == camera["camid"] for row in rows)
        assert camera["view"] == ("aerial" if camera["camid"] < 2 else "ground")
    assert summary["times"] == {"first": np.nanmin(TIMES), "last": np.nanmax(TIMES)}


def test_what_is_unknown_is_in_no_list():
    table = people(8)
    table.camids = np.array([-1, -1, 5, 5, 5, 6, 6, 6])
    table.views = np.array(["", "", "aerial", "aerial", "ground", "", "", ""])
    summary = Catalogue(Gallery.build(table).rows()).summary
    assert summary["views"] == [{"view": "aerial", "rows": 2}, {"view": "ground", "rows": 1}]
    assert summary["cameras"] == [
        {"camid": 5, "view": None, "rows": 3},
        {"camid": 6, "view": None, "rows": 3},
    ]
    assert summary["times"] is None


def test_an_empty_gallery():
    catalogue = Catalogue(Gallery(16, "word").rows())
    assert catalogue.summary == {"rows": 0, "views": [], "cameras": [], "times": None}
    assert catalogue.page(Filter(), "x", 0, 10) == (0, [])
    with pytest.raises(DataError, match="it has 0 rows"):
        catalogue.row(0)
