"""Weights in: names, networks, the report, what is refused, PRETRAIN_PATH."""

from functools import partial

import vif
import pytest
import torch
import torchvision
from vif import compat
from fastreid.config import get_cfg
from fastreid.modeling.backbones import BACKBONE_REGISTRY, build_backbone, vision_transformer
from fastreid.modeling.backbones.vision_transformer import VisionTransformer
from safetensors.torch import save_file
from vif.errors import ConfigError, DataError
from vif.weights import align, fit, load_weights

from tests.small_networks import Network, same, vit, weights

# ---- names


def test_align_takes_the_prefixes_by_which_most_names_meet():
    wanted = {"backbone.a", "backbone.b", "heads.weight"}
    assert align(["a", "b"], wanted) == {"a": "backbone.a", "b": "backbone.b"}
    assert align(["module.heads.weight", "module.backbone.a"], wanted) == {
        "module.heads.weight": "heads.weight",
        "module.backbone.a": "backbone.a",
    }
    assert align(["backbone.a", "backbone.b", "heads.weight"], {"a", "b"}) == {
        "backbone.a": "a",
        "backbone.b": "b",
    }
    assert align(["model.a"], {"model.a", "a"}) == {"model.a": "model.a"}
    assert align(["x"], {"a"}) == {"x": "x"}
    assert align([], {"a"}) == {}


# ---- whole networks


def test_another_number_of_classes_is_left_out_and_reported(caplog):
    source, target = Network(vit(32, 16, seed=1), classes=7), Network(vit(32, 16, seed=2), classes=4)
    before = target.heads.weight.clone()
    with caplog.at_level("INFO"):
        report = load_weights(target, weights(source.state_dict(), "market.pth"))
    assert torch.equal(target.heads.weight, before)
    same(target.backbone.state_dict(), source.backbone.state_dict())
    assert torch.equal(target.heads.bottleneck[0].weight, source.heads.bottleneck[0].weight)
    assert report.left_out == {"heads.weight": "7 x 16 there and 4 x 16 here"}
    assert report.missing == ["heads.weight"]
    count = len(source.state_dict())
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        (
            "WARNING",
            f"market.pth: {count - 1} of {count} tensors of the network loaded; left out, 7 x 16 there and "
            "4 x 16 here: heads.weight; as they were before: heads.weight",
        )
    ]


def test_a_load_without_a_remark_is_no_warning(caplog):
    source = vit(32, 16)
    with caplog.at_level("INFO"):
        load_weights(vit(32, 16), weights(source.state_dict()))
    count = len(source.state_dict())
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", f"file.pth: {count} of {count} tensors of the network loaded")
    ]


def test_a_long_report_names_the_first_keys_and_counts_the_rest():
    fewer = vit(32, 16, depth=1).state_dict()
    _, report = fit(weights({**fewer, "head.weight": torch.zeros(2, 16)}), vit(32, 16))
    lacking = [key for key in vit(32, 16).state_dict() if key.startswith("blocks.1.")]
    assert report.missing == lacking
    assert (
        f"left out, no such weight in the network: head.weight; as they were before: {lacking[0]}, "
        in str(report)
    )
    assert str(report).endswith(f"{lacking[7]} and {len(lacking) - 8} more")


def test_counters_of_batch_norm_are_not_missed():
    source = Network(vit(32, 16)).state_dict()
    del source["heads.bottleneck.0.num_batches_tracked"]
    assert fit(weights(source), Network(vit(32, 16)))[1].missing == []


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"fc.weight": torch.zeros(3), "fc.bias": torch.zeros(3)},
            r"file.pth: nothing in it fits the backbone\. It holds fc.weight, fc.bias; the backbone wants "
            r"backbone.cls_token, backbone.pos_embed, .* and \d+ more\. Take weights",
        ),
        ({"heads.weight": torch.zeros(4, 16)}, r"nothing in it fits the backbone\. It holds heads.weight;"),
        (
            {k: torch.zeros([2 * n for n in v.shape]) for k, v in vit(32, 16).state_dict().items()},
            r"nothing in it fits .* Shapes: cls_token 2 x 2 x 32 there and 1 x 1 x 16 here, ",
        ),
    ],
)
def test_a_file_of_which_nothing_fits_the_backbone_is_refused_and_changes_nothing(tensors, message):
    model = Network(vit(32, 16))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(DataError, match=message):
        load_weights(model, weights(tensors))
    same(model.state_dict(), before)


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("visual.ln_pre.weight", r"a norm before the blocks \(CLIP\)"),
        ("norm_pre.weight", r"a norm before the blocks \(CLIP\)"),
        ("blocks.0.ls1.gamma", "layer scale"),
        ("blocks.0.gamma_1", "layer scale"),
        ("reg_token", "register tokens"),
        ("register_tokens", "register tokens"),
        ("attn_pool.latent", "attention pooling"),
        ("blocks.0.attn.q_norm.weight", "norms of queries and keys"),
    ],
)
def test_a_transformer_of_another_kind_is_refused_with_the_backbone_that_takes_it(key, what):
    tensors = {**vit(32, 16).state_dict(), key: torch.zeros(16)}
    message = (
        rf"file.pth is of a transformer with {what}.* Set MODEL.BACKBONE.NAME to build_vif_timm_backbone"
    )
    for model in (vit(32, 16), Network(vit(32, 16))):
        with pytest.raises(DataError, match=message):
            load_weights(model, weights(tensors))


