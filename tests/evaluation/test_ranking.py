import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vif.errors import EvaluationError
from vif.evaluation import counting, rank_distances, rank_metrics
from vif.evaluation.distances import FeatureDistances

from tests.marks import fake_cuda

VECTORS = Path(__file__).parents[1] / "vectors" / "ranking.npz"
AERIAL_CAMERAS = 5  # of CARGO's 13, numbered from 0


def brute_force(dist, query_pids, gallery_pids, query_camids, gallery_camids):
    """Filter, sort, walk: (valid, ap, inp, first) by plain loops; of equals the negative is first."""
    valid, ap, inp, first = [], [], [], []
    for q in range(len(query_pids)):
        kept = [
            (float(dist[q, g]), bool(gallery_pids[g] == query_pids[q]))
            for g in range(len(gallery_pids))
            if not (gallery_pids[g] == query_pids[q] and gallery_camids[g] == query_camids[q])
        ]
        hits = [
            rank for rank, (_, match) in enumerate(sorted(kept), start=1) if match
        ]  # False sorts before True
        if hits:
            valid.append(q)
            ap.append(sum((i + 1) / rank for i, rank in enumerate(hits)) / len(hits))
            inp.append(len(hits) / hits[-1])
            first.append(hits[0])
    return np.array(valid), np.array(ap), np.array(inp), np.array(first)


def assert_equals_brute_force(ranking, dist, labels):
    valid, ap, inp, first = brute_force(dist, *labels)
    np.testing.assert_array_equal(ranking.valid, valid)
    np.testing.assert_allclose(ranking.ap, ap, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ranking.inp, inp, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(ranking.first, first)
    expected = [np.mean(first <= k) for k in range(1, len(ranking.cmc) + 1)]
    np.testing.assert_allclose(ranking.cmc, expected, rtol=0, atol=1e-12)


def random_labels(rng, queries, gallery, identities=12, cameras=4):
    sizes = (queries, gallery)
    pids = [rng.integers(0, identities, size) for size in sizes]
    camids = [rng.integers(0, cameras, size) for size in sizes]
    return (*pids, *camids)


def test_worked_example():
    # Query 0: its match at 0.1 is ignored (own camera); the rest ranks N(0.2) P(0.3) N(0.5) P(0.5), with the
    # negative first at 0.5. Matches at ranks 2 and 4: AP = (1/2 + 2/4) / 2 = 1/2, INP = 2/4, first 2.
    # Query 1 has no match in another camera: dropped.
    dist = np.array([[0.1, 0.2, 0.3, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5]])
    ranking = rank_distances(dist, [7, 8], [7, 8, 7, 8, 7], [0, 1], [0, 1, 1, 1, 2], max_rank=4)
    np.testing.assert_array_equal(ranking.valid, [0])
    np.testing.assert_array_equal(ranking.ap, [0.5])
    np.testing.assert_array_equal(ranking.inp, [0.5])
    np.testing.assert_array_equal(ranking.first, [2])
    np.testing.assert_array_equal(ranking.cmc, [0, 1, 1, 1])
    assert ranking.scores((1, 2)) == {
        "Rank-1": 0.0,
        "Rank-2": 100.0,
        "mAP": 50.0,
        "mINP": 50.0,
        "queries": 2,
        "valid_queries": 1,
        "gallery": 5,
    }


def test_reference_vectors():
    with np.load(VECTORS) as file:
        compared = 0
        for k in range(int(file["count"])):
            case = {
                name: file[f"{k}_{name}"] for name in ("dist", "q_pids", "g_pids", "q_camids", "g_camids")
            }
            query = gallery = None
            protocol = str(file[f"{k}_protocol"])
            q_view, g_view = case["q_camids"] >= AERIAL_CAMERAS, case["g_camids"] >= AERIAL_CAMERAS
            query, gallery = np.arange(len(q_view)), np.arange(len(g_view))
            if protocol in ("AA", "GG"):
                query, gallery = (np.flatnonzero(view == (protocol == "GG")) for view in (q_view, g_view))
            cams = (q_view, g_view) if protocol == "AG" else (case["q_camids"], case["g_camids"])
            arguments = (
                case["dist"][np.ix_(query, gallery)],
                case["q_pids"][query],
                case["g_pids"][gallery],
                cams[0][query].astype(int),
                cams[1][gallery].astype(int),
            )
            if len(file[f"{k}_valid"]) == 0:
                with pytest.raises(EvaluationError):
                    rank_distances(*arguments)
                continue
            ranking = rank_distances(*arguments, max_rank=20)
            np.testing.assert_array_equal(query[ranking.valid], file[f"{k}_valid"])
            np.testing.assert_allclose(ranking.ap, file[f"{k}_ap"], rtol=0, atol=1e-12)
            np.testing.assert_allclose(ranking.inp, file[f"{k}_inp"], rtol=0, atol=1e-12)
            np.testing.assert_allclose(ranking.cmc, file[f"{k}_cmc"], rtol=0, atol=1e-12)
            compared += 1
    assert compared == 14


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 6),
    gallery=st.integers(1, 60),
    levels=st.integers(1, 12),
    identities=st.integers(1, 6),
    cameras=st.integers(1, 3),
)
def test_ties_equal_brute_force(seed, queries, gallery, levels, identities, cameras):
    rng = np.random.default_rng(seed)
    labels = random_labels(rng, queries, gallery, identities, cameras)
    dist = rng.integers(0, levels, (queries, gallery)).astype(np.float32)
    if len(brute_force(dist, *labels)[0]) == 0:
        with pytest.raises(EvaluationError, match="no valid query"):
            rank_distances(dist, *labels)
    else:
        assert_equals_brute_force(rank_distances(dist, *labels), dist, labels)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
