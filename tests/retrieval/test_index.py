"""Index kinds: recall against exact search, filters that FAISS sees, parameters, GPUs (fakes)."""

import numpy as np
import pytest
from vif.errors import ConfigError
from vif.retrieval import HNSW, IVFPQ, Filter, Flat, Gallery, exact, searcher, state
from vif.retrieval.kinds import choose, kind_from_json, kind_to_json

from tests.retrieval.people import people

KINDS = [HNSW(), IVFPQ(lists=32, code_bytes=16, probes=16)]


@pytest.fixture(scope="module")
def crowd():
    """2,500 rows in no clusters to speak of, and 50 queries."""
    return people(2500, dim=32, identities=200), people(50, seed=1, dim=32, identities=200, prefix="q")


def recall(found, expected):
    return np.mean([len(set(a) & set(b)) / len(set(b) - {-1}) for a, b in zip(found.ids, expected.ids)])


def seen(monkeypatch):
    """Searches of an index, as (share of rows that pass or None)."""
    calls = []
    search = searcher.Searcher.search

    def spy(self, queries, vectors, ids, k, keep):
        calls.append(None if keep is None else float(keep.mean()))
        return search(self, queries, vectors, ids, k, keep)

    monkeypatch.setattr(searcher.Searcher, "search", spy)
    return calls


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_recall_against_exact_search(kind, crowd, monkeypatch):
    table, queries = crowd
    calls = seen(monkeypatch)
    gallery, flat = Gallery.build(table, index=kind), Gallery.build(table)
    found, expected = gallery.search(queries), flat.search(queries)
    assert calls == [None]
    assert recall(found, expected) >= 0.97
    same = found.ids == expected.ids
    assert (found.distances[same] == expected.distances[same]).all()  # exact, not those of codes


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_a_wide_filter_is_the_indexs_and_a_narrow_one_is_exact(kind, crowd, monkeypatch):
    monkeypatch.setattr(state, "EXACT_ROWS", 300)
    table, queries = crowd
    calls = seen(monkeypatch)
    gallery, flat = Gallery.build(table, index=kind), Gallery.build(table)
    wide, narrow = Filter(views=["aerial"]), Filter(ids=range(200, 400))
    found = gallery.search(queries, where=wide)
    assert len(calls) == 1
    assert 0.4 < calls.pop() < 0.6
    assert recall(found, flat.search(queries, where=wide)) >= 0.97
    assert (found.columns["views"] == "aerial").all()
    exactly, expected = gallery.search(queries, where=narrow), flat.search(queries, where=narrow)
    assert not calls
    assert (exactly.ids == expected.ids).all()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_candidates_are_ranked_whatever_order_the_index_has_them_in(kind, crowd, monkeypatch):
    table, queries = crowd
    gallery = Gallery.build(table, index=kind)
    expected = gallery.search(queries)
    on_cpu = searcher.Searcher._on_cpu
    monkeypatch.setattr(searcher.Searcher, "_on_cpu", lambda *given: on_cpu(*given)[:, ::-1])
    found = gallery.search(queries)
    assert (found.ids == expected.ids).all()
    assert (found.distances == expected.distances).all()


@pytest.mark.parametrize("block", [1, 4 * 40 * 32 * 3, 1 << 30])
def test_candidates_are_looked_at_in_blocks_of_bounded_memory(block, crowd, monkeypatch):
    vectors, queries = (table.features.astype(np.float32) for table in crowd)
    found = np.stack([np.random.default_rng(i).permutation(len(vectors))[:40] for i in range(len(queries))])
    found[::7, 30:] = -1
    taken = []

    class Watched(np.ndarray):
        def __getitem__(self, index):
            part = np.asarray(self)[index]
            taken.append(part.nbytes)
            return part

    monkeypatch.setattr(exact, "BLOCK_BYTES", block)
    best = searcher._nearest_of(queries, vectors.view(Watched), found, 9)
    assert max(taken) <= max(block, 4 * 40 * 32)  # a query at least
    assert sum(taken) == 50 * 4 * 40 * 32
    for query, slots, kept in zip(queries, found, best):
        there = slots[slots >= 0]
        assert set(kept) == set(there[np.argsort(-(vectors[there] @ query))[:9]])


