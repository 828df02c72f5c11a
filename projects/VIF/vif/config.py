"""Every config key of VIF: default, meaning, the paper's symbol; and the check that a config can run."""

import importlib.util
import math
import os
from typing import Any, Dict, Iterator, Tuple

from fastreid.config import CfgNode as CN

from .errors import ConfigError
from .weight_files import TIMM


def add_vif_config(cfg: CN) -> None:
    """Add VIF's keys with their defaults to a fastreid config (equation and table numbers: VIF-AGReID)."""
    # One seed for weights, sampler, augmentation and dropout. Negative: a fresh one each run (in the log).
    cfg.SEED = -1

    # Transforms of TRANSFORM_REGISTRY by name, in order, between the flip and random erasing.
    cfg.INPUT.TRANSFORMS = ()
    # Patch-Level RotateMix, "PatchLevelRotateMix" in INPUT.TRANSFORMS (equations 1-5).
    cfg.INPUT.PLRM = CN()
    cfg.INPUT.PLRM.PROB = 0.5  # P_img: an image is transformed
    cfg.INPUT.PLRM.BASE_PROB = 0.3  # P_0: a patch is selected, base
    cfg.INPUT.PLRM.CENTER_WEIGHT = 0.8  # C_weight: added towards the centre
    cfg.INPUT.PLRM.PATCH_SIZE = 16  # n: patch side in pixels; divides both sides of INPUT.SIZE_TRAIN
    cfg.INPUT.PLRM.MAX_ANGLE = 45.0  # theta_max: degrees
    cfg.INPUT.PLRM.ALPHA = 0.5  # alpha: share of the rotated patch in the mix
    cfg.INPUT.PLRM.FILL = "zeros"  # corners of a rotated patch: zeros, border, reflect
    # Where the patch probability peaks: center (ours), literal (equation 3 as printed), uniform (same mean).
    cfg.INPUT.PLRM.MODE = "center"

    # Training images as fastreid has them to the bit, by Pillow: slower. False: plain JPEGs are decoded by
    # OpenCV and resized by torchvision's kernel, up to two grey levels off. Testing is always exact.
    cfg.INPUT.EXACT = False

    # What Table 4 compares PLRM with: "RandomRotation" of the whole image, "PatchShuffle".
    cfg.INPUT.ROTATION = CN()
    cfg.INPUT.ROTATION.PROB = 0.5  # an image is turned (not published: P_img)
    cfg.INPUT.ROTATION.MAX_ANGLE = 45.0  # degrees (not published: theta_max)
    cfg.INPUT.PATCH_SHUFFLE = CN()
    cfg.INPUT.PATCH_SHUFFLE.PROB = 0.5  # an image is shuffled (not published: P_img)
    cfg.INPUT.PATCH_SHUFFLE.PATCH_SIZE = 2  # pixels; divides both sides of INPUT.SIZE_TRAIN

    # View-Invariant Angular Loss, "VIALLoss" in MODEL.LOSSES.NAME (equations 6-10).
    cfg.MODEL.LOSSES.VIAL = CN()
    cfg.MODEL.LOSSES.VIAL.BETA = 5.0  # beta: decay rate of the penalty
    cfg.MODEL.LOSSES.VIAL.LAMBDA = 0.5  # lambda: strength of the penalty
    cfg.MODEL.LOSSES.VIAL.MARGIN = 0.5  # M: negatives above cosine 1 - M are hard
    cfg.MODEL.LOSSES.VIAL.PENALTY = True  # False: "Angular Loss" of Table 5
    cfg.MODEL.LOSSES.VIAL.HARD_NEGATIVES = True  # False: "VIAL w/o HNM" of Table 5
    cfg.MODEL.LOSSES.VIAL.SCALE = 1.0  # delta of equation 13 (gamma is MODEL.LOSSES.TRI.SCALE)

    # Losses of MODEL.META_ARCHITECTURE VDT; the weights are those of its published configuration.
    cfg.MODEL.VDT = CN()
    cfg.MODEL.VDT.VIEW_WEIGHT = 0.001  # cross entropy of the view classifier
    cfg.MODEL.VDT.ORTHOGONAL_WEIGHT = 0.001  # |cosine| of the view-independent and the view feature

    # MODEL.META_ARCHITECTURE Explain; the weights are those of the published code of AMD, on which it builds.
    cfg.MODEL.EXPLAIN = CN()
    cfg.MODEL.EXPLAIN.NUM_ATTRIBUTES = 88  # K: binary attributes of the training set; 88 in AG-ReIDv1 and v2
    cfg.MODEL.EXPLAIN.SHARE = 0.5  # of the ViT's blocks, shared with the interpreter (AMD: 2 of 4 stages)
    cfg.MODEL.EXPLAIN.DISTILLATION_WEIGHT = 1.0  # metric distillation loss
    cfg.MODEL.EXPLAIN.PRIOR_WEIGHT = 10.0  # attribute prior loss

    # MODEL.META_ARCHITECTURE PCB.
    cfg.MODEL.PCB = CN()
    cfg.MODEL.PCB.STRIPES = 6  # horizontal stripes; divides the rows of the backbone's feature map
    cfg.MODEL.PCB.DIM = 256  # dimensions of a stripe
    cfg.MODEL.PCB.DROPOUT = 0.5  # share of a pooled stripe's channels that training drops

    # A ViT of any size: MODEL.BACKBONE.NAME build_vif_vit_backbone or build_vdt_backbone.
    cfg.MODEL.BACKBONE.VIT = CN()
    cfg.MODEL.BACKBONE.VIT.EMBED_DIM = 768  # D: token width; MODEL.BACKBONE.FEAT_DIM must equal it
    cfg.MODEL.BACKBONE.VIT.DEPTH = 12  # blocks
    cfg.MODEL.BACKBONE.VIT.NUM_HEADS = 12  # divides EMBED_DIM
    cfg.MODEL.BACKBONE.VIT.MLP_RATIO = 4.0  # hidden width of the MLP / EMBED_DIM
    cfg.MODEL.BACKBONE.VIT.PATCH_SIZE = 16  # side of a token's patch; its step is MODEL.BACKBONE.STRIDE_SIZE

    # Any vision transformer of timm: MODEL.BACKBONE.NAME build_vif_timm_backbone.
    cfg.MODEL.BACKBONE.TIMM = CN()
    cfg.MODEL.BACKBONE.TIMM.NAME = ""  # timm's name with the tag of its weights

    # CSV of data set AGManifest: header split,path,pid,camid,view; paths relative to it.
    cfg.DATASETS.MANIFEST = ""

    # Attribute file, for "attributes" in DATALOADER.LABELS; empty: its usual place in the data set's folder.
    cfg.DATASETS.ATTRIBUTES = ""

    # Share of the training identities that is held out: training leaves them out, and the test is on them and
    # not on the test set. For choosing settings; 0: train on all, test on the test set.
    cfg.DATASETS.HOLDOUT = 0.0

    # Labels beside identities that the trainer's batches carry: "views" (0 aerial, 1 other), "attributes".
    # Only systems that are defined by them read any (VDT, Explain); VIF never does.
    cfg.DATALOADER.LABELS = ()

    # The AMSGrad variant of SOLVER.OPT Adam or AdamW, which fastreid has no key for.
    cfg.SOLVER.AMSGRAD = False

    # Iterations between two lines of progress.
    cfg.SOLVER.LOG_PERIOD = 50

    # Evaluator of EVALUATOR_REGISTRY by name.
    cfg.TEST.EVALUATOR = "ProtocolEvaluator"
    # Protocols to score, by name; empty: all that each data set of DATASETS.TESTS has.
    cfg.TEST.PROTOCOLS = ()
    # The protocol of the first test set that chooses model_best; empty: the data set's headline.
    cfg.TEST.BEST_PROTOCOL = ""
    cfg.TEST.BEST_METRIC = "mAP"  # Rank-1, Rank-5, Rank-10, mAP, mINP
    # Level of the bootstrap intervals over queries beside Rank-1, mAP and mINP; 0 prints none.
    cfg.TEST.CONFIDENCE = 0.95
    # What a run must reach: entries (data set, protocol, metric, percent, tolerance); a miss fails it.
    cfg.TEST.EXPECTED_RESULTS = []


