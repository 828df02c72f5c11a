"""Config files and KEY VALUE pairs, read as plain data: what is wrong with them is said in one line."""

import os
from typing import Any, Callable, Dict, List, Sequence

import yaml
from fastreid.config import CfgNode, get_cfg

from .config import add_vif_config, leaves, lookup
from .errors import ConfigError

BASE = "_BASE_"


def read_config(path: str, opts: Sequence[Any] = ()) -> CfgNode:
    """A config file with VIF's keys, changed by KEY VALUE pairs.

    Raises:
        ConfigError: as `merge_file` and `merge_pairs`.
    """
    cfg = get_cfg()
    add_vif_config(cfg)
    merge_file(cfg, path)
    merge_pairs(cfg, opts)
    return cfg


def merge_file(cfg: CfgNode, path: str) -> None:
    """Merge a YAML file and its bases into a config, as fastreid does. Tags that run code are refused.

    Raises:
        ConfigError: a file is missing, no YAML of plain values, or inherits from itself; a key is unknown or
            has a value of another type; names the file, and the key.
    """
    _check_chain(path)
    _merge(cfg, path, lambda: cfg.merge_from_file(path))


def merge_pairs(cfg: CfgNode, opts: Sequence[Any]) -> None:
    """Merge KEY VALUE pairs, as fastreid does.

    Raises:
        ConfigError: a key without a value, an unknown key, or a value of another type.
    """
    _merge(cfg, "KEY VALUE pairs", lambda: cfg.merge_from_list(list(opts)))


def _check_chain(path: str) -> None:
    """Read a file and its bases for what fastreid's own reading of them would not survive."""
    seen: List[str] = []
    while path:
        if os.path.realpath(path) in map(os.path.realpath, seen):
            raise ConfigError(f"{seen[-1]}: {BASE} {path!r} inherits from itself: {' <- '.join(seen)}.")
        content = _load(path, seen[-1] if seen else "")
        seen.append(path)
        base = content.get(BASE, "")
        if not isinstance(base, str) or "://" in base:
            raise ConfigError(f"{path}: {BASE} must be the path of a file, got {base!r}.")
        base = os.path.expanduser(base)
        path = base and os.path.join(os.path.dirname(path), base)


def _load(path: str, heir: str) -> Dict[Any, Any]:
    wanted = f" ({BASE} of {heir})" if heir else ""
    if not os.path.isfile(path):
        raise ConfigError(f"there is no config file {path!r}{wanted}; the run is in {os.getcwd()}.")
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except Exception as error:  # of PyYAML, of the decoder, of values such as dates that are none
        raise ConfigError(
            f"{path}{wanted} cannot be read as YAML of plain values, in UTF-8: {_one_line(error)}."
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}{wanted} is no config: it must map keys to values, and holds {content!r:.60}."
        )
    return content


def _merge(cfg: CfgNode, source: str, merge: Callable[[], None]) -> None:
    before = dict(leaves(cfg))
    try:
        merge()
    except (
        Exception
    ) as error:  # yacs asserts, and raises KeyError, ValueError, TypeError, AttributeError, ...
        raise ConfigError(f"{source}: {_one_line(error)}.") from error
    for key, value in before.items():
        _check_kind(source, key, value, lookup(cfg, key))


def _check_kind(source: str, key: str, old: Any, new: Any) -> None:
    """What yacs lets through: nothing in place of a value, and lists of another kind of entries."""
    if new is None and old is not None:
        raise ConfigError(f"{source}: {key} has no value; it was {old!r}.")
    if not isinstance(old, (list, tuple)) or not old:
        return
    kinds = {type(entry) for entry in old}
    if kinds <= {int, float}:
        kinds = {int, float} if float in kinds else {int}
    if kinds <= {int, float, str} and not {type(entry) for entry in new} <= kinds:
        names = " or ".join(sorted(kind.__name__ for kind in kinds))
        raise ConfigError(f"{source}: {key} must hold {names} only, as in {old!r}; got {new!r}.")


def _one_line(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__
