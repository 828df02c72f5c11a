"""The check that a config can run: ranges, choices, and what has to go together."""

import importlib.util
import os
from typing import Dict, Tuple

import torch
from fastreid.config import CfgNode as CN

from .config import lookup
from .config_ranges import check_ranges
from .errors import ConfigError
from .precision import amp_dtype
from .weight_files import TIMM

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


def check_config(cfg: CN) -> None:
    """Refuse a config that cannot run or whose VIF keys would have no effect.

    Raises:
        ConfigError: names the key, its value and what is allowed.
    """
    if "PLRM" not in cfg.INPUT:
        raise ConfigError("The config lacks VIF's keys: call vif.add_vif_config(cfg) right after get_cfg().")
    check_ranges(cfg)
    _check_names(cfg)
    _check_system(cfg)
    _check_convolutional(cfg)
    _check_sizes(cfg)
    if cfg.MODEL.BACKBONE.NAME == "build_vif_timm_backbone":
        from .modeling.timm_backbone import check_timm_backbone

        check_timm_backbone(cfg)
    _check_weights(cfg)
    _check_files(cfg)
    _check_speed(cfg)
    from .unread import warn_unread

    warn_unread(cfg)


def _check_speed(cfg: CN) -> None:
    """Mixed precision, attention and compiling that this machine and torch have."""
    from .modeling.attention import check_attention
    from .modeling.compiling import check_compile

    device = cfg.MODEL.DEVICE if torch.cuda.is_available() else "cpu"
    if cfg.SOLVER.AMP.ENABLED:
        amp_dtype(cfg.SOLVER.AMP.DTYPE, torch.device(device).type)
    check_attention(cfg.MODEL.BACKBONE.VIT.ATTENTION)
    if cfg.MODEL.COMPILE:
        check_compile(device, cfg.MODEL.META_ARCHITECTURE)


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
