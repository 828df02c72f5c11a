"""What every gallery does, in a folder and on Milvus: the same tests, only the address differs."""

import argparse
import json

import numpy as np
import pytest
from vif.errors import ConfigError, DataError
from vif.features import FeatureTable
from vif.retrieval import Filter, create_gallery, open_gallery
from vif.retrieval.cli import add_commands

from tests.retrieval.people import assert_same_neighbours, naive_search, people, unit
from tests.retrieval.places import PLACES, close

TIMES = [float("nan"), *np.arange(39.0) * 10]


@pytest.fixture(params=PLACES)
def uri(request, tmp_path):
    return str(tmp_path / request.param)


@pytest.fixture
def table():
    return people(40)


def fill(uri):
    return create_gallery(uri, people(40), times=TIMES, extra={"weather": ["sun", "rain"] * 20})


@pytest.fixture
def gallery(uri):
    found = fill(uri)
    yield found
    close(found)


@pytest.fixture(scope="module", params=PLACES)
def kept(request, tmp_path_factory):
    """A gallery that no test changes."""
    found = fill(str(tmp_path_factory.mktemp("kept") / request.param))
    yield found
    close(found)


def model(gallery):
    rows = gallery.rows()
    return {int(id_): (vector,) for id_, vector in zip(rows.ids, rows.vectors)}


def test_rows_come_back_as_they_went_in(kept, table):
    assert len(kept) == 40
    rows = kept.rows()
    assert rows.ids.tolist() == list(range(40))
    np.testing.assert_allclose(rows.vectors, unit(table.features), atol=1e-6)
    for name in ("paths", "pids", "camids", "views", "splits"):
        assert rows.columns[name].tolist() == getattr(table, name).tolist()
    np.testing.assert_array_equal(rows.columns["times"], TIMES)
    assert rows.columns["weather"].tolist() == ["sun", "rain"] * 20
    again = kept.to_table()
    assert again.meta == {"fingerprint": kept.fingerprint}
    assert again.paths.tolist() == table.paths.tolist()


def test_rows_without_their_vectors(kept):
    for ids in (None, [7, 3]):
        rows, whole = kept.rows(ids, vectors=False), kept.rows(ids)
        assert rows.vectors.shape == (len(whole), 0)
        assert rows.ids.tolist() == whole.ids.tolist()
        assert rows.columns.keys() == whole.columns.keys()
        for name, column in whole.columns.items():
            np.testing.assert_array_equal(rows.columns[name], column)


def test_a_search_is_the_naive_one(kept):
    queries = people(6, seed=5, prefix="q")
    found = kept.search(queries, k=7)
    assert found.ids.shape == (6, 7)
    for query in range(6):
        assert_same_neighbours(found, query, naive_search(queries.features[query], model(kept), 7))
    rows = kept.rows(found.ids[0])
    for name in ("paths", "pids", "camids", "views", "times", "weather"):
        np.testing.assert_array_equal(found.columns[name][0], rows.columns[name])
    assert found.queries.tolist() == queries.paths.tolist()


def test_more_neighbours_than_rows_are_all_rows(kept):
    found = kept.search(np.ones(16, dtype=np.float32), k=1000)
    assert sorted(found.ids[0].tolist()) == list(range(40))


