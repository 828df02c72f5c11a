"""Counts of pairs against a naive loop over every pair."""

from collections import Counter

import numpy as np
import pytest
from vif.evaluation import PROTOCOLS, Protocol
from vif.evaluation.evaluate import protocol_sides
from vif.evaluation.processing import Processing
from vif.report.figures import median_of, pair_title
from vif.report.pairs import BINS, PairCounts, count_pairs

from tests.report.test_ranked_lists import random_table

EVERY = Protocol("pairs", "pairs")


def naive(table, edges, metric):
    """Counter of (views, same person, bin)."""
    counts = Counter()
    for q in table.rows("query"):
        for g in table.rows("gallery"):
            same = table.pids[q] == table.pids[g]
            if same and table.camids[q] == table.camids[g]:
                continue
            a, b = table.features[q].astype(float), table.features[g].astype(float)
            cosine = a @ b / np.sqrt((a @ a) * (b @ b))
            distance = 1 - cosine if metric == "cosine" else ((a - b) ** 2).sum()
            views = tuple(sorted((str(table.views[q]), str(table.views[g]))))
            place = min(max(int(np.searchsorted(edges, distance, side="right")) - 1, 0), BINS - 1)
            counts[views, bool(same), place] += 1
    return counts


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("block_bytes", [1, 64 << 20])
def test_counts_equal_a_loop_over_all_pairs(metric, block_bytes):
    table = random_table(11)
    sides = protocol_sides(table, EVERY, Processing(metric))
    found = count_pairs([sides], table.views, block_bytes)
    assert [pair.views for pair in found] == [
        ("aerial", "aerial"),
        ("aerial", "ground"),
        ("ground", "ground"),
    ]
    expected = naive(table, found[0].edges, metric)
    moved = 0  # float32 may put a distance at an edge into the next bin
    for pair in found:
        for same, counts in ((True, pair.positives), (False, pair.negatives)):
            naive_counts = np.array([expected[pair.views, same, k] for k in range(BINS)])
            assert counts.sum() == naive_counts.sum()
            moved += np.abs(counts - naive_counts).sum()
    assert moved <= 4


def test_two_contests_count_the_pairs_of_both():
    table = random_table(11)
    sides = protocol_sides(table, EVERY)
    once, twice = (count_pairs([sides] * times, table.views) for times in (1, 2))
    for a, b in zip(once, twice):
        np.testing.assert_array_equal(2 * a.positives, b.positives)
        np.testing.assert_array_equal(2 * a.negatives, b.negatives)


def test_one_way_protocols_split_the_pairs_across_views():
    table = random_table(11)
    rows = {p.name: p for p in PROTOCOLS["CARGO"]}
    every = count_pairs([protocol_sides(table, EVERY)], table.views)
    (across,) = count_pairs([protocol_sides(table, rows[name]) for name in ("A2G", "G2A")], table.views)
    pair = next(p for p in every if p.views == across.views)
    assert (across.positives.sum(), across.negatives.sum()) == (pair.positives.sum(), pair.negatives.sum())


def test_without_views_there_is_one_histogram():
    table = random_table(11)
    views = np.full(len(table), "")
    (found,) = count_pairs([protocol_sides(table, EVERY)], views)
    assert pair_title(found) == "all images"
    queries, gallery = len(table.rows("query")), len(table.rows("gallery"))
    assert found.positives.sum() + found.negatives.sum() < queries * gallery  # same-camera pairs are out


def test_equal_distances_fill_one_bin():
    table = random_table(11)
    table.features[:] = 1
    for pair in count_pairs([protocol_sides(table, EVERY)], table.views):
        assert np.count_nonzero(pair.negatives) == 1


def test_the_median_lies_in_the_bin_that_holds_half_of_the_pairs():
    edges = np.array([0.0, 1.0, 2.0, 3.0])
    assert median_of(edges, np.array([1, 5, 1])) == 1.5
    assert median_of(edges, np.array([9, 0, 1])) == 0.5
    assert np.isnan(median_of(edges, np.zeros(3)))
    assert pair_title(PairCounts(("aerial", "ground"), edges, edges, edges)) == "A-G"