_UNIT = (0.0, 1.0)
# key -> allowed range, both ends included
_RANGES: Dict[str, Tuple[float, float]] = {
    "SEED": (-1, 2**32 - 1),
    "INPUT.PLRM.PROB": _UNIT,
    "INPUT.PLRM.BASE_PROB": _UNIT,
    "INPUT.PLRM.CENTER_WEIGHT": _UNIT,
    "INPUT.PLRM.PATCH_SIZE": (2, 512),
    "INPUT.PLRM.MAX_ANGLE": (0.0, 180.0),
    "INPUT.PLRM.ALPHA": _UNIT,
    "INPUT.ROTATION.PROB": _UNIT,
    "INPUT.ROTATION.MAX_ANGLE": (0.0, 180.0),
    "INPUT.PATCH_SHUFFLE.PROB": _UNIT,
    "INPUT.PATCH_SHUFFLE.PATCH_SIZE": (2, 512),
    "DATASETS.HOLDOUT": (0.0, 0.9),
    "MODEL.LOSSES.VIAL.BETA": (0.0, 80.0),  # exp(80) still fits float32
    "MODEL.LOSSES.VIAL.LAMBDA": (0.0, 1e4),
    "MODEL.LOSSES.VIAL.MARGIN": (0.0, 2.0),
    "MODEL.LOSSES.VIAL.SCALE": (0.0, 1e6),
    "MODEL.VDT.VIEW_WEIGHT": (0.0, 1e6),
    "MODEL.VDT.ORTHOGONAL_WEIGHT": (0.0, 1e6),
    "MODEL.EXPLAIN.NUM_ATTRIBUTES": (1, 1e4),
    "MODEL.EXPLAIN.SHARE": _UNIT,
    "MODEL.EXPLAIN.DISTILLATION_WEIGHT": (0.0, 1e6),
    "MODEL.EXPLAIN.PRIOR_WEIGHT": (0.0, 1e6),
    "MODEL.PCB.STRIPES": (1, 64),
    "MODEL.PCB.DIM": (1, 8192),
    "MODEL.PCB.DROPOUT": (0.0, 0.99),
    "MODEL.BACKBONE.VIT.EMBED_DIM": (8, 8192),
    "MODEL.BACKBONE.VIT.DEPTH": (1, 128),
    "MODEL.BACKBONE.VIT.NUM_HEADS": (1, 256),
    "MODEL.BACKBONE.VIT.MLP_RATIO": (0.1, 16.0),
    "MODEL.BACKBONE.VIT.PATCH_SIZE": (1, 512),
    "SOLVER.LOG_PERIOD": (1, 1e9),
    "TEST.CONFIDENCE": (0.0, 0.999),
    # fastreid's own, where a bad value ends in a bare ZeroDivisionError
    "SOLVER.IMS_PER_BATCH": (1, 1e6),
    "SOLVER.CHECKPOINT_PERIOD": (1, 1e9),
    "SOLVER.MAX_EPOCH": (1, 1e9),
    "TEST.EVAL_PERIOD": (1, 1e9),
    "TEST.IMS_PER_BATCH": (1, 1e6),
    "DATALOADER.NUM_INSTANCE": (1, 1e6),
    "DATALOADER.NUM_WORKERS": (0, 1024),
}
_METRICS = ("Rank-1", "Rank-5", "Rank-10", "mAP", "mINP")
_CHOICES: Dict[str, Tuple[str, ...]] = {
    "INPUT.PLRM.FILL": ("zeros", "border", "reflect"),
    "INPUT.PLRM.MODE": ("center", "literal", "uniform"),
    "TEST.BEST_METRIC": _METRICS,
    "TEST.METRIC": ("cosine", "euclidean"),
}
# channels of fastreid's convolutional backbones by MODEL.BACKBONE.DEPTH
_CHANNELS: Dict[str, Dict[str, int]] = {
    "build_resnet_backbone": {"18x": 512, "34x": 512, "50x": 2048, "101x": 2048},
    "build_osnet_backbone": {"x1_0": 512, "x0_75": 384, "x0_5": 256, "x0_25": 128},
}
# the only losses of systems that are defined by them
_OWN_LOSSES: Dict[str, Tuple[str, ...]] = {"PCB": ("CrossEntropyLoss",), "VV": ("TripletLoss",)}
# where weights of a ViT come from
VIT_WEIGHTS = (
    "Download ImageNet weights of ViT-B/16 in timm's format (jx_vit_base_p16_224-80ecf9dd.pth, from timm's "
    "releases) and put them there, or set MODEL.BACKBONE.PRETRAIN_PATH to weights that timm downloads, "
    "timm://vit_base_patch16_224.augreg_in21k_ft_in1k"
)
# fastreid's own losses; any other name must be in LOSS_REGISTRY
FASTREID_LOSSES = ("CrossEntropyLoss", "TripletLoss", "CircleLoss", "Cosface")


