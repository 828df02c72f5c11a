"""Explain: losses against loops, what the interpreter sees, where gradients go, that its configs train."""

import json
import math

import vif
import numpy as np
import pytest
import torch
from fastreid.modeling.losses import cross_entropy_loss, triplet_loss
from fastreid.utils.events import EventStorage
from vif.errors import ConfigError, DataError
from vif.modeling.losses.attribute import attribute_prior_loss, metric_distillation_loss, pair_distances

from tests import fake_trees
from tests.tiny import CONFIGS, tiny_cfg

DATASETS = ("AGReIDv1", "AGReIDv2", "SynthAG")
N, K = 8, 5


@pytest.fixture(scope="module", autouse=True)
def trees(tmp_path_factory):
    with fake_trees.installed(tmp_path_factory.mktemp("data")) as root:
        yield root


def tiny_model(tmp_path, *opts):
    opts = [
        "MODEL.HEADS.NUM_CLASSES",
        4,
        "MODEL.EXPLAIN.NUM_ATTRIBUTES",
        K,
        "MODEL.BACKBONE.VIT.DEPTH",
        2,
        *opts,
    ]
    torch.manual_seed(0)
    model = vif.VIFTrainer.build_model(
        tiny_cfg("AGReIDv1/explain.yml", tmp_path, "MODEL.BACKBONE.DROP_PATH_RATIO", 0.0, *opts)
    )
    torch.nn.init.normal_(model.interpreter.maps[1].weight)
    return model


