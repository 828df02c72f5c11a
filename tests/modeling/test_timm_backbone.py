"""Backbones by config: timm's transformers against timm's own features, fastreid's ViT in its sizes."""

import ast
import logging
import sys
from pathlib import Path

import pytest

pytest.importorskip("timm")
import vif
import numpy as np
import timm
import torch
from fastreid.config import get_cfg
from fastreid.modeling.backbones import build_backbone
from fastreid.modeling.backbones.vision_transformer import VisionTransformer
from fastreid.utils.events import EventStorage
from safetensors.torch import save_file
from vif.errors import ConfigError, DataError
from vif.modeling.timm_backbone import TimmBackbone, token_grid
from vif.modeling.timm_models import inspect_model

from tests import fake_trees
from tests.tiny import CONFIGS, tiny_cfg

SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}
VIT, DINOV2, SIGLIP = "vit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_base_patch16_siglip_224"
# every family: class token; two tokens; layer scale; registers; pre-norm; attention pooling; rotary, no table
FAMILIES = [
    VIT,
    "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_224",
    DINOV2,
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch16_clip_quickgelu_224",
    SIGLIP,
    "vit_small_patch16_dinov3",
    "eva02_tiny_patch14_224",
    "beit_base_patch16_224",
]
LEAVES = sorted(CONFIGS.glob("*/vif_*.yml"))


def original(name, **options):
    """timm's model as its authors ship it, with its classifier; no two parameters share a value."""
    torch.manual_seed(0)
    model = timm.create_model(name, **{**SMALL, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def write(path, tensors):
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in tensors.items()}, str(path))
    else:
        torch.save(tensors, path)
    return str(path)


def timm_features(model, images):
    with torch.no_grad():
        return model.forward_head(model.forward_features(images), pre_logits=True)[:, :, None, None]


def ours(name, size, weights=None, stride=None, **options):
    options = {**SMALL, **options}
    stride = stride or inspect_model(name, **options).patch
    return TimmBackbone(name, size, stride, weights, **options).eval()


def features(backbone, images):
    with torch.no_grad():
        return backbone(images)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def config(*opts):
    cfg = get_cfg()
    vif.add_vif_config(cfg)
    cfg.merge_from_file(str(CONFIGS / "CARGO" / "vif.yml"))
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", "build_vif_timm_backbone", "MODEL.BACKBONE.TIMM.NAME", VIT])
    cfg.merge_from_list(["MODEL.BACKBONE.FEAT_DIM", 192, "MODEL.BACKBONE.PRETRAIN", False, *opts])
    return cfg


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_timms_own_at_the_native_size(name, tmp_path):
    source = original(name)
    size = source.patch_embed.img_size
    images = torch.randn(2, 3, *size)
    backbone = ours(name, size, write(tmp_path / "weights.safetensors", source.state_dict()))
    close(features(backbone, images), timm_features(source, images))
    close(features(backbone, images), features(backbone, images))
    assert features(backbone, images).shape == (2, inspect_model(name, **SMALL).feat_dim, 1, 1)


@pytest.mark.parametrize(
    "name", [n for n in FAMILIES if n not in ("beit_base_patch16_224", "eva02_tiny_patch14_224")]
)
def test_a_checkpoint_of_another_size_is_resized_as_timm_does_on_the_fly(name, tmp_path):
    source = original(name)
    patch = source.patch_embed.patch_size[0]
    size = (256, 128) if patch == 16 else (252, 126)
    images = torch.randn(2, 3, *size)
    # second source: the native weights, unchanged, in a model that resamples in every forward pass
    flexible = timm.create_model(name, dynamic_img_size=True, **SMALL).eval()
    flexible.load_state_dict(source.state_dict())
    backbone = ours(name, size, write(tmp_path / "weights.pth", source.state_dict()))
    close(features(backbone, images), timm_features(flexible, images))


def test_position_embeddings_are_resized_bicubically_and_those_of_the_class_token_kept(tmp_path):
    source = original(VIT)
    backbone = ours(VIT, (256, 128), write(tmp_path / "weights.pth", source.state_dict()))
    token, grid = source.pos_embed[:, :1], source.pos_embed[:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, (16, 8), mode="bicubic", antialias=True)
    expected = torch.cat([token, grid.permute(0, 2, 3, 1).reshape(1, 128, -1)], dim=1)
    close(backbone.model.pos_embed.data, expected.data)