def lookup(cfg: CN, key: str) -> Any:
    """Value of a dotted key, e.g. ``INPUT.PLRM.PROB``."""
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def leaves(cfg: CN, prefix: str = "") -> Iterator[Tuple[str, Any]]:
    """Dotted keys and their values, lists as tuples."""
    for name, value in cfg.items():
        if isinstance(value, CN):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, tuple(value) if isinstance(value, list) else value


def check_config(cfg: CN) -> None:
    """Refuse a config that cannot run or whose VIF keys would have no effect.

    Raises:
        ConfigError: names the key, its value and what is allowed.
    """
    if "PLRM" not in cfg.INPUT:
        raise ConfigError("The config lacks VIF's keys: call vif.add_vif_config(cfg) right after get_cfg().")
    for key, (low, high) in _RANGES.items():
        value = lookup(cfg, key)
        if not (low <= value <= high) or math.isnan(value):
            raise ConfigError(f"{key}={value} is out of range; it must be between {low:g} and {high:g}.")
    for key, allowed in _CHOICES.items():
        if lookup(cfg, key) not in allowed:
            raise ConfigError(f"{key}={lookup(cfg, key)!r} is unknown; choose one of {', '.join(allowed)}.")
    _check_names(cfg)
    _check_system(cfg)
    _check_convolutional(cfg)
    _check_sizes(cfg)
    if cfg.MODEL.BACKBONE.NAME == "build_vif_timm_backbone":
        from .modeling.timm_backbone import check_timm_backbone

        check_timm_backbone(cfg)
    _check_weights(cfg)
    _check_files(cfg)
    from .unread import warn_unread

    warn_unread(cfg)


