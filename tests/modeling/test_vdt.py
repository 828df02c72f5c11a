"""VDT: token subtraction, losses, pre-trained weights, and that its four configs train and evaluate."""

import json
from pathlib import Path

import vif
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.backbones.vision_transformer import VisionTransformer, build_vit_backbone
from fastreid.modeling.losses import triplet_loss
from fastreid.utils.events import EventStorage
from vif.errors import ConfigError, DataError
from vif.modeling.vdt import ViewDecoupledTransformer, orthogonal_loss
from vif.weight_files import read_weights
from vif.weights import load_weights

from tests import fake_trees
from tests.tiny import CONFIGS, tiny_cfg

DATASETS = ("CARGO", "AGReIDv1", "AGReIDv2", "SynthAG")
SIZE = {"patch_size": 8, "stride_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "qkv_bias": True}


@pytest.fixture(scope="module", autouse=True)
def trees(tmp_path_factory):
    with fake_trees.installed(tmp_path_factory.mktemp("data")) as root:
        yield root


def tiny_model(tmp_path, *opts):
    cfg = tiny_cfg("CARGO/vdt.yml", tmp_path, "MODEL.HEADS.NUM_CLASSES", 4, *opts)
    torch.manual_seed(0)
    model = vif.VIFTrainer.build_model(cfg)
    torch.nn.init.normal_(model.backbone.view_token)
    return model


def tiny_batch():
    images = torch.rand(8, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 255
    return {"images": images, "targets": torch.arange(8) // 2, "views": torch.arange(8) % 2}


def naive_tokens(weights, images, depth, heads):
    """Tokens (B, T, D) after each block and its subtraction, then after the last norm, from weights alone."""

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdim=True)
        x = x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-6)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    kernel = weights["patch_embed.proj.weight"]
    n, size = kernel.shape[-1], kernel.shape[0]
    patches = images.unfold(2, n, n).unfold(3, n, n)  # (B, 3, rows, columns, n, n)
    patches = torch.einsum("bcijhw,dchw->bijd", patches, kernel) + weights["patch_embed.proj.bias"]
    first = [weights[name].expand(len(images), 1, size) for name in ("cls_token", "view_token")]
    x = torch.cat([*first, patches.flatten(1, 2)], dim=1) + weights["pos_embed"]
    steps = []
    for k in range(depth):
        q, key, v = linear(norm(x, f"blocks.{k}.norm1"), f"blocks.{k}.attn.qkv").chunk(3, dim=-1)
        parts = []
        for a, b, c in zip(q.chunk(heads, -1), key.chunk(heads, -1), v.chunk(heads, -1)):
            parts.append(torch.softmax(a @ b.transpose(1, 2) / (size / heads) ** 0.5, -1) @ c)
        x = x + linear(torch.cat(parts, -1), f"blocks.{k}.attn.proj")
        hidden = linear(norm(x, f"blocks.{k}.norm2"), f"blocks.{k}.mlp.fc1")
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        x = x + linear(hidden, f"blocks.{k}.mlp.fc2")
        x = x.clone()
        for image in range(len(x)):
            x[image, 0] = x[image, 0] - x[image, 1]
        steps.append(x)
    return steps, norm(x, "norm")


def test_the_view_token_is_subtracted_after_every_block_and_after_the_norm():
    torch.manual_seed(0)
    model = ViewDecoupledTransformer(img_size=[32, 16], **SIZE).eval()
    for parameter in model.parameters():  # so that no bias, no norm and no token is trivial
        torch.nn.init.normal_(parameter, std=0.3)
    seen = []
    for module in [*model.blocks[1:], model.norm]:
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.rand(2, 3, 32, 16)
    with torch.no_grad():
        features, view = model(images)
        steps, last = naive_tokens(dict(model.named_parameters()), images, depth=3, heads=2)
    assert len(seen) == len(steps) == 3
    for found, expected in zip(seen, steps):
        torch.testing.assert_close(found, expected[:, : found.shape[1]], rtol=1e-4, atol=1e-5)
    assert features.shape == view.shape == (2, 16, 1, 1)
    torch.testing.assert_close(features[..., 0, 0], last[:, 0] - last[:, 1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(view[..., 0, 0], last[:, 1], rtol=1e-4, atol=1e-5)


def test_the_default_size_is_fastreids_vit_b16_with_one_more_token(tmp_path):
    from fastreid.config import get_cfg

    cfg = get_cfg()
    vif.add_vif_config(cfg)
    cfg.merge_from_file(str(CONFIGS / "CARGO" / "vdt.yml"))
    cfg.merge_from_list(["MODEL.BACKBONE.PRETRAIN", False])
    with torch.no_grad():
        ours, plain = BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg), build_vit_backbone(cfg)
    shapes = [{k: tuple(v.shape) for k, v in model.state_dict().items()} for model in (ours, plain)]
    assert shapes[0].pop("view_token") == (1, 1, 768)
    assert (shapes[0].pop("pos_embed"), shapes[1].pop("pos_embed")) == ((1, 130, 768), (1, 129, 768))
    assert shapes[0] == shapes[1]
    assert str(ours.blocks) == str(plain.blocks)  # drop path, dropout
    assert ours.blocks[0].attn.num_heads == plain.blocks[0].attn.num_heads == 12
    assert ours.blocks[0].attn.scale == plain.blocks[0].attn.scale


@pytest.mark.parametrize("wrapped", [None, "model", "state_dict"])
def test_a_plain_vit_loads_with_its_positions_resized(wrapped, tmp_path):
    plain = VisionTransformer(img_size=32, **SIZE).state_dict()
    saved = {**plain, "head.weight": torch.zeros(5, 16)}
    torch.save({wrapped: saved} if wrapped else saved, tmp_path / "vit.pth")
    opts = ["MODEL.BACKBONE.PRETRAIN", True, "MODEL.BACKBONE.PRETRAIN_PATH", str(tmp_path / "vit.pth")]
    cfg = tiny_cfg("CARGO/vdt.yml", tmp_path, "MODEL.BACKBONE.VIT.DEPTH", 3, *opts)
    loaded = vif.VIFTrainer.build_model(cfg).backbone.state_dict()
    assert torch.equal(loaded.pop("view_token"), torch.zeros(1, 1, 16))
    positions, old = loaded.pop("pos_embed")[0].numpy(), plain.pop("pos_embed")[0].numpy()
    assert loaded.keys() == plain.keys()
    assert all(torch.equal(loaded[key], plain[key]) for key in plain)
    np.testing.assert_array_equal(positions[:2], old[:2])  # class; view: the first patch's, as published
    grid = old[1:].reshape(4, 4, 16)
    resized = [cv2.resize(grid[..., d], (2, 4), interpolation=cv2.INTER_LINEAR).ravel() for d in range(16)]
    np.testing.assert_allclose(positions[2:], np.stack(resized, axis=1), atol=1e-6)


def test_positions_of_the_same_grid_are_kept(tmp_path):
    plain = VisionTransformer(img_size=[32, 16], **SIZE).state_dict()
    torch.save(plain, tmp_path / "vit.pth")
    model = ViewDecoupledTransformer(img_size=[32, 16], **SIZE)
    load_weights(model, read_weights(str(tmp_path / "vit.pth")))
    assert torch.equal(model.pos_embed[:, 0], plain["pos_embed"][:, 0])
    assert torch.equal(model.pos_embed[:, 2:], plain["pos_embed"][:, 1:])


def test_weights_of_another_size_are_refused(tmp_path):
    torch.save(VisionTransformer(img_size=32, **{**SIZE, "embed_dim": 8}).state_dict(), tmp_path / "vit.pth")
    with pytest.raises(DataError, match=r"vit.pth: nothing in it fits the backbone\. .*1 x 1 x 8 there and"):
        load_weights(ViewDecoupledTransformer(img_size=[32, 16], **SIZE), read_weights(f"{tmp_path}/vit.pth"))


def test_orthogonal_loss_is_the_mean_absolute_cosine():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 16, 24)).astype(np.float32)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() < 0 < cosines.max()  # else the absolute value is not seen
    loss = orthogonal_loss(torch.from_numpy(a), torch.from_numpy(b))
    assert loss.item() == pytest.approx(np.abs(cosines).mean(), rel=1e-5)
    assert orthogonal_loss(torch.eye(4), torch.eye(4).roll(1, 0)).item() == 0
    assert orthogonal_loss(torch.eye(4), -2 * torch.eye(4)).item() == pytest.approx(1)
    large = torch.full((2, 768), 300.0, dtype=torch.float16)  # its squares do not fit float16
    assert orthogonal_loss(large, large).item() == pytest.approx(1)


