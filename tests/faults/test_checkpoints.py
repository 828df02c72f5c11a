"""Checkpoints on disk: what they hold; torn, foreign, missing and old ones; thinning."""

import os
import pickle
import random
import re
import shutil
import zipfile
from pathlib import Path

import vif
import numpy as np
import pytest
import torch
from fastreid.utils.events import EventStorage
from vif.data.unreadable import BadImage
from vif.errors import CheckpointError, DataError
from vif.resume.files import checkpoints, clear_partial, find, named_last, read, thin
from vif.resume.state import restore_process

from tests.faults.killing import build, differences
from tests.tiny import tiny_cfg

pytestmark = pytest.mark.usefixtures("tree")
KEYS = ("optimizer", "lr_sched", "warmup_sched")


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


@pytest.mark.skipif(not hasattr(torch.amp, "GradScaler"), reason="torch < 2.3 scales on a GPU only")
def test_what_a_run_counts_and_draws_from_is_in_its_checkpoint(run):
    def trainer():
        built = vif.VIFTrainer(tiny_cfg("SynthAG/vif.yml", run, "SOLVER.MAX_EPOCH", 4))
        built._trainer.set_dtype(torch.float16)  # which the config refuses on the CPU
        return built

    def draws():
        of_numpy = np.random.rand(), np.random.randn(), np.random.randn()
        return random.random(), random.gauss(0, 1), *of_numpy, float(torch.rand(()))

    first = trainer()
    first.grad_scaler.scale(torch.ones(()))
    first.grad_scaler.update(2.0**7)
    counts = {"skipped": 3, "in_a_row": 2, "overflows": 1}
    first.guard.load_state_dict(counts)
    next(h for h in first._hooks if type(h).__name__ == "BestCheckpointer").best_metric = 12.5
    first.data_loader.unreadable.add([BadImage(5, "5.jpg", "image 5.jpg is empty")] * 3)
    draws()  # an odd number of normal ones: a second waits in Python and in numpy
    first.iter, first._trainer.iter = 30, 30
    with EventStorage(30) as first.storage:
        assert first.save(2)
    drawn = draws()

    again = trainer()
    again.resume_or_load(resume=True)
    restore_process(again, again._resumed)
    assert draws() == drawn
    assert again.grad_scaler.get_scale() == 2.0**7
    assert again.guard.state_dict() == counts
    assert next(h for h in again._hooks if type(h).__name__ == "BestCheckpointer").best_metric == 12.5
    assert again.data_loader.unreadable.state_dict() == first.data_loader.unreadable.state_dict()
    assert again.data_loader.unreadable.draws == 3
    assert again.start_iter == 30


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


def change(**values):
    """Writes the checkpoint with other values in it, of its run where they have a name of one."""

    def write(path):
        content = torch.load(path)
        run = {**content["run"], **{key: values.pop(key) for key in ("format",) if key in values}}
        torch.save({**content, "run": run, **values}, path)

    return write