def _check_names(cfg: CN) -> None:
    from .registries import EVALUATOR_REGISTRY, LOSS_REGISTRY, TRANSFORM_REGISTRY

    EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR)
    for name in cfg.INPUT.TRANSFORMS:
        TRANSFORM_REGISTRY.get(name)
    extra = [name for name in cfg.MODEL.LOSSES.NAME if name not in FASTREID_LOSSES]
    for name in extra:
        if name not in LOSS_REGISTRY.names():
            raise ConfigError(
                f"MODEL.LOSSES.NAME holds {name!r}, which nobody defines; fastreid has "
                f"{', '.join(FASTREID_LOSSES)}, VIF's registry has {', '.join(LOSS_REGISTRY.names())}."
            )
    if extra and cfg.MODEL.META_ARCHITECTURE != "VIF":
        raise ConfigError(
            f"MODEL.LOSSES.NAME holds {', '.join(extra)}, which MODEL.META_ARCHITECTURE="
            f"{cfg.MODEL.META_ARCHITECTURE!r} would ignore; set MODEL.META_ARCHITECTURE to 'VIF'."
        )
    if cfg.TEST.ROC.ENABLED:
        raise ConfigError("TEST.ROC.ENABLED=True has no counterpart in VIF's evaluators; turn it off.")
    if cfg.INPUT.RPT.ENABLED:
        raise ConfigError(
            "INPUT.RPT.ENABLED=True (random patch) keeps a pool of patches in each loader process, so no "
            "two runs would agree; turn it off, or use INPUT.REA (random erasing)."
        )