@pytest.mark.parametrize("neck", ["before", "after"])
def test_the_four_losses_and_their_weights(neck, tmp_path):
    opts = ["MODEL.VDT.VIEW_WEIGHT", 0.5, "MODEL.VDT.ORTHOGONAL_WEIGHT", 3.0, "MODEL.HEADS.NECK_FEAT", neck]
    model, batch, out = tiny_model(tmp_path, *opts), tiny_batch(), {}
    model.heads.register_forward_hook(lambda _, __, found: out.update(identity=found))
    model.view_heads.register_forward_hook(lambda _, __, found: out.update(view=found))
    model.backbone.register_forward_hook(lambda _, __, found: out.update(tokens=found))
    with EventStorage(0):
        losses = model(batch)
    identity, view = out["identity"], out["view"]
    assert view["cls_outputs"].shape == (8, 2)
    if neck == "before":
        assert torch.equal(identity["features"], out["tokens"][0][..., 0, 0])
        assert torch.equal(view["features"], out["tokens"][1][..., 0, 0])
    cosines = F.normalize(identity["features"]) * F.normalize(view["features"])
    expected = {
        "loss_cls": F.cross_entropy(identity["cls_outputs"], batch["targets"]),
        "loss_triplet": triplet_loss(identity["features"], batch["targets"], 0.0, False, True),
        "loss_view": 0.5 * F.cross_entropy(view["cls_outputs"], batch["views"]),
        "loss_orthogonal": 3.0 * cosines.sum(1).abs().mean(),
    }
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-5), name


