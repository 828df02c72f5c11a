"""PCB: stripes, their own weights, the sum of identity losses, the joined feature."""

import vif
import numpy as np
import pytest
import torch
from fastreid.utils.events import EventStorage
from vif.errors import ConfigError
from vif.modeling.pcb import PCB, StripeHead

from tests.systems import load, small_cfg

B, C, P, D, K = 4, 8, 6, 5, 7


@pytest.fixture
def head():
    torch.manual_seed(0)
    return StripeHead(C, P, D, K, dropout=0.5)


def maps(height=12, seed=0):
    return torch.rand(B, C, height, 3, generator=torch.Generator().manual_seed(seed))


def numpy_parts(head, features):
    """Average pooling, 1 x 1 convolution, batch norm with running statistics, ReLU: (P, B, D)."""
    features, parts = features.numpy(), []
    rows = features.shape[2] // head.stripes
    for i, (conv, norm, _) in enumerate(head.reductions):
        pooled = features[:, :, i * rows : (i + 1) * rows].mean((2, 3))
        x = pooled @ conv.weight.detach().numpy()[:, :, 0, 0].T
        x = (x - norm.running_mean.numpy()) / np.sqrt(norm.running_var.numpy() + norm.eps)
        parts.append(np.maximum(x * norm.weight.detach().numpy() + norm.bias.detach().numpy(), 0))
    return np.stack(parts)


def with_statistics(head):
    """Batch norms with running statistics and affine weights that differ between stripes."""
    for i, (_, norm, _) in enumerate(head.reductions):
        generator = torch.Generator().manual_seed(i)
        norm.running_mean.copy_(torch.rand(D, generator=generator) * 0.1)
        norm.running_var.copy_(torch.rand(D, generator=generator) + 0.5)
        norm.weight.data.copy_(torch.rand(D, generator=generator) + 0.5)
        norm.bias.data.copy_(torch.rand(D, generator=generator) * 0.3)
    return head.eval()


def test_the_feature_is_the_stripes_from_top_to_bottom_each_of_length_1(head):
    features = maps()
    with torch.no_grad():
        joined = with_statistics(head)(features).numpy()
    parts = numpy_parts(head, features)
    parts = parts / np.linalg.norm(parts, axis=2, keepdims=True)
    assert joined == pytest.approx(np.concatenate(parts, axis=1), abs=1e-5)
    cosine = joined @ joined.T / P
    assert cosine == pytest.approx(np.mean([part @ part.T for part in parts], axis=0), abs=1e-5)


def test_a_stripe_sees_its_own_rows_only(head):
    features = maps()
    with torch.no_grad():
        before = with_statistics(head)(features)
        for i in range(P):
            other = features.clone()
            other[:, :, 2 * i : 2 * i + 2] = maps(seed=1)[:, :, :2]
            changed = (head(other) != before).reshape(B, P, D).any(dim=2).any(dim=0)
            assert changed.tolist() == [k == i for k in range(P)]


def test_each_stripe_has_weights_of_its_own(head):
    same_rows = maps()[:, :, :2].repeat(1, 1, P, 1)
    with torch.no_grad():
        parts = head.eval()(same_rows).reshape(B, P, D)
        logits = head.train()(same_rows)
    assert all(not torch.equal(parts[:, 0], parts[:, i]) for i in range(1, P))
    assert logits.shape == (P, B, K)
    assert all(not torch.equal(logits[0], logits[i]) for i in range(1, P))
    assert len({w.data_ptr() for w in head.parameters()}) == P * (1 + 2 + 2)


def test_the_loss_is_the_sum_of_the_stripes_cross_entropies():
    targets = torch.tensor([0, 3, 6, 3])
    logits = torch.randn(P, B, K, generator=torch.Generator().manual_seed(0))
    model = PCB(backbone=torch.nn.Identity(), heads=None, pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3)
    with EventStorage(0) as storage:
        losses = model.losses(logits, targets)
        accuracy = storage.latest()["cls_accuracy"][0]
    x = logits.numpy().astype(np.float64)
    log_p = x - np.log(np.exp(x).sum(2, keepdims=True))
    expected = -log_p[:, np.arange(B), targets.numpy()].mean(1).sum()
    assert set(losses) == {"loss_cls"}
    assert losses["loss_cls"].item() == pytest.approx(expected, rel=1e-5)
    assert float(accuracy) == pytest.approx((x.mean(0).argmax(1) == targets.numpy()).mean())


def test_dropout_acts_on_the_pooled_stripes_in_training_only(head):
    seen = []
    for reduction in head.reductions:
        reduction[0].register_forward_hook(lambda _, inputs, __: seen.append((inputs[0] == 0).float().mean()))
    for _ in range(20):
        head.train()(maps() + 1)
    assert torch.stack(seen).mean().item() == pytest.approx(0.5, abs=0.05)
    seen.clear()
    head.eval()(maps() + 1)
    assert torch.stack(seen).max() == 0


def test_rows_that_the_stripes_do_not_divide_are_refused(head):
    with pytest.raises(ConfigError, match="STRIPES=6 does not divide the 8 rows .* change INPUT.SIZE_TRAIN"):
        head(maps(height=8))


def test_published_settings():
    """After the authors' script (sections 3 and 4) and its authors' training script."""
    cfg = load("CARGO/pcb.yml")
    assert cfg.MODEL.META_ARCHITECTURE == "PCB"
    assert (cfg.MODEL.BACKBONE.DEPTH, cfg.MODEL.BACKBONE.LAST_STRIDE) == ("50x", 1)
    assert (cfg.MODEL.PCB.STRIPES, cfg.MODEL.PCB.DIM, cfg.MODEL.PCB.DROPOUT) == (6, 256, 0.5)
    assert tuple(cfg.MODEL.LOSSES.NAME) == ("CrossEntropyLoss",)
    assert cfg.INPUT.SIZE_TRAIN == cfg.INPUT.SIZE_TEST == [384, 128]
    assert cfg.INPUT.FLIP.ENABLED
    assert [cfg.INPUT[key].ENABLED for key in ("REA", "PADDING", "AUTOAUG", "CROP")] == [False] * 4
    assert (cfg.SOLVER.OPT, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_EPOCH) == ("SGD", 64, 60)
    assert (cfg.SOLVER.STEPS, cfg.SOLVER.GAMMA, cfg.SOLVER.WARMUP_ITERS) == ([40], 0.1, 0)
    assert (cfg.SOLVER.MOMENTUM, cfg.SOLVER.NESTEROV, cfg.SOLVER.WEIGHT_DECAY) == (0.9, True, 5e-4)


def test_the_backbone_learns_at_a_tenth_of_the_new_layers_rate(tmp_path):
    cfg = small_cfg("CARGO/pcb.yml", tmp_path, "MODEL.HEADS.NUM_CLASSES", 2)
    model = vif.VIFTrainer.build_model(cfg)
    counts = [sum(p.numel() for p in part.parameters()) for part in (model.backbone, model.heads)]
    optimizer, _ = vif.VIFTrainer.build_optimizer(cfg, model)
    rates = {round(group["lr"], 6): len(group["params"][0]) for group in optimizer.param_groups}
    assert rates == {0.01: counts[0], 0.1: counts[1]}
