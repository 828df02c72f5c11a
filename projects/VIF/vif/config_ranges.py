"""What values a config key may have, whatever the others are."""

from typing import Any, Dict, Sequence, Tuple

from fastreid.config import CfgNode as CN

from .config import lookup
from .errors import ConfigError
from .precision import DTYPES

_UNIT = (0.0, 1.0)
# key -> allowed range, both ends included
RANGES: Dict[str, Tuple[float, float]] = {
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
    "SOLVER.CHECKPOINT_KEEP": (0, 1e9),
    "SOLVER.CHECKPOINT_MINUTES": (0.0, 1e6),
    "SOLVER.NON_FINITE_LIMIT": (1, 1e9),
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
CHOICES: Dict[str, Tuple[str, ...]] = {
    "INPUT.PLRM.FILL": ("zeros", "border", "reflect"),
    "INPUT.PLRM.MODE": ("center", "literal", "uniform"),
    "MODEL.BACKBONE.VIT.ATTENTION": ("eager", "sdpa"),
    "SOLVER.AMP.DTYPE": DTYPES,
    "SOLVER.NON_FINITE": ("stop", "skip"),
    "DATALOADER.BAD_IMAGES": ("error", "skip"),
    "TEST.BEST_METRIC": _METRICS,
    "TEST.METRIC": ("cosine", "euclidean"),
}


def check_ranges(cfg: CN) -> None:
    """Refuse a value out of its range, or none of its choices.

    Raises:
        ConfigError: names the key, its value and what is allowed.
    """
    for key, (low, high) in RANGES.items():
        value = lookup(cfg, key)
        if not low <= value <= high:  # nor is NaN
            raise ConfigError(f"{key}={value} is out of range; it must be between {low:g} and {high:g}.")
    for key, allowed in CHOICES.items():
        if lookup(cfg, key) not in allowed:
            raise ConfigError(f"{key}={lookup(cfg, key)!r} is unknown; choose one of {', '.join(allowed)}.")
    _check_expected(cfg.TEST.EXPECTED_RESULTS)


def _check_expected(entries: Sequence[Any]) -> None:
    """Entries of TEST.EXPECTED_RESULTS, which are read when the run is over."""
    for entry in entries:
        kinds = [type(value) for value in entry] if isinstance(entry, (list, tuple)) else []
        if kinds[:3] != [str] * 3 or len(kinds) != 5 or not set(kinds[3:]) <= {int, float}:
            raise ConfigError(
                f"TEST.EXPECTED_RESULTS holds {entry!r}; it must hold entries (data set, protocol, metric, "
                "percent, tolerance), as in [['SynthAG', 'AG', 'mAP', 19.4, 4.0]]."
            )