@pytest.mark.parametrize(
    ("where", "passes"),
    [
        (Filter(camids=[1, 3]), lambda row: row["camids"] in (1, 3)),
        (Filter(views=["aerial"]), lambda row: row["views"] == "aerial"),
        (Filter(views=['no "such" view', "ground"]), lambda row: row["views"] == "ground"),
        (Filter(since=50), lambda row: row["times"] >= 50),
        (Filter(until=50), lambda row: row["times"] < 50),
        (Filter(since=50.0, until=90.0), lambda row: 50 <= row["times"] < 90),
        (Filter(ids=[3, 5, 7, 99]), lambda row: row["ids"] in (3, 5, 7)),
        (
            Filter(views=["aerial"], camids=[0], since=100),
            lambda row: row["camids"] == 0 and row["times"] >= 100,
        ),
        (Filter(camids=[]), lambda row: False),
        (Filter(views=["nowhere"]), lambda row: False),
    ],
)
def test_a_filter_lets_through_what_it_says(kept, where, passes):
    rows = kept.rows()
    columns = {"ids": rows.ids, **rows.columns}
    rest = {
        int(rows.ids[i]): (rows.vectors[i],)
        for i in range(len(rows))
        if passes({name: column[i] for name, column in columns.items()})
    }
    queries = people(2, seed=6, prefix="q")
    found = kept.search(queries, k=40, where=where)
    for query in range(2):
        expected = naive_search(queries.features[query], rest, 40)
        assert_same_neighbours(found, query, expected)
        assert set(found.ids[query][found.ids[query] >= 0].tolist()) == set(rest)


def test_each_query_is_kept_from_its_own_camera(kept):
    queries = people(8, seed=7, prefix="q")
    rows = kept.rows()
    found = kept.search(queries, k=40, where=Filter(other_cameras=True, views=["aerial"]))
    for query in range(8):
        others = (rows.columns["camids"] != queries.camids[query]) & (rows.columns["views"] == "aerial")
        rest = {int(i): (vector,) for i, vector in zip(rows.ids[others], rows.vectors[others])}
        assert_same_neighbours(found, query, naive_search(queries.features[query], rest, 40))
    assert found.queries.tolist() == queries.paths.tolist()


def test_rows_like_a_row_are_without_itself(kept):
    rows = model(kept)
    for k in (3, 39, 100):
        found = kept.similar([12, 4], k=k)
        for query, own in enumerate((12, 4)):
            others = {id_: row for id_, row in rows.items() if id_ != own}
            assert_same_neighbours(found, query, naive_search(rows[own][0], others, k))
    assert found.queries.tolist() == ["a/12.jpg", "a/4.jpg"]


def test_rows_like_a_row_that_the_filter_leaves_out(kept):
    found = kept.similar([12], k=100, where=Filter(ids=[3, 5]))
    assert sorted(found.ids[0][found.ids[0] >= 0].tolist()) == [3, 5]
    rows = model(kept)
    for k in (1, 2):  # row 3 passes and is left out of its own neighbours; row 12 does not pass
        found = kept.similar([12, 3], k=k, where=Filter(ids=[3, 5, 6]))
        for query, (own, others) in enumerate(((12, (3, 5, 6)), (3, (5, 6)))):
            rest = {id_: rows[id_] for id_ in others}
            assert_same_neighbours(found, query, naive_search(rows[own][0], rest, k))
    columns = kept.rows([12]).columns
    found = kept.similar([12], k=100, where=Filter(other_cameras=True))
    expected = kept.rows().columns["camids"] != columns["camids"][0]
    assert set(found.ids[0][found.ids[0] >= 0].tolist()) == set(np.flatnonzero(expected).tolist())


def test_add_remove_update_and_open_again(gallery, uri):
    added = gallery.add(people(3, seed=1, prefix="b"))
    assert added.tolist() == [40, 41, 42]
    assert gallery.add(people(1, seed=2, prefix="c"), ids=[1000]).tolist() == [1000]
    assert gallery.add(people(1, seed=3, prefix="d")).tolist() == [1001]
    gallery.remove([0, 41])
    changed = people(1, seed=4, prefix="e")
    gallery.update([7], changed, times=[5.0])
    assert len(gallery) == 43
    gallery.save()
    close(gallery)
    again = open_gallery(uri)
    assert len(again) == 43
    rows = again.rows([7, 1000, 42])
    assert rows.columns["paths"].tolist() == ["e/0.jpg", "c/0.jpg", "b/2.jpg"]
    assert rows.columns["times"][0] == 5.0
    assert set(rows.columns.get("weather", [""])) == {""}
    assert again.search(changed.features, k=1).ids.tolist() == [[7]]
    assert not set(again.search(changed.features, k=100).ids[0].tolist()) & {0, 41}
    assert again.fingerprint == gallery.fingerprint
    close(again)


