"""Held-out training identities: who is held out, what is a query, and that no test image is seen."""

import pytest
from fake_trees import make_agreidv2, make_cargo
from tiny import tiny_cfg
from vif.data.build import build_test_set, build_train_loader, find_dataset
from vif.data.holdout import hold_out
from vif.errors import ConfigError, DataError
from vif.records import ImageRecord


def splits(ids, views=("aerial", "ground"), images=3):
    train = [
        ImageRecord(f"{pid}_{view}_{i}.jpg", pid, camid, view)
        for pid in range(ids)
        for camid, view in enumerate(views)
        for i in range(images)
    ]
    return {"train": train, "query": [ImageRecord("q.jpg", 99, 0, "aerial")], "gallery": []}


def test_every_training_image_is_in_one_split_and_identities_do_not_mix():
    before = splits(20)
    after = hold_out(before, 0.25)
    parts = [set(after[name]) for name in ("train", "query", "gallery")]
    assert sum(map(len, parts)) == len(before["train"])
    assert set.union(*parts) == set(before["train"])
    trained, tested = ({r.pid for r in part} for part in (parts[0], parts[1] | parts[2]))
    assert not trained & tested
    assert len(tested) == 5


def test_each_held_out_identity_has_one_query_a_view_its_first_image():
    queries = hold_out(splits(20), 0.25)["query"]
    assert sorted((r.pid, r.view) for r in queries) == sorted(
        {(r.pid, view) for r in queries for view in ("aerial", "ground")}
    )
    assert all(r.path.endswith("_0.jpg") for r in queries)


def test_the_same_identities_each_time_and_not_the_last_ones():
    first, again = (hold_out(splits(40), 0.25) for _ in range(2))
    assert first == again
    assert {r.pid for r in first["query"]} != set(range(30, 40))


@pytest.mark.parametrize("share", [0.01, 0.9])
def test_too_few_identities_on_either_side_are_refused(share):
    with pytest.raises(DataError, match=r"DATASETS.HOLDOUT=.* of 10 training identities leaves \d+ to train"):
        hold_out(splits(10), share)


def test_training_leaves_them_out_and_the_test_is_on_them(tmp_path, monkeypatch):
    make_cargo(tmp_path, ids=8)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    cfg = tiny_cfg("CARGO/vif.yml", tmp_path / "out", "DATASETS.HOLDOUT", 0.25)
    paths = {item[0] for item in build_train_loader(cfg).dataset.img_items}
    test = build_test_set(cfg, "CARGO")
    held = {r.path for split in ("query", "gallery") for r in test.splits[split]}
    assert test.title == "CARGO held-out"
    assert [p.name for p in test.protocols] == ["AG", "ALL", "AA", "GG", "A2G", "G2A"]
    assert len(held) == 2 * 13
    assert not held & paths
    assert len(held | paths) == 8 * 13
    assert all("/train/" in path for path in held | paths)


def test_lists_of_the_test_set_play_no_part(tmp_path, monkeypatch):
    make_agreidv2(tmp_path, ids=6)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    cfg = tiny_cfg("AGReIDv2/vif.yml", tmp_path / "out", "DATASETS.HOLDOUT", 0.4)
    dataset = find_dataset(cfg, "AGReIDv2")
    assert set(dataset.splits) == {"train", "query", "gallery"}
    assert all("train_all" in r.path for records in dataset.splits.values() for r in records)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CARGO_AG", "holds out identities of CARGO, not of CARGO_AG"),
        ("Market1501", "works with VIF's data sets, not with fastreid's Market1501"),
    ],
)
def test_data_sets_that_cannot_hold_out(name, message, tmp_path, monkeypatch):
    make_cargo(tmp_path)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    cfg = tiny_cfg("CARGO/vif.yml", tmp_path / "out", "DATASETS.HOLDOUT", 0.25)
    with pytest.raises(ConfigError, match=message):
        find_dataset(cfg, name)