def test_a_filter_that_leaves_half_makes_the_index_look_twice_as_far(crowd, monkeypatch):
    monkeypatch.setattr(state, "EXACT_ROWS", 0)
    table, queries = crowd
    faiss, efforts = exact.import_faiss(), []

    def spied(inner, effort):
        def make(**given):
            efforts.append(given[effort])
            return inner(**given)

        return make

    for name, effort in (("SearchParametersHNSW", "efSearch"), ("SearchParametersIVF", "nprobe")):
        monkeypatch.setattr(faiss, name, spied(getattr(faiss, name), effort))
    for kind in (HNSW(ef_search=100), KINDS[1]):
        gallery = Gallery.build(table, index=kind)
        gallery.search(queries)
        gallery.search(queries, where=Filter(ids=range(1250)))
    assert efforts == [100, 200, 16, 32]


def falling_variance(count, dim, fall):
    """Vectors of length 1 whose variance falls by e every `fall` dimensions, in turned axes."""
    rng = np.random.default_rng(4)
    turned = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    vectors = (rng.standard_normal((count, dim)) * np.exp(-np.arange(dim) / fall / 2)) @ turned
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("variance", "fall"), [(90, 8), (98, 8), (98, 16), (100, 8), (98, 1000)])
def test_a_graph_holds_the_components_of_this_share_of_the_variance(variance, fall):
    vectors = falling_variance(900, 64, fall)
    singular = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False) ** 2
    held = np.cumsum(singular) / singular.sum()
    index = HNSW(variance=variance).build(vectors)
    dims = exact.import_faiss().downcast_index(index.index).d
    assert dims % 16 == 0
    assert held[dims - 1] >= variance / 100 - 1e-6
    assert dims == 16 or held[dims - 17] < variance / 100


@pytest.mark.parametrize("vectors", [np.ones((1, 8)), np.ones((50, 8)), np.eye(40, 300)])
def test_a_graph_of_few_or_equal_rows(vectors):
    rows = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    found = HNSW().build(rows).search(rows, 1)[1][:, 0]
    np.testing.assert_allclose((rows[found] * rows).sum(axis=1), 1, rtol=1e-6)


def test_a_filter_that_leaves_less_than_a_tenth_is_searched_exactly(crowd, monkeypatch):
    monkeypatch.setattr(state, "EXACT_ROWS", 0)
    table, queries = crowd
    calls = seen(monkeypatch)
    gallery = Gallery.build(table, index="hnsw")
    gallery.search(queries, where=Filter(ids=range(249)))
    assert not calls
    gallery.search(queries, where=Filter(ids=range(250)))
    assert calls == [0.1]


def test_a_filter_reaches_further_than_the_neighbours_of_a_query(crowd, monkeypatch):
    """Only one far corner passes: a graph that gives up early is helped out by exact search."""
    monkeypatch.setattr(state, "EXACT_ROWS", 0)
    table, queries = crowd
    gallery, flat = Gallery.build(table, index=HNSW(ef_search=1, links=2)), Gallery.build(table)
    where = Filter(camids=[1])
    found, expected = gallery.search(queries, k=200, where=where), flat.search(queries, k=200, where=where)
    assert (found.ids >= 0).all()
    assert (found.columns["camids"] == 1).all()
    assert (found.distances >= expected.distances).all()


def test_ivfpq_of_few_rows_waits_and_is_exact(crowd):
    _, queries = crowd
    small = people(100, dim=32)
    gallery = Gallery.build(small, index="ivfpq")
    assert gallery._state.searcher is None
    assert (gallery.search(queries).ids == Gallery.build(small).search(queries).ids).all()
    gallery.add(people(400, seed=3, dim=32, prefix="b"))
    assert gallery._state.searcher.rows == 500


@pytest.mark.parametrize(("dim", "size"), [(32, 32), (100, 50), (48, 48), (96, 48), (67, 1)])
def test_a_code_has_a_divisor_of_the_dimension(dim, size):
    vectors = np.random.default_rng(0).standard_normal((300, dim)).astype(np.float32)
    found = IVFPQ(lists=2).build(vectors).pq.M
    assert found == size


def test_chosen_by_size():
    assert [choose(n).kind for n in (0, 50_000, 50_001, 2_000_000, 2_000_001)] == [
        *("flat", "flat", "hnsw", "hnsw", "ivfpq")
    ]


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        (HNSW, {"links": 2, "ef_construction": 1, "ef_search": 1, "variance": 1}, {"variance": 100}),
        (IVFPQ, {"lists": 0, "code_bytes": 1, "probes": 1, "refine": 1}, {}),
    ],
)
def test_parameters_that_cannot_work(kind, least, most):
    for name, low in least.items():
        high = most.get(name, 1000)
        assert getattr(kind(**{name: low}), name) == low
        assert getattr(kind(**{name: high}), name) == high
        for value in (low - 1, *([high + 1] if name in most else []), 5.0, "5", True):
            with pytest.raises(ConfigError, match=rf"{kind.__name__}\({name}=.*expected an integer, {low} "):
                kind(**{name: value})


