"""Keys of VIF's that a run would not read: said aloud under VIF's trainer, refused under fastreid's own."""

import functools
from typing import Any, Dict, List, NamedTuple, Tuple

from fastreid.config import CfgNode, get_cfg

from .compat import say_once
from .config import add_vif_config, leaves, lookup
from .config_checks import FASTREID_LOSSES
from .errors import ConfigError


class Reader(NamedTuple):
    """What reads the keys under a prefix: one of `words` in one of the keys `chosen_by`."""

    prefix: str
    chosen_by: Tuple[str, ...]
    words: Tuple[Any, ...]


_OURS = ("build_vif_vit_backbone", "build_vdt_backbone")
READERS = (
    Reader("INPUT.PLRM", ("INPUT.TRANSFORMS",), ("PatchLevelRotateMix",)),
    Reader("INPUT.ROTATION", ("INPUT.TRANSFORMS",), ("RandomRotation",)),
    Reader("INPUT.PATCH_SHUFFLE", ("INPUT.TRANSFORMS",), ("PatchShuffle",)),
    Reader("MODEL.LOSSES.VIAL.MARGIN", ("MODEL.META_ARCHITECTURE",), ("VIF",)),  # also of what is logged
    Reader("MODEL.LOSSES.VIAL", ("MODEL.LOSSES.NAME",), ("VIALLoss",)),
    Reader("MODEL.LOSSES.TRI.GATHER", ("MODEL.META_ARCHITECTURE",), ("VIF", "VV")),
    Reader("MODEL.VDT", ("MODEL.META_ARCHITECTURE",), ("VDT",)),
    Reader("MODEL.EXPLAIN", ("MODEL.META_ARCHITECTURE",), ("Explain",)),
    Reader("MODEL.PCB", ("MODEL.META_ARCHITECTURE",), ("PCB",)),
    Reader("MODEL.BACKBONE.VIT.ATTENTION", ("MODEL.BACKBONE.NAME",), (*_OURS, "build_vit_backbone")),
    Reader("MODEL.BACKBONE.VIT", ("MODEL.BACKBONE.NAME",), _OURS),
    Reader("MODEL.BACKBONE.TIMM", ("MODEL.BACKBONE.NAME",), ("build_vif_timm_backbone",)),
    Reader("DATASETS.MANIFEST", ("DATASETS.NAMES", "DATASETS.TESTS"), ("AGManifest",)),
    Reader("DATASETS.ATTRIBUTES", ("DATALOADER.LABELS",), ("attributes",)),
    Reader("SOLVER.AMP.DTYPE", ("SOLVER.AMP.ENABLED",), (True,)),
    Reader("SOLVER.NON_FINITE_LIMIT", ("SOLVER.NON_FINITE",), ("skip",)),
)


@functools.cache
def vif_defaults() -> Dict[str, Any]:
    """Dotted keys that `add_vif_config` adds, with their defaults."""
    fastreids, both = get_cfg(), get_cfg()
    add_vif_config(both)
    theirs = dict(leaves(fastreids))
    return {key: value for key, value in sorted(leaves(both)) if key not in theirs}


def changed_keys(cfg: CfgNode) -> List[str]:
    """Keys of VIF's that are not at their defaults; none in a config without them."""
    there = dict(leaves(cfg))
    return [key for key, value in vif_defaults().items() if there.get(key, value) != value]


def warn_unread(cfg: CfgNode) -> None:
    """Say which changed keys are of a transform, loss, model or data set that the config does not choose."""
    for key in changed_keys(cfg):
        reader = next((reader for reader in READERS if f"{key}.".startswith(f"{reader.prefix}.")), None)
        if reader is None or _chosen(cfg, reader):
            continue
        say_once(
            f"{key}={lookup(cfg, key)!r} has no effect in this run: it is read where "
            f"{' or '.join(reader.chosen_by)} has {' or '.join(map(str, reader.words))}"
        )


def _chosen(cfg: CfgNode, reader: Reader) -> bool:
    values = [lookup(cfg, key) for key in reader.chosen_by]
    names = {name for value in values for name in ([value] if isinstance(value, (str, bool)) else value)}
    return bool(names & set(reader.words))


def refuse_unread(cfg: CfgNode) -> None:
    """Refuse a config whose VIF keys fastreid's own trainer would not read.

    Keys under MODEL work there: VIF's models and backbones are registered with fastreid and read them.

    Raises:
        ConfigError: names the keys, and the line that is missing.
    """
    from .registries import LOSS_REGISTRY

    unread = [key for key in changed_keys(cfg) if not key.startswith("MODEL.")]
    losses = [n for n in cfg.MODEL.LOSSES.NAME if n in LOSS_REGISTRY.names() and n not in FASTREID_LOSSES]
    if losses and cfg.MODEL.META_ARCHITECTURE != "VIF":
        unread.append(
            f"MODEL.LOSSES.NAME ({', '.join(losses)} with MODEL.META_ARCHITECTURE "
            f"{cfg.MODEL.META_ARCHITECTURE!r}, which knows fastreid's losses only)"
        )
    if unread:
        raise ConfigError(
            f"This config sets {', '.join(unread)}, which fastreid's own trainer does not read: put "
            "vif.VIFTrainer in its place, as docs/swap-in.md shows, or leave these keys at their defaults."
        )
    warn_unread(cfg)
