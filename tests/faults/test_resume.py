"""Runs that are killed, really and anywhere, end as the run that was never killed: to the bit."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from vif.errors import STOPPED

from tests import fake_trees
from tests.faults.killing import assert_same_run, printed, train
from tests.tiny import CONFIGS, TINY

ROOT = Path(__file__).parents[2]

EVERY_STEP = ("SOLVER.CHECKPOINT_MINUTES", 1e-6)
BASE = ("SOLVER.MAX_EPOCH", 3, "SOLVER.LOG_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 1)
BASE += ("DATALOADER.BAD_IMAGES", "skip")  # an image is torn: how many were met is part of the results
# what a run may look like; drop path is in all
RUNS = {
    "plain": BASE,
    "workers": (*BASE, "DATALOADER.NUM_WORKERS", 2, "DATALOADER.SAMPLER_TRAIN", "BalancedIdentitySampler"),
    "adam": (
        *(*BASE, "SOLVER.OPT", "Adam", "SOLVER.SCHED", "MultiStepLR", "SOLVER.STEPS", [1, 2]),
        *("DATALOADER.SAMPLER_TRAIN", "ImbalancedDatasetSampler", "TEST.EVAL_PERIOD", 2),
        *("MODEL.BACKBONE.DROP_RATIO", 0.2),
    ),
    "frozen": (
        *(*BASE, "MODEL.FREEZE_LAYERS", ["backbone"], "SOLVER.FREEZE_ITERS", 9),
        *("DATALOADER.SAMPLER_TRAIN", "TrainingSampler", "TEST.PRECISE_BN.ENABLED", True),
        *("TEST.PRECISE_BN.DATASET", "SynthAG", "TEST.PRECISE_BN.NUM_ITER", 3, "SOLVER.WARMUP_ITERS", 8),
        *("SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16"),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    fake_trees.make_synthag(root, ids=4)
    os.truncate(next((root / "SynthAG" / "train").rglob("*_2_0.jpg")), 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(root))
        yield root


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, tree):
    """Folder of a run that was never killed, and the moments it passed."""
    done = {}

    def run(name, opts):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            code, moments = train(folder, *opts)
            assert code == 0, printed(folder)
            done[name] = folder, moments
        return done[name]

    return run


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("saves", ["at_epochs", "every_step"])
def test_killed_runs_end_as_the_unbroken_one(name, saves, unbroken, tmp_path):
    opts = RUNS[name] + (EVERY_STEP if saves == "every_step" else ())
    whole, _ = unbroken(name, RUNS[name])
    _, moments = unbroken(name + saves, opts)
    rng = random.Random(f"{name} {saves}")
    code, kills = -9, 0
    while code == -9:
        kill = rng.randint(1, moments // 2) if kills < 4 else 0
        code, _ = train(tmp_path, *opts, resume=kills > 0, kill=kill)
        kills += code == -9
    assert code == 0, printed(tmp_path)
    assert kills >= 2
    assert printed(tmp_path).count("KILLED") == kills
    assert_same_run(whole, tmp_path, ignore=("CHECKPOINT_MINUTES",))  # how often a run saves changes nothing


def terminate_the_second(launcher):
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    spawned = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(spawned[1], signal.SIGTERM)


def test_two_processes_that_were_stopped_end_as_unbroken_ones(tree, tmp_path):
    """SIGTERM to the launcher, to one process, Ctrl-C to all; random states and statistics of both go on."""
    opts = (*TINY, *RUNS["plain"], "DATALOADER.BAD_IMAGES", "skip", "MODEL.BACKBONE.DROP_RATIO", 0.2)
    command = [sys.executable, str(ROOT / "train_net.py"), "--config-file", str(CONFIGS / "SynthAG/vif.yml")]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

    def run(folder, resume=False, at="", act=None):
        mine = [*command, *(["--resume"] if resume else []), "--num-gpus", "2"]
        mine += [str(o) for o in (*opts, "OUTPUT_DIR", tmp_path / folder)]
        given = {"text": True, "env": env, "start_new_session": True}
        process = subprocess.Popen(mine, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **given)
        said = ""
        for line in process.stdout:
            said += line
            if at and at in line:
                act(process)
                at = ""
        assert not at, said
        return process.wait(), said

    code, said = run("whole")
    assert code == 0, said
    code, said = run("broken", at="iter 4/", act=lambda process: process.terminate())
    assert code == STOPPED, said
    code, said = run("broken", resume=True, at="iter 8/", act=terminate_the_second)
    assert code == STOPPED, said
    assert len(torch.load(tmp_path / "broken" / "model_resume.pth")["run"]["ranks"]) == 2
    everybody = {"at": "iter 12/", "act": lambda process: os.killpg(process.pid, signal.SIGINT)}
    code, said = run("broken", resume=True, **everybody)
    assert code == STOPPED, said
    code, said = run("broken", resume=True)
    assert code == 0, said
    assert_same_run(tmp_path / "whole", tmp_path / "broken")
