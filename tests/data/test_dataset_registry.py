"""The adapter: our data sets as fastreid's, scored by fastreid's own ranker and trained on by its sampler."""

import ast
import pickle
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastreid")
import vif  # noqa: F401  registers
from vif import compat
from fastreid.data.common import CommDataset
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.samplers import BalancedIdentitySampler
from fastreid.evaluation.rank import evaluate_rank
from vif.data.datasets import read_cargo, registry
from vif.errors import DataError
from vif.evaluation.protocols import PROTOCOLS, view_protocols

from tests.fake_trees import (
    make_agreidv1,
    make_agreidv2,
    make_cargo,
    make_manifest,
    make_synthag,
    write_image,
    write_manifest,
)

CARGOS = ("CARGO", "CARGO_AA", "CARGO_GG", "CARGO_AG")
NAMES = (*CARGOS, "AGReIDv1", "AGReIDv2", "SynthAG", "AGManifest")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_cargo(root, ids=6, images=2)
    make_synthag(root, ids=2)
    make_agreidv1(root)
    make_agreidv2(root)
    make_manifest(root, views=("aerial", "ground", "boat"))
    return root


def load(root, name, **kwargs):
    return DATASET_REGISTRY.get(name)(root=str(root), manifest=str(root / "own" / "manifest.csv"), **kwargs)


@pytest.mark.parametrize("name", NAMES)
def test_contract_with_fastreid(root, name):
    data = load(root, name)
    source = "CARGO" if name in CARGOS else name
    assert (type(data).__name__, data.dataset_name, data.source) == (name, name, source)
    assert data.train == [(r.path, f"{source}_{r.pid}", f"{source}_{r.camid}") for r in data.splits["train"]]
    for items in (data.query, data.gallery):
        assert items == sorted(items)
        assert len({path for path, _, _ in items}) == len(items) > 0
        assert all(type(pid) is int and type(camid) is int for _, pid, camid in items)
    data.show_train()
    data.show_test()
    assert load(root, name, mode="gallery").data == data.gallery


@pytest.mark.parametrize("name", [n for n in NAMES if n not in CARGOS[1:]])
def test_query_and_gallery_are_all_test_records(root, name):
    data = load(root, name)
    for side in ("query", "gallery"):
        rows = {r for split, records in data.splits.items() if split.startswith(side) for r in records}
        assert {(r.path, r.pid, r.camid) for r in rows} == set(getattr(data, side))


@pytest.mark.parametrize("name", [n for n in NAMES if n != "AGManifest"])
def test_protocols_are_rows_of_the_table(root, name):
    data = load(root, name)
    assert data.protocols == PROTOCOLS[name]
    assert {s for p in data.protocols for s in (p.query_split, p.gallery_split)} <= set(data.splits)


def test_protocols_of_a_manifest_come_from_its_test_views(root, tmp_path):
    assert load(root, "AGManifest").protocols == view_protocols(["aerial", "boat", "ground"])
    write_image(tmp_path / "a.jpg", 0)
    file = write_manifest(tmp_path / "train.csv", [("train", "a.jpg", 0, 0, "aerial")])
    data = DATASET_REGISTRY.get("AGManifest")(manifest=str(file))
    assert (data.protocols, data.query, data.gallery, len(data.train)) == ((), [], [], 1)


def naive_score(records, distances, queries, galleries, same_camera):
    """Rank-1, mAP in percent and number of valid queries, one pair at a time."""
    first, precision = [], []
    for i, q in enumerate(records["query"]):
        if not queries(q):
            continue
        kept = [
            (distances[i, j], g.pid == q.pid)
            for j, g in enumerate(records["gallery"])
            if galleries(g) and not (g.pid == q.pid and same_camera(q, g))
        ]
        hits = [match for _, match in sorted(kept)]
        if any(hits):
            first.append(hits[0])
            precision.append(np.mean([sum(hits[: k + 1]) / (k + 1) for k, hit in enumerate(hits) if hit]))
    return 100 * np.mean(first), 100 * np.mean(precision), len(precision)


RULES = {
    "CARGO": (lambda r: True, lambda q, g: q.camid == g.camid),
    "CARGO_AA": (lambda r: r.camid <= 5, lambda q, g: q.camid == g.camid),
    "CARGO_GG": (lambda r: r.camid >= 6, lambda q, g: q.camid == g.camid),
    "CARGO_AG": (lambda r: True, lambda q, g: (q.camid <= 5) == (g.camid <= 5)),
}