def _check_system(cfg: CN) -> None:
    """A system reads the labels that define it, and no others; VDT and its backbone need each other."""
    from fastreid.modeling.meta_arch import META_ARCH_REGISTRY

    from .compat import own_entry

    name = cfg.MODEL.META_ARCHITECTURE
    with own_entry(META_ARCH_REGISTRY, name):
        wanted = tuple(getattr(META_ARCH_REGISTRY._obj_map.get(name), "LABELS", ()))
    labels = tuple(cfg.DATALOADER.LABELS)
    if set(labels) != set(wanted):
        raise ConfigError(
            f"DATALOADER.LABELS={labels} does not go with MODEL.META_ARCHITECTURE={name!r}, which "
            f"{'trains on the labels ' + ', '.join(wanted) if wanted else 'reads no labels but identities'}; "
            f"set DATALOADER.LABELS to {wanted}."
        )
    if (name == "VDT") != (cfg.MODEL.BACKBONE.NAME == "build_vdt_backbone"):
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE={name!r} does not go with MODEL.BACKBONE.NAME="
            f"{cfg.MODEL.BACKBONE.NAME!r}: VDT and build_vdt_backbone, which gives a view token beside the "
            "class token, need each other; set both or neither."
        )


def _check_convolutional(cfg: CN) -> None:
    """Settings of PCB, VV, MGN and fastreid's convolutional backbones that would fail later or do nothing."""
    backbone, losses = cfg.MODEL.BACKBONE, cfg.MODEL.LOSSES
    name, depth = cfg.MODEL.META_ARCHITECTURE, backbone.DEPTH
    if tuple(losses.NAME) != _OWN_LOSSES.get(name, tuple(losses.NAME)):
        raise ConfigError(
            f"MODEL.LOSSES.NAME={tuple(losses.NAME)} does not go with MODEL.META_ARCHITECTURE={name!r}, "
            f"which is defined by its losses; set it to {_OWN_LOSSES[name]}."
        )
    if name == "VV" and (losses.TRI.NORM_FEAT or cfg.MODEL.HEADS.EMBEDDING_DIM < 1):
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE='VV' needs MODEL.HEADS.EMBEDDING_DIM={cfg.MODEL.HEADS.EMBEDDING_DIM} "
            f"above 0 and MODEL.LOSSES.TRI.NORM_FEAT={losses.TRI.NORM_FEAT} off: its embedding is linear and "
            "not normalised."
        )
    bottlenecks = backbone.NAME == "build_resnet_backbone" and depth in ("50x", "101x")
    if name == "MGN" and not bottlenecks:
        raise ConfigError(
            "MODEL.META_ARCHITECTURE='MGN' copies the last stage of a ResNet with bottleneck blocks, not "
            f"of MODEL.BACKBONE.NAME={backbone.NAME!r} with DEPTH={depth!r}; take build_resnet_backbone "
            "with 50x or 101x."
        )
    channels = _CHANNELS.get(backbone.NAME)
    if channels is None:
        return
    if channels.get(depth) != backbone.FEAT_DIM:
        known = ", ".join(f"{key} ({value})" for key, value in channels.items())
        raise ConfigError(
            f"MODEL.BACKBONE.DEPTH={depth!r} with FEAT_DIM={backbone.FEAT_DIM} is no {backbone.NAME}; the "
            f"depths and their FEAT_DIM are {known}."
        )
    if backbone.WITH_NL and not bottlenecks:
        raise ConfigError(
            f"MODEL.BACKBONE.WITH_NL=True does nothing in {backbone.NAME} {depth}: fastreid has non-local "
            "blocks in ResNet 50x and 101x only; take one of them, or turn WITH_NL off."
        )