DAMAGE = {
    "a newer run's": (change(format=2), r"model_0002.pth holds a run's state .* not read \(format 1\)"),
    "with a list for a run": (change(run=[1]), "model_0002.pth holds a run's state"),
    "with half an epoch": (change(epoch=2.5), "model_0002.pth .*: its epoch is no whole number"),
    "with a word for grids": (change(position_grids="x"), "model_0002.pth notes under position_grids no"),
    "with flat grids": (change(position_grids={"pos": 3}), "model_0002.pth notes under position_grids no"),
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


def test_an_older_checkpoint_that_the_run_may_not_go_on_from_is_not_asked(run):
    for epoch, seed in ((0, 5), (1, 6)):
        content = torch.load(run / f"model_{epoch:04d}.pth")
        content["run"]["config"]["SEED"] = seed
        torch.save(content, run / f"model_{epoch:04d}.pth")
    (run / "last_checkpoint").unlink()
    assert build(run).start_epoch == 3


def test_a_refused_checkpoint_leaves_no_seed_behind(run):
    content = torch.load(run / "model_0002.pth")
    content["run"]["config"]["SEED"] = 7
    content["model"] = {f"other.{name}": value for name, value in content["model"].items()}
    torch.save(content, run / "model_0002.pth")
    for epoch in (0, 1):
        content = torch.load(run / f"model_{epoch:04d}.pth")
        del content["run"]
        torch.save(content, run / f"model_{epoch:04d}.pth")
    (run / "model_best.pth").unlink()
    trainer = build(run, "SEED", -1)
    assert trainer.start_epoch == 2
    assert trainer.cfg.SEED == trainer.data_loader.dataset.seed != 7


@pytest.mark.parametrize(
    ("keep", "left", "epoch"),
    [
        (0, "0000 0001 0002 10000", 10000),
        (1, "0001 10000", 10000),
        (2, "0001 0002 10000", 10000),
        (1, "0001 0002 10000", 2),  # 10000 is of an older run
    ],
)
def test_thinning_keeps_the_newest_the_best_the_final_and_the_last(keep, left, epoch, run):
    shutil.copy(run / "model_0002.pth", run / "model_10000.pth")
    shutil.copy(run / "model_0002.pth", run / "model_final.pth")
    (run / "last_checkpoint").write_text("model_0001.pth")
    (run / "model_0001.pth.bak").write_text("mine")
    thin(str(run), keep, epoch)
    names = {f"model_{n}.pth" for n in left.split()} | {"model_best.pth", "model_final.pth"}
    assert {Path(p).name for p in checkpoints(str(run))} == names
    assert (run / "model_0001.pth.bak").exists()


def test_a_checkpoint_that_cannot_be_removed_is_said_and_costs_nothing(run, monkeypatch, caplog):
    unlink = os.unlink

    def denied(path):
        if path.endswith("model_0000.pth"):
            raise PermissionError(13, "Permission denied")
        unlink(path)

    monkeypatch.setattr(os, "unlink", denied)
    assert thin(str(run), 1, 2) == [str(run / "model_0001.pth")]
    assert "model_0000.pth could not be removed (Permission denied); the run goes on" in caplog.text


def test_a_fresh_start_is_no_part_of_the_older_run_in_its_folder(run, caplog):
    shutil.copy(run / "model_0002.pth", run / "model_resume.pth")
    shutil.copy(run / "model_0002.pth", run / "model_0009.pth")
    trainer = build(run, "SOLVER.CHECKPOINT_KEEP", 1, resume=False)
    seen = []
    trainer.run_step = lambda: seen.append(
        [name for name in ("last_checkpoint", "model_resume.pth") if (run / name).exists()]
    )
    trainer._hooks = [h for h in trainer._hooks if type(h).__name__ == "BestCheckpointer"]
    with caplog.at_level("WARNING"):
        trainer.train()
    assert seen[0] == []
    assert f"{run} holds checkpoints of an older run" in caplog.text
    assert (run / "model_0009.pth").exists()
    assert (run / "model_0002.pth").exists()
    assert not (run / "model_0001.pth").exists()


def test_a_run_keeps_as_many_checkpoints_as_it_is_told_and_goes_on(run, finished, tmp_path):
    trainer = build(run, "SOLVER.CHECKPOINT_KEEP", 1)
    trainer.train()
    assert named_last(str(run)) == str(run / "model_final.pth")
    kept = {Path(p).name for p in checkpoints(str(run))}
    assert kept == {"model_best.pth", "model_final.pth", "model_0002.pth"}


@pytest.mark.parametrize(("scores", "best"), [({1: 50, 3: 90, 4: 10}, 3), ({1: 50, 3: 40, 4: 95}, 4)])
def test_the_best_is_the_epoch_of_the_highest_score_however_often_a_run_saves(scores, best, tmp_path):
    """Evaluated after epochs 1, 3 and, being the last, 4; saved after 2 and 4."""
    opts = ("SOLVER.MAX_EPOCH", 5, "SOLVER.CHECKPOINT_PERIOD", 3, "TEST.EVAL_PERIOD", 2)
    trainer = build(tmp_path, *opts, resume=False)
    weight = next(trainer.model.parameters())
    trainer.run_step = lambda: weight.data.fill_(trainer.epoch)
    trainer.test = lambda *_: {"SynthAG": {"AG": {"mAP": scores[trainer.epoch]}}}
    names = ("Evaluation", "BestCheckpointer")
    trainer._hooks = [hook for hook in trainer._hooks if type(hook).__name__ in names]
    trainer.train()
    saved = {Path(path).stem: torch.load(path) for path in checkpoints(str(tmp_path))}
    assert {name: saved[name]["epoch"] for name in saved} == {
        "model_0002": 2,
        "model_best": best,
        "model_final": 4,
    }
    name = next(name for name, _ in trainer.model.named_parameters())
    assert float(saved["model_best"]["model"][name].mean()) == best
    assert saved["model_best"]["metric"] == scores[best]
