"""Training images that cannot be read: the end of the run in one line, or another in their place, counted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import vif
import numpy as np
import pytest
import torch
from vif.data.image_set import ImageSet
from vif.data.loaders import CountedBatchSampler, DeviceLoader, make_loader
from vif.data.transforms import Resize
from vif.data.unreadable import NAMED, BadImage, Unreadable
from vif.errors import ConfigError, DataError, UnreadableImage
from vif.evaluation import training_count

from tests import fake_trees
from tests.tiny import tiny_cfg

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("value", ["Skip", "", "warn"])
def test_the_setting_has_two_values(value):
    with pytest.raises(ConfigError, match=r"DATALOADER\.BAD_IMAGES=.* is unknown; choose one of error, skip"):
        vif.check_config(tiny_cfg("SynthAG/vif.yml", "out", "DATALOADER.BAD_IMAGES", value))


@pytest.fixture
def items(tmp_path):
    """Four identities of four images; (0, 1) and (1, *) are bad."""
    found = []
    for pid in range(4):
        for i in range(4):
            path = fake_trees.write_image(tmp_path / f"{pid}_{i}.jpg", pid, i, size=(8, 16))
            if (pid, i) == (0, 1) or pid == 1:
                path.write_bytes(b"")
            found.append((str(path), f"p{pid}", i))
    return found


def drawn(items, indices, workers=0, start=0, **options):
    images = ImageSet(items, Resize((16, 8)), relabel=True, **{"seed": 3, "bad_images": "replace", **options})
    loader = make_loader(images, CountedBatchSampler(indices, 4, start=start), workers)
    counted = DeviceLoader(loader, "cpu")
    return list(counted), counted.unreadable


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_worker_reaches_the_run_as_it_is(items, workers):
    with pytest.raises(UnreadableImage, match="empty file") as error:
        drawn(items, [0, 1, 2, 3], workers, bad_images="error")
    assert "Traceback" not in str(error.value)
    assert items[1][0] in str(error.value)


def test_another_image_of_the_identity_takes_the_place_and_its_labels(items):
    images = ImageSet(items, None, seed=3, relabel=True, bad_images="replace", labels={"n": np.arange(16)})
    for draw in range(20):
        sample = images[draw, 1]
        assert sample["index"] in (0, 2, 3)
        assert sample["img_paths"] == items[sample["index"]][0]
        assert (sample["targets"], sample["camids"], sample["n"]) == (0, sample["index"], sample["index"])
        assert [bad.row for bad in sample["unreadable"]] == [1]
    assert {images[draw, 1]["index"] for draw in range(20)} == {0, 2, 3}
    assert images[5, 1]["index"] == images[5, 1]["index"]


def test_an_identity_without_a_readable_image_is_stood_in_for_by_one_other(items):
    batches, unreadable = drawn(items, [4, 5, 6, 7, 0, 2, 8, 9])
    assert batches[0]["targets"].tolist() == [2, 2, 2, 2]
    assert sorted(unreadable.found) == [4, 5, 6, 7]


def test_what_takes_a_place_depends_on_seed_and_draw_alone(items):
    indices = np.random.default_rng(1).integers(0, 16, 40).tolist()
    alone, count = drawn(items, indices)
    for workers in (1, 2):
        others, same = drawn(items, indices, workers)
        assert [b["img_paths"] for b in others] == [b["img_paths"] for b in alone]
        assert all(torch.equal(a["images"], b["images"]) for a, b in zip(alone, others))
        assert (same.found, same.draws) == (count.found, count.draws)
    seeded, _ = drawn(items, indices, seed=4)
    assert [b["img_paths"] for b in seeded] != [b["img_paths"] for b in alone]
    later, _ = drawn(items, indices[20:], start=20)
    assert [b["img_paths"] for b in later] == [b["img_paths"] for b in alone[5:]]


def test_good_images_are_drawn_as_if_nothing_were_skipped(items):
    good = [0, 2, 3, 8, 9, 10, 11, 12]
    plain, _ = drawn(items, good, bad_images="error")
    skipping, count = drawn(items, good)
    assert all(torch.equal(a["images"], b["images"]) for a, b in zip(plain, skipping))
    assert plain[0].keys() == skipping[0].keys()
    assert (len(count.found), count.draws) == (0, 0)


def test_a_lost_data_set_ends_the_run(items):
    for path, *_ in items:
        Path(path).write_bytes(b"")
    with pytest.raises(DataError, match="check that the data set is still there"):
        drawn(items, [0, 1, 2, 3])
    people = [(items[0][0], f"p{pid:02}", 0) for pid in range(12)]
    people[11] = (str(fake_trees.write_image(Path(items[0][0]).with_name("good.jpg"), 0)), "p11", 0)
    images = ImageSet(people, None, bad_images="replace")
    with pytest.raises(DataError, match="nor can the 9 images be read"):  # of ten identities with its own
        images[0, 1]
    assert images[0, 2]["index"] == 11


def test_each_bad_image_is_said_once_and_many_are_counted(caplog):
    unreadable = Unreadable()
    bad = [BadImage(row, f"{row}.jpg", f"image {row}.jpg is an empty file") for row in range(NAMED + 5)]
    for found in (bad[:3], bad, bad):
        unreadable.add(found)
    assert (len(unreadable.found), unreadable.draws) == (NAMED + 5, 3 + 2 * (NAMED + 5))
    named = [record.getMessage() for record in caplog.records if "empty file" in record.getMessage()]
    assert named == [f"Unreadable: image {row}.jpg is an empty file" for row in range(NAMED)]
    assert "counted and not named" in caplog.text


def test_training_images_are_counted_once_over_all_processes(monkeypatch, caplog):
    count = Unreadable()
    count.add([BadImage(3, "3.jpg", "3"), BadImage(5, "5.jpg", "5"), BadImage(3, "3.jpg", "3")])
    monkeypatch.setattr(training_count, "training_count", lambda: count)
    monkeypatch.setattr(training_count.comm, "all_gather", lambda mine: [mine, ({5, 8}, 4)])
    results = {"own": {"AG": {"mAP": 1.0}, "GA": {"mAP": 2.0}}}
    cfg = tiny_cfg("SynthAG/vif.yml", "out", "DATALOADER.BAD_IMAGES", "skip")
    training_count.add_training_count(cfg, results)
    assert [results["own"][name]["unreadable_train"] for name in ("AG", "GA")] == [3, 3]
    assert "3 unreadable images so far; other images took 7 draws" in caplog.text
    plain = {"own": {"AG": {"mAP": 1.0}}}
    training_count.add_training_count(tiny_cfg("SynthAG/vif.yml", "out"), plain)
    assert plain == {"own": {"AG": {"mAP": 1.0}}}


def test_precise_batch_norm_leaves_the_count_of_the_run_as_it_is(spoiled, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(spoiled))
    opts = ("TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.DATASET", "SynthAG")
    trainer = vif.VIFTrainer(tiny_cfg("SynthAG/vif.yml", tmp_path, *opts))
    assert training_count.training_count() is trainer.data_loader.unreadable
    trainer.rebuild()
    assert training_count.training_count() is trainer.data_loader.unreadable


def test_training_skips_counts_and_does_not_depend_on_workers(spoiled, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(spoiled))
    weights = []
    for workers in (0, 2):
        opts = ("DATALOADER.BAD_IMAGES", "skip", "DATALOADER.NUM_WORKERS", workers)
        cfg = tiny_cfg("SynthAG/vif.yml", tmp_path / str(workers), *opts, "SOLVER.MAX_EPOCH", 3)
        trainer = vif.VIFTrainer(cfg)
        trainer.train()
        scores = json.loads((tmp_path / str(workers) / "results.json").read_text())["SynthAG"]
        assert {scores[protocol]["unreadable_train"] for protocol in scores} == {1}
        weights.append(trainer.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_bad_training_image_ends_train_net_in_one_line(tmp_path):
    home = fake_trees.make_synthag(tmp_path / "data", ids=4)
    for file in (home / "train").rglob("*.jpg"):
        file.write_bytes(b"no image")
    config = tmp_path / "tiny.yml"
    config.write_text(tiny_cfg("SynthAG/vif.yml", tmp_path / "out", "DATALOADER.NUM_WORKERS", 2).dump())
    done = subprocess.run(
        [sys.executable, str(ROOT / "train_net.py"), "--config-file", str(config)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FASTREID_DATASETS": str(tmp_path / "data")},
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: image ")
    assert "SynthAG/train" in last