@pytest.mark.parametrize(("stride", "grid"), [((16, 16), (16, 8)), ((12, 12), (21, 10)), ((8, 16), (31, 8))])
def test_a_plain_vit_is_fastreids_also_with_overlapping_patches(stride, grid, tmp_path):
    torch.manual_seed(0)
    sizes = {"embed_dim": 48, "depth": 2, "num_heads": 3, "qkv_bias": True}
    reference = VisionTransformer(img_size=(256, 128), stride_size=stride, **sizes).eval()
    assert (reference.patch_embed.num_y, reference.patch_embed.num_x) == grid
    weights = write(tmp_path / "weights.pth", reference.state_dict())
    backbone = ours(VIT, (256, 128), weights, stride=stride)
    images = torch.randn(2, 3, 256, 128)
    torch.testing.assert_close(features(backbone, images), features(reference, images), rtol=1e-5, atol=1e-5)
    assert token_grid((256, 128), (16, 16), stride) == grid


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "vit_small_patch16_rope_224", SIGLIP])
def test_overlapping_patches_reach_every_block(name):
    """Also where positions are rotations: one for each of the 21 x 10 patches."""
    backbone = ours(name, (256, 128), stride=(12, 12))
    tokens = []
    backbone.model.blocks[1].register_forward_hook(lambda _, __, out: tokens.append(out.shape[1]))
    features(backbone, torch.randn(1, 3, 256, 128))
    assert tokens == [21 * 10 + backbone.model.num_prefix_tokens]
    with pytest.raises(AssertionError, match=r"Input height \(240\) doesn't match model \(256\)"):
        backbone(torch.randn(1, 3, 240, 128))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_learns(name):
    backbone = ours(name, (64, 64) if "14" not in name else (56, 56)).train()
    size = backbone.model.patch_embed.img_size
    (backbone(torch.randn(2, 3, *size)) * torch.randn(2, 48, 1, 1)).sum().backward()
    assert [k for k, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_drop_rates_reach_the_model_and_only_training():
    rates = {"DROP_PATH_RATIO": 0.3, "DROP_RATIO": 0.2, "ATT_DROP_RATE": 0.1}
    cfg = config(*[x for key, rate in rates.items() for x in (f"MODEL.BACKBONE.{key}", rate)])
    cfg.merge_from_list(["INPUT.SIZE_TRAIN", [32, 32], "INPUT.SIZE_TEST", [32, 32]])
    model = build_backbone(cfg).model
    drops = [block.drop_path1.drop_prob if i else 0.0 for i, block in enumerate(model.blocks)]
    np.testing.assert_allclose(drops, np.linspace(0, 0.3, 12), atol=1e-6)
    block = model.blocks[3]
    assert (model.pos_drop.p, block.attn.proj_drop.p, block.mlp.drop1.p, block.attn.attn_drop.p) == (
        0.2,
        0.2,
        0.2,
        0.1,
    )
    images = torch.randn(2, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    close(model(images), model(images))


def rename_to_clip(tensors):
    """timm's names to those of OpenAI's checkpoints, written from the latter's."""
    pairs = [
        ("norm1", "ln_1"),
        ("norm2", "ln_2"),
        ("attn.qkv.", "attn.in_proj_"),
        ("attn.proj", "attn.out_proj"),
    ]
    pairs += [("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("patch_embed.proj", "conv1")]
    pairs += [("norm_pre", "ln_pre"), ("blocks.", "transformer.resblocks.")]
    renamed = {"transformer.text": torch.zeros(1)}  # the text tower is left out
    for key, value in tensors.items():
        if key in ("cls_token", "pos_embed"):
            key, value = {"cls_token": "class_embedding", "pos_embed": "positional_embedding"}[key], value[0]
            value = value[0] if key == "class_embedding" else value
        elif key.startswith("norm."):
            key = key.replace("norm.", "ln_post.")
        elif key.startswith("head"):
            continue
        for new, old in pairs:
            key = key.replace(new, old)
        renamed[f"visual.{key}"] = value
    return renamed


def rename_to_dinov2(tensors):
    """Registers apart and a class token without its position, as in the original checkpoints."""
    renamed = {k: v for k, v in tensors.items() if k not in ("reg_token", "cls_token", "pos_embed")}
    renamed["register_tokens"], renamed["mask_token"] = tensors["reg_token"], torch.zeros(1, 48)
    first = torch.full_like(tensors["cls_token"], 0.5)
    renamed["cls_token"], renamed["pos_embed"] = (
        tensors["cls_token"] - first,
        torch.cat([first, tensors["pos_embed"]], 1),
    )
    return renamed


@pytest.mark.parametrize(
    ("name", "rename"),
    [
        ("vit_base_patch16_clip_quickgelu_224", rename_to_clip),
        ("vit_small_patch14_reg4_dinov2", rename_to_dinov2),
    ],
)
def test_the_authors_own_checkpoints_load_through_timms_filter(name, rename, tmp_path):
    source = original(name)
    size = source.patch_embed.img_size
    images = torch.randn(1, 3, *size)
    backbone = ours(name, size, write(tmp_path / "original.pth", rename(source.state_dict())))
    torch.testing.assert_close(
        features(backbone, images), timm_features(source, images), rtol=1e-5, atol=1e-5
    )


def test_the_log_says_what_was_loaded_resized_and_left_out(tmp_path, caplog):
    tensors = {k: v for k, v in original(VIT).state_dict().items() if "blocks.1.mlp" not in k}
    weights = write(tmp_path / "weights.pth", {**tensors, "extra.weight": torch.zeros(1)})
    level = logging.getLogger("timm").level
    with caplog.at_level("INFO", logger="vif"):
        backbone = ours(VIT, (256, 128), weights)
    count = len(backbone.state_dict())
    (told,) = [r for r in caplog.records if r.name.startswith("vif") and weights in r.getMessage()]
    assert told.levelname == "WARNING"
    assert f"{weights}: {count - 4} of {count} tensors of the network loaded" in told.getMessage()
    assert "resized: position embedding (14, 14) to (16, 8)" in told.getMessage()
    assert "as they were before: blocks.1.mlp.fc1.weight, blocks.1.mlp.fc1.bias" in told.getMessage()
    assert "left out, no such weight in the network: extra.weight" in told.getMessage()
    assert (logging.getLogger("timm").level, logging.getLogger("timm").handlers) == (level, [])
    assert "state_dict" not in backbone.model.pretrained_cfg


@pytest.mark.parametrize(
    ("name", "tensors", "error", "message"),
    [
        (
            VIT,
            {"layer1.0.weight": torch.zeros(3)},
            DataError,
            r"nothing in it fits .* It holds layer1.0.weight; ",
        ),
        (
            DINOV2,
            {"layer1.0.weight": torch.zeros(3)},
            ConfigError,
            r"does not fit timm's .*Missing key.*cls_token",
        ),
        (
            VIT,
            {"cls_token": torch.zeros(1, 1, 64)},
            ConfigError,
            r"does not fit timm's .*cls_token.*\[1, 1, 64\]",
        ),
        (VIT, [torch.zeros(3)], DataError, "holds no tensors by name"),
        (VIT, {}, DataError, "holds no tensors by name"),
        (VIT, {"cls_token": Path("x")}, DataError, "holds pickled code"),
    ],
)
def test_weights_that_do_not_fit_are_refused(name, tensors, error, message, tmp_path):
    with pytest.raises(error, match=message):
        ours(name, inspect_model(name, **SMALL).patch, write(tmp_path / "weights.pth", tensors))


def test_a_torn_safetensors_file_is_refused_by_name(tmp_path):
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"torn.safetensors is torn or no file of weights"):
        ours(VIT, (256, 128), str(tmp_path / "torn.safetensors"))


def test_a_download_that_fails_says_what_to_fetch_by_hand(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "nowhere")
    name = f"{DINOV2}.lvd142m"
    message = rf"could not download .* {name} .*Download model.safetensors of timm/{name} .*PRETRAIN_PATH"
    with pytest.raises(ConfigError, match=message):
        ours(name, (28, 14), "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tiny_patch16", r"'vit_tiny_patch16' is no model of timm .*; near it: .*vit_tiny_patch16_224"),
        ("", "is no model of timm .*; near it: see timm.list_models"),
        (f"{VIT}.nobody", r"cannot build it with .*Invalid pretrained tag \(nobody\)"),
        ("resnet18", "is a ResNet, no vision transformer of plain patches and blocks"),
        ("swin_tiny_patch4_window7_224", "is a SwinTransformer, no vision transformer"),
        ("vit_base_r50_s16_224", "is a VisionTransformer, no vision transformer of plain patches"),
        ("hf-hub:timm/vit_tiny_patch16_224", "is no model of timm"),
    ],
)
def test_a_name_that_is_no_vision_transformer_of_timm_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        vif.check_config(config("MODEL.BACKBONE.TIMM.NAME", name))


def test_an_option_that_a_model_lacks_is_refused():
    with pytest.raises(ConfigError, match=r"cannot build it with \{'mask_ratio': 0.5\}.*mask_ratio"):
        inspect_model(VIT, mask_ratio=0.5)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.BACKBONE.FEAT_DIM", 768], f"FEAT_DIM=768, but .*'{VIT}' gives 192 numbers; set it to 192"),
        (
            ["INPUT.SIZE_TRAIN", [250, 120], "INPUT.PLRM.PATCH_SIZE", 10],
            r"SIZE_TRAIN=\(250, 120\) .* to \[256, 128\]",
        ),
        (["INPUT.SIZE_TEST", [384, 128]], r"SIZE_TEST=\[384, 128\] is not INPUT.SIZE_TRAIN=\[256, 128\]"),
        (
            ["MODEL.BACKBONE.STRIDE_SIZE", (20, 20)],
            r"STRIDE_SIZE=\(20, 20\) .* 16 x 16 pixels; set it to \(16, 16\)",
        ),
        (["MODEL.BACKBONE.STRIDE_SIZE", (0, 12)], r"STRIDE_SIZE=\(0, 12\)"),
        (
            ["MODEL.BACKBONE.PRETRAIN", True, "MODEL.BACKBONE.PRETRAIN_PATH", "nowhere.pth"],
            rf"PRETRAIN_PATH='nowhere.pth' is no file. Download model.safetensors of timm/{VIT}\.",
        ),
    ],
)
def test_a_config_that_does_not_go_with_the_model_is_refused(opts, message):
    for refuse in (vif.check_config, build_backbone):
        with pytest.raises(ConfigError, match=message):
            refuse(config(*opts))


