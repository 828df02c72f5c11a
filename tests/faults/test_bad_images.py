"""Images that cannot be read: named in one line and the end of the run, or skipped and counted."""

import errno
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import vif
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from fastreid.utils import comm
from PIL import Image
from vif.data.build import build_test_loader, build_test_set
from vif.data.image_set import ImageSet
from vif.data.loaders import CountedBatchSampler, DeviceLoader, make_loader
from vif.data.transforms import Resize, read_image, read_image_fast
from vif.data.unreadable import NAMED, BadImage, Unreadable
from vif.errors import ConfigError, DataError, UnreadableImage

from tests import fake_trees
from tests.tiny import tiny_cfg

ROOT = Path(__file__).parents[2]


def png(width, height):
    """A whole PNG of one colour, packed to next to nothing: `width` x `height` black pixels of one bit."""
    packer = zlib.compressobj(9)
    line = b"\0" * (1 + -(-width // 8))
    data = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    chunks = [(b"IHDR", struct.pack(">2I5B", width, height, 1, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
    packed = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def link_to_nothing(path):
    path.unlink()
    path.symlink_to(path.parent / "gone")


def folder(path):
    path.unlink()
    path.mkdir()


KINDS = {
    "torn": (lambda path: path.write_bytes(path.read_bytes()[:400]), "cannot be decoded"),
    "empty": (lambda path: path.write_bytes(b""), "empty file"),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 4), "cannot be decoded"),
    "text": (lambda path: path.write_text("this is no image\n"), "cannot be decoded"),
    "bomb": (lambda path: path.write_bytes(png(20_000, 20_000)), "too large to be a photo"),
    "pipe": (pipe, "no regular file"),
    "link to nothing": (link_to_nothing, "No such file"),
    "folder": (folder, "Is a directory"),
    "gone": (lambda path: path.unlink(), "No such file"),
}
KIND = pytest.mark.parametrize("kind", KINDS)


@KIND
@pytest.mark.parametrize("read", [read_image, read_image_fast])
def test_a_bad_file_is_named_in_one_line_and_waits_for_nobody(tmp_path, kind, read):
    path = fake_trees.write_image(tmp_path / "x.jpg", 0)
    spoil, reason = KINDS[kind]
    spoil(path)
    with pytest.raises(UnreadableImage, match=reason) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_bomb_is_small_on_disk_and_a_whole_image():
    assert len(png(20_000, 20_000)) < 200_000
    Image.MAX_IMAGE_PIXELS, limit = None, Image.MAX_IMAGE_PIXELS
    try:
        import io

        assert Image.open(io.BytesIO(png(300, 200))).convert("RGB").size == (300, 200)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@pytest.mark.parametrize("read", [read_image, read_image_fast])
def test_an_image_under_another_formats_ending_is_read(tmp_path, read):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x.jpg")
    np.testing.assert_array_equal(read(tmp_path / "x.jpg"), pixels)


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\x1b[2Jb.jpg", "ü ж 人.jpg", " .jpg"])
def test_odd_names_are_read_and_named_on_one_line(tmp_path, name):
    path = fake_trees.write_image(tmp_path / name, 0)
    assert read_image(path).shape == (64, 32, 3)
    path.write_bytes(b"")
    with pytest.raises(UnreadableImage) as error:
        read_image(path)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("read", [read_image, read_image_fast])
def test_a_machine_at_its_limits_is_no_fault_of_an_image(tmp_path, read, monkeypatch):
    path = fake_trees.write_image(tmp_path / "x.jpg", 0)

    def full(*args, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("vif.data.transforms.reading.open", full, raising=False)
    with pytest.raises(DataError, match="Too many open files") as error:
        read(path)
    assert not isinstance(error.value, UnreadableImage)


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
    images = ImageSet(items, Resize((16, 8)), seed=3, relabel=True, **{"bad_images": "replace", **options})
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


def test_each_bad_image_is_said_once_and_many_are_counted(caplog):
    unreadable = Unreadable()
    bad = [BadImage(row, f"{row}.jpg", f"image {row}.jpg is an empty file") for row in range(NAMED + 5)]
    for _ in range(2):
        unreadable.add(bad)
    assert (len(unreadable.found), unreadable.draws) == (NAMED + 5, 2 * (NAMED + 5))
    named = [record.getMessage() for record in caplog.records if "empty file" in record.getMessage()]
    assert named == [f"Unreadable: image {row}.jpg is an empty file" for row in range(NAMED)]
    assert "counted and not named" in caplog.text


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """SynthAG with a bad image in train, and one of each kind in gallery and query."""
    root = tmp_path_factory.mktemp("data")
    home = fake_trees.make_synthag(root, ids=5)
    for split, place in (("train", 0), ("query", 2)):
        sorted((home / split).rglob("*.jpg"))[place].write_bytes(b"")
    gallery = sorted((home / "gallery").rglob("*.jpg"))
    for place, kind in enumerate(kind for kind in KINDS if kind != "gone"):
        KINDS[kind][0](gallery[5 * place])
    return root


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


def test_a_test_set_is_never_smaller_in_silence(tree, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("FASTREID_DATASETS", str(tree))
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


def test_scores_are_those_of_the_images_that_are_left(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(tree))
    run(0, 1, 0, tmp_path / "skip")
    cfg = tiny_cfg("SynthAG/vif.yml", tmp_path, "DATALOADER.BAD_IMAGES", "skip")
    splits = build_test_set(cfg, "SynthAG").splits
    whole = fake_trees.make_synthag(tmp_path / "whole", ids=5)
    for record in {r for split in ("query", "gallery") for r in splits[split]}:
        try:
            read_image(record.path)
        except UnreadableImage:
            (whole / Path(record.path).relative_to(tree / "SynthAG")).unlink()
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "whole"))
    run(0, 1, 0, tmp_path / "removed", "DATALOADER.BAD_IMAGES", "error")
    skip, removed = (
        json.loads((tmp_path / n / "results.json").read_text())["SynthAG"] for n in ("skip", "removed")
    )
    for protocol, scores in removed.items():
        assert {name: skip[protocol][name] for name in scores} == scores


def test_several_processes_leave_out_and_count_the_same(tree, tmp_path, monkeypatch):
    from tests.test_processes import free_port

    monkeypatch.setenv("FASTREID_DATASETS", str(tree))
    run(0, 1, 0, tmp_path / "1")
    mp.start_processes(run, (2, free_port(), str(tmp_path / "2")), nprocs=2, start_method="spawn")
    one, two = (json.loads((tmp_path / n / "results.json").read_text()) for n in "12")
    assert one == two


def test_evaluation_names_the_file_by_default(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(tree))
    with pytest.raises(UnreadableImage, match="SynthAG"):
        run(0, 1, 0, tmp_path, "DATALOADER.BAD_IMAGES", "error")


def test_a_batch_without_any_image_is_passed_over(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(tree))
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


def test_training_skips_counts_and_does_not_depend_on_workers(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(tree))
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


def test_feature_files_say_what_they_lack(tree, tmp_path, monkeypatch, capsys):
    from vif.cli import main
    from vif.features import FeatureTable

    monkeypatch.setenv("FASTREID_DATASETS", str(tree))
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


def test_training_images_are_counted_once_over_all_processes(monkeypatch, caplog):
    from vif.data.unreadable import start_training
    from vif.evaluation import training_count

    start_training().add([BadImage(3, "3.jpg", "3"), BadImage(5, "5.jpg", "5"), BadImage(3, "3.jpg", "3")])
    monkeypatch.setattr(training_count.comm, "all_gather", lambda mine: [mine, ({5, 8}, 4)])
    results = {"own": {"AG": {"mAP": 1.0}, "GA": {"mAP": 2.0}}}
    cfg = tiny_cfg("SynthAG/vif.yml", "out", "DATALOADER.BAD_IMAGES", "skip")
    training_count.add_training_count(cfg, results)
    assert [results["own"][name]["unreadable_train"] for name in ("AG", "GA")] == [3, 3]
    assert "3 unreadable images so far; other images took 7 draws" in caplog.text
    plain = {"own": {"AG": {"mAP": 1.0}}}
    training_count.add_training_count(tiny_cfg("SynthAG/vif.yml", "out"), plain)
    assert plain == {"own": {"AG": {"mAP": 1.0}}}
