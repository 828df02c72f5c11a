"""Every shipped YAML loads, freezes and is consistent; every VIF key has a range that is enforced."""

from pathlib import Path

import vif
import pytest
from fastreid.config import get_cfg
from vif.config import lookup
from vif.config_ranges import CHOICES, RANGES
from vif.errors import ConfigError

from tests.marks import needs_packages

CONFIGS = sorted(
    p for p in (Path(__file__).parents[1] / "configs").rglob("*.yml") if p.parent.name != "sweeps"
)


def load(path=None, *opts):
    cfg = get_cfg()
    vif.add_vif_config(cfg)
    if path:
        cfg.merge_from_file(str(path))
    cfg.merge_from_list(list(opts))
    return cfg


def dotted(node, prefix=""):
    for key, value in node.items():
        if hasattr(value, "items"):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_shipped_config_passes_the_check(path):
    cfg = load(path, "MODEL.BACKBONE.PRETRAIN", "False")
    needs_packages(cfg)
    cfg.freeze()
    vif.check_config(cfg)


@pytest.mark.parametrize("dataset", ["CARGO", "AGReIDv1", "AGReIDv2", "SynthAG"])
def test_vif_is_the_baseline_with_plrm_and_vial_and_nothing_else(dataset):
    folder = Path(__file__).parents[1] / "configs" / dataset
    vit, vif_cfg = load(folder / "vit.yml"), load(folder / "vif.yml")
    changed = {k for k in dotted(vif_cfg) if lookup(vif_cfg, k) != lookup(vit, k)}
    assert changed - {"TEST.EXPECTED_RESULTS"} == {"INPUT.TRANSFORMS", "MODEL.LOSSES.NAME", "OUTPUT_DIR"}
    assert "VIALLoss" in vif_cfg.MODEL.LOSSES.NAME
    assert tuple(vif_cfg.INPUT.TRANSFORMS) == ("PatchLevelRotateMix",)


@pytest.mark.parametrize("dataset", ["CARGO", "AGReIDv1", "AGReIDv2"])
def test_the_papers_recipe(dataset):
    """Values typed from the paper (section 4.2), not read from the config under test."""
    cfg = load(Path(__file__).parents[1] / "configs" / dataset / "vif.yml")
    expected = {
        "INPUT.SIZE_TRAIN": [256, 128],
        "INPUT.PADDING.SIZE": 10,
        "INPUT.REA.PROB": 0.5,
        "SOLVER.IMS_PER_BATCH": 128,
        "DATALOADER.NUM_INSTANCE": 4,
        "SOLVER.MAX_EPOCH": 120,
        "SOLVER.OPT": "SGD",
        "SOLVER.BASE_LR": 8e-3,
        "SOLVER.ETA_MIN_LR": 1.6e-6,
        "SOLVER.WARMUP_ITERS": 2000,
        "SOLVER.WARMUP_FACTOR": 0.01,
        "SOLVER.WEIGHT_DECAY": 1e-4,
        "INPUT.PLRM.PROB": 0.5,
        "INPUT.PLRM.BASE_PROB": 0.3,
        "INPUT.PLRM.PATCH_SIZE": 16,
        "INPUT.PLRM.CENTER_WEIGHT": 0.8,
        "INPUT.PLRM.MAX_ANGLE": 45.0,
        "INPUT.PLRM.ALPHA": 0.5,
        "MODEL.LOSSES.VIAL.LAMBDA": 0.5,
        "MODEL.LOSSES.VIAL.BETA": 5.0,
        "MODEL.LOSSES.VIAL.MARGIN": 0.5,
        "MODEL.LOSSES.TRI.MARGIN": 0.0,
        "MODEL.LOSSES.TRI.HARD_MINING": True,
    }
    assert {k: lookup(cfg, k) for k in expected} == expected


@pytest.mark.parametrize("key", sorted(RANGES))
def test_a_value_out_of_range_is_refused_by_name(key):
    for bound, step in zip(RANGES[key], (-1, 1)):
        cfg = load(None)
        node = cfg
        for part in key.split(".")[:-1]:
            node = node[part]
        node[key.split(".")[-1]] = bound + step
        with pytest.raises(ConfigError, match=rf"{key}=.* out of range; it must be between"):
            vif.check_config(cfg)


