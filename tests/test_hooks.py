"""Progress line, collapse warning, writers: on a trainer of a few lines."""

import json

import pytest
import torch
from fastreid.engine.train_loop import TrainerBase
from fastreid.utils.events import EventStorage, JSONWriter
from vif.hooks import CollapseWarning, Writers
from vif.modeling.losses import pair_statistics
from vif.writers import ProgressWriter


class FakeTrainer(TrainerBase):
    """Puts the scalars of `values(iteration)` into the storage, one epoch being five iterations."""

    iters_per_epoch = 5

    def __init__(self, values, hooks):
        super().__init__()
        self.values = values
        self.register_hooks(hooks)

    def run_step(self):
        self.storage.put_scalars(**self.values(self.iter))


def spread(value):
    """Geometry of a batch whose rows all lie within `value` of one direction."""
    g = torch.Generator().manual_seed(0)
    features = torch.ones(16, 8) + value * torch.randn(16, 8, generator=g)
    statistics = pair_statistics(features, torch.arange(16) // 4)
    return {k: float(v) for k, v in statistics.items()}


def test_a_collapsed_run_is_warned_about_once_and_its_recovery_is_told(caplog):
    collapsed, healthy = spread(1e-3), spread(5.0)
    assert collapsed["neg_cos"] > 0.99
    assert healthy["neg_cos"] < 0.9
    hook = CollapseWarning(window=5)
    trainer = FakeTrainer(lambda i: collapsed if i < 20 else healthy, [hook])
    with caplog.at_level("INFO"):
        trainer.train(0, 8, 5)
    warnings = [r for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "The features have collapsed: over the last 5 iterations" in warnings[0].message
    assert [r.message for r in caplog.records if "have spread again" in r.message]


def test_a_healthy_run_is_not_warned_about(caplog):
    healthy = spread(5.0)
    FakeTrainer(lambda i: healthy, [CollapseWarning(window=5)]).train(0, 4, 5)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_the_progress_line_says_what_is_needed(caplog):
    writer = ProgressWriter(max_iter=40, max_epoch=4, batch_size=64)
    values = {"total_loss": 3.25, "loss_cls": 3.0, "cls_accuracy": 0.125, "lr": 1e-3, "time": 0.5}
    values.update(pos_cos=0.5, neg_cos=0.25, hard_share=0.125, feat_norm=9.0)
    with EventStorage(9) as storage, caplog.at_level("INFO"):
        storage.epoch = 0
        storage.put_scalars(**values)
        writer.write()
        writer.write()  # one line an iteration
    (line,) = [r.message for r in caplog.records]
    expected = (
        "epoch 1/4  iter 10/40  total_loss 3.250  loss_cls 3.000  acc 12.5%  lr 1.00e-03  128 images/s  "
    )
    assert line == expected + "left 0:00:15  cos same 0.50 other 0.25 hard 12.5% norm 9.0"
    assert storage.latest()["images_per_second"][0] == 128


@pytest.mark.parametrize("period", [1, 2, 5, 100])
def test_no_score_is_lost_between_the_writers_and_the_evaluation(tmp_path, period):
    from fastreid.engine.hooks import CallbackHook

    score = CallbackHook(
        after_epoch=lambda t: t.storage.put_scalar("score", t.epoch, smoothing_hint=False),
        after_train=lambda t: t.storage.put_scalar("last", 1.0, smoothing_hint=False),
    )
    path = tmp_path / "metrics.json"
    trainer = FakeTrainer(
        lambda i: {"total_loss": float(i)}, [score, Writers([JSONWriter(str(path))], period)]
    )
    trainer.train(0, 3, 5)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["score"] for line in lines if "score" in line] == [0.0, 1.0, 2.0]
    assert [line["last"] for line in lines if "last" in line] == [1.0]
    written = [line["iteration"] for line in lines if "total_loss" in line]
    assert len(written) == len(set(written))