@pytest.mark.parametrize("name", CARGOS)
def test_fastreids_own_ranker_gives_the_protocols_numbers(root, name):
    data = load(root, name)
    records = read_cargo(str(root))
    rows = [(len(records[s]), {r.path: i for i, r in enumerate(records[s])}) for s in ("query", "gallery")]
    distances = (
        np.random.default_rng(0).permutation(rows[0][0] * rows[1][0]).reshape(rows[0][0], -1).astype(float)
    )
    chosen = np.ix_([rows[0][1][p] for p, _, _ in data.query], [rows[1][1][p] for p, _, _ in data.gallery])
    q, g = np.array([x[1:] for x in data.query]), np.array([x[1:] for x in data.gallery])
    cmc, all_ap, _ = evaluate_rank(
        distances[chosen], q[:, 0], g[:, 0], q[:, 1], g[:, 1], 50, use_cython=False
    )
    accepts, same_camera = RULES[name]
    expected = naive_score(records, distances, accepts, accepts, same_camera)
    assert (100 * cmc[0], 100 * np.mean(all_ap), len(all_ap)) == pytest.approx(expected, rel=1e-6)


def test_cargo_ag_compares_views_and_trains_on_cameras(root):
    data = load(root, "CARGO_AG")
    assert {camid for _, _, camid in data.query + data.gallery} == {0, 1}
    assert all((camid == 0) == (int(Path(p).name.split("_")[0][3:]) <= 5) for p, _, camid in data.gallery)
    assert len({camid for _, _, camid in data.train}) == 13


def test_one_protocol_of_cargo_shares_its_training_identities(root):
    assert load(root, "CARGO_GG").train == load(root, "CARGO").train


@pytest.mark.parametrize("name", NAMES)
def test_training_sees_no_view_label(root, name):
    words = {"aerial", "ground", "cctv", "wearable", "boat"}
    for _, pid, camid in load(root, name).train:
        assert not words & set(f"{pid}_{camid}".lower().split("_"))


def test_fastreids_sampler_and_data_set_take_our_tuples(root):
    data = load(root, "CARGO")
    items = CommDataset(data.train, relabel=True)
    batch = [index for index, _ in zip(BalancedIdentitySampler(data.train, 8, 4, seed=0), range(8))]
    assert sorted(np.unique([items[i]["targets"] for i in batch], return_counts=True)[1].tolist()) == [4, 4]
    test = CommDataset(data.query + data.gallery, relabel=False)
    assert test[0]["targets"] == data.query[0][1]


def test_combineall_takes_test_images_in(root):
    data = load(root, "CARGO_AA", combineall=True)
    assert len(data.train) == len(data.splits["train"]) + len(data.query) + len(data.gallery)


@pytest.mark.parametrize("name", NAMES)
def test_instances_pickle(root, name):
    data = load(root, name)
    again = pickle.loads(pickle.dumps(data))
    assert (type(again), again.train, again.splits) == (type(data), data.train, data.splits)


def test_missing_data_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="CARGO was not found under"):
        DATASET_REGISTRY.get("CARGO_AG")(root=str(tmp_path))
    with pytest.raises(DataError, match=r"set DATASETS\.MANIFEST"):
        DATASET_REGISTRY.get("AGManifest")(root=str(tmp_path))


def test_name_taken_by_another_fastreid_fork(monkeypatch):
    monkeypatch.setitem(DATASET_REGISTRY._obj_map, "CARGO", CommDataset)
    made = registry._register(registry.ROWS[0])
    assert DATASET_REGISTRY.get("CARGO") is CommDataset
    with compat.own_entry(DATASET_REGISTRY, "CARGO"):
        assert DATASET_REGISTRY.get("CARGO") is made
    del compat.entries._SECOND["DATASET", "CARGO"]


def test_registering_again_changes_nothing():
    before = DATASET_REGISTRY.get("CARGO")
    registry._register(registry.ROWS[0])
    assert DATASET_REGISTRY.get("CARGO") is before


def test_only_the_adapter_imports_fastreid():
    tree = ast.parse(Path(registry.__file__).read_text())
    assert any(
        isinstance(n, ast.ImportFrom) and (n.module or "").startswith("fastreid") for n in ast.walk(tree)
    )
