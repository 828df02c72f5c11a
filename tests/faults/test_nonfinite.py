"""Losses and gradients that are not finite, in real runs: stopped and reproduced, or left out and counted."""

import json
import subprocess
import sys
from pathlib import Path

import vif
import numpy as np
import pytest
import torch
from fastreid.utils.events import EventStorage
from safetensors import SafetensorError
from vif.errors import DataError, NonFiniteError
from vif.nonfinite import Guard
from vif.replay import read_report, rebuild_batch, replay

from tests import fake_trees
from tests.systems import small_cfg
from tests.tiny import CONFIGS, TINY, tiny_cfg

ROOT = Path(__file__).parents[2]
BROKEN_CALLS = {3}  # counted over all runs of a test, from 0
CALLS = []


@vif.LOSS_REGISTRY.register()
class BreakingLoss(torch.nn.Module):
    """A loss that turns NaN, or has gradients that do, at the calls of BROKEN_CALLS."""

    kind = "loss"

    def __init__(self, cfg):
        super().__init__()

    def forward(self, features, targets):
        CALLS.append(len(CALLS))
        if CALLS[-1] not in BROKEN_CALLS:
            return 0 * features.sum()
        if self.kind == "loss":
            return features.sum() * torch.nan
        zero = (features * 0).sum()
        return torch.where(zero == 0, zero * 0, torch.sqrt(zero))  # 0, whose gradient is NaN


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    CALLS.clear()
    monkeypatch.setattr(sys.modules[__name__], "BROKEN_CALLS", {3})
    monkeypatch.setattr(BreakingLoss, "kind", "loss")


@pytest.fixture(scope="module", autouse=True)
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    fake_trees.make_cargo(root, ids=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(root))
        yield root


def breaking(output, *opts):
    names = ("CrossEntropyLoss", "TripletLoss", "BreakingLoss")
    own = ("MODEL.LOSSES.NAME", names, "SOLVER.AMP.ENABLED", False, "SOLVER.MAX_EPOCH", 3)
    return tiny_cfg("CARGO/vif.yml", output, *own, *opts)


def state_of(trainer):
    """Bytes of weights, buffers and the optimizer's state."""
    model = {name: value.numpy().tobytes() for name, value in trainer.model.state_dict().items()}
    optimizer = trainer.optimizer.state_dict()["state"]
    flat = {
        (key, name): value.numpy().tobytes() if isinstance(value, torch.Tensor) else value
        for key, values in optimizer.items()
        for name, value in values.items()
    }
    return model, flat


def run_and_watch(cfg):
    trainer, seen = vif.VIFTrainer(cfg), []
    step = trainer.run_step

    def watched():
        before = state_of(trainer)
        step()
        seen.append((before, state_of(trainer)))

    trainer.run_step = watched
    return trainer, trainer.train(), seen


def lines(output):
    return [json.loads(line) for line in (Path(output) / "metrics.json").read_text().splitlines()]


@pytest.mark.parametrize("amp", [False, True])
def test_a_broken_loss_stops_the_run_with_a_file_that_reproduces_it(amp, tmp_path, monkeypatch):
    opts = ("SOLVER.AMP.DTYPE", "bfloat16") if amp else ()
    cfg = breaking(tmp_path, "SOLVER.AMP.ENABLED", amp, *opts, "MODEL.BACKBONE.DROP_RATIO", 0.3)
    trainer = vif.VIFTrainer(cfg)
    took = []
    with pytest.MonkeyPatch.context() as patch:  # what the model really took, before it changes it in place
        inner = type(trainer.model).preprocess_image
        patch.setattr(
            type(trainer.model),
            "preprocess_image",
            lambda self, batch: took.append(batch["images"].clone()) or inner(self, batch),
        )
        with pytest.raises(NonFiniteError, match=r"loss is not finite at iteration 3 \(.*loss_breaking nan"):
            trainer.train()
    path = tmp_path / "nonfinite_0000003.json"
    report = json.loads(path.read_text())
    assert report["losses"]["loss_breaking"] == "nan"
    assert report["precision"] == ("bfloat16" if amp else "float32")
    assert report["not_finite"]["parameters"] == report["not_finite"]["buffers"] == []
    assert "backbone.cls_token" in report["not_finite"]["gradients"]
    norm = torch.cat([p.detach().flatten() for p in trainer.model.parameters()]).norm()
    assert report["weight_norm"] == pytest.approx(float(norm), rel=1e-5)
    assert report["feature_norm"] > 0
    assert [row["draw"] for row in report["batch"]] == list(range(24, 32))
    assert all(Path(row["path"]).is_file() for row in report["batch"])
    # from the data set's files, and from the file of tensors
    assert torch.equal(rebuild_batch(str(path))["images"].float(), took[3])
    CALLS.clear()
    CALLS.extend(range(3))
    said = []
    monkeypatch.setattr(vif.replay.logger, "warning", lambda text, *values: said.append(text % values))
    again = replay(str(path))
    assert {name: repr(value) for name, value in again["losses"].items()} == {
        name: repr(float(value)) for name, value in report["losses"].items()
    }
    assert "backbone.cls_token" in again["gradients"]
    assert said == []
    (tmp_path / "shared.json").write_text(json.dumps({**report, "world_size": 2}))
    sound = replay(str(tmp_path / "shared.json"))  # the loss is whole again, and so are all the others
    assert len(said) == 1
    assert "shared.json is of process 0 of 2: this is its share of the batch alone" in said[0]
    assert sound["losses"]["loss_breaking"] == 0
    assert sound["gradients"] == []
    assert sound["losses"]["loss_cls"] == report["losses"]["loss_cls"]