def _check_sizes(cfg: CN) -> None:
    batch, instances = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
    if "Identity" in cfg.DATALOADER.SAMPLER_TRAIN and batch % instances:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH={batch} is no multiple of DATALOADER.NUM_INSTANCE={instances}; "
            f"take {batch // instances * instances or instances}."
        )
    for name, key in (("PatchLevelRotateMix", "INPUT.PLRM"), ("PatchShuffle", "INPUT.PATCH_SHUFFLE")):
        n, (height, width) = lookup(cfg, key).PATCH_SIZE, cfg.INPUT.SIZE_TRAIN
        if name in cfg.INPUT.TRANSFORMS and (height % n or width % n):
            raise ConfigError(
                f"{key}.PATCH_SIZE={n} does not divide INPUT.SIZE_TRAIN={height} x {width}; "
                "choose a patch side that divides both."
            )
    vit, feat_dim = cfg.MODEL.BACKBONE.VIT, cfg.MODEL.BACKBONE.FEAT_DIM
    if cfg.MODEL.BACKBONE.NAME in ("build_vif_vit_backbone", "build_vdt_backbone"):
        if feat_dim != vit.EMBED_DIM:
            raise ConfigError(
                f"MODEL.BACKBONE.VIT.EMBED_DIM={vit.EMBED_DIM} and MODEL.BACKBONE.FEAT_DIM={feat_dim} "
                "must be equal."
            )
        if vit.EMBED_DIM % vit.NUM_HEADS:
            raise ConfigError(
                f"MODEL.BACKBONE.VIT.NUM_HEADS={vit.NUM_HEADS} does not divide EMBED_DIM={vit.EMBED_DIM}."
            )


def _check_weights(cfg: CN) -> None:
    """Files of weights are there, timm knows the names, fastreid's own downloads have what they need."""
    backbone = cfg.MODEL.BACKBONE
    path = backbone.PRETRAIN_PATH
    for key in ("MODEL.WEIGHTS", "MODEL.BACKBONE.PRETRAIN_PATH"):
        if lookup(cfg, key).startswith(TIMM) and (key == "MODEL.WEIGHTS" or backbone.PRETRAIN):
            from .modeling.timm_models import check_download

            check_download(lookup(cfg, key)[len(TIMM) :], key)
    transformer = backbone.NAME in ("build_vit_backbone", "build_vif_vit_backbone", "build_vdt_backbone")
    if backbone.PRETRAIN and (path or transformer) and not (path.startswith(TIMM) or os.path.isfile(path)):
        hint = VIT_WEIGHTS if transformer else "Put ImageNet weights there"
        raise ConfigError(
            f"MODEL.BACKBONE.PRETRAIN_PATH={path!r} is no file. {hint}, or start from random weights with "
            "MODEL.BACKBONE.PRETRAIN False."
        )
    downloads = backbone.PRETRAIN and not backbone.PRETRAIN_PATH and backbone.NAME in _CHANNELS
    if downloads and importlib.util.find_spec("gdown") is None:
        raise ConfigError(
            "MODEL.BACKBONE.PRETRAIN=True without PRETRAIN_PATH: fastreid downloads the weights of "
            f"{backbone.NAME} with the package gdown, which is not installed; `pip install gdown`, name a "
            "file in MODEL.BACKBONE.PRETRAIN_PATH, or set MODEL.BACKBONE.PRETRAIN False."
        )


def _check_files(cfg: CN) -> None:
    if cfg.SOLVER.AMSGRAD and cfg.SOLVER.OPT not in ("Adam", "AdamW"):
        raise ConfigError(f"SOLVER.AMSGRAD=True works with SOLVER.OPT Adam or AdamW, not {cfg.SOLVER.OPT!r}.")
    for key in ("MODEL.WEIGHTS", "DATASETS.MANIFEST", "DATASETS.ATTRIBUTES"):
        path = lookup(cfg, key)
        if path and "://" not in path and not os.path.isfile(path):
            raise ConfigError(f"{key}={path!r} is no file; check the path (the run is in {os.getcwd()}).")