def test_pixels_scaled_otherwise_than_in_pretraining_are_told(tmp_path, caplog):
    source = timm.create_model(VIT)
    opts = ["MODEL.BACKBONE.PRETRAIN", True]
    opts += ["MODEL.BACKBONE.PRETRAIN_PATH", write(tmp_path / "weights.pth", source.state_dict())]
    build_backbone(config(*opts))  # 127.5, as these weights of timm
    assert "PIXEL" not in caplog.text
    build_backbone(config(*opts, "MODEL.PIXEL_STD", [58.0, 57.0, 57.0]))
    assert (
        f"MODEL.PIXEL_STD is [58.0, 57.0, 57.0]; the weights of timm's {VIT} were trained with" in caplog.text
    )
    assert "PIXEL_MEAN" not in caplog.text


@pytest.mark.parametrize("path", LEAVES, ids=lambda p: p.stem)
def test_shipped_leaves_scale_pixels_and_cut_patches_as_their_weights_want(path):
    cfg = config()
    cfg.merge_from_file(str(path))
    facts = inspect_model(cfg.MODEL.BACKBONE.TIMM.NAME)
    np.testing.assert_allclose(cfg.MODEL.PIXEL_MEAN, facts.mean, atol=1e-3)
    np.testing.assert_allclose(cfg.MODEL.PIXEL_STD, facts.std, atol=1e-3)
    assert cfg.INPUT.PLRM.PATCH_SIZE == facts.patch[0] == cfg.MODEL.BACKBONE.STRIDE_SIZE[0]
    assert cfg.MODEL.BACKBONE.PRETRAIN
    assert (
        Path(cfg.MODEL.BACKBONE.PRETRAIN_PATH).name
        == facts.source.split("timm/")[1].split()[0] + ".safetensors"
    )


