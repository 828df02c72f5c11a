"""Networks that are exported once for all tests."""

import pytest
from vif.inference import formats
from vif.inference.export import export

from tests import fake_trees
from tests.inference.exporting import FORMATS, VARIANTS, trained
from tests.systems import small_cfg
from tests.tiny import tiny_cfg


@pytest.fixture(scope="session")
def vit(tmp_path_factory):
    """(config, checkpoint) of a tiny ViT; its mean and std differ between channels."""
    root = tmp_path_factory.mktemp("vit")
    fake_trees.make_synthag(root / "data", ids=3)
    pixels = ("MODEL.PIXEL_MEAN", [123.7, 116.3, 103.5], "MODEL.PIXEL_STD", [58.4, 57.1, 57.4])
    cfg = tiny_cfg("SynthAG/vif.yml", root, "MODEL.HEADS.NUM_CLASSES", 3, *pixels)
    return cfg, trained(cfg, root / "model.pth")


@pytest.fixture(scope="session")
def exported(vit, tmp_path_factory):
    """Every format and variant that this host has: uint8 input, length 1, measured on a data set."""
    out = tmp_path_factory.mktemp("export") / "new" / "folder"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", f"{vit[0].OUTPUT_DIR}/data")
        report = export(*vit, str(out), FORMATS, uint8=True, variant_names=VARIANTS)
    return out, report


@pytest.fixture(scope="session")
def resnet(tmp_path_factory):
    """(config, checkpoint, folder, report) of a Baseline: float32 in, features as they are."""
    root = tmp_path_factory.mktemp("resnet")
    cfg = small_cfg("SynthAG/bot.yml", root, "MODEL.HEADS.NUM_CLASSES", 3)
    weights = trained(cfg, root / "model.pth")
    images = root / "images"
    for index in range(3):
        fake_trees.write_image(images / f"{index}.jpg", index)
    report = export(
        cfg,
        weights,
        str(root / "out"),
        normalize=False,
        variant_names=("fp16", "int8"),
        opset=formats.MIN_OPSET,
        images=str(images),
    )
    return cfg, weights, root / "out", report
