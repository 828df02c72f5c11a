"""Disks that are full, folders that cannot be written, images that go away: really so."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.faults.killing import OPTS, assert_same_run, differences, metrics, printed, train
from tests.tiny import CONFIGS, TINY

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("tree")


def mount(folder, *options):
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    """A file system of 2 MB, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "-t", "tmpfs", "-o", "size=2m", "tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder):
    with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as f:
        while True:
            f.write(bytes(1024))


def at_epoch(epoch, act):
    """Do something in the child when an epoch begins."""

    def prepare(trainer):
        inner = trainer.before_epoch

        def before_epoch():
            if trainer.epoch == epoch:
                act()
            inner()

        trainer.before_epoch = before_epoch

    return prepare


def test_a_disk_that_fills_and_is_cleared_costs_checkpoints_and_not_the_run(disk, unbroken):
    def steps(trainer):
        at_epoch(1, lambda: fill(disk))(trainer)
        inner = trainer.before_epoch
        trainer.before_epoch = lambda: (
            (disk / "filler").unlink(missing_ok=True) if trainer.epoch == 2 else None,
            inner(),
        )

    code, _ = train(disk, *OPTS, prepare=steps)
    said = printed(disk)
    assert code == 0, said
    assert "model_0001.pth could not be written: No space left on device" in said
    assert "The run goes on, and tries again at the next save" in said
    assert not (disk / "model_0001.pth").exists()
    assert [p.name for p in disk.iterdir() if p.name.endswith(".part")] == []
    for name in ("model_0000.pth", "model_final.pth"):
        a, b = torch.load(unbroken / name), torch.load(disk / name)
        assert differences(a["model"], b["model"]) == []
    assert (disk / "results.json").read_text() == (unbroken / "results.json").read_text()
    assert [line["iteration"] for line in metrics(disk)] == [line["iteration"] for line in metrics(unbroken)]


def test_a_full_disk_at_the_last_save_is_an_error_and_what_was_saved_is_whole(disk, unbroken):
    code, _ = train(disk, *OPTS, prepare=at_epoch(2, lambda: fill(disk)))
    assert code == 1
    assert "error: " in printed(disk)
    assert (
        "model_final.pth could not be written: No space left on device. What was saved before is as it"
        in (printed(disk))
    )
    (disk / "filler").unlink()
    assert (disk / "last_checkpoint").read_text() == "model_0001.pth"
    code, _ = train(disk, *OPTS, resume=True)
    assert code == 0, printed(disk)
    assert_same_run(unbroken, disk)


def run_command(*opts, output):
    command = [sys.executable, str(ROOT / "train_net.py"), "--config-file", str(CONFIGS / "SynthAG/vif.yml")]
    opts = [str(o) for o in (*TINY, *OPTS, "OUTPUT_DIR", output, *opts)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command + opts, capture_output=True, text=True, env=env, check=False)


def test_a_read_only_folder_is_told_in_one_line_before_anything_starts(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    if os.geteuid() == 0:  # whom no mode stops
        mount(folder, "-t", "tmpfs", "-o", "ro", "tmpfs")
    else:
        folder.chmod(0o500)
    try:
        done = run_command(output=folder / "run")
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(folder)], check=True)
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith(f"error: OUTPUT_DIR='{folder}/run' cannot be written to: ")
    )
    assert "Traceback" not in done.stderr
    assert "Loaded SynthAG" not in done.stdout


@pytest.mark.parametrize("workers", [0, 2])
def test_images_lost_within_an_epoch_end_the_run_with_its_state_saved(workers, tree, unbroken, tmp_path):
    home, away = tree / "SynthAG", tree / "away"

    def prepare(trainer):
        inner = trainer.run_step

        def run_step():
            if trainer.iter == 7:
                home.rename(away)
            inner()

        trainer.run_step = run_step

    try:
        opts = (*OPTS, "DATALOADER.NUM_WORKERS", workers)
        code, _ = train(tmp_path, *opts, prepare=prepare)
    finally:
        away.rename(home)
    said = printed(tmp_path)
    assert code == 1, said
    assert "cannot read image" in said
    assert str(home / "train") in said
    saved = torch.load(tmp_path / "model_resume.pth")["run"]["iteration"]
    assert 7 <= saved <= 11  # workers are a few batches ahead
    assert train(tmp_path, *OPTS, resume=True)[0] == 0
    a, b = (torch.load(folder / "model_final.pth")["model"] for folder in (unbroken, tmp_path))
    assert differences(a, b) == []
    assert (tmp_path / "results.json").read_text() == (unbroken / "results.json").read_text()
