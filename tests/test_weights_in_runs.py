"""Weights through whole runs: to stock fastreid and back, MODEL.WEIGHTS of other sizes, timm's names."""

import subprocess
import sys

import vif
import numpy as np
import pytest
import timm
import torch
from fastreid.utils.checkpoint import Checkpointer as StockCheckpointer
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from vif.errors import ConfigError, DataError
from vif.modeling import timm_models
from vif.modeling.timm_backbone import TimmBackbone
from vif.modeling.timm_models import create_model
from vif.weight_files import GRIDS, Weights, read_weights
from vif.weights import load_weights

from tests import fake_trees
from tests.tiny import tiny_cfg

VIT = "vit_tiny_patch16_224"
SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained tiny network: its folder, its config, a batch, its features."""
    root = tmp_path_factory.mktemp("data")
    fake_trees.make_synthag(root, ids=4)
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(root))
        cfg = tiny_cfg("SynthAG/vif.yml", folder, "SOLVER.MAX_EPOCH", 1)
        trainer = vif.VIFTrainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
        images = torch.rand(4, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 255
        yield folder, cfg, images, features(trainer.model, images)


def features(model, images):
    with torch.no_grad():
        return model.eval()({"images": images.clone()}).numpy()


def load(cfg, path, *opts):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(["MODEL.WEIGHTS", str(path), *opts])
    return vif.VIFTrainer.load_model(cfg)


STOCK = """
import sys, numpy as np, torch
from fastreid.config import get_cfg
from fastreid.modeling.backbones.vision_transformer import VisionTransformer
from fastreid.modeling.heads import build_heads
from fastreid.modeling.meta_arch.baseline import Baseline
from fastreid.utils.checkpoint import Checkpointer

folder = sys.argv[1]
cfg = get_cfg()
cfg.MODEL.BACKBONE.FEAT_DIM = 16
cfg.MODEL.HEADS.POOL_LAYER, cfg.MODEL.HEADS.WITH_BNNECK, cfg.MODEL.HEADS.NUM_CLASSES = "Identity", True, 4
backbone = VisionTransformer(
    img_size=[32, 16], patch_size=8, stride_size=8, embed_dim=16, depth=1, num_heads=2, qkv_bias=True
)
model = Baseline(backbone=backbone, heads=build_heads(cfg), pixel_mean=[127.5] * 3, pixel_std=[127.5] * 3)
checkpointer = Checkpointer(model, folder)
result = checkpointer._load_model(checkpointer._load_file(folder + "/model_final.pth"))
assert not result.missing_keys and not result.unexpected_keys and not result.incorrect_shapes, result
extra = checkpointer.load(folder + "/model_final.pth")
assert extra["epoch"] == 0, extra
images = torch.from_numpy(np.load(folder + "/images.npy"))
with torch.no_grad():
    np.save(folder + "/stock.npy", model.eval()({"images": images}).numpy())
