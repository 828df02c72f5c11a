"""What is Milvus's own: filters in its language, batches, limits, collections, a process that is killed."""

import os
import subprocess
import sys

import numpy as np
import pytest
from vif.errors import ConfigError, DataError
from vif.retrieval import Filter, create_gallery, milvus, open_gallery
from vif.retrieval.milvus_schema import expression, to_entities, to_rows
from vif.retrieval.rows import make_rows
from vif.serve.service import Service

from tests.retrieval.people import people
from tests.retrieval.places import close, needs_milvus


@pytest.mark.parametrize(
    ("where", "text"),
    [
        (Filter(), ""),
        (Filter(camids=[np.int64(3), 1]), "camid in [3, 1]"),
        (Filter(views=['a"b\\', "人"]), 'view in ["a\\"b\\\\", "人"]'),
        (Filter(since=1, until=2.5), "time >= 1.0 and time < 2.5"),
        (Filter(ids=[], other_cameras=True), "id in [] and camid != 7"),
    ],
)
def test_a_filter_in_milvus_language(where, text):
    assert expression(where, 7) == text


def test_rows_survive_the_way_through_entities():
    rows = make_rows(
        people(5), [9, 3, 5, 7, 1], [0.0, np.nan, 1, 2, 3], {"weather": ["", "sun", "", "", "rain"]}
    )
    entities = to_entities(rows, 0, 3) + to_entities(rows, 3, 100)
    again = to_rows(entities, 16)
    assert again.ids.tolist() == [9, 3, 5, 7, 1]
    np.testing.assert_array_equal(again.vectors, rows.vectors)
    assert list(again.columns) == list(rows.columns)
    for name, column in rows.columns.items():
        np.testing.assert_array_equal(again.columns[name], column)
    assert entities[1]["time"] is None  # NaN is no number to a database


@pytest.fixture
def gallery(tmp_path):
    found = create_gallery(str(tmp_path / "g.db"), people(40))
    yield found
    close(found)


@needs_milvus
def test_batches_make_no_difference(gallery, monkeypatch):
    monkeypatch.setattr(milvus, "_BATCH", 7)
    more = people(30, seed=1, prefix="b")
    assert gallery.add(more).tolist() == list(range(40, 70))
    asked = [69, 3, 41, 0, 12, 8, 50, 51, 52]
    assert gallery.rows(asked).ids.tolist() == asked
    assert gallery.rows().ids.tolist() == list(range(70))
    with pytest.raises(DataError, match="'b/0.jpg' is in the gallery already, as are 29 further"):
        gallery.add(people(30, seed=8, prefix="b"), ids=range(500, 530))
    changed = people(20, seed=2, prefix="c")
    gallery.update(list(range(45, 65)), changed)
    assert gallery.rows([64]).columns["paths"].tolist() == ["c/19.jpg"]
    gallery.remove(list(range(5, 65)))
    assert gallery.rows().ids.tolist() == [0, 1, 2, 3, 4, 65, 66, 67, 68, 69]


@needs_milvus
def test_vectors_are_fetched_where_they_are_used_only(gallery, monkeypatch):
    asked = []
    for name in ("query", "query_iterator"):
        inner = getattr(gallery._client, name)

        def spy(*arguments, inner=inner, **options):
            asked.extend(options["output_fields"])
            return inner(*arguments, **options)

        monkeypatch.setattr(gallery._client, name, spy)
    assert len(Service.build(gallery, "", None, 1).catalogue) == 40
    assert "aerial" in gallery._repr_html_()
    gallery.remove([3])
    gallery.update([4], people(1, prefix="b"))
    assert "path" in asked
    assert "vector" not in asked
    gallery.rows([5])
    assert "vector" in asked


@needs_milvus
def test_many_queries_go_in_parts(gallery):
    queries = people(230, seed=3, prefix="q")
    found = gallery.search(queries, k=2)
    assert found.ids.shape == (230, 2)
    for query in (0, 99, 100, 229):
        alone = gallery.search(queries.features[query], k=2)
        assert alone.ids[0].tolist() == found.ids[query].tolist()