@pytest.mark.parametrize("kind", [Flat(), HNSW(links=8), IVFPQ(probes=3)])
def test_kinds_as_json(kind):
    assert kind_from_json(kind_to_json(kind)) == kind


@pytest.mark.parametrize(
    "content", [{}, {"kind": "lsh"}, {"kind": "hnsw", "links": 3}, {"kind": "flat", "a": 1}]
)
def test_unknown_kinds(content):
    with pytest.raises(ConfigError, match="is unknown; there are flat, hnsw, ivfpq"):
        kind_from_json(content)


class FakeGpus:
    """What FAISS's GPU copies of an index do, done by the CPU: no selector, at most 2,048 neighbours."""

    def __init__(self, faiss, monkeypatch):
        self.calls, self.options = [], []
        monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
        monkeypatch.setattr(faiss, "GpuMultipleClonerOptions", type("Options", (), {}), raising=False)
        monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", self.copy, raising=False)

    def copy(self, source, co):
        self.options.append(vars(co))
        fake = self

        class Copy:
            def search(self, queries, k):
                assert k <= 2048
                fake.calls.append((len(queries), k))
                return source.search(queries, k)

        return Copy()


@pytest.fixture
def gpus(monkeypatch):
    return FakeGpus(exact.import_faiss(), monkeypatch)


def test_flat_on_gpus_is_exact_and_filters_stay_on_the_cpu(crowd, gpus, monkeypatch):
    monkeypatch.setattr(state, "EXACT_ROWS", 0)
    table, queries = crowd
    gallery = Gallery.build(table)
    assert gpus.options == [{"shard": True, "useFloat16": False}]
    found = gallery.search(queries)
    assert gpus.calls == [(50, 26)]
    filtered = gallery.search(queries, where=Filter(views=["aerial"]))
    many = gallery.search(queries.features[:1], k=2500)
    assert len(gpus.calls) == 1
    monkeypatch.setattr(exact.import_faiss(), "get_num_gpus", lambda: 0)
    cpu = Gallery.build(table)
    assert (found.ids == cpu.search(queries).ids).all()
    assert (filtered.ids == cpu.search(queries, where=Filter(views=["aerial"])).ids).all()
    assert (many.ids == cpu.search(queries.features[:1], k=2500).ids).all()


def test_flat_on_gpus_takes_new_rows(gpus):
    gallery = Gallery.build(people(100))
    more = people(10, seed=1, prefix="b")
    ids = gallery.add(more)
    assert gallery.search(more.features, k=1).ids[:, 0].tolist() == ids.tolist()
    gallery.add(people(100, seed=2, prefix="c"))
    assert len(gpus.options) == 2  # copied again when much was new
    assert gallery._state.searcher.rows == 210


def test_ivfpq_goes_to_gpus_and_graphs_do_not(crowd, gpus):
    table, queries = crowd
    kind = IVFPQ(lists=32, code_bytes=16, probes=16)
    gallery = Gallery.build(table, index=kind)
    assert gpus.options == [{"shard": True, "useFloat16": True}]
    assert gallery._state.searcher.index.nprobe == 16  # what copies take over
    found = gallery.search(queries)
    assert gpus.calls == [(50, 160)]
    gallery.search(queries, where=Filter(views=["aerial"]))
    Gallery.build(table, index="hnsw").search(queries)
    assert len(gpus.calls) == len(gpus.options) == 1
    assert recall(found, Gallery.build(table, index=HNSW(ef_search=500)).search(queries)) > 0.97


@pytest.mark.parametrize("kind", [Flat(), IVFPQ(lists=32, code_bytes=16, probes=16)])
def test_what_gpus_refuse_stays_on_the_cpu_aloud(kind, crowd, gpus, monkeypatch, caplog):
    def refuse(source, co):
        raise RuntimeError("cudaMalloc error out of memory")

    monkeypatch.setattr(exact.import_faiss(), "index_cpu_to_all_gpus", refuse)
    table, queries = crowd
    found = Gallery.build(table, index=kind).search(queries)
    assert f"the {kind.kind} index on GPUs (cudaMalloc error out of memory): it stays" in caplog.text
    assert recall(found, Gallery.build(table, index=HNSW(ef_search=500)).search(queries)) > 0.97
