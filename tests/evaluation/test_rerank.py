import numpy as np
import pytest
import torch
from vif.errors import EvaluationError
from vif.evaluation.rerank import expand_queries, nearest, rerank_distances


def people(count=200, identities=20, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((identities, dim))
    return (centres[rng.integers(0, identities, count)] + 0.7 * rng.standard_normal((count, dim))).astype(
        np.float32
    )


def unit(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def dense(features, queries, metric, k1, k2, weight):
    """Sets and loops over an N x N matrix, in float64."""
    features = features.astype(np.float64)
    if metric == "cosine":
        features = unit(features)
    squared = np.square(features[:, None] - features[None]).sum(-1)
    count = len(features)
    near = np.argsort(squared, axis=1, kind="stable")[:, :k1]

    def mutual(i, k):
        return {j for j in near[i, :k] if i in near[j, :k]}

    codes = np.zeros((count, count))
    for i in range(count):
        base = mutual(i, k1)
        expanded = set(base)
        for j in base:
            small = mutual(j, int(np.around(k1 / 2)) + 1)
            if len(small & base) > 2 / 3 * len(small):
                expanded |= small
        weights = {j: np.exp(-squared[i, j]) for j in expanded}
        for j in expanded:
            codes[i, j] = weights[j] / sum(weights.values())
    if k2 > 1:
        codes = np.array([codes[near[i, :k2]].mean(axis=0) for i in range(count)])
    out = np.empty((queries, count - queries))
    for q in range(queries):
        for g in range(queries, count):
            jaccard = 1 - np.minimum(codes[q], codes[g]).sum() / np.maximum(codes[q], codes[g]).sum()
            distance = squared[q, g] / 2 if metric == "cosine" else squared[q, g]
            out[q, g - queries] = (1 - weight) * jaccard + weight * distance
    return out


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (11, 1, 0.0), (5, 5, 1.0), (1, 1, 0.3)])
def test_equals_sets_and_loops(metric, k1, k2, weight):
    features = people()
    found = rerank_distances(features[:30], features[30:], metric=metric, k1=k1, k2=k2, weight=weight)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, dense(features, 30, metric, k1, k2, weight), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_equals_fastreid_on_1000_images(metric):
    library = pytest.importorskip("fastreid.utils.compute_dist")
    features = people(1000, 60, 64) / 4
    sides = torch.from_numpy(features).split([100, 900])
    whole = torch.from_numpy(unit(features) if metric == "cosine" else features)
    jaccard = library.compute_jaccard_distance(whole, k1=20, k2=6, search_option=3)[:100, 100:]
    product = whole[:100] @ whole[100:].t()
    if metric == "cosine":
        distance = 1 - product
    else:
        distance = whole[:100].square().sum(1)[:, None] + whole[100:].square().sum(1) - 2 * product
    expected = 0.7 * jaccard + 0.3 * distance.numpy()
    assert (jaccard < 1).mean() > 0.04  # there is something to compare
    np.testing.assert_allclose(rerank_distances(*sides, metric=metric), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("gallery", [1, 3, 12])
def test_fewer_images_than_neighbours(gallery):
    features = people(2 + gallery)
    found = rerank_distances(features[:2], features[2:])
    np.testing.assert_allclose(found, dense(features, 2, "cosine", 20, 6, 0.3), rtol=0, atol=2e-6)


def test_collapsed_features_are_no_error():
    features = np.ones((120, 8), np.float32)
    found = rerank_distances(features[:20], features[20:])
    assert np.isfinite(found).all()


def test_order_of_the_gallery_does_not_matter():
    features = people()
    order = np.random.default_rng(1).permutation(170)
    here = rerank_distances(features[:30], features[30:])
    there = rerank_distances(features[:30], features[30:][order])
    np.testing.assert_allclose(here[:, order], there, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("k", "alpha", "times"), [(10, 3.0, 1), (4, 1.0, 2), (1, 3.0, 1)])
def test_query_expansion_equals_fastreid(k, alpha, times):
    library = pytest.importorskip("fastreid.evaluation.query_expansion")
    features = people(300, 10)
    sides = torch.from_numpy(features).split([40, 260])
    expected = library.aqe(*sides, qe_times=times, qe_k=k, alpha=alpha)
    for found, wanted in zip(expand_queries(*sides, k=k, alpha=alpha, times=times), expected):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-5)


def test_query_expansion_by_hand():
    # Two neighbours at right angles to the third: with k = 2 and alpha = 1, (1,0) and (3,4) have cosine 0.6.
    query, gallery = np.array([[1.0, 0.0]]), np.array([[3.0, 4.0], [-1.0, 0.0]])
    expanded, others = expand_queries(query, gallery, k=2, alpha=1.0)
    np.testing.assert_allclose(expanded, [[(1 + 0.6 * 3) / 2, 0.6 * 4 / 2]], rtol=1e-6)
    np.testing.assert_allclose(others[1], [-0.5, 0], atol=1e-6)  # its other neighbour has a negative cosine


def test_arguments_are_not_changed():
    features = people()
    query, gallery = features[:30].copy(), features[30:].copy()
    rerank_distances(query, gallery)
    expand_queries(query, gallery, times=2)
    np.testing.assert_array_equal(query, features[:30])
    np.testing.assert_array_equal(gallery, features[30:])


def test_pieces_do_not_matter(monkeypatch):
    features = people()
    expected = rerank_distances(features[:30], features[30:]), *expand_queries(features[:30], features[30:])
    monkeypatch.setattr("vif.evaluation.rerank._PAIR_BYTES", 1000)
    found = rerank_distances(features[:30], features[30:]), *expand_queries(features[:30], features[30:])
    for a, b in zip(found, expected):
        np.testing.assert_array_equal(a, b)


def test_nearest():
    features = people(60)
    distances, indices = nearest(features, 5)
    squared = np.square(features[:, None] - features[None]).sum(-1)
    np.testing.assert_array_equal(indices, np.argsort(squared, axis=1)[:, :5])
    np.testing.assert_allclose(distances, np.sort(squared, axis=1)[:, :5], atol=1e-4)


def test_errors():
    a, b = people(10), people(20)
    for wrong in ({"k1": 0}, {"k2": 0}, {"weight": -0.1}, {"weight": 1.1}):
        with pytest.raises(
            EvaluationError, match=r"re-ranking: expected k1 and k2 of at least 1 and a weight in 0..1"
        ):
            rerank_distances(a, b, **wrong)
    for wrong in ({"k": 0}, {"times": 0}, {"alpha": -1.0}):
        with pytest.raises(EvaluationError, match="query expansion: expected k and times of at least 1"):
            expand_queries(a, b, **wrong)
    with pytest.raises(EvaluationError, match="metric: got 'jaccard'; there are cosine, euclidean"):
        rerank_distances(a, b, metric="jaccard")
    with pytest.raises(EvaluationError, match="query features have 16 dimensions, gallery features 8"):
        rerank_distances(a, b[:, :8])
    with pytest.raises(EvaluationError, match=r"gallery features: shape .* is empty"):
        rerank_distances(a, b[:0])
    with pytest.raises(EvaluationError, match="query features: 160 of 160 values, in 10 of 10 rows, are NaN"):
        expand_queries(a * np.nan, b)
