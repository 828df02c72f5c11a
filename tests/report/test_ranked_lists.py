"""Ranked lists against a naive sort of all distances, and the choice of queries."""

import numpy as np
import pytest
from vif.evaluation import PROTOCOLS, evaluate_table
from vif.evaluation.evaluate import protocol_sides
from vif.evaluation.processing import Processing, Rerank
from vif.evaluation.ranking import Ranking
from vif.features import FeatureTable
from vif.report.lists import IGNORED, IMPOSTOR, MATCH, choose_queries, ranked_lists


def random_table(seed, count=120, ids=6, levels=0):
    """Random people under four cameras, the first two aerial; few `levels` of features make ties."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, 3))
    if levels:
        angles = np.linspace(0, 1.2, levels)[rng.integers(0, levels, count)] ** 2
        features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    camids = rng.integers(1, 5, count)
    return FeatureTable(
        features=features.astype(np.float32),
        pids=rng.integers(0, ids, count),
        camids=camids,
        views=np.where(camids < 3, "aerial", "ground"),
        paths=np.array([f"{i}.jpg" for i in range(count)]),
        splits=np.where(np.arange(count) % 4 == 0, "query", "gallery"),
    )


def naive(table, protocol, query):
    """[(row, kind, rank, distance)] of one query's whole gallery, in float64."""
    label = table.camids if protocol.cameras == "camid" else (table.views == "ground").astype(int)
    rows = []
    for g in table.rows("gallery", protocol.gallery_view):
        a, b = table.features[query].astype(float), table.features[g].astype(float)
        distance = 1 - a @ b / np.sqrt((a @ a) * (b @ b))
        same = table.pids[g] == table.pids[query]
        kind = (IGNORED if label[g] == label[query] else MATCH) if same else IMPOSTOR
        rows.append((round(distance, 5), same, int(g), kind))
    ranked, rank = [], 0
    for distance, _, g, kind in sorted(rows):
        rank += kind != IGNORED
        ranked.append((g, kind, None if kind == IGNORED else rank, distance))
    return ranked


@pytest.mark.parametrize("levels", [0, 3])
@pytest.mark.parametrize("name", ["ALL", "AG", "A2G", "GG"])
def test_lists_equal_a_naive_sort_with_the_same_camera_rule(name, levels):
    table = random_table(3, levels=levels)
    protocol = next(p for p in PROTOCOLS["CARGO"] if p.name == name)
    sides = protocol_sides(table, protocol)
    ranking = sides.rank()
    everything = range(len(ranking.valid))
    for found in ranked_lists(sides, ranking, everything, top=1000, ignored=1000):
        expected = naive(table, protocol, found.row)
        assert [hit.rank for hit in found.hits] == [rank for _, _, rank, _ in expected]
        np.testing.assert_allclose([hit.distance for hit in found.hits], [d for *_, d in expected], atol=2e-5)
        listed = [(hit.row, hit.kind) for hit in found.hits]
        assert listed == [(row, kind) for row, kind, _, _ in expected]
        matches = [hit.rank for hit in found.hits if hit.kind == MATCH]
        assert found.ap == pytest.approx(np.mean([(i + 1) / rank for i, rank in enumerate(matches)]))
        assert found.first == matches[0]


def test_a_list_ends_at_its_top_and_adds_the_first_match_from_further_behind():
    table = random_table(3, ids=20)
    sides = protocol_sides(table, PROTOCOLS["DEFAULT"][0])
    ranking = sides.rank()
    worst = int(ranking.first.argmax())
    assert ranking.first[worst] > 5
    (whole,) = ranked_lists(sides, ranking, [worst], top=1000, ignored=1000)
    (found,) = ranked_lists(sides, ranking, [worst], top=4, ignored=1)
    assert [hit.rank for hit in found.hits if hit.rank] == [1, 2, 3, 4, ranking.first[worst]]
    assert found.hits[-1].kind == MATCH
    assert found.hits[-1] in whole.hits
    before = [hit for hit in whole.hits[: whole.hits.index(found.hits[-2])] if hit.kind == IGNORED]
    assert found.passed + sum(hit.kind == IGNORED for hit in found.hits) == len(before)
    assert sum(hit.kind == IGNORED for hit in found.hits) <= 1


def test_ignored_images_beyond_the_first_few_are_counted():
    table = random_table(3)
    sides = protocol_sides(table, PROTOCOLS["CARGO"][0])
    ranking = sides.rank()
    everything = range(len(ranking.valid))
    whole = ranked_lists(sides, ranking, everything, top=1000, ignored=1000)
    short = ranked_lists(sides, ranking, everything, top=1000, ignored=2)
    for a, b in zip(whole, short):
        count = sum(hit.kind == IGNORED for hit in a.hits)
        assert a.passed == 0
        assert b.passed == max(0, count - 2)
        assert sum(hit.kind == IGNORED for hit in b.hits) == min(2, count)
    assert max(found.passed for found in short) > 0


def test_the_protocol_of_views_marks_same_view_images_as_ignored():
    table = random_table(3)
    protocol = PROTOCOLS["CARGO"][0]
    sides = protocol_sides(table, protocol)
    found = ranked_lists(sides, sides.rank(), [0], top=1000, ignored=1000)[0]
    ignored = [hit for hit in found.hits if hit.kind == IGNORED]
    assert ignored
    assert {str(table.views[hit.row]) for hit in ignored} == {str(table.views[found.row])}
    assert {int(table.pids[hit.row]) for hit in ignored} == {int(table.pids[found.row])}


def test_lists_of_re_ranked_distances_give_the_scores_of_re_ranking():
    table, protocol = random_table(5, ids=10), PROTOCOLS["DEFAULT"][0]
    processing = Processing("cosine", None, Rerank(8, 3, 0.3))
    sides = protocol_sides(table, protocol, processing)
    ranking = evaluate_table(table, protocol, processing)
    for position, found in enumerate(ranked_lists(sides, ranking, range(len(ranking.valid)), 1000, 1000)):
        matches = [hit.rank for hit in found.hits if hit.kind == MATCH]
        assert np.mean([(i + 1) / rank for i, rank in enumerate(matches)]) == pytest.approx(
            ranking.ap[position]
        )
    plain = ranked_lists(protocol_sides(table, protocol), ranking, [0], 1000, 1000)[0]
    assert [hit.row for hit in plain.hits] != [
        hit.row for hit in ranked_lists(sides, ranking, [0], 1000, 1000)[0].hits
    ]


def ranking_of(ap):
    ap = np.array(ap, dtype=float)
    valid = np.arange(len(ap))
    return Ranking(np.ones(5), ap, ap, valid + 1, valid, len(ap), 9)


def test_best_typical_and_worst_queries_by_average_precision():
    chosen = choose_queries(ranking_of([0.5, 0.9, 0.1, 0.4, 1.0, 0.0, 0.55]), 2)
    assert {name: found.tolist() for name, found in chosen.items()} == {
        "Best": [4, 1],
        "Typical": [0, 6],
        "Worst": [5, 2],
    }


@pytest.mark.parametrize("count", range(1, 8))
def test_no_query_is_chosen_twice_however_few_there_are(count):
    chosen = choose_queries(ranking_of(np.linspace(0.1, 1, count)), 5)
    rows = np.concatenate(list(chosen.values()))
    assert len(set(rows.tolist())) == len(rows)
    assert chosen["Best"][0] == count - 1
