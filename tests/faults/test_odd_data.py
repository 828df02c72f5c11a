"""Data sets that are whole but odd: each runs, or ends in an error that says what to do."""

import vif
import numpy as np
import pytest
import torch
from vif.data import datasets
from vif.data.build import build_test_set, build_train_loader
from vif.errors import ConfigError, DataError, EvaluationError
from vif.evaluation.evaluate import evaluate_table
from vif.evaluation.protocols import PROTOCOLS, view_protocols
from vif.features import FeatureTable
from vif.records import ImageRecord

from tests import fake_trees
from tests.tiny import tiny_cfg

SAMPLERS = pytest.mark.parametrize(
    "sampler", ["NaiveIdentitySampler", "BalancedIdentitySampler", "TrainingSampler"]
)


def own(tmp_path, people, *opts, test=True):
    """A config on AGManifest: `people` is pid -> [(camera, view), ...] of the training images."""
    home, rows = tmp_path / "own", []

    def add(split, pid, cam, view, i):
        name = f"{split}_{pid}_{i}.jpg"
        fake_trees.write_image(home / name, pid, cam, size=(16, 32))
        rows.append((split, name, pid, cam, view))

    for pid, images in people.items():
        for i, (cam, view) in enumerate(images):
            add("train", pid, cam, view, i)
    if test:
        for pid in (900, 901):
            add("query", pid, 50, "aerial", 0)
            add("gallery", pid, 51, "ground", 0)
    manifest = fake_trees.write_manifest(home / "list.csv", rows)
    names = ("DATASETS.NAMES", ("AGManifest",), "DATASETS.TESTS", ("AGManifest",))
    return tiny_cfg("SynthAG/vif.yml", tmp_path / "out", *names, "DATASETS.MANIFEST", str(manifest), *opts)


def some_batches(cfg, count=3):
    batches = iter(build_train_loader(cfg))
    return [next(batches) for _ in range(count)]


@SAMPLERS
def test_identities_with_one_image_are_repeated(tmp_path, sampler):
    cfg = own(tmp_path, {pid: [(pid % 2, "aerial")] for pid in range(8)}, "DATALOADER.SAMPLER_TRAIN", sampler)
    for batch in some_batches(cfg):
        assert batch["images"].shape == (8, 3, 32, 16)
        if sampler == "NaiveIdentitySampler":
            assert set(torch.bincount(batch["targets"]).tolist()) <= {0, 2}


@SAMPLERS
@pytest.mark.parametrize("views", [("aerial",), ("ground",)])
def test_one_camera_of_one_view_can_be_trained_on(tmp_path, sampler, views):
    people = {pid: [(3, views[0])] * 4 for pid in range(6)}
    cfg = own(tmp_path, people, "DATALOADER.SAMPLER_TRAIN", sampler, "TEST.PROTOCOLS", ("AG",))
    trainer = vif.VIFTrainer(cfg)
    trainer.train()
    assert all(torch.isfinite(tensor).all() for tensor in trainer.model.state_dict().values())


@pytest.mark.parametrize("sampler", ["NaiveIdentitySampler", "BalancedIdentitySampler"])
def test_fewer_identities_than_a_batch_needs_are_an_error(tmp_path, sampler):
    cfg = own(tmp_path, {pid: [(0, "aerial")] * 6 for pid in range(3)}, "DATALOADER.SAMPLER_TRAIN", sampler)
    with pytest.raises(ConfigError, match="needs 4 identities a batch, and the training set has 3"):
        build_train_loader(cfg)


def test_a_batch_that_is_no_multiple_of_the_instances_is_an_error(tmp_path):
    cfg = own(tmp_path, {0: [(0, "aerial")]}, "SOLVER.IMS_PER_BATCH", 9)
    with pytest.raises(ConfigError, match="IMS_PER_BATCH=9 is no multiple of .*; take 8"):
        vif.check_config(cfg)


def test_fewer_images_than_a_batch_are_an_error(tmp_path):
    cfg = own(tmp_path, {0: [(0, "aerial")] * 7}, "DATALOADER.SAMPLER_TRAIN", "TrainingSampler")
    with pytest.raises(DataError, match="7 images, fewer than one batch"):
        vif.VIFTrainer.build_train_loader(cfg)


def test_no_training_image_is_an_error(tmp_path):
    cfg = own(tmp_path, {})
    with pytest.raises(DataError, match="AGManifest has no training images"):
        build_train_loader(cfg)


def test_no_test_image_is_an_error(tmp_path):
    cfg = own(tmp_path, {pid: [(0, "aerial")] * 2 for pid in range(4)}, test=False)
    with pytest.raises(DataError, match="no query and gallery to score"):
        build_test_set(cfg, "AGManifest")


def table(pids, camids, views, splits, features=None):
    count = len(pids)
    return FeatureTable(
        np.ones((count, 4), np.float32) if features is None else features,
        np.array(pids),
        np.array(camids),
        np.array(views, dtype=np.str_),
        np.array([f"{i}.jpg" for i in range(count)]),
        np.array(splits, dtype=np.str_),
    )


