"""What a search found, shown: table, notebook, JSON."""

import json

import numpy as np
from vif.features import FeatureTable
from vif.retrieval import Filter, Gallery
from vif.retrieval.neighbours import when

TABLE = FeatureTable(
    features=np.array([[1, 0], [0.6, 0.8], [0, 1]], dtype=np.float32),
    pids=np.array([7, -1, 8]),
    camids=np.array([0, 5, -1]),
    views=np.array(["aerial", "ground", ""]),
    paths=np.array(["a.jpg", "<b>.jpg", "c.jpg"]),
    splits=np.array(["", "", ""]),
    meta={"fingerprint": "f"},
)
TIMES = [0.0, np.nan, 1.5e9]


def found(k=2, **how):
    gallery = Gallery.build(TABLE, times=TIMES)
    return gallery.search(np.array([[1, 0], [0, 1]], dtype=np.float32), k, **how)


def test_it_prints_as_tables():
    assert str(found()) == (
        "query 0\n"
        "| rank   | id   | distance   | path    | pid   | camid   | view   | time                 |\n"
        "|--------|------|------------|---------|-------|---------|--------|----------------------|\n"
        "| 1      | 0    | 0.0000     | a.jpg   | 7     | 0       | aerial | 1970-01-01T00:00:00Z |\n"
        "| 2      | 1    | 0.4000     | <b>.jpg |       | 5       | ground |                      |\n"
        "\n"
        "query 1\n"
        "| rank   | id   | distance   | path    | pid   | camid   | view   | time                 |\n"
        "|--------|------|------------|---------|-------|---------|--------|----------------------|\n"
        "| 1      | 2    | 0.0000     | c.jpg   | 8     |         |        | 2017-07-14T02:40:00Z |\n"
        "| 2      | 1    | 0.2000     | <b>.jpg |       | 5       | ground |                      |"
    )


def test_a_notebook_shows_tables_and_runs_nothing_from_a_path():
    html = found()._repr_html_()
    assert html.count("<table>") == 2
    assert "&lt;b&gt;.jpg" in html
    assert "<b>" not in html
    gallery = Gallery.build(TABLE)
    assert "<p>&lt;b&gt;.jpg</p>" in gallery.similar([1], 1)._repr_html_()


def test_json_holds_what_is_known():
    content = json.loads(json.dumps(found().to_json(), allow_nan=False))
    assert [query["query"] for query in content] == ["query 0", "query 1"]
    first, second = content[0]["neighbours"]
    assert first == {
        "rank": 1,
        "id": 0,
        "distance": 0.0,
        "path": "a.jpg",
        "pid": 7,
        "camid": 0,
        "view": "aerial",
        "time": 0.0,
        "split": None,
    }
    assert abs(second.pop("distance") - 0.4) < 1e-6
    assert second == {
        "rank": 2,
        "id": 1,
        "path": "<b>.jpg",
        "pid": None,
        "camid": 5,
        "view": "ground",
        "time": None,
        "split": None,
    }


def test_where_nothing_passes():
    nothing = found(where=Filter(views=["nowhere"]))
    assert str(nothing).startswith("query 0\nno row passes the filter")
    assert nothing.to_json()[0]["neighbours"] == []
    assert np.isinf(nothing.distances).all()
    assert (nothing.columns["pids"] == -1).all()


def test_many_queries_are_cut_short():
    gallery = Gallery.build(TABLE)
    text = str(gallery.search(np.ones((9, 2), dtype=np.float32)))
    assert text.endswith("... and 4 further queries")
    assert len(gallery.search(np.ones((9, 2), dtype=np.float32)).to_json()) == 9


def test_times_that_no_calendar_knows():
    assert when(1e300) == "1e+300 s"
