"""Weights of timm: by its names with and without a network, its transformers in other sizes, the checks."""

import pytest

pytest.importorskip("timm")
import vif
import timm
import torch
from timm.layers import resample_abs_pos_embed
from vif.errors import ConfigError
from vif.evaluation.extract_file import extract_file
from vif.modeling import timm_models
from vif.modeling.timm_backbone import TimmBackbone
from vif.modeling.timm_models import create_model
from vif.weight_files import Weights
from vif.weights import load_weights

from tests import fake_trees
from tests.tiny import tiny_cfg

VIT = "vit_tiny_patch16_224"
SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}


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
    vif.compat.checkpointer.Checkpointer(plain).resume_or_load(path, resume=False)
    assert torch.equal(plain.backbone.pos_embed[:, 0], downloads[-1].pos_embed[:, 0])


def test_features_of_weights_by_timms_name(downloads, tmp_path, monkeypatch):
    fake_trees.make_synthag(tmp_path / "data", ids=2)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))
    torch.manual_seed(0)
    cfg = timm_cfg(tmp_path, "MODEL.WEIGHTS", f"timm://{VIT}.augreg_in21k")
    table = extract_file(cfg, "SynthAG", str(tmp_path / "features.npz"))
    assert table.meta["weights"] == f"{VIT}.augreg_in21k"
    assert len(table) > 0


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