def test_one_camera_has_no_valid_query():
    rows = table([1, 2, 1, 2], [7] * 4, ["aerial"] * 4, ["query", "query", "gallery", "gallery"])
    with pytest.raises(EvaluationError, match=r"no valid query: none of the 2 .* \(2 have one in their own"):
        evaluate_table(rows, PROTOCOLS["DEFAULT"][0])


def test_one_view_scores_its_own_protocol_and_no_other():
    splits = ["query", "query", "gallery", "gallery"]
    rows = table([1, 2, 1, 2], [0, 0, 1, 1], ["aerial"] * 4, splits)
    for protocol in view_protocols(["aerial"]):
        assert evaluate_table(rows, protocol).scores()["valid_queries"] == 2
    crossing = next(p for p in PROTOCOLS["CARGO"] if p.name == "A2G")
    with pytest.raises(EvaluationError, match="protocol A2G: the gallery side, .* is empty"):
        evaluate_table(rows, crossing)


def test_a_query_without_a_match_is_counted_and_not_scored():
    rows = table([1, 9, 1], [0, 0, 1], [""] * 3, ["query", "query", "gallery"])
    scores = evaluate_table(rows, PROTOCOLS["DEFAULT"][0]).scores()
    assert (scores["queries"], scores["valid_queries"]) == (2, 1)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_features_that_are_all_equal_score_as_the_worst_of_their_ties(metric, value):
    from vif.evaluation.processing import Processing

    count = 50
    pids = [0, *range(count)]
    rows = table(pids, [0] + [1] * count, [""] * (count + 1), ["query"] + ["gallery"] * count)
    rows.features[:] = value
    scores = evaluate_table(rows, PROTOCOLS["DEFAULT"][0], Processing(metric, None, None)).scores()
    assert scores["Rank-1"] == 0
    assert scores["mAP"] == pytest.approx(100 / count)


@pytest.mark.parametrize("split", ["query", "gallery"])
def test_an_empty_split_is_an_error_that_names_it(tmp_path, split):
    home = fake_trees.make_cargo(tmp_path, ids=2)
    for file in (home / split).rglob("*.jpg"):
        file.unlink()
    with pytest.raises(DataError, match=f"split {split} has no image"):
        datasets.read_cargo(str(tmp_path))


def test_endings_of_any_case_are_read_and_what_desktops_leave_is_not(tmp_path):
    home = fake_trees.make_cargo(tmp_path, ids=2)
    before = datasets.read_cargo(str(tmp_path))
    file = min((home / "train").rglob("*.jpg"))
    file.rename(file.with_suffix(".JPG"))
    for name in (f"._{file.name}", ".DS_Store", "Thumbs.db", "desktop.ini", "readme.txt"):
        (file.parent / name).write_bytes(b"junk")
    after = datasets.read_cargo(str(tmp_path))
    assert len(after["train"]) == len(before["train"])
    assert str(file.with_suffix(".JPG")) in {record.path for record in after["train"]}


def test_copies_of_one_image_are_images_of_their_own(tmp_path):
    home = fake_trees.make_cargo(tmp_path, ids=2)
    file = min((home / "gallery").rglob("*.jpg"))
    file.with_name(file.name.replace("_0.jpg", "_77.jpg")).write_bytes(file.read_bytes())
    assert len(datasets.read_cargo(str(tmp_path))["gallery"]) == 27


def test_the_same_file_twice_in_a_split_is_an_error(tmp_path):
    fake_trees.write_image(tmp_path / "a.jpg", 0)
    rows = [("train", "a.jpg", 1, 1, "aerial"), ("train", "a.jpg", 1, 1, "aerial")]
    with pytest.raises(DataError, match="twice in split train"):
        datasets.read_manifest(str(fake_trees.write_manifest(tmp_path / "list.csv", rows)))


@pytest.mark.parametrize("name", ["a b.jpg", "ü ж 人.jpg", "a\nb.jpg", "'\";`.jpg", "x" * 251 + ".jpg"])
def test_odd_names_go_through_a_manifest(tmp_path, name):
    fake_trees.write_image(tmp_path / name, 0)
    file = fake_trees.write_manifest(tmp_path / "list.csv", [("train", name, 3, 1, "aerial")])
    assert datasets.read_manifest(str(file))["train"] == [ImageRecord(str(tmp_path / name), 3, 1, "aerial")]


def test_a_name_too_long_for_the_disk_is_an_error(tmp_path):
    rows = [("train", "x" * 300 + ".jpg", 3, 1, "aerial")]
    with pytest.raises(DataError, match=r"line 2: .* is not on disk"):
        datasets.read_manifest(str(fake_trees.write_manifest(tmp_path / "list.csv", rows)))


def test_one_number_written_in_two_ways_is_an_error(tmp_path):
    fake_trees.write_image(tmp_path / "a.jpg", 0)
    fake_trees.write_image(tmp_path / "b.jpg", 0)
    rows = [("train", "a.jpg", "7", 1, "aerial"), ("train", "b.jpg", "07", 1, "aerial")]
    with pytest.raises(DataError, match="pid '07' and '7' are one number"):
        datasets.read_manifest(str(fake_trees.write_manifest(tmp_path / "list.csv", rows)))
