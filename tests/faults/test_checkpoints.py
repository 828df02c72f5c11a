"""Checkpoints on disk: torn, foreign, missing and old ones; thinning; resuming under another config."""

import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import vif
import numpy as np
import pytest
import torch
from fastreid.utils.checkpoint import Checkpointer as StockCheckpointer
from vif.errors import CheckpointError, ConfigError, DataError
from vif.resume.files import checkpoints, clear_partial, find, named_last, read, thin

from tests import fake_trees
from tests.faults.killing import assert_same_run, differences
from tests.tiny import tiny_cfg

KEYS = ("optimizer", "lr_sched", "warmup_sched")


@pytest.fixture(scope="module", autouse=True)
def tree(tmp_path_factory):
    with fake_trees.installed(tmp_path_factory.mktemp("data"), fake_trees.make_synthag) as root:
        yield root


def build(folder, *opts, resume=True):
    trainer = vif.VIFTrainer(tiny_cfg("SynthAG/vif.yml", folder, "SOLVER.MAX_EPOCH", 4, *opts))
    trainer.resume_or_load(resume=resume)
    return trainer


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tree):
    """Folder of a run of four epochs; epochs 0 to 2 have a checkpoint of their own."""
    folder = tmp_path_factory.mktemp("finished")
    build(folder, resume=False).train()
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy as it was after the third epoch."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "model_final.pth").unlink()
    shutil.copy(folder / "model_0000.pth", folder / "model_best.pth")
    (folder / "last_checkpoint").write_text("model_0002.pth")
    return folder


def flip(path, place=None):
    """Change one bit at a share of the file; by default in the middle of its largest tensor."""
    data = bytearray(path.read_bytes())
    if place is None:
        with zipfile.ZipFile(path) as archive:
            largest = max(archive.infolist(), key=lambda part: part.file_size)
        at = largest.header_offset + largest.file_size // 2
    else:
        at = int(len(data) * place)
    data[at] ^= 4
    path.write_bytes(bytes(data))


def test_numpys_numbers_are_saved_as_pythons(run):
    trainer = build(run)
    trainer.checkpointer.save(
        "model_0007", epoch=7, metric=np.float64(1.5), more=[(np.bool_(True), np.int64(2))]
    )
    rest = read(str(run / "model_0007.pth"), KEYS).weights.rest
    assert (rest["metric"], rest["more"]) == (1.5, [(True, 2)])
    assert torch.load(run / "model_0007.pth")["metric"] == 1.5


class Code:
    def __reduce__(self):
        return (print, ("this code ran",))


def foreign(path):
    torch.save({"model": {"weight": torch.zeros(3)}, "epoch": 9, **{key: {} for key in KEYS}}, path)