@pytest.mark.parametrize("identities", [3, 400])  # some 500 matches a query, and some 4
def test_long_rows_equal_brute_force(dtype, identities):
    rng = np.random.default_rng(0)
    labels = random_labels(rng, 8, 3000, identities)
    dist = (rng.random((8, 3000)) * 1000).astype(dtype)
    assert_equals_brute_force(rank_distances(dist, *labels), dist, labels)
    assert_equals_brute_force(
        rank_distances(torch.from_numpy(dist), *map(torch.from_numpy, labels)), dist, labels
    )


@pytest.mark.parametrize("queries", [[0, 1, 2, 3], [0, 3]], ids=["adjacent", "scattered"])
def test_strided_read_only_matrix(queries):
    rng = np.random.default_rng(1)
    labels = random_labels(rng, 4, 90, identities=5)
    labels[0][[q for q in range(4) if q not in queries]] = 99
    dist = np.asfortranarray(rng.random((4, 90)).astype(">f4"))
    dist.setflags(write=False)
    assert_equals_brute_force(rank_distances(dist, *labels), dist, labels)


def test_sklearn_average_precision():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(2)
    query_pids, gallery_pids, query_camids, gallery_camids = random_labels(rng, 20, 500)
    dist = rng.permutation(20 * 500).reshape(20, 500).astype(np.float64)
    ranking = rank_distances(dist, query_pids, gallery_pids, query_camids, gallery_camids)
    assert len(ranking.valid) == 20
    for q, ap in zip(ranking.valid, ranking.ap):
        match = gallery_pids == query_pids[q]
        kept = ~(match & (gallery_camids == query_camids[q]))
        assert ap == pytest.approx(average_precision_score(match[kept], -dist[q, kept]), abs=1e-12)