def test_the_published_weights():
    """VIEW_LAMBDA of the published configs/CARGO/VDT.yml, typed from there."""
    from fastreid.config import get_cfg

    for dataset in DATASETS:
        cfg = get_cfg()
        vif.add_vif_config(cfg)
        cfg.merge_from_file(str(CONFIGS / dataset / "vdt.yml"))
        assert (cfg.MODEL.VDT.VIEW_WEIGHT, cfg.MODEL.VDT.ORTHOGONAL_WEIGHT) == (0.001, 0.001)


def test_the_view_classifier_learns_from_the_view_loss_alone(tmp_path):
    model = tiny_model(tmp_path)
    torch.nn.init.normal_(model.view_heads.weight)
    with EventStorage(0):
        losses = model(tiny_batch())

    def reaches(loss, parameter):
        (gradient,) = torch.autograd.grad(losses[loss], parameter, retain_graph=True, allow_unused=True)
        return gradient is not None and bool(gradient.abs().max() > 0)

    assert [name for name in losses if reaches(name, model.view_heads.weight)] == ["loss_view"]
    assert [n for n in losses if reaches(n, model.heads.weight)] == ["loss_cls"]
    assert all(reaches(name, model.backbone.view_token) for name in losses)


def test_the_embedding_is_the_bnneck_of_the_view_independent_feature(tmp_path):
    model, images = tiny_model(tmp_path).eval(), tiny_batch()["images"]
    neck = model.heads.bottleneck[0]
    with torch.no_grad():
        for value in (neck.running_mean, neck.weight, neck.bias):
            value.normal_()
        neck.running_var.uniform_(0.5, 2)
        embedding = model({"images": images.clone()}).numpy()
        feature, _ = model.backbone((images - 127.5) / 127.5)
    mean, var, weight, bias = (
        value.detach().numpy() for value in (neck.running_mean, neck.running_var, neck.weight, neck.bias)
    )
    expected = (feature[..., 0, 0].numpy() - mean) / np.sqrt(var + neck.eps) * weight + bias
    np.testing.assert_allclose(embedding, expected, rtol=1e-4, atol=1e-5)