def refused(gallery, message, call, error=DataError):
    before = gallery.rows()
    with pytest.raises(error, match=message):
        call()
    after = gallery.rows()
    assert after.ids.tolist() == before.ids.tolist()
    assert after.columns["paths"].tolist() == before.columns["paths"].tolist()


def test_what_does_not_belong_is_refused_and_nothing_changes(gallery):
    new = people(3, seed=1, prefix="b")
    other = people(3, seed=1, prefix="b", meta={"fingerprint": "feedfeedfeedfeed"})
    nameless = people(3, seed=1, prefix="b", meta={})
    broken = people(3, seed=1, prefix="b")
    broken.features[1] = np.nan
    zero = people(3, seed=1, prefix="b")
    zero.features[2] = 0
    refused(gallery, "of the weights feedfeedfeedfeed, the gallery's of 0123", lambda: gallery.add(other))
    refused(gallery, "names no weights", lambda: gallery.add(nameless))
    refused(
        gallery, "of the weights 0123456789abcdef, not of abc", lambda: gallery.add(new, fingerprint="abc")
    )
    refused(gallery, "of the weights abc", lambda: gallery.add(nameless, fingerprint="abc"))
    refused(gallery, "have 8 dimensions, the gallery's 16", lambda: gallery.add(people(3, dim=8, prefix="b")))
    refused(gallery, r"row 1 \('b/1.jpg'\) is NaN or infinite", lambda: gallery.add(broken))
    refused(gallery, r"row 2 \('b/2.jpg'\) is zero", lambda: gallery.add(zero))
    refused(gallery, "id 5 is in the gallery already", lambda: gallery.add(new, ids=[50, 5, 51]))
    refused(gallery, "50 comes twice", lambda: gallery.add(new, ids=[50, 50, 51]))
    refused(gallery, "-1 is negative", lambda: gallery.add(new, ids=[50, -1, 51]))
    refused(gallery, "expected 3 integers", lambda: gallery.add(new, ids=[50, 51]))
    refused(gallery, "expected 3 numbers of seconds", lambda: gallery.add(new, times=[1.0]))
    refused(gallery, "expected 3 numbers of seconds", lambda: gallery.add(new, times=[0.0, np.inf, 1.0]))
    refused(gallery, "extra column 'Weather'", lambda: gallery.add(new, extra={"Weather": ["", "", ""]}))
    for name in ("id", "path", "pid", "camid", "view", "time", "split"):  # as results name their values
        refused(gallery, f"extra column '{name}'", lambda n=name: gallery.add(new, extra={n: ["", "", ""]}))
    refused(gallery, "expected 3 texts", lambda: gallery.add(new, extra={"weather": ["sun"]}))
    refused(gallery, "'a/0.jpg' is in the gallery already", lambda: gallery.add(people(1, seed=9), ids=[77]))
    refused(gallery, "id 99 is not in the gallery", lambda: gallery.remove([3, 99]))
    refused(gallery, "one comes twice", lambda: gallery.remove([3, 3]))
    refused(gallery, "list of integers", lambda: gallery.remove(["3"]))
    refused(gallery, "id 99 is not in the gallery", lambda: gallery.update([3, 4, 99], new))
    refused(gallery, "'a/0.jpg' is in the gallery already", lambda: gallery.update([1], people(1, seed=9)))
    refused(gallery, "of the weights feedfeedfeedfeed", lambda: gallery.update([1, 2, 3], other))
    gallery.update([0], people(1, seed=9))  # its own path may stay


