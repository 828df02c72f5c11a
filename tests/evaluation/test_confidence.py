import time

import numpy as np
import pytest
from vif.errors import EvaluationError
from vif.evaluation import Ranking, rank_distances
from vif.evaluation.confidence import METRICS, intervals, paired_difference


def ranking(rng, queries=200, shift=0.0):
    """Rankings as a network makes them, by a noisy distance; the higher `shift`, the better."""
    query_pids, gallery_pids = rng.integers(0, 20, queries), rng.integers(0, 20, 300)
    dist = rng.standard_normal((queries, 300)) - (1 + shift) * (query_pids[:, None] == gallery_pids)
    return rank_distances(dist, query_pids, gallery_pids, np.zeros(queries, int), np.ones(300, int))


def naive_means(values, resamples, seed):
    """Draw, index, average, one resample after the other."""
    rng = np.random.default_rng(seed)
    return np.array(
        [np.mean([values[i] for i in rng.integers(0, len(values), len(values))]) for _ in range(resamples)]
    )


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_intervals_equal_a_naive_loop(level):
    scored = ranking(np.random.default_rng(0), queries=40)
    found = intervals(scored, resamples=500, level=level, seed=3)
    for name, values in zip(METRICS, (scored.first == 1, scored.ap, scored.inp)):
        means = 100 * naive_means(values, 500, 3)
        tail = 100 * (1 - level) / 2
        expected = np.percentile(means, [tail, 100 - tail])
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-9)
        assert found[name][0] < 100 * np.mean(values) < found[name][1]


def test_chunks_do_not_matter(monkeypatch):
    scored = ranking(np.random.default_rng(1))
    expected = intervals(scored, resamples=101)
    monkeypatch.setattr("vif.evaluation.confidence._CHUNK", 700)
    found = intervals(scored, resamples=101)
    for name in METRICS:
        assert found[name] == pytest.approx(expected[name], abs=1e-9)


def test_coverage():
    # Half of all queries are hits: in about 95 of 100 experiments the interval holds the truth.
    rng = np.random.default_rng(2)
    held = 0
    for seed in range(200):
        first = np.where(rng.random(100) < 0.5, 1, 2)
        scored = Ranking(np.ones(1), 1 / first, 1 / first, first, np.arange(100), 100, 9)
        low, high = intervals(scored, resamples=300, seed=seed)["Rank-1"]
        held += low <= 50 <= high
    assert 0.9 <= held / 200 <= 0.99


def test_seed():
    scored = ranking(np.random.default_rng(3))
    np.random.seed(0)
    first = intervals(scored, seed=1)
    assert first == intervals(scored, seed=1)
    assert first == intervals(scored, seed=np.random.default_rng(1))
    assert first != intervals(scored, seed=2)


def test_single_query_says_nothing():
    single = Ranking(np.ones(1), np.ones(1), np.ones(1), np.ones(1, int), np.zeros(1, int), 1, 5)
    assert set(intervals(single).values()) == {(0.0, 100.0)}
    worse = Ranking(np.zeros(1), np.full(1, 0.5), np.full(1, 0.5), np.full(1, 2), np.zeros(1, int), 1, 5)
    difference = paired_difference(single, worse)["mAP"]
    assert difference == (-50.0, -100.0, 100.0, False)


def test_paired_difference_equals_a_naive_loop():
    a, b = ranking(np.random.default_rng(4), 60), ranking(np.random.default_rng(4), 60, shift=0.3)
    found = paired_difference(a, b, resamples=400, seed=5)
    pairs = ((b.first == 1) * 1.0 - (a.first == 1), b.ap - a.ap, b.inp - a.inp)
    for name, values in zip(METRICS, pairs):
        expected = np.percentile(100 * naive_means(values, 400, 5), [2.5, 97.5])
        np.testing.assert_allclose(found[name][1:3], expected, rtol=0, atol=1e-9)
        assert found[name].difference == pytest.approx(100 * np.mean(values))
        assert found[name].difference == pytest.approx(b.scores()[name] - a.scores()[name])


def test_distinguishable():
    a = ranking(np.random.default_rng(6))
    assert paired_difference(a, a)["mAP"] == (0, 0, 0, False)
    better = ranking(np.random.default_rng(6), shift=0.5)
    assert paired_difference(a, better)["mAP"].distinguishable
    assert paired_difference(a, better)["mAP"].low > 0
    assert paired_difference(better, a)["mAP"].high < 0
    # Equal means, query by query at random: no difference that could be told from 0.
    halves = np.where(np.random.default_rng(7).random(200) < 0.5, 0.2, -0.2)
    noise = Ranking(a.cmc, 0.5 + halves, a.inp, a.first, a.valid, a.num_queries, a.num_gallery)
    flat = Ranking(a.cmc, np.full(200, 0.5), a.inp, a.first, a.valid, a.num_queries, a.num_gallery)
    assert not paired_difference(flat, noise)["mAP"].distinguishable


def test_speed():
    count = 10_000
    first = np.random.default_rng(8).integers(1, 5, count)
    scored = Ranking(np.ones(1), 1 / first, 1 / first, first, np.arange(count), count, 50)
    start = time.process_time()
    intervals(scored, resamples=2000)
    assert time.process_time() - start < 2  # 0.25 s on one core; room for a busy machine


def test_errors():
    rng = np.random.default_rng(9)
    scored = ranking(rng)
    for wrong in ({"resamples": 0}, {"level": 0.0}, {"level": 95.0}):
        with pytest.raises(
            EvaluationError, match="bootstrap: expected at least 1 resample and a level between"
        ):
            intervals(scored, **wrong)
    with pytest.raises(
        EvaluationError, match="200 valid of 200 queries and 300 gallery images against 50 of 50"
    ):
        paired_difference(scored, ranking(rng, queries=50))
    shifted = Ranking(scored.cmc, scored.ap, scored.inp, scored.first, scored.valid[::-1], 200, 300)
    with pytest.raises(EvaluationError, match="not of the same queries and gallery"):
        paired_difference(scored, shifted)
