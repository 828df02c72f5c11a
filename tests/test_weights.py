"""Weights in: files of every kind, names, position embeddings, the report, and what is refused."""

import json
import pickle
import sys
from collections import OrderedDict
from functools import partial

import vif
import cv2
import numpy as np
import pytest
import torch
import torchvision
from vif import compat
from fastreid.config import get_cfg
from fastreid.modeling.backbones import BACKBONE_REGISTRY, build_backbone, vision_transformer
from fastreid.modeling.backbones.vision_transformer import VisionTransformer, resize_pos_embed
from safetensors.torch import save_file
from torch import nn
from vif.errors import ConfigError, DataError
from vif.modeling.vdt import ViewDecoupledTransformer
from vif.positions import position_grids
from vif.weight_files import GRIDS, Weights, load_tensors, read_weights
from vif.weights import align, fit, load_weights

SIZE = {"patch_size": 8, "stride_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "qkv_bias": True}


def vit(height, width, kind=VisionTransformer, seed=0, **changes):
    """A small ViT; no two of its weights share a value."""
    torch.manual_seed(seed)
    model = kind(img_size=[height, width], **{**SIZE, **changes})
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.eval()


def weights(tensors, source="file.pth", grids=None):
    return Weights(source, dict(tensors), grids or {}, {})


class Network(nn.Module):
    """A whole network: backbone, BNNeck, classifier, as fastreid names them."""

    def __init__(self, backbone, classes=4):
        super().__init__()
        self.backbone = backbone
        self.heads = nn.Module()
        self.heads.bottleneck = nn.Sequential(nn.BatchNorm2d(16))
        self.heads.weight = nn.Parameter(torch.randn(classes, 16))


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


# ---- files


def in_model(tensors):
    return {"model": tensors, "optimizer": {"state": {}}, "epoch": 3}


FORMATS = {
    "bare": lambda t: t,
    "model": in_model,
    "state_dict": lambda t: {"state_dict": t, "epoch": 3},
    "both": lambda t: {"model": {"state_dict": t}},
    "teacher": lambda t: {"student": {"x": torch.zeros(1)}, "teacher": t},
    "effnet": lambda t: {"model_state": t},
    "module.": lambda t: {f"module.{k}": v for k, v in t.items()},
    "model + module.": lambda t: in_model({f"module.{k}": v for k, v in t.items()}),
    "backbone.": lambda t: {f"backbone.{k}": v for k, v in t.items()},
    "compiled": lambda t: {f"_orig_mod.module.backbone.{k}": v for k, v in t.items()},
    "open_clip with a plain trunk": lambda t: {f"visual.trunk.{k}": v for k, v in t.items()},
}


@pytest.mark.parametrize("ending", ["pth", "pt", "bin", "safetensors"])
@pytest.mark.parametrize("wrap", FORMATS)
def test_every_format_gives_the_same_backbone(wrap, ending, tmp_path):
    source, target = vit(32, 16, seed=1), vit(32, 16, seed=2)
    content, path = FORMATS[wrap](source.state_dict()), str(tmp_path / f"file.{ending}")
    if ending != "safetensors":
        torch.save(content, path)
    elif all(isinstance(value, torch.Tensor) for value in content.values()):
        save_file(content, path)
    else:
        pytest.skip("a .safetensors file holds no wrappers")
    report = load_weights(target, read_weights(path))
    same(target.state_dict(), source.state_dict())
    assert (report.left_out, report.missing, report.resized) == ({}, [], {})
    assert report.loaded == list(source.state_dict())
    whole = Network(vit(32, 16, seed=3))
    load_weights(whole, read_weights(path))
    same(whole.backbone.state_dict(), source.state_dict())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_trainers_checkpoint_is_read_in_both_formats_of_torch(zipped, tmp_path):
    """Floats, tuples and words beside the tensors, as optimizers and schedulers have them."""
    rest = {
        "optimizer": {"lr": 0.1, "betas": (0.9, 0.999), "on": True, "name": "x"},
        "epoch": 3,
        "none": None,
    }
    tensors = {"a": torch.ones(2), "half": torch.ones(2).half(), "count": torch.tensor(7)}
    state = OrderedDict(tensors, parameter=nn.Parameter(torch.ones(1)))
    torch.save({"model": state, **rest}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = read_weights(str(tmp_path / "a.pth"))
    same({key: found.tensors[key] for key in tensors}, tensors)
    assert found.rest == rest


class Code:
    def __reduce__(self):
        return (print, ("this code ran",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("code.pth", {"model": Code()}, r"code.pth holds pickled code .* loading it could run anything"),
        ("module.pth", nn.Linear(2, 2), r"module.pth holds pickled code .*plain state dict of tensors"),
        ("empty.pth", {}, r"empty.pth holds no tensors by name but: dict\. A state dict is needed"),
        ("wrapped.pth", {"model": {}}, r"wrapped.pth holds no tensors by name"),
        ("list.pth", [torch.zeros(2)], r"list.pth holds no tensors by name but: list"),
        ("numbers.pth", {"model": {"lr": 0.1, "step": 3}}, r"holds no tensors by name but: lr, step"),
        ("tensor.pth", torch.zeros(2), r"holds no tensors by name but: Tensor"),
    ],
)
def test_a_file_without_tensors_by_name_is_refused(name, content, message, tmp_path, capsys):
    torch.save(content, tmp_path / name)
    with pytest.raises(DataError, match=message):
        read_weights(str(tmp_path / name))
    assert "this code ran" not in capsys.readouterr().out


def test_torn_files_and_noise_are_refused_by_name(tmp_path, capsys):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pth")
    torch.save({"a": torch.zeros(1000)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file({"a": torch.zeros(1000)}, tmp_path / "whole.safetensors")
    rng = np.random.default_rng(0)
    for name in ("whole.pth", "old.pth", "whole.safetensors"):
        content = (tmp_path / name).read_bytes()
        for length in (0, 1, 9, len(content) // 2, len(content) - 1):
            path = tmp_path / f"torn{length}.{name.split('.')[1]}"
            path.write_bytes(content[:length])
            with pytest.raises(DataError, match=path.name):
                read_weights(str(path))
    for length in range(1, 60):
        (tmp_path / "noise.pth").write_bytes(rng.bytes(length))
        with pytest.raises(DataError, match="noise.pth"):
            load_tensors(str(tmp_path / "noise.pth"))
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Code()))
    with pytest.raises(DataError, match="raw.pth"):
        load_tensors(str(tmp_path / "raw.pth"))
    assert "this code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors"])
def test_a_missing_file_says_which_keys_to_check(name, tmp_path):
    with pytest.raises(DataError, match=rf"{name} does not exist; check MODEL.WEIGHTS or .*PRETRAIN_PATH"):
        read_weights(str(tmp_path / name))


def test_torchscript_is_refused_with_the_way_out(tmp_path):
    path = str(tmp_path / "clip.pt")
    torch.jit.script(nn.Linear(2, 2)).save(path)
    with pytest.raises(DataError, match=r"clip.pt is a TorchScript archive, .*torch.jit.load\(path, 'cpu'\)"):
        read_weights(path)
    torch.save(torch.jit.load(path, "cpu").state_dict(), tmp_path / "weights.pth")  # as the message says
    assert set(read_weights(str(tmp_path / "weights.pth")).tensors) == {"weight", "bias"}


def test_without_safetensors_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(DataError, match="a.safetensors needs the package .*`pip install safetensors`"):
        read_weights(str(tmp_path / "a.safetensors"))


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


# ---- position embeddings


def cv2_resized(positions, old, new):
    """Patches (n, D) of grid `old` on grid `new`, bilinear: OpenCV's."""
    grid = positions.numpy().reshape(*old, -1)
    layers = [
        cv2.resize(grid[..., d], new[::-1], interpolation=cv2.INTER_LINEAR) for d in range(grid.shape[2])
    ]
    return np.stack(layers, axis=-1).reshape(new[0] * new[1], -1)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((32, 32), (32, 16)),
        ((64, 64), (48, 24)),
        ((64, 64), (48, 16)),
        ((64, 32), (48, 24)),
        ((32, 16), (64, 32)),
        ((48, 16), (64, 16)),
    ],
)
def test_positions_of_another_grid_are_resized_bilinearly(source, target):
    a, b = vit(*source, seed=1), vit(*target, seed=2)
    old, new = tuple(n // 8 for n in source), tuple(n // 8 for n in target)
    report = load_weights(b, weights(a.state_dict()))
    assert report.resized == {"pos_embed": "{} x {} -> {} x {}".format(*old, *new)}
    assert torch.equal(b.pos_embed[:, :1], a.pos_embed[:, :1])
    expected = cv2_resized(a.pos_embed[0, 1:].detach(), old, new)
    np.testing.assert_allclose(b.pos_embed[0, 1:].detach().numpy(), expected, atol=1e-5)
    if source[0] == source[1]:  # the only grids that fastreid knows
        assert torch.equal(b.pos_embed, resize_pos_embed(a.pos_embed, b.pos_embed, *new))


def test_a_noted_grid_decides_where_the_number_of_patches_misleads(tmp_path):
    """18 x 8 patches could be 12 x 12, and 6 x 4 are as many as 8 x 3."""
    for source, target in (((144, 64), (128, 64)), ((48, 32), (64, 24))):
        a, b = vit(*source, seed=1), vit(*target, seed=2)
        assert position_grids(a) == {"pos_embed": [n // 8 for n in source]}
        torch.save({"model": a.state_dict(), GRIDS: position_grids(a)}, tmp_path / "noted.pth")
        save_file(a.state_dict(), tmp_path / "noted.safetensors", {GRIDS: json.dumps(position_grids(a))})
        old, new = tuple(n // 8 for n in source), tuple(n // 8 for n in target)
        expected = cv2_resized(a.pos_embed[0, 1:].detach(), old, new)
        for name in ("noted.pth", "noted.safetensors"):
            noted = read_weights(str(tmp_path / name))
            assert GRIDS not in noted.rest
            load_weights(b, noted)
            np.testing.assert_allclose(b.pos_embed[0, 1:].detach().numpy(), expected, atol=1e-5)


def test_half_precision_weights_load_as_float32():
    a, b = vit(32, 32).half(), vit(32, 16)
    load_weights(b, weights(a.state_dict()))
    assert b.pos_embed.dtype == torch.float32
    expected = cv2_resized(a.pos_embed[0, 1:].detach().float(), (4, 4), (4, 2))
    np.testing.assert_allclose(b.pos_embed[0, 1:].detach().numpy(), expected, atol=1e-5)


def test_the_distillation_token_of_deit_is_dropped_with_its_position():
    tensors = dict(vit(32, 32).state_dict())
    plain, dist = tensors["pos_embed"], torch.full((1, 1, 16), 9.0)
    tensors.update(
        dist_token=torch.zeros(1, 1, 16), pos_embed=torch.cat([plain[:, :1], dist, plain[:, 1:]], 1)
    )
    for height, width in ((32, 32), (32, 16)):
        model, expected = vit(height, width, seed=2), vit(height, width, seed=2)
        report = load_weights(model, weights(tensors))
        load_weights(expected, weights(vit(32, 32).state_dict()))
        assert torch.equal(model.pos_embed, expected.pos_embed)
        assert "tokens cls_token dist_token -> cls_token" in report.resized["pos_embed"]
        assert report.left_out == {"dist_token": "no such weight in the network"}


def test_vdts_checkpoints_load_into_ours_and_into_a_plain_vit():
    """Its published names: backbone.view_token, heads, view_heads; two tokens before the patches."""
    source = vit(32, 16, ViewDecoupledTransformer)
    tensors = {f"module.{key}": value for key, value in Network(source).state_dict().items()}
    tensors["module.view_heads.weight"] = torch.zeros(2, 16)
    ours, plain = vit(32, 16, ViewDecoupledTransformer, seed=1), vit(32, 16, seed=1)
    assert load_weights(ours, weights(tensors)).missing == []
    same(ours.state_dict(), source.state_dict())
    report = load_weights(plain, weights(tensors))
    assert torch.equal(plain.pos_embed[:, 1:], source.pos_embed[:, 2:])
    assert torch.equal(plain.pos_embed[:, 0], source.pos_embed[:, 0])
    assert report.missing == []
    assert "module.backbone.view_token" in report.left_out
    larger = vit(64, 32, ViewDecoupledTransformer, seed=1)
    load_weights(larger, weights(tensors))
    assert torch.equal(larger.pos_embed[:, :2], source.pos_embed[:, :2])
    expected = cv2_resized(source.pos_embed[0, 2:].detach(), (4, 2), (8, 4))
    np.testing.assert_allclose(larger.pos_embed[0, 2:].detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 16), (1, 0, 16), (2, 17, 16), (1, 17, 8), (17, 16), (0,), ()])
def test_positions_of_an_odd_shape_are_left_out(shape):
    tensors = {**vit(32, 16).state_dict(), "pos_embed": torch.zeros(shape)}
    _, report = fit(weights(tensors), vit(32, 16))
    assert list(report.left_out) == report.missing == ["pos_embed"]
    assert report.left_out["pos_embed"].endswith(" there and 1 x 9 x 16 here")
    assert report.resized == {}


def test_a_noted_grid_that_does_not_go_with_the_patches_is_not_believed():
    source = vit(32, 32)
    noted = weights(source.state_dict(), grids={"pos_embed": (5, 5)})
    assert fit(noted, vit(32, 16))[1].resized == {"pos_embed": "4 x 4 -> 4 x 2"}


def test_patches_as_rows_are_kernels():
    source = vit(32, 16)
    tensors = dict(source.state_dict())
    tensors["patch_embed.proj.weight"] = tensors["patch_embed.proj.weight"].flatten(1)
    target = vit(32, 16, seed=1)
    load_weights(target, weights(tensors))
    same(target.state_dict(), source.state_dict())


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
