"""Keys of VIF's that a run would not read: said aloud under VIF's trainer, refused under fastreid's own."""

import functools
from typing import Any, Dict, List, NamedTuple, Tuple

from fastreid.config import CfgNode, get_cfg

from .compat import say_once
from .config import add_vif_config, leaves, lookup
from .config_checks import FASTREID_LOSSES
from .errors import ConfigError


class Reader(NamedTuple):
    """What the keys below `prefixes` need to be read: one of `words` in one of the keys `chosen_by`."""

    prefixes: Tuple[str, ...]
    chosen_by: Tuple[str, ...]
    words: Tuple[Any, ...]


_OURS = ("build_vif_vit_backbone", "build_vdt_backbone")
_VIAL, _VIT = "MODEL.LOSSES.VIAL.", "MODEL.BACKBONE.VIT."
_SHAPE = ("EMBED_DIM", "DEPTH", "NUM_HEADS", "MLP_RATIO", "PATCH_SIZE")
_LOSS = ("BETA", "LAMBDA", "PENALTY", "HARD_NEGATIVES", "SCALE", "GATHER")
READERS = (
    Reader(("INPUT.PLRM",), ("INPUT.TRANSFORMS",), ("PatchLevelRotateMix",)),
    Reader(("INPUT.ROTATION",), ("INPUT.TRANSFORMS",), ("RandomRotation",)),
    Reader(("INPUT.PATCH_SHUFFLE",), ("INPUT.TRANSFORMS",), ("PatchShuffle",)),
    Reader((f"{_VIAL}MARGIN",), ("MODEL.META_ARCHITECTURE",), ("VIF",)),  # what is logged, too, counts by it
    Reader(tuple(_VIAL + name for name in _LOSS), ("MODEL.LOSSES.NAME",), ("VIALLoss",)),
    Reader((f"{_VIAL}BETA", f"{_VIAL}LAMBDA"), (f"{_VIAL}PENALTY",), (True,)),
    Reader(("MODEL.LOSSES.TRI.GATHER",), ("MODEL.META_ARCHITECTURE",), ("VIF", "VV")),
    Reader(("MODEL.LOSSES.TRI.GATHER",), ("MODEL.LOSSES.NAME",), ("TripletLoss",)),
    Reader(("MODEL.VDT",), ("MODEL.META_ARCHITECTURE",), ("VDT",)),
    Reader(("MODEL.EXPLAIN",), ("MODEL.META_ARCHITECTURE",), ("Explain",)),
    Reader(("MODEL.PCB",), ("MODEL.META_ARCHITECTURE",), ("PCB",)),
    Reader((f"{_VIT}ATTENTION",), ("MODEL.BACKBONE.NAME",), (*_OURS, "build_vit_backbone")),
    Reader(tuple(_VIT + name for name in _SHAPE), ("MODEL.BACKBONE.NAME",), _OURS),
    Reader(("MODEL.BACKBONE.TIMM",), ("MODEL.BACKBONE.NAME",), ("build_vif_timm_backbone",)),
    Reader(("DATASETS.MANIFEST",), ("DATASETS.NAMES", "DATASETS.TESTS"), ("AGManifest",)),
    Reader(("DATASETS.ATTRIBUTES",), ("DATALOADER.LABELS",), ("attributes",)),
    Reader(("SOLVER.AMP.DTYPE",), ("SOLVER.AMP.ENABLED",), (True,)),
    Reader(("SOLVER.NON_FINITE_LIMIT",), ("SOLVER.NON_FINITE",), ("skip",)),
)


@functools.cache
def vif_defaults() -> Dict[str, Any]:
    """Dotted keys that `add_vif_config` adds, with their defaults."""
    fastreids, both = get_cfg(), get_cfg()
    add_vif_config(both)
    theirs = dict(leaves(fastreids))
    return {key: value for key, value in sorted(leaves(both)) if key not in theirs}


def readers_of(key: str) -> List[Reader]:
    """What a key needs to be read; nothing where VIF's trainer reads it in every run."""
    return [reader for reader in READERS if any(f"{key}.".startswith(f"{p}.") for p in reader.prefixes)]


def changed_keys(cfg: CfgNode) -> List[str]:
    """Keys of VIF's that are not at their defaults; none in a config without them."""
    there = dict(leaves(cfg))
    return [key for key, value in vif_defaults().items() if there.get(key, value) != value]


def warn_unread(cfg: CfgNode) -> None:
    """Say which changed keys are of a transform, loss, model or data set that the config does not choose."""
    for key in changed_keys(cfg):
        lacking = [reader for reader in readers_of(key) if not _chosen(cfg, reader)]
        needs = [f"{' or '.join(r.chosen_by)} has {' or '.join(map(str, r.words))}" for r in lacking]
        if needs:
            value, needed = lookup(cfg, key), ", and ".join(needs)
            say_once(f"{key}={value!r} has no effect in this run: it is read where {needed}")


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