@pytest.mark.filterwarnings("ignore:Cython rank evaluation")
def test_fastreid_evaluator():
    rank = pytest.importorskip("fastreid.evaluation.rank")
    rng = np.random.default_rng(3)
    labels = random_labels(rng, 30, 700, identities=60)
    features = rng.standard_normal((730, 16)).astype(np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    dist = 1 - unit[:30] @ unit[30:].T
    cmc, ap, inp = rank.evaluate_rank(dist, *labels, max_rank=50, use_cython=False)
    for ranking in (rank_distances(dist, *labels), rank_metrics(features[:30], features[30:], *labels)):
        np.testing.assert_allclose(ranking.cmc, cmc, rtol=0, atol=1e-6)  # fastreid's is float32
        np.testing.assert_allclose(ranking.ap, ap, rtol=0, atol=1e-9)
        np.testing.assert_allclose(ranking.inp, inp, rtol=0, atol=1e-9)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("block_bytes", [1, 12_000, 1 << 29])
def test_blocks_of_any_size_give_the_same(metric, dtype, block_bytes):
    # Four entries of +-2 or +-4 a row: all norms, products and sums are exact, and many distances equal.
    rng = np.random.default_rng(4)
    labels = random_labels(rng, 9, 133, identities=10)
    features = np.zeros((142, 16))
    for row in features:
        row[rng.permutation(16)[:4]] = rng.choice([-1, 1], 4) * rng.choice([2, 4])
    query, gallery = features[:9], features[9:]
    if metric == "cosine":
        norms = np.linalg.norm(features, axis=1)
        dist = 1 - query @ gallery.T / norms[:9, None] / norms[9:]
    else:
        dist = np.square(query[:, None] - gallery[None]).sum(-1)
    sides = [torch.from_numpy(side).to(dtype) for side in (query, gallery)]
    ranking = rank_metrics(*sides, *labels, metric=metric, block_bytes=block_bytes)
    assert_equals_brute_force(ranking, dist, labels)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("value", [0.0, 0.37])
def test_collapsed_network_does_not_score(metric, value):
    rng = np.random.default_rng(5)
    labels = random_labels(rng, 100, 3001, identities=30)
    row = np.full(768, value) + value * rng.standard_normal(768)
    features = np.tile(row.astype(np.float32), (3101, 1))
    for block_bytes in (1 << 18, 1 << 29):
        scores = rank_metrics(
            features[:100], features[100:], *labels, metric=metric, block_bytes=block_bytes
        ).scores()
        assert scores["Rank-10"] == 0
        assert scores["mAP"] < 2


def test_order_of_files_does_not_matter():
    rng = np.random.default_rng(6)
    query_pids, gallery_pids, query_camids, gallery_camids = random_labels(rng, 20, 300)
    dist = rng.integers(0, 50, (20, 300)).astype(np.float32)
    here = rank_distances(dist, query_pids, gallery_pids, query_camids, gallery_camids)
    q, g = rng.permutation(20), rng.permutation(300)
    there = rank_distances(
        dist[np.ix_(q, g)], query_pids[q], gallery_pids[g], query_camids[q], gallery_camids[g]
    )
    back = np.argsort(q[there.valid])
    np.testing.assert_array_equal(there.ap[back], here.ap)
    np.testing.assert_array_equal(there.inp[back], here.inp)
    np.testing.assert_array_equal(there.cmc, here.cmc)


def test_counting_on_a_gpu_equals_counting_on_a_cpu():
    # The GPU's half runs on any device; here on the CPU, and below as shapes and devices only.
    rng = np.random.default_rng(7)
    strip = torch.from_numpy(rng.integers(0, 30, (50, 4000)).astype(np.float32))
    near = [np.sort(rng.integers(0, 30, 1 + r)).astype(np.float32) for r in range(50)]
    for a, b in zip(counting._count_by_sorting(strip, near), counting.count_near(strip, near)):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.int64


@fake_cuda
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_strips_stay_on_the_gpu(monkeypatch, metric, dtype):
    fake = pytest.importorskip("torch._subclasses.fake_tensor")
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda self: True, raising=False)  # a fake has no values
    with fake.FakeTensorMode():
        query, gallery = (torch.empty(n, 8, dtype=dtype, device="cuda") for n in (40, 500))
        distances = FeatureDistances(query, gallery, metric, 1 << 12)
        strip = distances.strip(np.arange(3, 40), slice(100, 480))
    assert strip.device.type == "cuda"
    assert strip.dtype == torch.float32
    assert strip.shape == (37, 380)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_equals_cpu():
    rng = np.random.default_rng(8)
    labels = random_labels(rng, 37, 4110, identities=40)
    query, gallery = (torch.from_numpy(rng.integers(-2, 3, (n, 16))).float() for n in (37, 4110))
    for block_bytes in (3_000, 1 << 29):
        here, there = (
            rank_metrics(q, g, *labels, metric="euclidean", block_bytes=block_bytes)
            for q, g in ((query, gallery), (query.cuda(), gallery.cuda()))
        )
        np.testing.assert_array_equal(here.ap, there.ap)
        np.testing.assert_array_equal(here.first, there.first)