def test_training_without_view_labels_says_what_to_set(tmp_path):
    batch = tiny_batch()
    del batch["views"]
    with pytest.raises(
        DataError, match=r"VDT trains on view labels .* set DATALOADER\.LABELS to \('views',\)"
    ):
        tiny_model(tmp_path)(batch)


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_vdt_config_trains_and_evaluates(dataset, tmp_path, caplog):
    cfg = tiny_cfg(f"{dataset}/vdt.yml", tmp_path)
    with caplog.at_level("INFO"):
        trainer = vif.VIFTrainer(cfg)
    assert "VDT reads, beside identities, these labels: views" in caplog.text
    before = {k: v.clone() for k, v in trainer.model.named_parameters()}
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    assert all(0 < scores["mAP"] <= 100 for scores in results[dataset].values())
    frozen = [k for k, v in trainer.model.named_parameters() if v.requires_grad and torch.equal(before[k], v)]
    assert frozen == []
    lines = [json.loads(line) for line in (Path(tmp_path) / "metrics.json").read_text().splitlines()]
    logged = set().union(*lines)
    assert {"loss_cls", "loss_triplet", "loss_view", "loss_orthogonal", "cls_accuracy"} <= logged
    assert not {"loss_vial", "hard_share"} & logged
    again = vif.VIFTrainer.evaluate_weights(
        tiny_cfg(f"{dataset}/vdt.yml", tmp_path, "MODEL.WEIGHTS", str(tmp_path / "model_final.pth"))
    )
    assert again == results


@pytest.mark.parametrize("name", [f"{d}/{system}.yml" for d in DATASETS for system in ("vit", "vif")])
def test_vif_never_gets_a_label_and_no_config_can_give_it_one(name, tmp_path):
    batch = next(iter(vif.VIFTrainer.build_train_loader(tiny_cfg(name, tmp_path))))
    assert set(batch) == {"images", "targets", "camids", "img_paths", "index", "draws"}
    message = r"LABELS=\('views',\) does not go with MODEL\.META_ARCHITECTURE='VIF', which reads no labels"
    with pytest.raises(ConfigError, match=message):
        vif.check_config(tiny_cfg(name, tmp_path, "DATALOADER.LABELS", ("views",)))


@pytest.mark.parametrize(
    ("name", "opts", "message"),
    [
        (
            "vdt",
            ["DATALOADER.LABELS", ()],
            "'VDT', which trains on the labels views; set DATALOADER.LABELS to",
        ),
        (
            "vdt",
            ["DATALOADER.LABELS", ("views", "attributes")],
            r"LABELS=\('views', 'attributes'\) does not go",
        ),
        (
            "vdt",
            ["MODEL.BACKBONE.NAME", "build_vif_vit_backbone"],
            "VDT and build_vdt_backbone.* need each other",
        ),
        ("vit", ["MODEL.BACKBONE.NAME", "build_vdt_backbone"], "ARCHITECTURE='VIF' does not go with"),
        ("vdt", ["MODEL.LOSSES.NAME", ("VIALLoss",)], "which MODEL.META_ARCHITECTURE='VDT' would ignore"),
        ("vdt", ["MODEL.BACKBONE.FEAT_DIM", 32], "EMBED_DIM=16 and MODEL.BACKBONE.FEAT_DIM=32 must be equal"),
        ("vdt", ["MODEL.BACKBONE.PRETRAIN", True], "PRETRAIN_PATH='weights/jx.*' is no file"),
    ],
)
def test_a_config_that_is_not_vdt_says_why(name, opts, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        vif.check_config(tiny_cfg(f"CARGO/{name}.yml", tmp_path, *opts))