@needs_milvus
def test_equal_distances_are_in_the_order_of_ids(gallery, monkeypatch):
    """Whatever order Milvus has them in."""
    twins = people(6, seed=4, prefix="t")
    twins.features[:] = twins.features[0]
    gallery.add(twins)
    search = gallery._client.search
    monkeypatch.setattr(
        gallery._client, "search", lambda *a, **k: [list(hits)[::-1] for hits in search(*a, **k)]
    )
    assert gallery.search(twins.features[:1], k=6).ids[0].tolist() == [40, 41, 42, 43, 44, 45]


@needs_milvus
def test_ids_go_on_after_the_largest(gallery):
    for largest in (41, 4096, 2**40 + 3):
        gallery.add(people(1, prefix=f"{largest}"), ids=[largest])
        assert gallery.add(people(1, prefix=f"{largest}+")).tolist() == [largest + 1]
    gallery.remove([2**40 + 3, 2**40 + 4])
    assert gallery.add(people(1, prefix="z")).tolist() == [4098]
    gallery.remove(gallery.rows().ids)
    assert len(gallery) == 0
    assert gallery.add(people(1, prefix="z")).tolist() == [0]


@needs_milvus
def test_what_milvus_cannot_keep_or_return(gallery):
    long = people(2, prefix="é" * 2500)
    with pytest.raises(DataError, match="has more than 4096 bytes"):
        gallery.add(long)
    assert len(gallery) == 40
    with pytest.raises(ConfigError, match="at most 16384 neighbours"):
        gallery.search(people(1).features, k=16_385)


@needs_milvus
def test_galleries_side_by_side(gallery, tmp_path):
    uri = str(tmp_path / "g.db")
    with pytest.raises(ConfigError, match="collection='1-2' must be letters"):
        open_gallery(uri, collection="1-2")
    other = create_gallery(uri, people(3, prefix="o"), collection="other")
    assert (len(other), len(gallery)) == (3, 40)
    again = create_gallery(uri, people(2, prefix="o"), collection="other", overwrite=True)
    assert (len(again), len(gallery)) == (2, 40)
    assert repr(again).startswith(f"<MilvusGallery 'other' at {uri}: 2 rows, 16 dimensions, weights 0123")
    with pytest.raises(DataError, match=r"holds no gallery 'third'; it has \[.*'other'"):
        open_gallery(uri, collection="third")


@needs_milvus
def test_a_collection_of_something_else(gallery, tmp_path):
    client = gallery._client
    client.upsert("vif_meta", [{"id": 0, "vector": [0.0, 0.0], "content": {"format": "else"}}])
    with pytest.raises(DataError, match="'vif' is no gallery"):
        open_gallery(str(tmp_path / "g.db"))


@needs_milvus
def test_a_gallery_whose_making_was_killed(gallery, tmp_path):
    gallery._client.delete("vif_meta", ids=[0])
    with pytest.raises(DataError, match="'vif' was never finished; build it again"):
        open_gallery(str(tmp_path / "g.db"))
    assert len(create_gallery(str(tmp_path / "g.db"), people(3), overwrite=True)) == 3


@needs_milvus
def test_what_is_refused_leaves_the_gallery_that_is_there(gallery, tmp_path):
    broken = people(3)
    broken.features[1] = np.nan
    for table, message in ((broken, "is NaN"), (people(2, prefix="x" * 5000), "more than 4096 bytes")):
        with pytest.raises(DataError, match=message):
            create_gallery(str(tmp_path / "g.db"), table, overwrite=True)
        assert len(gallery) == 40


@needs_milvus
def test_a_process_that_is_killed_loses_no_change_that_returned(tmp_path):
    uri = str(tmp_path / "g.db")
    code = f"""
import os, signal
from tests.retrieval.people import people
from vif.retrieval import create_gallery
gallery = create_gallery({uri!r}, people(40))
gallery.add(people(5, prefix="b"))
gallery.remove([3])
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=False)
    assert done.returncode == -9
    gallery = open_gallery(uri)
    assert gallery.rows().ids.tolist() == [i for i in range(45) if i != 3]
    close(gallery)


@needs_milvus
def test_no_server():
    with pytest.raises(DataError, match="no Milvus at 'http://127.0.0.1:9'"):
        open_gallery("http://127.0.0.1:9")
