"""Exact search against brute force in float64, ties by id whatever lies around them."""

import numpy as np
import pytest
import torch
from vif.retrieval import exact
from vif.retrieval.exact import exact_search
from vif.retrieval.rows import unit_vectors


def brute(queries, vectors, ids, k):
    """Cosines in float64, rounded to float32; sorted by cosine, then id."""
    cosines = (queries.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    order = np.stack([np.lexsort((ids, -row))[:k] for row in cosines])
    return np.take_along_axis(cosines, order, axis=1), order


def sample(count, dim, seed=0, copies=1):
    rng = np.random.default_rng(seed)
    vectors = unit_vectors(rng.standard_normal((count, dim)).astype(np.float32))
    vectors = np.repeat(vectors, copies, axis=0)
    return vectors[rng.permutation(len(vectors))]


@pytest.mark.parametrize("dim", [3, 64])
@pytest.mark.parametrize("k", [1, 10, 200, 500])
def test_it_is_brute_force(dim, k, monkeypatch):
    monkeypatch.setattr(exact, "BLOCK_ROWS", 64)  # many blocks
    vectors, queries = sample(300, dim), sample(7, dim, seed=1)
    ids = np.random.default_rng(2).permutation(1000)[:300]
    scores, slots = exact_search(queries, vectors, ids, k)
    expected, order = brute(queries, vectors, ids, min(k, 300))
    assert scores.shape == slots.shape == (7, k)
    np.testing.assert_allclose(scores[:, :300], expected, atol=1.2e-7)
    assert (slots[:, :300] == order).all()
    assert (slots[:, 300:] == -1).all()
    assert np.isneginf(scores[:, 300:]).all()


def test_cosines_are_those_of_torch():
    vectors, queries = sample(50, 16), sample(4, 16, seed=1)
    scores, slots = exact_search(queries, vectors, np.arange(50), 3)
    cosine = torch.cosine_similarity(torch.tensor(queries)[:, None], torch.tensor(vectors[slots]), dim=2)
    np.testing.assert_allclose(scores, cosine, atol=3e-7)


@pytest.mark.parametrize("copies", [5, 100])
def test_ties_are_in_the_order_of_ids_even_where_k_cuts_them(copies, monkeypatch):
    """100 copies are more than the spare candidates: which of them FAISS returns must not matter."""
    monkeypatch.setattr(exact, "BLOCK_ROWS", 50)
    vectors = sample(6, 8, copies=copies)
    ids = np.random.default_rng(3).permutation(len(vectors))
    queries = np.concatenate([vectors[:3], sample(3, 8, seed=9)])
    scores, slots = exact_search(queries, vectors, ids, copies + 2)
    for row in range(len(queries)):
        groups = {}
        for score, slot in zip(scores[row], slots[row]):
            groups.setdefault(score, []).append(ids[slot])
        first, second = list(groups.values())
        assert len(first) == copies
        equal = [
            ids[(vectors == vectors[np.flatnonzero(ids == g[0])[0]]).all(axis=1)] for g in (first, second)
        ]
        assert first == sorted(equal[0])
        assert second == sorted(equal[1])[:2]


def test_only_the_slots_that_are_named():
    vectors, ids = sample(200, 8), np.arange(200)
    slots = np.arange(0, 200, 3)
    scores, found = exact_search(vectors[:5], vectors, ids, 4, slots)
    expected, order = brute(vectors[:5], vectors[slots], ids[slots], 4)
    np.testing.assert_allclose(scores, expected, atol=1.2e-7)
    assert (found == slots[order]).all()


def test_products_of_another_device_are_made_exact():
    """Products that are off by the rounding of float32, as a GPU's may be, change no result."""
    vectors, queries, ids = sample(40, 8, copies=3), sample(5, 8, seed=1), np.arange(120)[::-1].copy()
    noise = np.random.default_rng(0)

    def products(some, width):
        values = some @ vectors.T + noise.uniform(-4e-7, 4e-7, (len(some), len(vectors))).astype(np.float32)
        order = np.argsort(-values, axis=1)[:, :width]
        return np.take_along_axis(values, order, axis=1), order

    expected = exact_search(queries, vectors, ids, 7)
    found = exact_search(queries, vectors, ids, 7, products=products)
    assert all((a == b).all() for a, b in zip(expected, found))


def test_no_row_is_no_neighbour():
    scores, slots = exact_search(sample(2, 4), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), 3)
    assert (slots == -1).all()
    assert np.isneginf(scores).all()


def test_where_faiss_is_missing_the_error_says_how_to_get_it(monkeypatch):
    import sys

    from vif.errors import ConfigError

    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match="pip install faiss-cpu"):
        exact.import_faiss()


def test_a_query_never_has_two_threads_and_the_callers_number_comes_back(monkeypatch):
    faiss, seen = exact.import_faiss(), []
    knn = faiss.knn

    def spy(*given, **named):
        seen.append(faiss.omp_get_max_threads())
        return knn(*given, **named)

    monkeypatch.setattr(faiss, "knn", spy)
    vectors = np.eye(6, 8, dtype=np.float32)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        for queries in (1, 2, 6):
            exact.exact_search(vectors[:queries], vectors, np.arange(6), 2)
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)
    assert seen == [1, 2, 3]
