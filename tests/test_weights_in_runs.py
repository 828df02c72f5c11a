"""Weights through whole runs: to stock fastreid and back, MODEL.WEIGHTS of other sizes."""

import subprocess
import sys

import vif
import numpy as np
import pytest
import torch
from fastreid.utils.checkpoint import Checkpointer as StockCheckpointer
from safetensors.torch import save_file
from vif.errors import DataError
from vif.weight_files import GRIDS, read_weights

from tests import fake_trees
from tests.tiny import tiny_cfg


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
        model = load(cfg, path)
        assert torch.equal(model.heads.weight, tensors["heads.weight"])
        np.testing.assert_array_equal(features(model, images), expected)


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