def test_looking_at_a_model_draws_no_random_numbers():
    state = torch.get_rng_state()
    inspect_model.cache_clear()
    inspect_model(SIGLIP, depth=1)
    assert torch.equal(state, torch.get_rng_state())


def test_vif_imports_timm_only_where_it_is_used(monkeypatch):
    for path in Path(vif.__file__).parent.rglob("*.py"):
        top = [
            node
            for node in ast.parse(path.read_text()).body
            if isinstance(node, (ast.Import, ast.ImportFrom))
        ]
        assert not [
            a for node in top for a in node.names if "timm" in (a.name, getattr(node, "module", ""))
        ], path
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"build_vif_timm_backbone.* needs `pip install 'timm>=1"):
        vif.check_config(config("MODEL.BACKBONE.DROP_PATH_RATIO", 0.123))  # a model not looked at before


@pytest.fixture
def cargo(tmp_path, monkeypatch):
    fake_trees.make_cargo(tmp_path / "data", ids=2, cameras=(1, 2, 6, 7))
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))


def test_training_and_evaluation_end_to_end(cargo, tmp_path):
    weights = timm.create_model(VIT).state_dict()
    cfg = tiny_cfg(
        *("CARGO/vif.yml", tmp_path / "run", "MODEL.BACKBONE.NAME", "build_vif_timm_backbone"),
        *("MODEL.BACKBONE.TIMM.NAME", VIT, "MODEL.BACKBONE.FEAT_DIM", 192, "MODEL.BACKBONE.PRETRAIN", True),
        *("MODEL.BACKBONE.PRETRAIN_PATH", write(tmp_path / "weights.safetensors", weights)),
        *("INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32], "SOLVER.IMS_PER_BATCH", 4),
        *("MODEL.BACKBONE.STRIDE_SIZE", (12, 12), "SOLVER.MAX_EPOCH", 1),
    )
    trainer = vif.VIFTrainer(cfg)
    trainer.max_iter = trainer.iters_per_epoch = 2
    backbone = trainer.model.backbone
    before = {k: v.clone() for k, v in backbone.named_parameters()}
    assert torch.equal(before["model.blocks.3.mlp.fc1.weight"], weights["blocks.3.mlp.fc1.weight"])
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    assert [k for k, v in backbone.named_parameters() if torch.equal(before[k], v)] == []
    assert 0 < results["CARGO"]["ALL"]["mAP"] <= 100
    again = vif.VIFTrainer.evaluate_weights(cfg_with(cfg, tmp_path / "run" / "model_final.pth"))
    assert again == results


def cfg_with(cfg, weights):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS, cfg.MODEL.BACKBONE.PRETRAIN = str(weights), False
    return cfg


@pytest.mark.parametrize(("depth", "blocks", "bias"), [("small", 8, False), ("base", 12, True)])
def test_fastreids_vit_of_two_sizes_trains_with_overlapping_patches(depth, blocks, bias, tmp_path):
    opts = ["MODEL.BACKBONE.NAME", "build_vit_backbone", "MODEL.BACKBONE.DEPTH", depth]
    opts += [
        "MODEL.BACKBONE.FEAT_DIM",
        768,
        "MODEL.BACKBONE.STRIDE_SIZE",
        (12, 12),
        "MODEL.HEADS.NUM_CLASSES",
        2,
    ]
    opts += ["INPUT.SIZE_TRAIN", [256, 128], "INPUT.SIZE_TEST", [256, 128]]
    model = vif.VIFTrainer.build_model(tiny_cfg("CARGO/vif.yml", tmp_path, *opts)).train()
    backbone = model.backbone
    assert (backbone.patch_embed.num_y, backbone.patch_embed.num_x) == (21, 10)
    assert (len(backbone.blocks), backbone.blocks[0].attn.qkv.bias is not None) == (blocks, bias)
    batch = {"images": 255 * torch.rand(2, 3, 256, 128), "targets": torch.tensor([0, 1])}
    with EventStorage():
        sum(model(batch).values()).backward()
    assert backbone.patch_embed.proj.weight.grad.abs().sum() > 0
