from dataclasses import replace

import numpy as np
import pytest
from vif.errors import EvaluationError
from vif.evaluation import (
    PROTOCOLS,
    Protocol,
    evaluate_table,
    format_table,
    rank_distances,
    select,
    view_protocols,
)
from vif.evaluation.confidence import intervals
from vif.evaluation.processing import Expansion, Processing, Rerank
from vif.evaluation.rerank import expand_queries, rerank_distances
from vif.features import FeatureTable

# The example of docs/protocols.md: images on a line, so that distances can be read off.
# name, position, pid, camid, view, split
EXAMPLE = (
    ("q0", 0, 1, 0, "aerial", "query"),
    ("q1", 100, 2, 5, "ground", "query"),
    ("g0", 1, 1, 0, "aerial", "gallery"),  # identity 1, the camera of q0
    ("g1", 2, 9, 1, "aerial", "gallery"),
    ("g2", 3, 1, 1, "aerial", "gallery"),  # identity 1, another aerial camera
    ("g3", 4, 9, 6, "ground", "gallery"),
    ("g4", 5, 1, 6, "ground", "gallery"),  # identity 1, on the ground
    ("g5", 98, 2, 6, "ground", "gallery"),  # identity 2, another ground camera
    ("g6", 97, 9, 0, "aerial", "gallery"),
    ("g7", 96, 2, 1, "aerial", "gallery"),  # identity 2, in the air
)
# What can be worked out by hand: queries, valid, gallery, and the ranks of the matches of each valid query.
WORKED = {
    "ALL": (2, 2, 8, {0: [2, 4], 1: [1, 3]}),
    "GG": (1, 1, 3, {0: [1]}),
    "AA": (1, 1, 5, {0: [2]}),
    "AG": (2, 2, 8, {0: [3], 1: [2]}),
    "A2G": (1, 1, 3, {0: [2]}),
    "G2A": (1, 1, 5, {0: [2]}),
}


def line_table(rows, order=None):
    rows = [rows[i] for i in (range(len(rows)) if order is None else order)]
    names, positions, pids, camids, views, splits = zip(*rows)
    # On a circle's arc the cosine distance grows with the distance along the line.
    angle = np.array(positions) / 200
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    labels = [np.array(column) for column in (pids, camids, views, names, splits)]
    return FeatureTable(features, *labels)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("name", WORKED)
def test_worked_example(name, metric):
    (protocol,) = select([name], PROTOCOLS["CARGO"])
    table = line_table(EXAMPLE)
    ranking = evaluate_table(table, protocol, Processing(metric))
    queries, valid, gallery, ranks = WORKED[name]
    row = ranking.scores()
    assert (row["queries"], row["valid_queries"], row["gallery"]) == (queries, valid, gallery)
    assert ranking.valid.tolist() == list(ranks)
    ap = [np.mean([(i + 1) / rank for i, rank in enumerate(hits)]) for hits in ranks.values()]
    np.testing.assert_allclose(ranking.ap, ap, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ranking.inp, [len(hits) / hits[-1] for hits in ranks.values()], atol=1e-12)
    np.testing.assert_array_equal(ranking.first, [hits[0] for hits in ranks.values()])
    assert row["mAP"] == pytest.approx(100 * np.mean(ap))


def random_table(rng, count=300, identities=20, dim=6):
    pids = rng.integers(0, identities, count)
    camids = rng.integers(0, 13, count)
    views = np.where(camids < 5, "aerial", "ground")
    features = rng.standard_normal((identities, dim))[pids] + rng.standard_normal((count, dim))
    splits = np.where(np.arange(count) < 60, "query", "gallery")
    paths = np.array([f"{i:04d}.jpg" for i in range(count)])
    return FeatureTable(features, pids, camids, views, paths, splits)


