"""Going on with what another run, host or config has left: fastreid's checkpoints, changed keys, versions."""

import shutil

import vif
import pytest
import torch
from fastreid.utils.checkpoint import Checkpointer as StockCheckpointer
from vif.errors import ConfigError

from tests.faults.killing import assert_same_run, build, differences

pytestmark = pytest.mark.usefixtures("tree")


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


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SOLVER.IMS_PER_BATCH", 4, "iterations per epoch: 6 -> 13"),
        ("SOLVER.OPT", "SGD", "SOLVER.OPT: the optimizer's state is of another kind"),
        ("SOLVER.BIAS_LR_FACTOR", 3.0, r"parameters in each group of the optimizer: \[.*\] -> \[.*\]"),
    ],
)
def test_what_position_or_momentum_would_not_fit_is_refused_though_told(key, value, message, run):
    with pytest.raises(ConfigError, match=f"{key}: .*cannot go on so, not with .*: .*{message}"):
        build(run, "SOLVER.RESUME_CHANGED", True, key, value)


@pytest.mark.parametrize(("ending", "number"), [("away", 51), ("jpeg", 52)])
def test_other_training_images_are_refused(ending, number, run, tree):
    """One less, and as many under other names."""
    image = next((tree / "SynthAG" / "train").rglob("*.jpg"))
    other = image.with_suffix(f".{ending}")
    image.rename(other)
    try:
        with pytest.raises(ConfigError, match=f"training images: .*52.* -> .*{number}"):
            build(run)
    finally:
        other.rename(image)


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
