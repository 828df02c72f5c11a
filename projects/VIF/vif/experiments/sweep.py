"""A sweep as data: which configs, with which changes, under which seeds. Read from YAML, turned into runs."""

import hashlib
import itertools
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import yaml
from fastreid.config import get_cfg

from ..config import add_vif_config, leaves
from ..config_checks import check_config
from ..config_file import read_config
from ..errors import ConfigError

_KEYS = {"title", "table", "config", "baseline", "seeds", "set", "arms", "grids"}


@dataclass(frozen=True)
class Run:
    """One training with one seed.

    Attributes:
        arm: what it is called in tables, e.g. "+PLRM" or "VIAL.BETA=10".
        grid: name of the grid that it belongs to; empty for a listed arm.
        values: config keys that the grid varies, with this run's values.
        seed: SEED.
        config: path of its YAML.
        set: config keys changed on top of the YAML, without the seed.
        id: digest of the whole config, output folder aside; equal runs of two sweeps share it.
        cfg: the config, frozen; OUTPUT_DIR is left empty.
    """

    arm: str
    grid: str
    values: Dict[str, Any]
    seed: int
    config: str
    set: Dict[str, Any]
    id: str
    cfg: Any


@dataclass(frozen=True)
class Sweep:
    """Runs to compare. `name`: file name without its ending; `data`: folder of the configs, e.g. "CARGO".

    `table` says which table or figure of the paper the arms are named after; `baseline` is the arm that
    differences are taken to; both may be empty.
    """

    name: str
    title: str
    table: str
    data: str
    baseline: str
    runs: Tuple[Run, ...]


def read_sweep(path: str, data: str, seeds: Sequence[int] = (), opts: Sequence[Any] = ()) -> Sweep:
    """Read a sweep file and build the config of each of its runs.

    Keys of the file: `title`; `arms`, name -> {config key: value}, or `grids`, name -> {config key: list of
    values}, each the product of its lists (or both); `config`, the YAML they start from, relative to the
    folder above the file's, where `{data}` stands for `data` (an arm may name its own: `config: ...`);
    `seeds`; and, if wanted, `set` (changes for all), `table` and `baseline`.

    Args:
        path: the sweep's YAML.
        data: data set, as the folders of configs are called.
        seeds: in place of the file's.
        opts: KEY VALUE pairs for every run, the last word.

    Raises:
        ConfigError: the file or a run's config is wrong; names the file and the arm.
    """
    spec = _load(path)
    root = os.path.dirname(os.path.dirname(os.path.abspath(path)))
    runs: List[Run] = []
    for arm, grid, values, changes in _arms(spec, path):
        changes = {**spec.get("set", {}), **changes}
        config = os.path.join(root, str(changes.pop("config", spec["config"])).replace("{data}", data))
        for seed in seeds or spec["seeds"]:
            try:
                cfg = build_cfg(config, [*_pairs(changes), *opts, "SEED", seed])
            except ConfigError as e:
                raise ConfigError(f"{path}, arm {arm!r} ({config}): {e}") from e
            runs.append(Run(arm, grid, values, seed, config, changes, digest(cfg), cfg))
    return Sweep(
        name=os.path.splitext(os.path.basename(path))[0],
        title=str(spec["title"]),
        table=str(spec.get("table", "")),
        data=data,
        baseline=str(spec.get("baseline", "")),
        runs=tuple(runs),
    )


def build_cfg(config: str, opts: Sequence[Any]) -> Any:
    """A checked, frozen config of `config` with KEY VALUE pairs changed; OUTPUT_DIR empty."""
    cfg = read_config(config, opts)
    cfg.OUTPUT_DIR = ""
    cfg.TEST.EXPECTED_RESULTS = []  # of the unchanged config only
    check_config(cfg)
    cfg.freeze()
    return cfg


def digest(cfg: Any) -> str:
    """Twelve hexadecimal digits of what a config changes of the defaults; so new keys change no digest."""
    defaults = get_cfg()
    add_vif_config(defaults)
    before, after = dict(leaves(defaults)), dict(leaves(cfg))
    changed = [(key, repr(value)) for key, value in sorted(after.items()) if before.get(key) != value]
    return hashlib.sha256(repr(changed).encode()).hexdigest()[:12]


def _load(path: str) -> Mapping[str, Any]:
    try:
        with open(path, encoding="utf-8") as f:
            spec = yaml.safe_load(f)
    except Exception as e:  # of PyYAML, of the decoder, of values such as dates that are none
        raise ConfigError(f"{path} cannot be read as a sweep: {' '.join(str(e).split())}") from e
    if not isinstance(spec, dict):
        raise ConfigError(f"{path} is no sweep: it must map {', '.join(sorted(_KEYS))} to values.")
    unknown, missing = set(spec) - _KEYS, {"title", "config", "seeds"} - set(spec)
    if unknown or missing or not (spec.get("arms") or spec.get("grids")):
        raise ConfigError(
            f"{path} is no sweep: it needs title, config, seeds and arms or grids, and may have baseline, "
            f"set and table. Unknown: {', '.join(sorted(map(str, unknown))) or 'none'}; missing: "
            f"{', '.join(sorted(missing)) or 'arms or grids'}."
        )
    for name in ("arms", "grids", "set"):
        if not isinstance(spec.get(name, {}), dict):
            raise ConfigError(f"{path}: {name} must map names to values, got {spec[name]!r}.")
    for arm, changes in (*spec.get("arms", {}).items(), ("set", spec.get("set", {}))):
        if not isinstance(changes or {}, dict) or not all(isinstance(key, str) for key in changes or {}):
            raise ConfigError(f"{path}: {arm!r} must map config keys to values, got {changes!r}.")
    if not isinstance(spec["seeds"], list) or not all(type(seed) is int for seed in spec["seeds"]):
        raise ConfigError(f"{path}: seeds must be a list of whole numbers, got {spec['seeds']!r}.")
    if spec.get("baseline") and str(spec["baseline"]) not in map(str, spec.get("arms", {})):
        raise ConfigError(f"{path}: baseline {spec['baseline']!r} is none of its arms.")
    return spec


def _arms(spec: Mapping[str, Any], path: str) -> List[Tuple[str, str, Dict[str, Any], Dict[str, Any]]]:
    """(arm, grid, varied values, changes) of every arm and every point of the grids."""
    found: List[Tuple[str, str, Dict[str, Any], Dict[str, Any]]] = [
        (str(arm), "", {}, dict(changes or {})) for arm, changes in spec.get("arms", {}).items()
    ]
    for grid, lists in spec.get("grids", {}).items():
        if not isinstance(lists, dict) or not all(
            isinstance(key, str) and isinstance(values, list) and values for key, values in lists.items()
        ):
            raise ConfigError(
                f"{path}: grid {grid!r} must map config keys to lists of values, got {lists!r}."
            )
        for point in itertools.product(*lists.values()):
            values = dict(zip(lists, point))
            name = ", ".join(f"{'.'.join(key.split('.')[-2:])}={value}" for key, value in values.items())
            found.append((name, str(grid), values, dict(values)))
    return found


def _pairs(changes: Mapping[str, Any]) -> List[Any]:
    return [part for pair in changes.items() for part in pair]