def test_nan_is_out_of_range():
    cfg = load()
    cfg.INPUT.PLRM.PROB = float("nan")
    with pytest.raises(ConfigError, match=r"INPUT.PLRM.PROB=nan"):
        vif.check_config(cfg)


@pytest.mark.parametrize("key", sorted(CHOICES))
def test_an_unknown_word_is_refused_with_the_choices(key):
    with pytest.raises(ConfigError, match=rf"{key}='nonsense' is unknown; choose one of"):
        vif.check_config(load(None, key, "nonsense"))


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["INPUT.TRANSFORMS", "('PLRM',)"], "not in the TRANSFORM registry; it holds: .*PatchLevelRotateMix"),
        (["TEST.EVALUATOR", "Mine"], "not in the EVALUATOR registry; it holds: ProtocolEvaluator"),
        (["MODEL.LOSSES.NAME", "('VIAL',)"], "holds 'VIAL', which nobody defines; .*VIALLoss"),
        (
            ["MODEL.LOSSES.NAME", "('VIALLoss',)"],
            "'Baseline' would ignore; set MODEL.META_ARCHITECTURE to 'VIF'",
        ),
        (["TEST.ROC.ENABLED", "True"], "TEST.ROC.ENABLED=True has no counterpart"),
        (["INPUT.RPT.ENABLED", "True"], "INPUT.RPT.ENABLED=True"),
        (
            ["DATALOADER.SAMPLER_TRAIN", "NaiveIdentitySampler", "SOLVER.IMS_PER_BATCH", "30"],
            "IMS_PER_BATCH=30 is no multiple of DATALOADER.NUM_INSTANCE=4; take 28",
        ),
        (
            ["INPUT.TRANSFORMS", "('PatchLevelRotateMix',)", "INPUT.PLRM.PATCH_SIZE", "24"],
            "PATCH_SIZE=24 does not divide INPUT.SIZE_TRAIN=256 x 128",
        ),
        (["MODEL.BACKBONE.NAME", "build_vif_vit_backbone"], "EMBED_DIM=768 and MODEL.BACKBONE.FEAT_DIM=2048"),
        (
            ["MODEL.BACKBONE.NAME", "build_vif_vit_backbone", "MODEL.BACKBONE.FEAT_DIM", "768"]
            + ["MODEL.BACKBONE.VIT.NUM_HEADS", "7"],
            "NUM_HEADS=7 does not divide EMBED_DIM=768",
        ),
        (
            ["MODEL.BACKBONE.NAME", "build_vit_backbone", "MODEL.BACKBONE.PRETRAIN", "True"],
            "PRETRAIN_PATH='' is no file. Download",
        ),
        (["MODEL.WEIGHTS", "nowhere.pth"], "MODEL.WEIGHTS='nowhere.pth' is no file"),
        (["DATASETS.MANIFEST", "nowhere.csv"], "DATASETS.MANIFEST='nowhere.csv' is no file"),
    ],
)
def test_a_config_that_cannot_run_says_why(opts, message):
    with pytest.raises(ConfigError, match=message):
        vif.check_config(load(None, *opts))


@pytest.mark.parametrize(
    "entry", [["A", "AG", "mAP", 9.0], ["A", "AG", "mAP", "9", 1], ["A", 1, "mAP", 9, 1], "A", 9.0]
)
def test_an_expected_result_is_checked_before_the_run_and_not_after_it(entry):
    vif.check_config(load(None, "TEST.EXPECTED_RESULTS", [["A", "AG", "mAP", 9, 0.5]]))
    with pytest.raises(ConfigError, match=r"RESULTS holds .*; it must hold entries \(data set, protocol, "):
        vif.check_config(load(None, "TEST.EXPECTED_RESULTS", [entry]))


def test_a_config_without_vifs_keys_says_what_to_call():
    with pytest.raises(ConfigError, match="call vif.add_vif_config"):
        vif.check_config(get_cfg())


def test_every_key_has_a_comment_in_its_definition():
    import inspect

    lines = inspect.getsource(vif.add_vif_config).splitlines()
    for previous, line in zip(lines, lines[1:]):
        if line.strip().startswith("cfg.") and "CN()" not in line:
            assert "#" in line or previous.strip().startswith("#"), line