DAMAGE = {
    "truncated": (lambda path: os.truncate(path, path.stat().st_size // 2), "model_0002.pth .*torn"),
    "cut by a byte": (lambda path: os.truncate(path, path.stat().st_size - 1), "model_0002.pth .*torn"),
    "flipped": (flip, "model_0002.pth is damaged: the checksum of"),
    "empty": (lambda path: path.write_bytes(b""), "model_0002.pth is empty"),
    "gone": (lambda path: path.unlink(), "model_0002.pth does not exist"),
    "a directory": (lambda path: (path.unlink(), path.mkdir()), "model_0002.pth is torn"),
    "text": (lambda path: path.write_text("hello"), "model_0002.pth (is torn|holds pickled code) or no"),
    "weights alone": (
        lambda path: torch.save({"weight": torch.zeros(3)}, path),
        "model_0002.pth is no checkpoint of this kind of run: it lacks epoch, optimizer",
    ),
    "of another network": (foreign, "nothing in it fits the backbone"),
    "with code": (lambda path: path.write_bytes(pickle.dumps({"model": Code()})), "holds pickled code"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_bad_checkpoint_is_refused_by_name_and_the_one_before_is_taken(damage, run, caplog, capsys):
    spoil, message = DAMAGE[damage]
    spoil(run / "model_0002.pth")
    with caplog.at_level("WARNING"):
        trainer = build(run)
    assert (trainer.start_epoch, trainer.start_iter) == (2, 2 * trainer.iters_per_epoch)
    assert re.search(f"Refused: .*{message}", caplog.text), caplog.text
    assert f"The run goes on from {run / 'model_0001.pth'}" in caplog.text
    assert "this code ran" not in capsys.readouterr().out


def test_every_flipped_bit_of_the_content_is_noticed(run):
    path, whole = run / "model_0002.pth", (run / "model_0002.pth").read_bytes()
    good = read(str(path), KEYS).weights
    for k in range(40):
        flip(path, (k + 0.5) / 40)
        try:
            found = read(str(path), KEYS).weights
        except DataError:
            pass
        else:  # between two parts of the archive: what is read is what was written
            assert differences(dict(found.tensors), dict(good.tensors)) == []
            assert differences(found.rest, good.rest) == []
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "names '', which is no checkpoint in this folder"),
        ("model_00", "names 'model_00', which is no checkpoint"),
        ("../run2/model_0002.pth", "names '../run2/model_0002.pth', which is no checkpoint in this folder"),
        ("/etc/model_0002.pth", "names '/etc/model_0002.pth', which is no"),
        ("model_0002.pth\nmodel_0001.pth", "which is no checkpoint in this folder"),
        ("link.pth", "names 'link.pth', which is no checkpoint in this folder"),
        (None, "there is no last_checkpoint"),
    ],
)
def test_a_bad_last_checkpoint_is_said_and_the_newest_checkpoint_taken(content, message, run, caplog):
    outside = run.parent / "run2"
    outside.mkdir()
    shutil.copy(run / "model_0000.pth", outside / "model_0002.pth")
    (run / "link.pth").symlink_to(outside / "model_0002.pth")
    if content is None:
        (run / "last_checkpoint").unlink()
    else:
        (run / "last_checkpoint").write_text(content)
    with caplog.at_level("WARNING"):
        trainer = build(run)
    assert trainer.start_epoch == 3
    assert message in caplog.text


def test_without_a_good_checkpoint_there_is_an_error_and_no_start_from_scratch(run):
    for path in checkpoints(str(run)):
        os.truncate(path, 1000)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* to go on from: .*model_0000.pth") as e:
        build(run)
    assert "without --resume or in another OUTPUT_DIR" in str(e.value)


def test_resuming_without_any_checkpoint_says_that_it_starts_from_the_beginning(tmp_path, caplog):
    with caplog.at_level("WARNING"):
        trainer = build(tmp_path)
    assert (trainer.start_epoch, trainer.start_iter) == (0, 0)
    assert f"{tmp_path} has no checkpoint: the run starts from the beginning" in caplog.text


def test_what_a_killed_save_left_is_cleared_and_nothing_else(run):
    for name in (".model_0002.pth.abc12_.part", ".last_checkpoint.x.part", ".other.part", "notes.part"):
        (run / name).write_text("x")
    clear_partial(str(run))
    assert {p.name for p in run.glob("*.part")} | {p.name for p in run.glob(".*.part")} == {
        ".other.part",
        "notes.part",
    }


def test_the_newest_is_told_by_what_files_hold_not_by_names_or_times(run):
    (run / "last_checkpoint").unlink()
    (run / "model_best.pth").unlink()
    os.rename(run / "model_0002.pth", run / "model_final.pth")
    shutil.copy(run / "model_0000.pth", run / "model_0009.pth")
    os.utime(run / "model_final.pth", (0, 0))
    assert find(str(run), KEYS).path.endswith("model_final.pth")


@pytest.mark.parametrize(
    ("keep", "left"), [(0, "0000 0001 0002 10000"), (1, "0001 10000"), (2, "0001 0002 10000")]
)
def test_thinning_keeps_the_newest_the_best_the_final_and_the_last(keep, left, run):
    shutil.copy(run / "model_0002.pth", run / "model_10000.pth")
    shutil.copy(run / "model_0002.pth", run / "model_final.pth")
    (run / "last_checkpoint").write_text("model_0001.pth")
    (run / "model_0001.pth.bak").write_text("mine")
    thin(str(run), keep)
    names = {f"model_{n}.pth" for n in left.split()} | {"model_best.pth", "model_final.pth"}
    assert {Path(p).name for p in checkpoints(str(run))} == names
    assert (run / "model_0001.pth.bak").exists()


def test_a_run_keeps_as_many_checkpoints_as_it_is_told_and_goes_on(run, finished, tmp_path):
    trainer = build(run, "SOLVER.CHECKPOINT_KEEP", 1)
    trainer.train()
    assert named_last(str(run)) == str(run / "model_final.pth")
    kept = {Path(p).name for p in checkpoints(str(run))}
    assert kept == {"model_best.pth", "model_final.pth", "model_0002.pth"}


def test_stock_fastreid_reads_our_checkpoints(run):
    trainer = build(run, resume=False)
    stock = StockCheckpointer(
        trainer.model, str(run), optimizer=trainer.optimizer, **trainer.scheduler
    ).resume_or_load("", resume=True)
    assert stock["epoch"] == 2
    assert trainer.scheduler["lr_sched"].last_epoch > 0


def test_a_checkpoint_of_stock_fastreid_resumes_as_there_and_says_what_starts_anew(run, caplog):
    path = run / "model_0002.pth"
    content = torch.load(path)
    run_state = content.pop("run")
    content.pop("position_grids")
    torch.save(content, path)
    with caplog.at_level("WARNING"):
        trainer = build(run)
    assert (trainer.start_epoch, trainer.start_iter) == (3, run_state["iteration"])
    assert "random states, the best score and what log lines are smoothed over start anew" in caplog.text
    assert differences(trainer.optimizer.state_dict(), content["optimizer"]) == []
    trainer.train()
    assert (run / "model_final.pth").exists()


def test_harmless_changes_are_said_and_pass_with_the_same_result(run, finished, caplog):
    with caplog.at_level("INFO"):
        trainer = build(run, "SOLVER.LOG_PERIOD", 7, "TEST.CONFIDENCE", 0.5, "DATALOADER.NUM_WORKERS", 1)
    assert "SOLVER.LOG_PERIOD: 1 -> 7; TEST.CONFIDENCE: 0.95 -> 0.5" in caplog.text
    assert "DATALOADER.NUM_WORKERS: 0 -> 1" in caplog.text
    trainer.train()
    a, b = (torch.load(f / "model_final.pth") for f in (run, finished))
    assert differences(a["model"], b["model"]) == []


CHANGES = {
    "SOLVER.BASE_LR": (0.5, r"SOLVER.BASE_LR: [\d.]+ -> 0.5"),
    "SOLVER.MAX_EPOCH": (9, "SOLVER.MAX_EPOCH: 4 -> 9"),
    "SOLVER.IMS_PER_BATCH": (4, "SOLVER.IMS_PER_BATCH: 8 -> 4"),
    "SEED": (7, "SEED: 1 -> 7"),
    "MODEL.LOSSES.NAME": (("CrossEntropyLoss",), "MODEL.LOSSES.NAME: .* -> .'CrossEntropyLoss',"),
    "INPUT.TRANSFORMS": ((), r"INPUT.TRANSFORMS: \('PatchLevelRotateMix',\) -> \(\)"),
    "MODEL.BACKBONE.VIT.DEPTH": (2, "MODEL.BACKBONE.VIT.DEPTH: 1 -> 2"),
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_change_of_what_the_run_means_is_refused_with_both_values(key, run):
    value, message = CHANGES[key]
    with pytest.raises(ConfigError, match=f"started with other settings: .*{message}.*RESUME_CHANGED True"):
        build(run, key, value)


def test_other_training_images_are_refused(run, tree):
    image = next((tree / "SynthAG" / "train").rglob("*.jpg"))
    image.rename(image.with_suffix(".away"))
    try:
        with pytest.raises(ConfigError, match="training images: .*52.* -> .*51"):
            build(run)
    finally:
        image.with_suffix(".away").rename(image)


def test_another_number_of_processes_is_refused_and_passes_when_told(run):
    path = run / "model_0002.pth"
    content = torch.load(path)
    content["run"]["ranks"] = content["run"]["ranks"] * 2
    torch.save(content, path)
    with pytest.raises(ConfigError, match="processes: 2 -> 1"):
        build(run)
    build(run, "SOLVER.RESUME_CHANGED", True).train()


def test_a_told_change_takes_the_learning_rate_that_the_new_config_has_there(run, tmp_path):
    told = ("SOLVER.BASE_LR", 0.5, "SOLVER.MAX_EPOCH", 6, "SOLVER.WARMUP_ITERS", 8)
    trainer = build(run, "SOLVER.RESUME_CHANGED", True, *told)
    fresh = build(tmp_path / "fresh", *told, resume=False)
    rates = []
    fresh.run_step = lambda: rates.append(fresh.optimizer.param_groups[0]["lr"])
    fresh._hooks = [h for h in fresh._hooks if type(h).__name__ == "LRScheduler"]
    with pytest.warns(UserWarning, match="lr_scheduler.step"):
        vif.resume.trainer.ResumableTrainer.train(fresh)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(rates[trainer.start_iter], rel=1e-12)
    momentum = torch.load(run / "model_0002.pth")["optimizer"]["state"]
    assert differences(trainer.optimizer.state_dict()["state"], momentum) == []


def test_other_versions_are_said(run, caplog):
    path = run / "model_0002.pth"
    content = torch.load(path)
    content["run"]["versions"].update(torch="0.4", precision="bfloat16")
    torch.save(content, path)
    with caplog.at_level("WARNING"):
        build(run)
    assert "started with precision bfloat16 and goes on with float32" in caplog.text
    assert f"started with torch 0.4 and goes on with {torch.__version__}" in caplog.text


def test_a_drawn_seed_is_used_again(tmp_path):
    opts = ("SEED", -1, "SOLVER.MAX_EPOCH", 2)
    first = build(tmp_path / "a", *opts, resume=False)
    first.train()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "model_final.pth").unlink()
    (tmp_path / "b" / "last_checkpoint").write_text("model_0000.pth")
    again = build(tmp_path / "b", *opts)
    assert again.cfg.SEED == first.cfg.SEED == again.data_loader.dataset.seed
    again.train()
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_another_best_metric_chooses_anew(run, caplog):
    with caplog.at_level("WARNING"):
        trainer = build(run, "TEST.BEST_METRIC", "Rank-1")
    assert "model_best was chosen by SynthAG/AG/mAP; its choice starts anew" in caplog.text
    assert next(h for h in trainer._hooks if type(h).__name__ == "BestCheckpointer").best_metric == -1