def test_queries_that_cannot_be_searched_for(kept):
    query = np.ones((2, 16), dtype=np.float32)
    broken = query.copy()
    broken[1, 3] = np.inf
    other = people(1, prefix="q", meta={"fingerprint": "feedfeedfeedfeed"})
    refused(kept, "queries are of the weights feed", lambda: kept.search(other))
    refused(kept, "have 3 dimensions", lambda: kept.search(np.ones((1, 3), dtype=np.float32)))
    refused(kept, "row 1 is NaN or infinite", lambda: kept.search(broken))
    refused(kept, r"expected \(N, D\) floats", lambda: kept.search(np.ones((1, 16), dtype=int)))
    refused(kept, "k=0 must be", lambda: kept.search(query, k=0), ConfigError)
    refused(kept, "k=True must be", lambda: kept.search(query, k=True), ConfigError)
    elsewhere = Filter(other_cameras=True)
    refused(kept, "query 0 has none", lambda: kept.search(query, where=elsewhere), ConfigError)
    refused(
        kept,
        "query 1 has none",
        lambda: kept.search(query, where=elsewhere, camids=[0, -1]),
        ConfigError,
    )
    refused(kept, "expected 2 integers", lambda: kept.search(query, camids=[0]), ConfigError)
    refused(kept, "id 99 is not", lambda: kept.similar([99]))
    assert kept.search(people(1, prefix="q", meta={})).ids.shape == (1, 10)  # a query may be nameless


def test_no_query_is_no_result(kept):
    found = kept.search(np.zeros((0, 16), dtype=np.float32))
    assert len(found) == 0


def test_a_gallery_that_is_there_is_replaced_on_demand_only(gallery, uri, table):
    with pytest.raises(DataError, match="overwrite"):
        create_gallery(uri, people(2, prefix="z"))
    assert len(gallery) == 40
    close(gallery)
    again = create_gallery(uri, people(2, prefix="z"), overwrite=True)
    assert again.rows().columns["paths"].tolist() == ["z/0.jpg", "z/1.jpg"]
    close(again)


def test_a_table_without_fingerprint_needs_a_word(uri):
    nameless = people(3, meta={})
    with pytest.raises(DataError, match="names no weights"):
        create_gallery(uri, nameless)
    gallery = create_gallery(uri, nameless, fingerprint="my network, epoch 3")
    assert gallery.fingerprint == "my network, epoch 3"
    close(gallery)


def test_what_is_not_there_cannot_be_opened(uri):
    with pytest.raises(DataError, match="no gallery"):
        open_gallery(uri)


def test_paths_and_views_in_any_script(uri):
    table = people(3)
    names = ["über/été.jpg", 'quote"and\\slash.jpg', "人/1.jpg"]
    table = FeatureTable(
        table.features,
        table.pids,
        table.camids,
        np.array(["drône", "it's", ""]),
        np.array(names),
        table.splits,
        table.meta,
    )
    gallery = create_gallery(uri, table)
    assert gallery.rows().columns["paths"].tolist() == names
    found = gallery.search(table.features, where=Filter(views=["drône", "it's"]))
    assert sorted(found.ids[0][found.ids[0] >= 0].tolist()) == [0, 1]
    with pytest.raises(DataError, match="in the gallery already"):
        gallery.add(FeatureTable(**vars(table)))
    close(gallery)


def test_the_commands_differ_in_the_address_only(uri, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())

    def run(*words):
        arguments = parser.parse_args(words)
        arguments.run(arguments)
        return capsys.readouterr().out

    people(40).save(str(tmp_path / "f.npz"))
    people(4, prefix="b").save(str(tmp_path / "more.npz"))
    assert "40 rows" in run("index", "--features", str(tmp_path / "f.npz"), "--out", uri)
    assert "44 rows" in run("index", "--features", str(tmp_path / "more.npz"), "--out", uri, "--add")
    run("search", uri, "--ids", "41", "--top", "5", "--among", "7", "41", "--json", f"{tmp_path}/j")
    (query,) = json.loads((tmp_path / "j").read_text())
    assert [(row["id"], row["path"]) for row in query["neighbours"]] == [(7, "a/7.jpg")]