checkpointer.save("stock")
assert not [name for name in sys.modules if name.split(".")[0] == "vif"]
"""


def test_ours_to_stock_fastreid_and_back_gives_identical_features(run):
    """A process that never imports vif loads our checkpoint with nothing missing or left over."""
    folder, cfg, images, expected = run
    np.save(folder / "images.npy", images.numpy())
    command = [sys.executable, "-c", STOCK, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(folder / "stock.npy"), expected)
    for name in ("stock.pth", "model_final.pth"):
        np.testing.assert_array_equal(features(load(cfg, folder / name), images), expected)


def test_a_checkpoint_notes_its_grid_and_stock_code_hands_it_back(run):
    folder, cfg, images, expected = run
    model = load(cfg, folder / "model_final.pth")
    extra = StockCheckpointer(model).load(str(folder / "model_final.pth"), checkpointables=[])
    assert extra[GRIDS] == {"backbone.pos_embed": [4, 2]}
    np.testing.assert_array_equal(features(model, images), expected)


def test_the_whole_network_loads_from_every_format(run, tmp_path):
    folder, cfg, images, expected = run
    tensors = torch.load(folder / "model_final.pth", weights_only=True)["model"]
    save_file(tensors, tmp_path / "network.safetensors")
    torch.save(tensors, tmp_path / "bare.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in tensors.items()}}, tmp_path / "wrapped.pth")
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(features(load(cfg, path), images), expected)


def test_another_input_size_and_other_classes_start_a_run(run, tmp_path, caplog):
    folder, cfg, _, _ = run
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(
        ["INPUT.SIZE_TRAIN", [48, 32], "INPUT.SIZE_TEST", [48, 32], "OUTPUT_DIR", str(tmp_path)]
    )
    source = torch.load(folder / "model_final.pth", weights_only=True)
    source["model"]["heads.weight"] = torch.zeros(751, 16)
    torch.save(source, tmp_path / "market.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "market.pth")
    trainer = vif.VIFTrainer(cfg)
    with caplog.at_level("INFO"):
        trainer.resume_or_load(resume=False)
    (told,) = [r.getMessage() for r in caplog.records if "tensors of the network loaded" in r.getMessage()]
    assert "resized: backbone.pos_embed 4 x 2 -> 6 x 4" in told
    assert "left out, 751 x 16 there and 4 x 16 here: heads.weight" in told
    assert trainer.start_epoch == 0
    norm = trainer.model.backbone.norm.weight
    assert torch.equal(norm, source["model"]["backbone.norm.weight"])
    model = load(cfg, tmp_path / "market.pth")  # evaluating keeps the file's classes
    assert len(model.heads.weight) == 751


def test_a_backbones_file_starts_a_run_and_one_that_fits_nothing_is_refused(run, tmp_path, caplog):
    folder, cfg, _, _ = run
    tensors = read_weights(str(folder / "model_final.pth")).tensors
    backbone = {k[len("backbone.") :]: v for k, v in tensors.items() if k.startswith("backbone.")}
    torch.save(backbone, tmp_path / "backbone.pth")
    with caplog.at_level("WARNING"):
        model = load(cfg, tmp_path / "backbone.pth")
    assert torch.equal(model.backbone.pos_embed, backbone["pos_embed"])
    assert "as they were before: heads.bottleneck.0.weight" in caplog.text
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(
        DataError, match=r"other.pth: nothing in it fits the backbone\. It holds conv1.weight;"
    ):
        load(cfg, tmp_path / "other.pth")
    trainer = vif.VIFTrainer(cfg)
    trainer.cfg.defrost()
    trainer.cfg.MODEL.WEIGHTS = str(tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"other.pth: nothing in it fits the backbone"):
        trainer.resume_or_load(resume=False)


# ---- timm


def test_a_timm_network_of_another_size_is_resized_as_timm_does():
    """Positions of a whole network's checkpoint, noted as 8 x 4, on 6 x 2 patches."""
    torch.manual_seed(0)
    a, b = (TimmBackbone(VIT, size, (16, 16), **SMALL) for size in ((128, 64), (96, 32)))
    tensors = {f"backbone.{key}": value for key, value in a.state_dict().items()}
    report = load_weights(b, Weights("file.pth", tensors, {"backbone.model.pos_embed": (8, 4)}, {}))
    expected = resample_abs_pos_embed(a.model.pos_embed, (6, 2), (8, 4), num_prefix_tokens=1)
    torch.testing.assert_close(b.model.pos_embed, expected, rtol=0, atol=0)
    assert report.missing == []


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_timms_tokens_keep_their_positions(name):
    """Two tokens with positions; five of which none has one."""
    torch.manual_seed(0)
    patch = timm_models.inspect_model(name, **SMALL).patch[0]
    a, b = (
        TimmBackbone(name, size, (patch, patch), **SMALL)
        for size in ((8 * patch, 4 * patch), (6 * patch, 2 * patch))
    )
    torch.nn.init.normal_(a.model.pos_embed)
    count = a.model.pos_embed.shape[1] - 32
    load_weights(b, Weights("file.pth", a.state_dict(), {"model.pos_embed": (8, 4)}, {}))
    expected = resample_abs_pos_embed(a.model.pos_embed, (6, 2), (8, 4), num_prefix_tokens=count)
    torch.testing.assert_close(b.model.pos_embed, expected, rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone.model."])
def test_a_timm_backbone_takes_the_backbone_out_of_any_checkpoint(prefix, tmp_path, caplog):
    torch.manual_seed(0)
    source = timm.create_model(VIT, num_classes=0, **SMALL).state_dict()
    tensors = {f"{prefix}{key}": value for key, value in source.items()}
    torch.save({"model": {**tensors, "heads.weight": torch.zeros(4, 48)}}, tmp_path / "file.pth")
    with caplog.at_level("INFO"):
        found = create_model(VIT, str(tmp_path / "file.pth"), **SMALL).state_dict()
    assert all(torch.equal(found[key], source[key]) for key in source)
    assert f"{len(source)} of {len(source)} tensors of the network loaded; left out, no such" in caplog.text
    assert "heads.weight" in caplog.text


@pytest.fixture
def downloads(monkeypatch):
    """timm.create_model as if it had a network, in a small size."""
    real, made = timm.create_model, []

    def create(name, pretrained=False, **options):
        model = real(name, **{**SMALL, "embed_dim": 48, **options})
        with torch.no_grad():
            model.pos_embed.normal_()
        made.append(model)
        assert pretrained
        return model

    monkeypatch.setattr(timm, "create_model", create)
    return made


def timm_cfg(tmp_path, *opts):
    cfg = tiny_cfg("SynthAG/vif.yml", tmp_path, *opts).clone()
    cfg.defrost()
    cfg.merge_from_list(["MODEL.BACKBONE.VIT.EMBED_DIM", 48, "MODEL.BACKBONE.FEAT_DIM", 48])
    cfg.merge_from_list(["MODEL.BACKBONE.VIT.DEPTH", 2, "MODEL.BACKBONE.VIT.NUM_HEADS", 3])
    cfg.merge_from_list(["MODEL.BACKBONE.VIT.PATCH_SIZE", 16, "MODEL.BACKBONE.STRIDE_SIZE", (16, 16)])
    cfg.merge_from_list(["INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32]])
    return cfg


def test_timms_names_load_where_there_is_a_network(downloads, tmp_path):
    path = f"timm://{VIT}.augreg_in21k"
    pretrain = ["MODEL.BACKBONE.PRETRAIN", True, "MODEL.BACKBONE.PRETRAIN_PATH", path]
    torch.manual_seed(0)
    model = vif.VIFTrainer.build_model(timm_cfg(tmp_path, *pretrain))
    drawn = torch.rand(3)
    source = downloads[-1].state_dict()
    assert torch.equal(model.backbone.blocks[1].mlp.fc1.weight, source["blocks.1.mlp.fc1.weight"])
    assert torch.equal(model.backbone.pos_embed[:, 0], source["pos_embed"][:, 0])
    torch.manual_seed(0)
    plain = vif.VIFTrainer.build_model(timm_cfg(tmp_path))
    assert torch.equal(drawn, torch.rand(3))  # a download draws no random numbers
    assert torch.equal(plain.heads.weight, model.heads.weight)
    model = vif.VIFTrainer.load_model(timm_cfg(tmp_path, "MODEL.WEIGHTS", path))
    assert torch.equal(model.backbone.norm.weight, downloads[-1].norm.weight)
    vif.compat.engine_classes()["Checkpointer"](plain).resume_or_load(path, resume=False)
    assert torch.equal(plain.backbone.pos_embed[:, 0], downloads[-1].pos_embed[:, 0])


@pytest.mark.parametrize("key", ["MODEL.WEIGHTS", "MODEL.BACKBONE.PRETRAIN_PATH"])
def test_without_a_network_the_message_says_what_to_download_and_where_to_put_it(key, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    name = f"{VIT}.augreg_in21k_ft_in1k"
    message = (
        rf"could not download the weights of {name} \(.*Download model.safetensors of timm/{name} on the "
        rf"Hugging Face hub, put it at weights/{name}.safetensors and set .*PRETRAIN_PATH to that file"
    )
    cfg = timm_cfg(tmp_path, "MODEL.BACKBONE.PRETRAIN", True, key, f"timm://{name}")
    cfg.MODEL.BACKBONE.PRETRAIN = key != "MODEL.WEIGHTS"
    with pytest.raises(ConfigError, match=message):
        vif.VIFTrainer.load_model(cfg) if key == "MODEL.WEIGHTS" else vif.VIFTrainer.build_model(cfg)


@pytest.mark.parametrize("key", ["MODEL.WEIGHTS", "MODEL.BACKBONE.PRETRAIN_PATH"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tiny_patch16", r"='vit_tiny_patch16' is no model of timm .*; near it: .*vit_tiny_patch16_224"),
        (f"{VIT}.nobody", rf"='{VIT}.nobody': timm .* has no such weights of it, but: {VIT}.augreg_in21k, "),
    ],
)
def test_a_name_that_timm_does_not_know_is_refused_when_the_config_is_read(key, name, message, tmp_path):
    cfg = timm_cfg(tmp_path, "MODEL.BACKBONE.PRETRAIN", True, "MODEL.BACKBONE.PRETRAIN_PATH", f"timm://{VIT}")
    cfg.merge_from_list([key, f"timm://{name}"])
    with pytest.raises(ConfigError, match=key + message):
        vif.check_config(cfg)
    cfg.MODEL.BACKBONE.PRETRAIN, cfg.MODEL.WEIGHTS = False, ""
    vif.check_config(cfg)  # a path that nobody reads


def test_a_timm_backbone_checks_its_path_as_the_others_do(tmp_path):
    opts = ["MODEL.BACKBONE.NAME", "build_vif_timm_backbone", "MODEL.BACKBONE.TIMM.NAME", VIT]
    cfg = timm_cfg(tmp_path, *opts, "MODEL.BACKBONE.PRETRAIN", True)
    cfg.merge_from_list(["MODEL.BACKBONE.FEAT_DIM", 192, "MODEL.BACKBONE.PRETRAIN_PATH", f"timm://{VIT}"])
    vif.check_config(cfg)
    cfg.MODEL.BACKBONE.PRETRAIN_PATH = "http://nowhere.pth"
    with pytest.raises(ConfigError, match=r"PRETRAIN_PATH='http://nowhere.pth' is no file"):
        vif.check_config(cfg)