def test_two_domains_are_plain_ranking_with_relabelled_cameras():
    table = random_table(np.random.default_rng(0))
    query, gallery = table.rows("query"), table.rows("gallery")
    unit = table.features / np.linalg.norm(table.features, axis=1, keepdims=True)
    cameras = (table.views == "ground").astype(np.int64)
    labels = (table.pids[query], table.pids[gallery], cameras[query], cameras[gallery])
    dist = 1 - unit[query] @ unit[gallery].T
    here = evaluate_table(table, PROTOCOLS["CARGO_AG"][0])
    there = rank_distances(dist, *labels)
    np.testing.assert_array_equal(here.first, there.first)
    np.testing.assert_allclose(here.ap, there.ap, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(here.valid, there.valid)


@pytest.mark.filterwarnings("ignore:Cython rank evaluation")
def test_two_domains_are_fastreid_with_relabelled_cameras():
    rank = pytest.importorskip("fastreid.evaluation.rank")
    table = random_table(np.random.default_rng(1))
    query, gallery = table.rows("query"), table.rows("gallery")
    unit = table.features / np.linalg.norm(table.features, axis=1, keepdims=True)
    cameras = (table.views == "ground").astype(np.int64)
    _, ap, inp = rank.evaluate_rank(
        1 - unit[query] @ unit[gallery].T,
        table.pids[query],
        table.pids[gallery],
        cameras[query],
        cameras[gallery],
        use_cython=False,
    )
    ranking = evaluate_table(table, PROTOCOLS["CARGO_AG"][0])
    np.testing.assert_allclose(ranking.ap, ap, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ranking.inp, inp, rtol=0, atol=1e-9)


@pytest.mark.parametrize("protocol", PROTOCOLS["CARGO"], ids=lambda protocol: protocol.name)
def test_order_of_rows_does_not_matter(protocol):
    table = random_table(np.random.default_rng(2))
    order = np.random.default_rng(3).permutation(len(table))
    columns = ("features", "pids", "camids", "views", "paths", "splits")
    shuffled = FeatureTable(*(getattr(table, name)[order] for name in columns))
    here, there = evaluate_table(table, protocol).scores(), evaluate_table(shuffled, protocol).scores()
    assert here == pytest.approx(there, abs=1e-9)
    assert evaluate_table(shuffled.by_path(), protocol).scores() == here


@pytest.mark.parametrize(
    "processing",
    [Processing(rerank=Rerank(3, 2, 0.3)), Processing("euclidean", Expansion(2, 1.0)), Processing()],
)
def test_processing_sees_the_protocols_images_and_no_others(processing):
    rng = np.random.default_rng(0)
    count = 80
    table = FeatureTable(
        features=rng.normal(size=(count, 4)).astype(np.float32),
        pids=np.arange(count) % 8,
        camids=np.arange(count) % 13,
        views=np.where(np.arange(count) % 13 < 5, "aerial", "ground"),
        paths=np.array([f"{k}.jpg" for k in range(count)]),
        splits=np.where(np.arange(count) < 30, "query", "gallery"),
    )
    (protocol,) = select(["A2G"], PROTOCOLS["CARGO"])
    ranking = evaluate_table(table, protocol, processing)
    query, gallery = table.rows("query", "aerial"), table.rows("gallery", "ground")
    sides = table.features[query], table.features[gallery]
    if processing.expansion:
        sides = expand_queries(*sides, k=2, alpha=1.0, times=1)
    if processing.rerank:
        distances = rerank_distances(*sides, k1=3, k2=2, weight=0.3)
    elif processing.metric == "euclidean":
        distances = ((sides[0][:, None] - sides[1][None]) ** 2).sum(axis=2)
    else:
        unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
        distances = 1 - unit[0] @ unit[1].T
    labels = (table.pids[query], table.pids[gallery], table.camids[query], table.camids[gallery])
    expected = rank_distances(distances, *labels)
    np.testing.assert_allclose(ranking.ap, expected.ap)
    plain = evaluate_table(table, protocol)
    assert processing == Processing() or not np.allclose(ranking.ap, plain.ap)
    others = np.setdiff1d(np.arange(len(table.pids)), np.concatenate([query, gallery]))
    changed = table.features.copy()
    changed[others] = rng.normal(size=(len(others), 4))
    moved = FeatureTable(**{**vars(table), "features": changed})
    np.testing.assert_array_equal(evaluate_table(moved, protocol, processing).ap, ranking.ap)


def test_processing_says_what_it_does():
    assert Processing().describe() == "cosine"
    both = Processing("euclidean", Expansion(), Rerank())
    assert both.describe() == (
        "euclidean, query expansion k=5 alpha=3 times=1, re-ranking k1=20 k2=6 weight=0.3"
    )


def test_lists_are_splits_of_their_own():
    # Two lists share the query; each has a gallery of its own, and one image is in both.
    rows = (
        ("q", 0, 1, 0, "aerial", "query@A2C,query@A2W"),
        ("c", 1, 1, 3, "cctv", "gallery@A2C"),
        ("both", 2, 9, 3, "cctv", "gallery@A2C,gallery@A2W"),
        ("w", 3, 1, 2, "wearable", "gallery@A2W"),
        ("elsewhere", 0.5, 9, 2, "wearable", "gallery@C2A"),
    )
    table = line_table(rows)
    a2c, a2w = select(["A2C", "A2W"], PROTOCOLS["AGReIDv2"])
    assert evaluate_table(table, a2c).scores()["Rank-1"] == 100
    assert evaluate_table(table, a2w).first.tolist() == [2]
    assert evaluate_table(table, a2w).num_gallery == 2


def test_table_of_protocols():
    names = {name: [row.name for row in rows] for name, rows in PROTOCOLS.items()}
    assert names["CARGO"] == names["SynthAG"] == ["AG", "ALL", "GG", "AA", "A2G", "G2A"]
    assert names["AGReIDv1"] == ["A2G", "G2A"]
    assert names["AGReIDv2"] == ["A2C", "A2W", "C2A", "W2A"]
    assert [names[f"CARGO_{name}"] for name in ("AA", "GG", "AG")] == [["AA"], ["GG"], ["AG"]]
    assert PROTOCOLS["DEFAULT"] == (Protocol("ALL", "ALL"),)
    titles = {row.name: row.title for row in PROTOCOLS["CARGO"]}
    assert titles == {
        "ALL": "ALL",
        "AG": "A<->G",
        "GG": "G<->G",
        "AA": "A<->A",
        "A2G": "A->G",
        "G2A": "G->A",
    }
    assert PROTOCOLS["AGReIDv2"][0] == Protocol(
        "A2C", "A->C", query_split="query@A2C", gallery_split="gallery@A2C"
    )


def test_view_protocols():
    assert set(view_protocols(["ground", "aerial", "ground"])) == set(PROTOCOLS["CARGO"])
    assert view_protocols(["ground", "aerial"])[0].name == "AG"
    three = view_protocols(["drone", "wearable", "aerial"])
    assert [row.name for row in three] == [
        "A-W-drone",
        "ALL",
        "AA",
        "WW",
        "drone-drone",
        "A2W",
        "A2drone",
        "W2A",
        "W2drone",
        "drone2A",
        "drone2W",
    ]
    assert three[-1] == Protocol("drone2W", "drone->W", "drone", "wearable", "view")
    assert three[0].cameras == "view"
    assert [row.name for row in view_protocols(["ground"])] == ["ALL"]
    with pytest.raises(EvaluationError, match="no views"):
        view_protocols([])


def test_view_names_are_not_ambiguous():
    views = [
        "aerial",
        "A",
        "ground",
        "G",
        "A2G",
        "AG",
        "A2",
        "2A",
        "a-b",
        "ALL",
        "cctv",
        "wearable",
        "x2y",
        "y",
    ]
    names = [row.name for row in view_protocols(views)]
    assert len(set(names)) == len(names) == 2 + len(views) ** 2


def test_select():
    rows = PROTOCOLS["CARGO"]
    assert select([], rows) == list(rows)
    assert [row.name for row in select(["G2A", "AG"], rows)] == ["AG", "G2A"]
    with pytest.raises(
        EvaluationError, match="unknown protocol 'AB', 'A2C'; this data set has AG, ALL, GG, AA"
    ):
        select(["AB", "AG", "A2C"], rows)


def test_errors_name_the_protocol_and_what_there_is():
    table = line_table(EXAMPLE[:5])
    with pytest.raises(
        EvaluationError,
        match=r"protocol A2G: the gallery side, split 'gallery' of view 'ground', is empty. The table's "
        r"splits are gallery \(3\), query \(2\), its views 'aerial', 'ground'",
    ):
        evaluate_table(table, select(["A2G"], PROTOCOLS["CARGO"])[0])
    with pytest.raises(EvaluationError, match="protocol A2W: the query side, split 'query@A2W', is empty"):
        evaluate_table(table, PROTOCOLS["AGReIDv2"][1])
    with pytest.raises(EvaluationError, match="protocol AG: no valid query: none of the 2 queries"):
        evaluate_table(table, PROTOCOLS["CARGO_AG"][0])
    with pytest.raises(EvaluationError, match="protocol X: cameras is 'pid'; it can be 'camid' or 'view'"):
        evaluate_table(table, Protocol("X", "X", cameras="pid"))
    empty = FeatureTable(np.zeros((0, 2)), *[np.zeros(0, int)] * 2, *[np.zeros(0, str)] * 3)
    with pytest.raises(EvaluationError, match="The table's splits are none, its views none"):
        evaluate_table(empty, PROTOCOLS["DEFAULT"][0])


def test_format_table():
    table = line_table(EXAMPLE)
    rows = select(["AG", "ALL"], PROTOCOLS["CARGO"])
    rankings = {row.name: evaluate_table(table, row) for row in rows}
    rankings["ALL"] = replace(rankings["ALL"], num_gallery=50712)
    lines = format_table(rankings, rows).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    names = ["Protocol", "Rank-1", "Rank-5", "Rank-10", "mAP", "mINP", "valid queries / queries", "gallery"]
    assert cells[0] == names
    assert cells[2] == ["A<->G (AG)", "0.00", "100.00", "100.00", "41.67", "41.67", "2 / 2", "8"]
    assert cells[3][0] == "ALL"
    assert cells[3][-1] == "50,712"
    low, high = intervals(rankings["AG"], level=0.9)["mAP"]
    with_ends = format_table(rankings, rows, level=0.9).splitlines()[2]
    assert f"41.67 [{low:.1f}, {high:.1f}]" in with_ends
    assert with_ends.count("[") == 3
