"""Query and gallery images that cannot be read: an error, or left out, counted and said with every score."""

import json
from pathlib import Path

import vif
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from fastreid.utils import comm
from vif.cli import main
from vif.data.build import build_test_loader, build_test_set
from vif.data.transforms import read_image
from vif.data.unreadable import Unreadable
from vif.errors import UnreadableImage
from vif.features import FeatureTable

from tests import fake_trees
from tests.test_processes import free_port
from tests.tiny import tiny_cfg


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    """Whatever earlier tests of this process have trained on."""
    monkeypatch.setattr("vif.data.unreadable._training", Unreadable())


def run(rank, world, port, output, *opts):
    if world > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
        comm._LOCAL_PROCESS_GROUP = dist.group.WORLD
    torch.set_num_threads(1)
    cfg = tiny_cfg("SynthAG/vif.yml", output, "DATALOADER.BAD_IMAGES", "skip", *opts)
    torch.manual_seed(0)
    vif.VIFTrainer.test(cfg, vif.VIFTrainer.build_model(cfg))
    if world > 1:
        dist.destroy_process_group()


def test_a_test_set_is_never_smaller_in_silence(spoiled, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("FASTREID_DATASETS", str(spoiled))
    caplog.set_level("INFO", logger="vif")
    run(0, 1, 0, tmp_path)
    scores = json.loads((tmp_path / "results.json").read_text())["SynthAG"]
    assert (scores["AG"]["queries"], scores["AG"]["unreadable_query"]) == (9, 1)
    assert (scores["AG"]["gallery"], scores["AG"]["unreadable_gallery"]) == (57, 8)
    a2g = scores["A2G"]
    assert a2g["queries"] + a2g["unreadable_query"] == 5
    assert a2g["gallery"] + a2g["unreadable_gallery"] == 40
    assert scores["AG"]["unreadable_train"] == 0
    assert "9 unreadable images left out (gallery 8, query 1)" in caplog.text


def test_scores_are_those_of_the_images_that_are_left(spoiled, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(spoiled))
    run(0, 1, 0, tmp_path / "skip")
    cfg = tiny_cfg("SynthAG/vif.yml", tmp_path, "DATALOADER.BAD_IMAGES", "skip")
    splits = build_test_set(cfg, "SynthAG").splits
    whole = fake_trees.make_synthag(tmp_path / "whole", ids=5)
    for record in {r for split in ("query", "gallery") for r in splits[split]}:
        try:
            read_image(record.path)
        except UnreadableImage:
            (whole / Path(record.path).relative_to(spoiled / "SynthAG")).unlink()
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "whole"))
    run(0, 1, 0, tmp_path / "removed")
    skip, removed = (
        json.loads((tmp_path / n / "results.json").read_text())["SynthAG"] for n in ("skip", "removed")
    )
    for protocol, scores in removed.items():
        counts = [scores.pop(f"unreadable_{where}") for where in ("query", "gallery", "train")]
        assert counts == [0, 0, 0]
        assert {name: skip[protocol][name] for name in scores} == scores


def test_several_processes_leave_out_and_count_the_same(spoiled, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(spoiled))
    run(0, 1, 0, tmp_path / "1")
    mp.start_processes(run, (2, free_port(), str(tmp_path / "2")), nprocs=2, start_method="spawn")
    one, two = (json.loads((tmp_path / n / "results.json").read_text()) for n in "12")
    assert one == two


def test_evaluation_names_the_file_by_default(spoiled, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(spoiled))
    with pytest.raises(UnreadableImage, match="SynthAG"):
        run(0, 1, 0, tmp_path, "DATALOADER.BAD_IMAGES", "error")


def test_a_batch_without_any_image_is_passed_over(spoiled, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(spoiled))
    cfg = tiny_cfg("SynthAG/vif.yml", tmp_path, "DATALOADER.BAD_IMAGES", "skip", "TEST.IMS_PER_BATCH", 1)
    loader = build_test_loader(cfg, build_test_set(cfg, "SynthAG").splits)
    batches = list(loader)
    assert (len(batches), len(loader.unreadable.found)) == (66, 9)


def test_an_image_that_vanishes_between_listing_and_reading_is_counted(tmp_path, monkeypatch):
    home = fake_trees.make_synthag(tmp_path / "data", ids=4)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))
    cfg = tiny_cfg("SynthAG/vif.yml", tmp_path, "DATALOADER.BAD_IMAGES", "skip")
    loader = build_test_loader(cfg, build_test_set(cfg, "SynthAG").splits)
    gone = min((home / "gallery").rglob("*.jpg"))
    gone.unlink()
    list(loader)
    assert [bad.path for bad in loader.unreadable.found.values()] == [str(gone)]


def test_feature_files_say_what_they_lack(spoiled, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FASTREID_DATASETS", str(spoiled))
    config = tmp_path / "tiny.yml"
    cfg = tiny_cfg("SynthAG/vif.yml", tmp_path / "out", "DATALOADER.BAD_IMAGES", "skip")
    config.write_text(cfg.dump())
    torch.save({"model": vif.VIFTrainer.build_model(cfg).state_dict()}, tmp_path / "model.pth")
    out = tmp_path / "features.npz"
    command = ["extract", "--config-file", str(config), "--weights", str(tmp_path / "model.pth")]
    assert main([*command, "--out", str(out)]) == 0
    assert "9 unreadable images left out (gallery 8, query 1)" in capsys.readouterr().out
    assert len(json.loads(FeatureTable.load(str(out)).meta["unreadable"])) == 9
    assert main(["evaluate", str(out), "--json", str(tmp_path / "scores.json")]) == 0
    assert "9 unreadable images left out (gallery 8, query 1)" in capsys.readouterr().out
    scores = json.loads((tmp_path / "scores.json").read_text())["SynthAG"]["AG"]
    assert (scores["unreadable_query"], scores["unreadable_gallery"]) == (1, 8)
    assert main(["compare", str(out), str(out)]) == 0
    assert capsys.readouterr().out.count("unreadable images left out") == 2
    assert main([*command, "--out", str(out), "DATALOADER.BAD_IMAGES", "error"]) == 1
    assert "error: image " in capsys.readouterr().err