def good():
    rng = np.random.default_rng(9)
    return [*(rng.standard_normal((n, 4)).astype(np.float32) for n in (6, 50)), *random_labels(rng, 6, 50, 3)]


def replaced(position, value):
    arguments = good()
    arguments[position] = value
    return arguments


BAD_FEATURES = {
    "one dimension": (replaced(0, np.zeros(4)), r"query features: expected two dimensions, got shape \(4,\)"),
    "empty query": (replaced(0, np.zeros((0, 4))), r"query features: shape \(0, 4\) is empty"),
    "empty gallery": (replaced(1, np.zeros((0, 4))), r"gallery features: shape \(0, 4\) is empty"),
    "text": (replaced(0, np.full((6, 4), "a")), "expected numbers, got an array of <U1"),
    "dimensions": (replaced(1, np.zeros((50, 5))), "query features have 4 dimensions, gallery features 5"),
    "length": (replaced(2, np.arange(5)), r"query_pids: .* 6 query images, got shape \(5,\)"),
    "gallery length": (
        replaced(5, np.arange(49)),
        r"gallery_camids: .* 50 gallery images, got shape \(49,\)",
    ),
    "float labels": (replaced(3, np.zeros(50)), "gallery_pids: expected integers, got float64"),
    "strangers": (
        replaced(2, np.arange(6) + 100),
        "no valid query: none of the 6 queries .* 50 gallery images .*[(]0 have one in",
    ),
    "own camera": (
        good()[:4] + [np.zeros(6, int), np.zeros(50, int)],
        "no valid query: none of the 6 .*6 have one in their own camera only",
    ),
}


@pytest.mark.parametrize("case", BAD_FEATURES)
def test_errors(case):
    arguments, message = BAD_FEATURES[case]
    with pytest.raises(EvaluationError, match=message):
        rank_metrics(*arguments)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_nan_and_infinity_are_counted(dtype):
    arguments = [a.astype(dtype) if a.dtype.kind == "f" else a for a in good()]
    arguments[1][7, 2] = np.nan
    arguments[1][9, :2] = [np.inf, -np.inf]
    message = "gallery features: 3 of 200 values, in 2 of 50 rows, are NaN or infinite; the first is in row 7"
    with pytest.raises(EvaluationError, match=message):
        rank_metrics(*arguments)
    arguments[0][5, 0] = -np.inf
    with pytest.raises(EvaluationError, match="query features: 1 of 24 values, in 1 of 6 rows"):
        rank_metrics(*arguments)
    dist = np.zeros((6, 50), dtype)
    dist[5, 3] = np.nan
    with pytest.raises(EvaluationError, match="distances: 1 of 300 values, in 1 of 6 rows"):
        rank_distances(dist, *arguments[2:])


def test_finite_values_of_any_size():
    arguments = replaced(0, np.full((6, 4), 3e38, np.float32))
    with pytest.raises(
        EvaluationError, match=r"query features: so large that a norm overflows torch.float32"
    ):
        rank_metrics(*arguments)
    dist = np.full((6, 50), 3e38, np.float32)  # the sum overflows, the values are fine
    assert rank_distances(dist, *arguments[2:]).scores()["Rank-1"] == 0


def test_argument_errors():
    with pytest.raises(EvaluationError, match="metric: got 'cosin'; there are cosine, euclidean"):
        rank_metrics(*good(), metric="cosin")
    with pytest.raises(EvaluationError, match="max_rank: expected at least 1, got 0"):
        rank_metrics(*good(), max_rank=0)
    with pytest.raises(EvaluationError, match="block_bytes: expected at least 1, got 0"):
        rank_metrics(*good(), block_bytes=0)
    with pytest.raises(EvaluationError, match="max_rank"):
        rank_distances(np.zeros((6, 50)), *good()[2:], max_rank=0)
    with pytest.raises(EvaluationError, match="query features are on cpu, gallery features on meta"):
        rank_metrics(torch.zeros(6, 4), torch.zeros(50, 4, device="meta"), *good()[2:])


def test_results_are_plain_json():
    json.dumps(rank_metrics(*good()).scores())


def test_max_rank_beyond_the_gallery():
    cmc = rank_metrics(*good(), max_rank=80).cmc
    assert cmc.shape == (80,)
    assert cmc[-1] == 1
