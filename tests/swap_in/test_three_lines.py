"""The guide's diff: on a clone that is not installed, and on a project with a trainer of its own."""

import json
import logging
import runpy
import shutil
import sys

import pytest
from vif.errors import ConfigError, EvaluationError

from tests import fake_trees
from tests.swap_in import hosts
from tests.tiny import CONFIGS, TINY

VIF = CONFIGS / "CARGO" / "vif.yml"
# a config for fastreid's own ViT, which has no tiny size: TINY takes VIF's
SMALL = ["MODEL.BACKBONE.NAME", "build_vif_vit_backbone", *TINY]
PROTOCOLS = {"ALL", "GG", "AA", "AG", "A2G", "G2A"}


@pytest.fixture(autouse=True)
def cargo(tmp_path, monkeypatch):
    fake_trees.make_cargo(tmp_path / "data", ids=4)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))
    logger = logging.getLogger("fastreid")
    handlers = list(logger.handlers)
    yield
    logger.handlers[:] = [h for h in logger.handlers if h in handlers]  # default_setup adds more each time


def test_a_clone_with_a_cargo_of_its_own_trains_vif_and_prints_every_protocol(tmp_path):
    """A source tree of fastreid, projects/VIF copied into it, a fork's registrations before ours."""
    clone = hosts.make_clone(tmp_path / "clone")
    hosts.make_fork(clone)
    hosts.apply_diff(clone)
    shutil.copytree(
        hosts.ROOT / "projects" / "VIF",
        clone / "projects" / "VIF",
        ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
    )
    packages = hosts.bare_packages(tmp_path / "packages")
    done = hosts.run(
        *(clone, packages, "tools/train_net.py", "--config-file", VIF, *SMALL),
        *("SOLVER.MAX_EPOCH", 1, "OUTPUT_DIR", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "has a 'CARGO' of its own (fastreid.data.datasets.cargo)" in done.stdout  # so it is the clone's
    assert "loss_vial" in done.stdout
    for title in ("A<->G (AG)", "ALL", "G<->G (GG)", "A<->A (AA)", "A->G (A2G)", "G->A (G2A)"):
        assert f"\n| {title} " in done.stdout
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())["CARGO"]) == PROTOCOLS


def run_here(script, monkeypatch, *arguments):
    """A train_net.py in this process; what its functions are."""
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
    return runpy.run_path(str(script), run_name="__main__")


def changed(tmp_path, text):
    folder = tmp_path / "host"
    (folder / "tools").mkdir(parents=True)
    (folder / "tools" / "train_net.py").write_text(text)
    hosts.apply_diff(folder)
    return folder / "tools" / "train_net.py"


@pytest.mark.parametrize("text", [hosts.TRAIN_NET, hosts.OWN_TRAINER], ids=["stock", "own trainer"])
def test_it_trains_and_evaluation_alone_gives_the_same_scores(text, tmp_path, monkeypatch):
    script = changed(tmp_path, text)
    opts = [*SMALL, "SOLVER.MAX_EPOCH", 1, "OUTPUT_DIR", tmp_path / "out"]
    run_here(script, monkeypatch, "--config-file", VIF, *opts)
    trained = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(trained["CARGO"]) == PROTOCOLS
    (tmp_path / "out" / "results.json").unlink()
    opts += ["MODEL.WEIGHTS", tmp_path / "out" / "model_final.pth"]
    run_here(script, monkeypatch, "--eval-only", "--config-file", VIF, *opts)
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == trained
    # what a run must reach is checked here as in our own train_net.py
    opts += ["TEST.EXPECTED_RESULTS", "[('CARGO', 'AG', 'mAP', 101., .1)]"]
    for mode in (["--eval-only"], []):
        with pytest.raises(EvaluationError, match=r"TEST.EXPECTED_RESULTS missed: CARGO AG mAP: .*101"):
            run_here(script, monkeypatch, *mode, "--config-file", VIF, *opts)


def test_without_the_trainers_line_it_says_which_line_is_missing(tmp_path, monkeypatch):
    script = changed(tmp_path, hosts.TRAIN_NET)
    script.write_text(script.read_text().replace("DefaultTrainer = vif.VIFTrainer\n", ""))
    opts = [*SMALL, "OUTPUT_DIR", tmp_path / "out"]
    message = r"sets INPUT.PLRM.PATCH_SIZE, INPUT.TRANSFORMS, .* put vif.VIFTrainer in its place"
    with pytest.raises(ConfigError, match=message):
        run_here(script, monkeypatch, "--config-file", VIF, *opts)


def test_without_the_configs_line_the_first_key_of_vifs_is_refused(tmp_path, monkeypatch):
    script = changed(tmp_path, hosts.TRAIN_NET)
    script.write_text(script.read_text().replace("    vif.add_vif_config(cfg)\n", ""))
    with pytest.raises(KeyError, match="Non-existent config key: MODEL.LOSSES.VIAL"):
        run_here(script, monkeypatch, "--config-file", VIF)


def test_the_guide_shows_three_added_lines_and_none_removed():
    lines = [line for line in hosts.guide_diff().splitlines() if line[:3] not in ("---", "+++")]
    assert [line for line in lines if line.startswith("-")] == []
    assert [line[1:].strip() for line in lines if line.startswith("+")] == [
        "import vif",
        "DefaultTrainer = vif.VIFTrainer",
        "vif.add_vif_config(cfg)",
    ]
