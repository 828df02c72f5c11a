"""Gallery in memory: any sequence of changes against a dict, threads, rebuilding, notebooks."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vif.errors import ConfigError
from vif.features import FeatureTable
from vif.retrieval import HNSW, IVFPQ, Filter, Flat, Gallery, state
from vif.retrieval.rows import Rows

from tests.retrieval.people import FINGERPRINT, assert_same_neighbours, naive_search, people, unit

VECTORS = st.tuples(*[st.integers(-2, 2)] * 3).filter(any)  # many equal directions
ROW = st.tuples(VECTORS, st.integers(0, 2), st.sampled_from(["aerial", "ground"]))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(ROW, min_size=1, max_size=6)),
        st.tuples(st.just("remove"), st.lists(st.integers(0, 30), max_size=4, unique=True)),
        st.tuples(st.just("update"), st.tuples(st.integers(0, 30), ROW)),
        st.tuples(st.just("rebuild"), st.none()),
    ),
    min_size=1,
    max_size=12,
)


def table_of(rows, first):
    vectors, camids, views = zip(*rows)
    return FeatureTable(
        features=np.array(vectors, dtype=np.float32),
        pids=np.full(len(rows), -1),
        camids=np.array(camids),
        views=np.array(views),
        paths=np.array([f"{first + i}" for i in range(len(rows))]),
        splits=np.full(len(rows), ""),
        meta={"fingerprint": "f"},
    )


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
@settings(max_examples=60, deadline=None)
@given(steps=STEPS, query=VECTORS, k=st.integers(1, 12), camid=st.integers(0, 2), view=st.booleans())
def test_any_sequence_of_changes_is_that_of_a_dict(kind, steps, query, k, camid, view):
    gallery, model, written = Gallery(3, "f", index=kind), {}, 0
    for action, what in steps:
        if action == "add":
            first = max(model, default=-1) + 1
            assert gallery.add(table_of(what, written)).tolist() == list(range(first, first + len(what)))
            model.update({first + i: (*row, str(written + i)) for i, row in enumerate(what)})
            written += len(what)
        elif action == "remove":
            ids = [id_ for id_ in what if id_ in model]
            gallery.remove(ids)
            for id_ in ids:
                del model[id_]
        elif action == "update" and what[0] in model:
            gallery.update([what[0]], table_of([what[1]], written))
            model[what[0]] = (*what[1], str(written))
            written += 1
        elif action == "rebuild":
            gallery.rebuild()
    assert len(gallery) == len(model)
    where = Filter(other_cameras=True, views=["aerial"] if view else None)
    passing = {i: row for i, row in model.items() if row[1] != camid and not (view and row[2] != "aerial")}
    for filter_, rows in ((Filter(), model), (where, passing)):
        found = gallery.search(np.array(query, dtype=np.float32), k, filter_, camids=[camid])
        expected = naive_search(query, rows, k)
        assert_same_neighbours(found, 0, expected)
        distances = found.distances[0]
        near = [(d, i) for d, i in zip(distances, found.ids[0]) if i >= 0]
        assert near == sorted(near)  # by distance, then id
        for id_, path in zip(found.ids[0], found.columns["paths"][0]):
            assert path == (model[id_][3] if id_ >= 0 else "")


def test_equal_distances_are_in_the_order_of_ids():
    table = people(30)
    table.features[:] = table.features[0]
    gallery = Gallery.build(table, ids=np.random.default_rng(0).permutation(30))
    assert gallery.search(table.features[:1], k=12).ids[0].tolist() == list(range(12))


def test_distances_are_those_of_evaluation():
    import torch
    from vif.evaluation.distances import FeatureDistances

    table, queries = people(50), people(5, seed=1, prefix="q")
    found = Gallery.build(table).search(queries, k=50)
    distances = FeatureDistances(
        torch.tensor(queries.features), torch.tensor(table.features), "cosine", chunk_bytes=1 << 20
    ).strip(np.arange(5), slice(0, 50))
    expected = np.take_along_axis(distances.numpy(), found.ids, axis=1)
    np.testing.assert_allclose(found.distances, expected, atol=5e-7)


def test_reading_while_one_writes():
    """Every search sees a whole gallery: rows come in pairs, removed and added together."""
    gallery = Gallery.build(people(64, dim=4), index="hnsw")
    wrong, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            found = gallery.search(np.ones(4, dtype=np.float32), k=1000)
            ids = found.ids[0][found.ids[0] >= 0]
            if len(ids) % 2 or any(id_ ^ 1 not in ids for id_ in ids.tolist()):
                wrong.append(ids)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for step in range(40):
        gallery.remove([2 * (step % 20), 2 * (step % 20) + 1])
        gallery.add(people(2, dim=4, prefix=f"n{step}"), ids=[2 * (step % 20), 2 * (step % 20) + 1])
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_after_a_removal_only_the_rows_asked_for_are_copied(monkeypatch):
    gallery, copied = Gallery.build(people(40)), []
    gallery.remove([3])
    take = Rows.take
    monkeypatch.setattr(Rows, "take", lambda rows, index: copied.append(len(index)) or take(rows, index))
    assert gallery.rows([7, 5]).ids.tolist() == [7, 5]
    assert 3 not in gallery.similar([5], k=40).ids
    assert copied == [2, 1]


def test_new_rows_are_searched_before_the_index_covers_them(monkeypatch):
    monkeypatch.setattr(state, "EXACT_ROWS", 0)
    gallery = Gallery.build(people(400), index=HNSW(links=8))
    before = gallery._state
    more = people(50, seed=1, prefix="b")
    ids = gallery.add(more)
    assert gallery._state.searcher is before.searcher  # not built again
    assert gallery.search(more.features, k=1).ids[:, 0].tolist() == ids.tolist()
    gallery.remove([3])
    assert 3 not in gallery.search(people(400).features[3], k=400).ids
    gallery.add(people(100, seed=2, prefix="c"))  # now more than a quarter is not covered
    assert gallery._state.searcher.rows == len(gallery) == 549
    assert gallery._state.alive.all()


def test_a_failed_rebuild_leaves_the_gallery_as_it_was(monkeypatch):
    gallery = Gallery.build(people(40), index="hnsw")

    def fail(self, vectors):
        raise MemoryError

    monkeypatch.setattr(HNSW, "build", fail)
    with pytest.raises(MemoryError):
        gallery.add(people(40, prefix="b"))
    assert len(gallery) == 40


def test_rebuild_takes_another_index_and_drops_removed_rows():
    gallery = Gallery.build(people(300))
    gallery.remove(list(range(10)))
    assert gallery.index == Flat()
    for index, kind in (
        ("hnsw", HNSW()),
        (IVFPQ(lists=4, probes=4), IVFPQ(lists=4, probes=4)),
        ("auto", Flat()),
    ):
        gallery.rebuild(index)
        assert gallery.index == kind
        assert len(gallery._state.rows) == 290
        found = gallery.search(people(300).features[50], k=1)
        assert found.ids.tolist() == [[50]]
    gallery.rebuild("hnsw")
    gallery.rebuild()
    assert gallery.index == HNSW()


def test_the_index_follows_the_number_of_rows(monkeypatch):
    from vif.retrieval import kinds

    monkeypatch.setattr(kinds, "FLAT_ROWS", 30)
    monkeypatch.setattr(kinds, "HNSW_ROWS", 300)
    gallery = Gallery.build(people(20))
    assert gallery.index == Flat()
    gallery.add(people(200, prefix="b"))
    assert gallery.index == HNSW()
    gallery.add(people(200, prefix="c"))
    assert gallery.index == IVFPQ()
    gallery.remove(gallery.rows().ids[10:])
    assert gallery.index == Flat()


def test_vectors_of_any_length_become_unit_and_the_table_is_left_alone():
    table = people(5)
    before = table.features.copy()
    gallery = Gallery.build(table)
    np.testing.assert_allclose(gallery.rows().vectors, unit(before), atol=1e-6)
    assert (table.features == before).all()
    huge = FeatureTable(**{**vars(table), "features": before * np.float32(1e30)})
    assert gallery.search(huge, k=1).ids[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_gallery_without_rows():
    gallery = Gallery(4, "f")
    assert len(gallery) == 0
    assert (gallery.search(np.ones((2, 4), dtype=np.float32)).ids == -1).all()
    assert len(gallery.to_table()) == 0
    assert repr(gallery) == "<Gallery of 0 rows, 4 dimensions, index flat, weights f>"


def test_what_cannot_be_made():
    with pytest.raises(ConfigError, match=r"index 'lsh' is unknown; there are auto, flat, hnsw, ivfpq"):
        Gallery(4, "f", index="lsh")
    with pytest.raises(ConfigError, match="dim=0"):
        Gallery(0, "f")
    with pytest.raises(ConfigError, match="no folder yet"):
        Gallery(4, "f").save()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"views": "aerial"}, "views='aerial' is no list"),
        ({"camids": 3}, "camids=3 is no list"),
        ({"ids": [[1]]}, r"ids=\[\[1\]\] is no list"),
        ({"camids": ["1"]}, r"camids=\['1'\] must be integers"),
        ({"ids": [0.5]}, r"ids=\[0.5\] must be integers"),
        ({"views": [1]}, r"views=\[1\] must be texts"),
        ({"since": "noon"}, "since='noon' is no time"),
        ({"since": float("nan")}, "since=nan is no time"),
        ({"until": float("inf")}, "until=inf is no time"),
        ({"since": 5, "until": 5}, "no row could pass"),
    ],
)
def test_a_filter_that_cannot_work(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Filter(**arguments)


def test_a_filter_takes_arrays_and_knows_when_it_is_empty():
    assert Filter().empty
    for where in (
        Filter(camids=np.array([1, 3])),
        Filter(ids=[]),
        Filter(since=0),
        Filter(other_cameras=True),
    ):
        assert not where.empty
    found = Gallery.build(people(40)).search(people(1).features, k=40, where=Filter(camids=np.array([1, 3])))
    assert set(found.columns["camids"][0]) == {-1, 1, 3}


def test_rows_of_an_unknown_camera_are_of_another():
    table = people(6)
    table.camids[:] = [0, 0, 1, -1, -1, 1]
    found = Gallery.build(table).search(table, k=6, where=Filter(other_cameras=True), camids=[0] * 6)
    assert set(found.ids.ravel().tolist()) == {-1, 2, 3, 4, 5}


def test_meta_stays():
    table = people(3, meta={"fingerprint": FINGERPRINT, "dataset": "SynthAG"})
    gallery = Gallery.build(table)
    assert gallery.meta == {"fingerprint": FINGERPRINT, "dataset": "SynthAG"}
    assert gallery.to_table().meta == gallery.meta
