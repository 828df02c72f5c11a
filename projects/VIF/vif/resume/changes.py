"""What differs between the config a run was started with and the one it is to go on with."""

from typing import Any, Dict, List, Mapping, NamedTuple

from .files import plain

# keys, and whole groups of keys, that leave what is trained as it is
_FREE = (
    "OUTPUT_DIR",
    "CUDNN_BENCHMARK",
    "VERSION",
    "DATALOADER.NUM_WORKERS",
    "DATASETS.TESTS",
    "KD",  # of fastreid's distillation project
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",  # where a run starts, which is behind it
    "MODEL.BACKBONE.PRETRAIN",
    "MODEL.BACKBONE.PRETRAIN_PATH",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.CHECKPOINT_KEEP",
    "SOLVER.CHECKPOINT_MINUTES",
    "SOLVER.LOG_PERIOD",
    "SOLVER.RESUME_CHANGED",
    "TEST",
)
_BOUND = ("TEST.PRECISE_BN",)  # of the groups above, what changes weights after all


class Changes(NamedTuple):
    """Changed keys, each as a line "KEY: old -> new"."""

    free: List[str]  # do not touch what is trained
    bound: List[str]  # change what the run means
    keys: List[str]  # of the second kind, the names


def compare(old: Mapping[str, Any], new: Mapping[str, Any], defaults: Mapping[str, Any]) -> Changes:
    """Compare two configs by their dotted keys.

    Args:
        old: of the checkpoint; a key that it lacks, being of an older version, had its default.
        new: of this run.
        defaults: of this version.
    """
    free: List[str] = []
    bound: Dict[str, str] = {}
    for key, value in sorted(new.items()):
        before = plain(old.get(key, defaults.get(key, value)))
        if before == plain(value):
            continue
        line = f"{key}: {before!r} -> {plain(value)!r}"
        if _within(key, _FREE) and not _within(key, _BOUND):
            free.append(line)
        else:
            bound[key] = line
    return Changes(free, list(bound.values()), list(bound))


def _within(key: str, groups: Any) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)
