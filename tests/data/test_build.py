"""The builders: every transform key of fastreid reaches the pipeline, in fastreid's order."""

import vif
import numpy as np
import pytest
from fastreid.config import get_cfg
from vif.data.build import build_transforms


def load(*opts):
    cfg = get_cfg()
    vif.add_vif_config(cfg)
    cfg.merge_from_list(["INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32], *opts])
    return cfg


EVERYTHING = [
    *("INPUT.AUTOAUG.ENABLED", True, "INPUT.AUTOAUG.PROB", 1.0, "INPUT.CROP.ENABLED", True),
    *("INPUT.CROP.SIZE", [64, 32], "INPUT.PADDING.ENABLED", True, "INPUT.FLIP.ENABLED", True),
    *("INPUT.CJ.ENABLED", True, "INPUT.AFFINE.ENABLED", True, "INPUT.AUGMIX.ENABLED", True),
    *("INPUT.AUGMIX.PROB", 1.0, "INPUT.REA.ENABLED", True),
    *("INPUT.TRANSFORMS", ("PatchLevelRotateMix",)),
]


def test_all_keys_in_fastreids_order_with_ours_before_erasing():
    pipeline = build_transforms(load(*EVERYTHING), is_train=True)
    names = [type(op).__name__ for op in pipeline.ops]
    assert names == [
        *("PILTransform", "Resize", "RandomResizedCrop", "PadCrop", "HorizontalFlip", "ColorJitter"),
        *("RandomAffine", "PILTransform", "PatchLevelRotateMix", "RandomErasing"),
    ]
    image = np.random.default_rng(0).integers(0, 256, (90, 40, 3), dtype=np.uint8)
    kept = image.copy()
    out = [pipeline(image, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert out[0].shape == (64, 32, 3)
    assert out[0].dtype == np.uint8
    np.testing.assert_array_equal(out[0], out[1])
    assert (out[0] != out[2]).any()
    np.testing.assert_array_equal(image, kept)


def test_a_key_that_is_off_adds_nothing():
    assert [type(op).__name__ for op in build_transforms(load(), is_train=True).ops] == ["Resize"]
    assert [type(op).__name__ for op in build_transforms(load(), is_train=False).ops] == ["Resize"]
    cropped = build_transforms(load("INPUT.CROP.ENABLED", True), is_train=False)
    assert [type(op).__name__ for op in cropped.ops] == ["Resize", "CenterCrop"]


@pytest.mark.parametrize(
    ("key", "value", "attribute"),
    [
        ("PROB", 0.25, "prob"),
        ("BASE_PROB", 0.1, "base_prob"),
        ("CENTER_WEIGHT", 0.2, "center_weight"),
        ("PATCH_SIZE", 8, "patch_size"),
        ("MAX_ANGLE", 10.0, "max_angle"),
        ("ALPHA", 0.9, "alpha"),
        ("FILL", "reflect", "fill"),
        ("MODE", "literal", "mode"),
    ],
)
def test_every_plrm_key_reaches_the_transform(key, value, attribute):
    cfg = load("INPUT.TRANSFORMS", ("PatchLevelRotateMix",), f"INPUT.PLRM.{key}", value)
    assert getattr(build_transforms(cfg, is_train=True).ops[-1], attribute) == value


@pytest.mark.parametrize(
    ("key", "value", "attribute"),
    [
        ("BETA", 7.0, "beta"),
        ("LAMBDA", 0.25, "lam"),
        ("MARGIN", 0.3, "margin"),
        ("PENALTY", False, "penalty"),
        ("HARD_NEGATIVES", False, "hard_negatives"),
        ("SCALE", 3.0, "weight"),
    ],
)
def test_every_vial_key_reaches_the_loss(key, value, attribute):
    loss = vif.LOSS_REGISTRY.get("VIALLoss")(load(f"MODEL.LOSSES.VIAL.{key}", value))
    assert getattr(loss, attribute) == value
