"""VV: the triplet loss against a naive loop, and an embedding that has nothing else."""

import math

import vif
import numpy as np
import pytest
import torch
from fastreid.modeling.losses import triplet_loss
from fastreid.utils.events import EventStorage
from vif.modeling.losses import batch_triplet_loss

from tests.systems import load, small_cfg

TARGETS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])  # identity 3 has one image: no anchor


def features(scale=1.0, dtype=torch.float64):
    return scale * torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).to(dtype)


def naive(x, targets, hard, margin):
    x, targets, costs = x.double().numpy(), targets.tolist(), []
    for a in range(len(x)):
        positives = [
            np.linalg.norm(x[a] - x[i]) for i in range(len(x)) if targets[i] == targets[a] and i != a
        ]
        negatives = [np.linalg.norm(x[a] - x[i]) for i in range(len(x)) if targets[i] != targets[a]]
        if not positives or not negatives:
            continue
        if hard:
            d_p, d_n = max(positives), min(negatives)
        else:
            w_p = [math.exp(d - max(positives)) for d in positives]
            w_n = [math.exp(min(negatives) - d) for d in negatives]
            d_p = sum(w * d for w, d in zip(w_p, positives)) / sum(w_p)
            d_n = sum(w * d for w, d in zip(w_n, negatives)) / sum(w_n)
        costs.append(max(0.0, margin + d_p - d_n) if margin else math.log1p(math.exp(d_p - d_n)))
    return sum(costs) / len(costs)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("margin", [0.0, 0.3])
@pytest.mark.parametrize("hard", [True, False])
def test_the_loss_against_a_naive_loop(hard, margin, scale):
    x = features(scale)
    found = batch_triplet_loss(x, TARGETS, hard=hard, margin=margin).item()
    assert found == pytest.approx(naive(x, TARGETS, hard, margin), rel=1e-9)


def test_fastreids_loss_is_the_same_for_hard_and_another_for_weighted_triplets():
    """Why VV has its own: fastreid's weighted mining counts the anchor as its own positive."""
    targets = TARGETS[:7]  # fastreid has no anchors without positives
    x = features()[:7]
    assert triplet_loss(x, targets, 0.0, False, True).item() == pytest.approx(
        batch_triplet_loss(x, targets, hard=True).item(), rel=1e-6
    )
    assert triplet_loss(x, targets, 0.0, False, False).item() != pytest.approx(
        batch_triplet_loss(x, targets, hard=False).item(), rel=0.05
    )


@pytest.mark.parametrize("hard", [True, False])
def test_gradients_are_right_and_finite_for_equal_embeddings(hard):
    x = features().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: batch_triplet_loss(x, TARGETS, hard=hard), x)
    collapsed = torch.ones(4, 3, requires_grad=True)
    loss = batch_triplet_loss(collapsed, torch.tensor([0, 0, 1, 1]), hard=hard)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert torch.isfinite(collapsed.grad).all()


def test_half_precision_is_computed_in_float32():
    x = features(30.0, torch.float16)
    assert batch_triplet_loss(x, TARGETS).dtype == torch.float32
    assert batch_triplet_loss(x, TARGETS).item() == pytest.approx(naive(x, TARGETS, True, 0.0), rel=1e-5)


def test_without_a_pair_the_loss_is_0_with_a_graph():
    x = features().requires_grad_()
    loss = batch_triplet_loss(x, torch.arange(8))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"features \(N, D\) and targets \(N,\), got \(8, 5\) and \(3,\)"):
        batch_triplet_loss(features(), TARGETS[:3])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    cfg = small_cfg("CARGO/vv.yml", tmp_path_factory.mktemp("vv"), "MODEL.HEADS.NUM_CLASSES", 9)
    return vif.VIFTrainer.build_model(cfg)


def test_the_embedding_is_linear_in_the_pooled_map_and_there_is_no_classifier(model):
    images = torch.rand(2, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 255
    maps = []
    hook = model.backbone.register_forward_hook(lambda _, __, output: maps.append(output.numpy()))
    with torch.no_grad():
        embeddings = model.eval()(images).numpy()
    hook.remove()
    linear = model.heads[-1]
    expected = maps[0].mean((2, 3)) @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    assert embeddings.shape == (2, 128)
    assert embeddings == pytest.approx(expected, abs=1e-4)
    assert [tuple(p.shape) for p in model.heads.parameters()] == [(128, 512), (128,)]
    assert not list(model.heads.buffers())
    assert 9 not in [len(p) for p in model.parameters() if p.dim()]


@pytest.mark.parametrize("hard", [True, False])
def test_the_only_loss_is_the_configured_triplet_loss(model, hard):
    embeddings = features()[:, :4]
    model.hard_mining, model.scale = hard, 0.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.heads, "forward", lambda maps: embeddings)
        with EventStorage(0) as storage:
            losses = model.train()({"images": torch.zeros(8, 3, 32, 16), "targets": TARGETS})
            logged = set(storage.latest())
    assert set(losses) == {"loss_triplet"}
    assert losses["loss_triplet"].item() == pytest.approx(0.5 * naive(embeddings, TARGETS, hard, 0.0))
    assert {"pos_cos", "neg_cos"} <= logged


def test_the_config_chooses_the_mining(tmp_path):
    cfg = load("CARGO/vv.yml")
    assert cfg.MODEL.LOSSES.TRI.HARD_MINING
    assert cfg.MODEL.HEADS.EMBEDDING_DIM == 128
    assert cfg.TEST.METRIC == "euclidean"
    opts = ("MODEL.LOSSES.TRI.HARD_MINING", False, "MODEL.LOSSES.TRI.MARGIN", 0.2)
    model = vif.VIFTrainer.build_model(small_cfg("CARGO/vv.yml", tmp_path, *opts))
    assert (model.hard_mining, model.margin) == (False, 0.2)