def test_a_transformer_without_a_class_token_is_refused():
    tensors = vit(32, 16).state_dict()
    del tensors["cls_token"]
    with pytest.raises(DataError, match="of a transformer with no class token"):
        load_weights(vit(32, 16), weights(tensors))


# ---- PRETRAIN_PATH


def config(*opts):
    cfg = get_cfg()
    vif.add_vif_config(cfg)
    cfg.merge_from_list(["MODEL.BACKBONE.PRETRAIN", True, "INPUT.SIZE_TRAIN", [64, 32], *opts])
    return cfg


@pytest.mark.parametrize("depth", ["small", "base"])
@pytest.mark.parametrize("side", [64, 96])
def test_fastreids_vit_loads_what_fastreids_own_loader_loads(depth, side, tmp_path, monkeypatch):
    """`build_vit_backbone` under its registered name, against the function itself, on jx's format."""
    monkeypatch.setattr(vision_transformer, "VisionTransformer", partial(VisionTransformer, embed_dim=32))
    opts = ["MODEL.BACKBONE.NAME", "build_vit_backbone", "MODEL.BACKBONE.DEPTH", depth]
    opts += ["MODEL.BACKBONE.STRIDE_SIZE", (16, 16)]
    plain = config(*opts, "MODEL.BACKBONE.PRETRAIN", False, "INPUT.SIZE_TRAIN", [side, side])
    source = vision_transformer.build_vit_backbone(plain).state_dict()
    extra = {"head.weight": torch.zeros(10, 32), "head.bias": torch.zeros(10), "norm.extra": torch.zeros(2)}
    torch.save({"model": {**source, **extra}}, tmp_path / "jx.pth")
    cfg = config(*opts, "MODEL.BACKBONE.PRETRAIN_PATH", str(tmp_path / "jx.pth"))
    found = build_backbone(cfg).state_dict()
    same(found, vision_transformer.build_vit_backbone(cfg).state_dict())
    assert torch.equal(found["blocks.3.mlp.fc1.weight"], source["blocks.3.mlp.fc1.weight"])


def test_a_resnet_loads_a_local_file(tmp_path):
    source = torchvision.models.resnet18().state_dict()
    save_file(source, tmp_path / "resnet18.safetensors")
    opts = ["MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.BACKBONE.DEPTH", "18x"]
    cfg = config(*opts, "MODEL.BACKBONE.PRETRAIN_PATH", str(tmp_path / "resnet18.safetensors"))
    found = build_backbone(cfg).state_dict()
    del source["fc.weight"], source["fc.bias"]
    same(found, source)
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    cfg.MODEL.BACKBONE.PRETRAIN_PATH = str(tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"other.pth: nothing in it fits the backbone\. It holds x;"):
        build_backbone(cfg)


def test_fastreids_backbones_are_wrapped_once_and_a_users_own_never():
    def build_mine(cfg):
        return "mine"

    BACKBONE_REGISTRY.register(build_mine)
    try:
        before = dict(BACKBONE_REGISTRY._obj_map)
        compat.install()
        assert before == BACKBONE_REGISTRY._obj_map
        assert before["build_mine"] is build_mine
        assert before["build_osnet_backbone"].__wrapped__.__module__ == "fastreid.modeling.backbones.osnet"
    finally:
        del BACKBONE_REGISTRY._obj_map["build_mine"]


@pytest.mark.parametrize("name", ["build_vif_vit_backbone", "build_vdt_backbone"])
def test_a_transformer_of_ours_needs_a_file_where_it_shall_be_pretrained(name):
    with pytest.raises(ConfigError, match=r"PRETRAIN=True without a PRETRAIN_PATH\. Download .* timm://vit"):
        build_backbone(config("MODEL.BACKBONE.NAME", name))


def test_one_seed_gives_one_network_with_and_without_pretrained_weights(tmp_path):
    """Loading draws no random numbers, so what comes after the backbone starts alike."""
    torch.save(vit(64, 32).state_dict(), tmp_path / "vit.pth")
    sizes = ["EMBED_DIM", 16, "DEPTH", 2, "NUM_HEADS", 2, "PATCH_SIZE", 8]
    opts = [x if i % 2 else f"MODEL.BACKBONE.VIT.{x}" for i, x in enumerate(sizes)]
    opts += ["MODEL.BACKBONE.NAME", "build_vif_vit_backbone", "MODEL.BACKBONE.STRIDE_SIZE", (8, 8)]
    opts += ["MODEL.BACKBONE.PRETRAIN_PATH", str(tmp_path / "vit.pth")]
    draws = []
    for pretrain in (True, False):
        torch.manual_seed(0)
        build_backbone(config(*opts, "MODEL.BACKBONE.PRETRAIN", pretrain))
        draws.append(torch.rand(4))
    assert torch.equal(*draws)
