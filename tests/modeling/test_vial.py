"""VIAL-HNM against reference vectors, a naive loop, and its own edge cases."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode
from vif.modeling.losses import VIALLoss, pair_statistics, vial_loss

from tests.marks import fake_cuda

VECTORS = np.load(Path(__file__).parents[1] / "vectors" / "vial.npz")
VARIANTS = [
    {"penalty": False, "hard_negatives": False},  # "Angular Loss" of Table 5
    {"penalty": True, "hard_negatives": False},  # "VIAL w/o HNM"
    {"penalty": True, "hard_negatives": True},  # "VIAL with HNM"
]


def naive_vial(features, targets, beta=5.0, lam=0.5, margin=0.5, penalty=True, hard_negatives=True):
    total, count = 0.0, 0
    for i, a in enumerate(features):
        for j, b in enumerate(features):
            if i == j:
                continue
            c = float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
            if targets[i] == targets[j]:
                total += (1 - c) * (1 + lam * math.exp(-beta * c) if penalty else 1)
                count += 1
            elif hard_negatives and c > 1 - margin:
                total += c - (1 - margin)
                count += 1
    return total / count if count else 0.0


def batch(identities=4, instances=4, dim=8, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(identities * instances, dim, generator=g, dtype=dtype)
    return features, torch.arange(identities).repeat_interleave(instances)


@pytest.mark.parametrize("k", range(int(VECTORS["count"])))
def test_loss_and_gradient_equal_the_reference_vectors(k):
    params = json.loads(str(VECTORS[f"{k}_params"]))
    features = torch.tensor(VECTORS[f"{k}_features"], dtype=torch.float64, requires_grad=True)
    loss = vial_loss(features, torch.tensor(VECTORS[f"{k}_targets"]), **params)
    loss.backward()
    assert loss.item() == pytest.approx(float(VECTORS[f"{k}_loss"]), rel=1e-9, abs=1e-12)
    expected = VECTORS[f"{k}_grad"]  # from finite differences: noise in proportion to the largest entry
    np.testing.assert_allclose(features.grad, expected, rtol=1e-6, atol=1e-8 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("margin", [0.1, 0.5, 1.5])
def test_loss_equals_the_naive_loop(variant, margin):
    features, targets = batch(seed=3)
    expected = naive_vial(features, targets, margin=margin, **variant)
    assert vial_loss(features, targets, margin=margin, **variant).item() == pytest.approx(expected, rel=1e-10)


def test_by_hand_from_angles():
    # three unit vectors at 0, 60 and 60 degrees: the pair (0, 1) is one person, 2 another
    angles = torch.tensor([0.0, math.pi / 3, math.pi / 3], dtype=torch.float64)
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    positive = 0.5 * (1 + 0.5 * math.exp(-5 * 0.5))
    # negatives: c(0, 2) = 0.5 is not above 1 - 0.5; c(1, 2) = 1 is hard and costs 0.5
    expected = (2 * positive + 2 * 0.5) / 4
    loss = vial_loss(features, torch.tensor([0, 0, 1]), margin=0.5 - 1e-9)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_by_finite_differences(variant):
    features, targets = batch(identities=3, instances=2, dim=5, seed=1)
    assert torch.autograd.gradcheck(
        lambda x: vial_loss(x, targets, **variant), features.requires_grad_(), atol=1e-6
    )


def test_no_pair_gives_zero_with_a_graph():
    features = torch.eye(4, dtype=torch.float64, requires_grad=True)  # four people, all orthogonal
    loss = vial_loss(features, torch.arange(4))
    assert loss.item() == 0
    loss.backward()
    assert features.grad is not None
    assert features.grad.abs().max() == 0


def test_one_zero_row_gives_finite_loss_and_no_gradient_there():
    features, targets = batch(dtype=torch.float32)
    features[0] = 0
    features.requires_grad_()
    loss = vial_loss(features, targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert features.grad[0].abs().max() == 0
    assert 0 < features.grad[1:].abs().max() < 10


def test_a_large_beta_overflows_no_pair_that_does_not_count():
    # opposite people: exp(-beta c) of the negatives alone would be infinite in float32
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    loss = vial_loss(features, torch.tensor([0, 0, 1, 1]), beta=200.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_features_are_computed_in_float32(dtype):
    features, targets = batch(dtype=torch.float32)
    half = features.to(dtype)
    loss = vial_loss(half, targets, beta=25.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(vial_loss(half.float(), targets, beta=25.0).item(), rel=1e-6)


def test_autocast_changes_nothing():
    features, targets = batch(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = vial_loss(features, targets)
    assert inside.item() == vial_loss(features, targets).item()


@fake_cuda
def test_runs_on_cuda_tensors():
    with FakeTensorMode():
        features = torch.empty(16, 8, device="cuda", requires_grad=True)
        targets = torch.empty(16, dtype=torch.int64, device="cuda")
        loss = vial_loss(features, targets)
        assert loss.device.type == "cuda"
        assert loss.shape == ()
        assert all(v.device.type == "cuda" for v in pair_statistics(features, targets).values())


def test_module_passes_every_argument_and_the_weight():
    features, targets = batch()
    arguments = {"beta": 3.0, "lam": 0.2, "margin": 0.9, "penalty": True, "hard_negatives": True}
    module = VIALLoss(**arguments, weight=2.5)
    assert module(features, targets).item() == pytest.approx(2.5 * naive_vial(features, targets, **arguments))
    assert "margin=0.9" in repr(module)
    for changed in (
        {"beta": 4.0},
        {"lam": 0.9},
        {"margin": 0.2},
        {"penalty": False},
        {"hard_negatives": False},
    ):
        other = VIALLoss(**{**arguments, **changed}, weight=2.5)
        assert other(features, targets).item() != pytest.approx(module(features, targets).item(), rel=1e-6)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"features \(N, D\) and targets \(N,\), got \(4, 2, 1\) and \(4,\)"):
        vial_loss(torch.zeros(4, 2, 1), torch.zeros(4))
    with pytest.raises(ValueError, match=r"got \(4, 2\) and \(3,\)"):
        vial_loss(torch.zeros(4, 2), torch.zeros(3))


def test_pair_statistics_equal_a_loop():
    features, targets = batch(seed=5, dtype=torch.float32)
    unit = (features / features.norm(dim=1, keepdim=True)).double()
    pos, neg = [], []
    for i in range(len(unit)):
        for j in range(len(unit)):
            if i != j:
                (pos if targets[i] == targets[j] else neg).append(float(unit[i] @ unit[j]))
    found = pair_statistics(features, targets, margin=0.8)
    assert float(found["pos_cos"]) == pytest.approx(np.mean(pos), abs=1e-6)
    assert float(found["neg_cos"]) == pytest.approx(np.mean(neg), abs=1e-6)
    assert float(found["hard_share"]) == pytest.approx(np.mean(np.array(neg) > 0.2), abs=1e-6)
    assert float(found["feat_norm"]) == pytest.approx(features.norm(dim=1).mean().item(), abs=1e-5)