def tiny_batch():
    images = torch.rand(N, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 255
    attributes = torch.randint(2, (4, K), generator=torch.Generator().manual_seed(1)).float()
    return {
        "images": images,
        "targets": torch.arange(N) // 2,
        "attributes": attributes.repeat_interleave(2, dim=0),
    }


def losses_of(model, batch):
    with EventStorage(0):
        return model({name: value.clone() for name, value in batch.items()})


# ---- losses


def naive_prior(components, attributes, each_weight=10.0):
    """AMD's attribute prior, pair by pair and attribute by attribute, with its published constants."""
    number, images = len(components), len(attributes)
    total = 0.0
    for i in range(images):
        for j in range(images):
            if i == j:
                continue
            exclusive = [k for k in range(number) if attributes[i][k] != attributes[j][k]]
            common = [k for k in range(number) if attributes[i][k] == attributes[j][k]]
            distance = sum(components[k][i][j] for k in range(number))
            share = [components[k][i][j] / distance for k in range(number)]
            wanted = math.sqrt(len(exclusive) / number)
            cost = max(0.0, wanted - sum(share[k] for k in exclusive))
            cost += max(0.0, sum(share[k] for k in common) - (1 - wanted))
            e = min(len(exclusive), number - 0.1)
            a = (number - e) * math.sqrt(e / number) + 4e-3
            b = e * (1 - math.sqrt(e / number)) + 1e-3
            lam = math.log(a / b) / 2
            for k in exclusive:
                cost += each_weight * max(0.0, math.exp(-lam) * wanted / len(exclusive) - share[k])
            for k in common:
                cost += each_weight * max(0.0, share[k] - math.exp(lam) * (1 - wanted) / len(common))
            total += cost
    return total / images**2


def random_components(seed, number=K, images=N):
    features = np.random.default_rng(seed).normal(size=(number, images, 3))
    return np.linalg.norm(features[:, :, None] - features[:, None], axis=-1) ** 3  # uneven shares


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("each_weight", [10.0, 0.5])
def test_the_attribute_prior_is_the_published_loop(seed, each_weight):
    components = random_components(seed)
    attributes = np.random.default_rng(seed).integers(0, 2, (N, K))
    attributes[1], attributes[3] = attributes[0], 1 - attributes[2]  # pairs with no, and with all exclusive
    found = attribute_prior_loss(torch.tensor(components), torch.tensor(attributes), each_weight)
    assert found.item() == pytest.approx(naive_prior(components, attributes, each_weight), rel=1e-5)


def test_the_prior_ranks_exclusive_over_common_attributes():
    """Two people, two attributes, the first exclusive: it shall have sqrt(1/2) of the distance or more."""
    attributes = torch.tensor([[1, 0], [0, 0]])

    def loss(first):
        components = torch.zeros(2, 2, 2)
        components[0, 0, 1] = components[0, 1, 0] = first
        components[1, 0, 1] = components[1, 1, 0] = 1 - first
        return attribute_prior_loss(components, attributes).item()

    assert loss(0.99) == 0
    assert loss(0.99) < loss(0.6) < loss(0.4) < loss(0.1)
    # both by hand: t = 0.7071, mean shares 0.7071 and 0.2929, their geometric mean 0.455 bounds single ones
    bound = math.sqrt(0.70711 * 0.29289)
    assert loss(0.4) == pytest.approx(
        2 / 4 * (2 * (0.70711 - 0.4) + 10 * (bound - 0.4 + 0.6 - bound)), rel=5e-3
    )


def test_an_image_with_itself_and_equal_images_give_finite_gradients():
    features = torch.ones(K, 4, 3, requires_grad=True)
    components = pair_distances(features)
    loss = attribute_prior_loss(components, torch.eye(4)[:, [0, 1, 2, 3, 0]]) + metric_distillation_loss(
        components, torch.ones(4, 4)
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(features.grad).all()


def test_distances_and_distillation_are_loops():
    features = np.random.default_rng(0).normal(size=(K, N, 3))
    target = np.abs(np.random.default_rng(1).normal(size=(N, N)))
    components = pair_distances(torch.tensor(features)) / K
    expected = 0.0
    for i in range(N):
        for j in range(N):
            if i != j:
                parts = [math.dist(features[k, i], features[k, j]) / K for k in range(K)]
                assert components[:, i, j].tolist() == pytest.approx(parts, rel=1e-4)
                expected += abs(sum(parts) - target[i, j])
    found = metric_distillation_loss(components, torch.tensor(target))
    assert found.item() == pytest.approx(expected / N**2, rel=1e-5)


def test_half_precision_and_autocast_are_computed_in_float32():
    features = torch.randn(K, N, 16, generator=torch.Generator().manual_seed(0)) * 100
    attributes = torch.randint(2, (N, K), generator=torch.Generator().manual_seed(0))
    expected = attribute_prior_loss(pair_distances(features), attributes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attribute_prior_loss(pair_distances(features), attributes)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.isfinite(pair_distances(features.half() * 100)).all()  # squares that float16 cannot hold


# ---- the model


def test_the_total_is_identity_triplet_distillation_and_prior(tmp_path):
    """The interpreter's part, once more, from hooks' outputs and loops over attributes."""
    weights = ["MODEL.EXPLAIN.DISTILLATION_WEIGHT", 3.0, "MODEL.EXPLAIN.PRIOR_WEIGHT", 0.2]
    model, batch, seen = tiny_model(tmp_path, *weights), tiny_batch(), {}
    model.backbone.blocks[0].register_forward_hook(lambda _, __, out: seen.update(middle=out.detach()))
    model.backbone.norm.register_forward_hook(lambda _, __, out: seen.update(last=out.detach()))
    model.heads.register_forward_hook(lambda _, __, out: seen.update(out))
    losses = losses_of(model, batch)
    assert set(losses) == {"loss_cls", "loss_triplet", "loss_distillation", "loss_prior"}
    targets = batch["targets"]
    assert losses["loss_cls"].item() == pytest.approx(
        cross_entropy_loss(seen["cls_outputs"], targets, 0.0).item()
    )
    triplet = triplet_loss(seen["features"], targets, 0.0, False, True)
    assert losses["loss_triplet"].item() == pytest.approx(triplet.item())
    with torch.no_grad():
        own = model.interpreter.norm(model.interpreter.blocks[0](seen["middle"]))[:, 1:]
        grid = own.reshape(N, 4, 2, 16).permute(0, 3, 1, 2)  # 32 x 16 pixels are 4 rows of 2 patches
        logits = model.interpreter.maps[1](model.interpreter.maps[0](grid))
    components = np.zeros((K, N, N))
    for k in range(K):
        features = torch.zeros(N, 16)
        for i in range(N):
            for p in range(8):
                x = logits[i, k, p // 2, p % 2].item()
                features[i] += (math.exp(x) if x < 0 else math.sqrt(1 + x)) * seen["last"][i, 1 + p] / 8
        components[k] = torch.cdist(features, features).numpy() / K
    target = torch.cdist(seen["last"][:, 0], seen["last"][:, 0]).numpy()
    gap = np.abs(components.sum(0) - target)
    np.fill_diagonal(gap, 0)
    assert losses["loss_distillation"].item() == pytest.approx(3.0 * gap.mean(), rel=1e-4)
    prior = naive_prior(components, batch["attributes"].tolist())
    assert losses["loss_prior"].item() == pytest.approx(0.2 * prior, rel=1e-3)


def test_permuted_attributes_change_the_prior_and_nothing_else(tmp_path):
    model, batch = tiny_model(tmp_path), tiny_batch()
    one = losses_of(model, batch)
    batch["attributes"] = batch["attributes"].roll(1, dims=1)
    other = losses_of(model, batch)
    assert one["loss_prior"].item() != pytest.approx(other["loss_prior"].item(), rel=1e-3)
    for name in ("loss_cls", "loss_triplet", "loss_distillation"):
        assert one[name].item() == pytest.approx(other[name].item(), rel=1e-5)


@pytest.mark.parametrize("name", ["loss_distillation", "loss_prior"])
def test_both_losses_train_the_interpreter_and_the_vit(tmp_path, name):
    model = tiny_model(tmp_path)
    losses_of(model, tiny_batch())[name].backward()
    for part in (model.interpreter, model.backbone):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    assert all(p.grad is None for p in model.heads.parameters())


def test_maps_train_the_blocks_that_the_interpreter_shares(tmp_path):
    model = tiny_model(tmp_path)
    whole = model.components
    model.components = lambda shared, patches: whole(shared, patches.detach())
    losses_of(model, tiny_batch())["loss_prior"].backward()
    first, second = (
        sum(p.grad.abs().sum() for p in b.parameters() if p.grad is not None) for b in model.backbone.blocks
    )
    assert first > 0
    assert second == 0  # the interpreter has a copy of its own


def test_the_distance_of_the_target_teaches_and_is_not_taught(tmp_path):
    model, batch = tiny_model(tmp_path), tiny_batch()
    tokens = []

    def keep(module, inputs, output):
        output.retain_grad()
        tokens.append(output)

    model.backbone.norm.register_forward_hook(keep)
    losses_of(model, batch)["loss_distillation"].backward()
    assert tokens[0].grad[:, 0].abs().sum() == 0  # class tokens
    assert tokens[0].grad[:, 1:].abs().sum() > 0  # patch tokens


def test_distillation_fits_the_distances(tmp_path):
    """The interpreter alone brings the sum of its components to the distances of the ViT."""
    model, batch = tiny_model(tmp_path), tiny_batch()
    optimizer = torch.optim.Adam(model.interpreter.parameters(), lr=1e-2)
    gaps = []
    for _ in range(20):
        loss = losses_of(model, batch)["loss_distillation"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gaps.append(loss.item())
    assert gaps[-1] < 0.5 * gaps[0]


@pytest.mark.parametrize(
    ("share", "depth", "shared"), [(0.5, 4, 2), (0.5, 1, 0), (0.0, 3, 0), (1.0, 3, 2), (0.5, 3, 1)]
)
def test_the_interpreter_copies_the_blocks_it_does_not_share(tmp_path, share, depth, shared):
    model = tiny_model(tmp_path, "MODEL.EXPLAIN.SHARE", share, "MODEL.BACKBONE.VIT.DEPTH", depth)
    copies, blocks = model.interpreter.blocks, model.backbone.blocks
    assert (model.shared, len(copies)) == (shared, depth - shared)
    for mine, theirs in zip(copies.parameters(), blocks[shared:].parameters()):
        assert torch.equal(mine, theirs)
        assert mine is not theirs
    assert set(losses_of(model, tiny_batch())) >= {"loss_distillation", "loss_prior"}


def test_at_test_time_it_is_the_vit_baseline(tmp_path):
    model, images = tiny_model(tmp_path), tiny_batch()["images"]
    base = vif.VIFTrainer.build_model(
        tiny_cfg("AGReIDv1/vit.yml", tmp_path, "MODEL.HEADS.NUM_CLASSES", 4, "MODEL.BACKBONE.VIT.DEPTH", 2)
    )
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("interpreter.")}
    base.load_state_dict(state)
    model.interpreter.register_forward_hook(lambda *_: pytest.fail("the interpreter ran"))
    with torch.no_grad():
        found, expected = model.eval()({"images": images.clone()}), base.eval()({"images": images.clone()})
    assert torch.equal(found, expected)
    assert found.shape == (N, 16)


def test_a_forward_pass_leaves_no_hook_behind(tmp_path):
    model = tiny_model(tmp_path)
    losses_of(model, tiny_batch())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


# ---- errors


def test_a_batch_without_attributes(tmp_path):
    batch = tiny_batch()
    del batch["attributes"]
    with pytest.raises(
        DataError, match=r"trains on attributes and the batch has none; set DATALOADER\.LABELS"
    ):
        losses_of(tiny_model(tmp_path), batch)


def test_another_number_of_attributes(tmp_path):
    model = tiny_model(tmp_path, "MODEL.EXPLAIN.NUM_ATTRIBUTES", 7)
    with pytest.raises(
        ConfigError, match=r"NUM_ATTRIBUTES=7 and the training set has 5; set it to that number"
    ):
        losses_of(model, tiny_batch())


def test_another_backbone(tmp_path):
    resnet = ["MODEL.BACKBONE.DEPTH", "18x", "MODEL.BACKBONE.FEAT_DIM", 512]
    cfg = tiny_cfg("AGReIDv1/explain.yml", tmp_path, "MODEL.BACKBONE.NAME", "build_resnet_backbone", *resnet)
    with pytest.raises(
        ConfigError, match=r"VisionTransformer, not of ResNet; set MODEL\.BACKBONE\.NAME to build_vit"
    ):
        vif.VIFTrainer.build_model(cfg)


@pytest.mark.parametrize(
    ("name", "labels"),
    [("AGReIDv1/explain.yml", ()), ("AGReIDv1/vit.yml", ("attributes",)), ("CARGO/vdt.yml", ("attributes",))],
)
def test_attributes_and_explain_need_each_other(tmp_path, name, labels):
    with pytest.raises(
        ConfigError, match=r"DATALOADER\.LABELS=.* does not go with MODEL\.META_ARCHITECTURE="
    ):
        vif.check_config(tiny_cfg(name, tmp_path, "DATALOADER.LABELS", labels))


# ---- end to end


@pytest.mark.parametrize("dataset", DATASETS)
def test_its_configs_train_and_evaluate(tmp_path, dataset):
    trainer = vif.VIFTrainer(tiny_cfg(f"{dataset}/explain.yml", tmp_path))
    trainer.resume_or_load(resume=False)
    before = {k: v.clone() for k, v in trainer.model.interpreter.named_parameters()}
    results = trainer.train()
    assert all(0 < scores["mAP"] <= 100 for scores in results[dataset].values())
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    logged = {k for line in lines for k, v in line.items() if not isinstance(v, float) or math.isfinite(v)}
    assert {"loss_distillation", "loss_prior", "loss_cls", "loss_triplet"} <= logged
    assert [k for k, v in trainer.model.interpreter.named_parameters() if torch.equal(before[k], v)] == []
    weights = str(tmp_path / "model_final.pth")
    again = vif.VIFTrainer.evaluate_weights(
        tiny_cfg(f"{dataset}/explain.yml", tmp_path / "again", "MODEL.WEIGHTS", weights)
    )
    assert again == results


def test_cargo_ships_no_config_for_want_of_attributes():
    assert {path.parent.name for path in CONFIGS.glob("*/explain.yml")} == set(DATASETS)