def test_a_broken_gradient_under_a_finite_loss_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(BreakingLoss, "kind", "gradient")
    trainer = vif.VIFTrainer(breaking(tmp_path))
    with pytest.raises(NonFiniteError, match=r"The gradient is not finite at iteration 3 \(loss_cls"):
        trainer.train()
    report = json.loads((tmp_path / "nonfinite_0000003.json").read_text())
    assert report["losses"]["loss_breaking"] == 0
    assert report["largest_gradient"] == "nan"
    assert "backbone.cls_token" in report["not_finite"]["gradients"]
    assert "heads.weight" not in report["not_finite"]["gradients"]
    CALLS.clear()
    CALLS.extend(range(3))
    assert set(replay(str(tmp_path / "nonfinite_0000003.json"))["gradients"]) == set(
        report["not_finite"]["gradients"]
    )


def test_broken_weights_are_named(tmp_path):
    trainer = vif.VIFTrainer(breaking(tmp_path))
    with torch.no_grad():
        dict(trainer.model.named_parameters())["backbone.blocks.0.mlp.fc2.weight"][0, 0] = torch.inf
    with pytest.raises(NonFiniteError, match="iteration 0"):
        trainer.train()
    path = tmp_path / "nonfinite_0000000.json"
    report = json.loads(path.read_text())
    assert report["not_finite"]["parameters"] == ["backbone.blocks.0.mlp.fc2.weight"]
    assert report["not_finite"]["buffers"] == []  # the statistics that the forward pass broke are restored
    assert replay(str(path))["losses"]["loss_cls"] != replay(str(path))["losses"]["loss_cls"]  # NaN


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_skipped_batch_leaves_no_trace_but_a_count(kind, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(BreakingLoss, "kind", kind)
    monkeypatch.setattr(sys.modules[__name__], "BROKEN_CALLS", {0, 3, 4})
    trainer, results, seen = run_and_watch(breaking(tmp_path, "SOLVER.NON_FINITE", "skip"))
    assert [before == after for before, after in seen[:6]] == [True, False, False, True, True, False]
    model = trainer.model.state_dict()
    assert all(bool(value.isfinite().all()) for value in model.values())
    assert "heads.bottleneck.0.running_mean" in model
    assert caplog.text.count("this batch is left out") == 3
    assert "at iteration 3: this batch is left out (2 so far)" in caplog.text
    assert sorted(p.name for p in tmp_path.glob("nonfinite*")) == [
        f"nonfinite_000000{i}.json" for i in (0, 3, 4)
    ]
    assert lines(tmp_path)[-1]["skipped_batches"] == 3
    assert lines(tmp_path)[-1]["feat_norm"] > 0  # what the model logs of the batches that are not skipped
    assert {scores["skipped_batches"] for scores in results["CARGO"].values()} == {3}
    assert json.loads((tmp_path / "results.json").read_text()) == results
    logged = [value for line in lines(tmp_path) for name, value in line.items() if "loss" in name]
    assert np.isfinite(logged).all()
    with pytest.raises(DataError, match="is of a skipped batch and has no weights; set SOLVER.NON_FINITE"):
        replay(str(tmp_path / "nonfinite_0000003.json"))
    assert rebuild_batch(str(tmp_path / "nonfinite_0000003.json"))["images"].shape == (8, 3, 32, 16)


def test_statistics_of_a_skipped_batch_are_put_back(tmp_path, monkeypatch):
    """Features that are NaN break a batch norm's running mean in the forward pass."""
    cfg = small_cfg("CARGO/bot.yml", tmp_path, "SOLVER.NON_FINITE", "skip", "MODEL.FREEZE_LAYERS", [])
    trainer = vif.VIFTrainer(cfg)
    inner = type(trainer.model).preprocess_image

    def poisoned(self, batch):
        images = inner(self, batch)
        return images * torch.nan if trainer.iter == 1 else images

    monkeypatch.setattr(type(trainer.model), "preprocess_image", poisoned)
    states = []
    with EventStorage(0) as storage:
        for trainer.iter in range(3):
            storage.iter = trainer.iter
            trainer.run_step()
            states.append(state_of(trainer))
        assert storage.latest()["skipped_batches"][0] == 1
    assert states[0] == states[1] != states[2]
    assert all(bool(v.isfinite().all()) for v in trainer.model.state_dict().values())
    assert any("running_var" in name for name in trainer.model.state_dict())


@pytest.mark.parametrize(
    ("writer", "error"),
    [
        ("write_json", OSError(28, "No space left")),
        ("save_file", OSError(28, "No space left")),
        ("save_file", SafetensorError("I/O error: No space left")),
    ],
)
def test_a_report_that_cannot_be_written_leaves_the_reason_what_it_is(writer, error, tmp_path, monkeypatch):
    def full(*_):
        raise error

    monkeypatch.setattr(vif.nonfinite, writer, full)
    with pytest.raises(NonFiniteError, match=r"iteration 3 .*nonfinite_0000003\.\* could not be .*No space"):
        vif.VIFTrainer(breaking(tmp_path)).train()


def test_a_run_that_skips_goes_on_though_no_report_can_be_written(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left")

    monkeypatch.setattr(vif.nonfinite, "write_json", full)
    trainer = vif.VIFTrainer(breaking(tmp_path, "SOLVER.NON_FINITE", "skip"))
    trainer.train()
    assert trainer.guard.skipped == 1
    assert "left out (1 so far)" in caplog.text
    assert "nonfinite_0000003.* could not be written ([Errno 28] No space left" in caplog.text


def test_too_many_skipped_in_a_row_stop_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "BROKEN_CALLS", {0, 1, 3, 4, 5, 6})
    opts = ("SOLVER.NON_FINITE", "skip", "SOLVER.NON_FINITE_LIMIT", 2)
    trainer = vif.VIFTrainer(breaking(tmp_path, *opts))
    with pytest.raises(NonFiniteError, match=r"iteration 5 .*2 batches before it were left out already"):
        trainer.train()
    assert (tmp_path / "nonfinite_0000005.safetensors").is_file()
    assert not (tmp_path / "nonfinite_0000004.safetensors").exists()
    assert trainer.guard.state_dict() == {"skipped": 4, "in_a_row": 2, "overflows": 0}


def test_counts_go_on_from_a_state():
    first, second = (Guard("skip", 10, "", "", None) for _ in range(2))
    first.count("loss", False)
    second.load_state_dict(first.state_dict())
    second.count("gradient", False)
    second.count("gradient", True)
    assert second.counts() == {"skipped_batches": 2, "amp_overflows": 1}
    assert second.in_a_row == 0


def test_the_command_exits_with_1_and_says_where_the_file_is(tmp_path, tree):
    """Weights of 1e30 make the first product infinite, in a process of its own."""
    trainer = vif.VIFTrainer(tiny_cfg("CARGO/vif.yml", tmp_path))
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "mlp" in name:
                parameter.fill_(1e30)
    weights = tmp_path / "huge.pth"
    torch.save({"model": trainer.model.state_dict()}, weights)
    out = tmp_path / "run"
    opts = [*TINY, "OUTPUT_DIR", out, "MODEL.WEIGHTS", weights, "SOLVER.AMP.ENABLED", False]
    opts += ["MODEL.BACKBONE.NAME", "build_vif_vit_backbone"]  # which `tiny_cfg` does itself
    command = [sys.executable, "train_net.py", "--config-file", CONFIGS / "CARGO" / "vif.yml", *opts]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "", "FASTREID_DATASETS": str(tree), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "error: The loss is not finite at iteration 0 (loss_cls" in done.stderr.splitlines()[-1]
    assert f"{out}/nonfinite_0000000.json names the batch" in done.stderr
    assert replay(str(out / "nonfinite_0000000.json"))["gradients"]


def test_a_file_that_is_no_report_is_named(tmp_path):
    for content in ("", "{}", "[1]", '{"config": "A: ["}', '{"config": "NO_KEY: 1", "batch": []}'):
        (tmp_path / "nonfinite_0.json").write_text(content)
        with pytest.raises(DataError, match=r"nonfinite_0.json is no report of a batch"):
            read_report(str(tmp_path / "nonfinite_0.json"))
    with pytest.raises(DataError, match=r"none.json is no report of a batch"):
        read_report(str(tmp_path / "none.json"))
