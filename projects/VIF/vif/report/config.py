"""The config of a run: what differs from the defaults, and the whole."""

import os
from typing import Any, List, NamedTuple, Sequence, Tuple

from fastreid.config import get_cfg

from ..config import add_vif_config, leaves
from ..config_file import read_config
from ..evaluation.evaluator import ProtocolEvaluator
from ..evaluation.processing import Processing


class RunConfig(NamedTuple):
    """A run's config as plain values.

    Attributes:
        cfg: fastreid's config.
        changed: (key, value, default) of the keys that differ, sorted.
        everything: (key, value) of all keys, sorted.
    """

    cfg: Any
    changed: List[Tuple[str, str, str]]
    everything: List[Tuple[str, str]]

    @property
    def processing(self) -> Processing:
        """Metric and post-processing of the run's own evaluation."""
        return ProtocolEvaluator.from_config(self.cfg)["processing"]


def read_run_config(path: str, roots: Sequence[str]) -> RunConfig:
    """Read a run's config.yaml.

    Args:
        path: the file.
        roots: folders that paths are shown relative to; other absolute paths lose their folders.

    Raises:
        ConfigError: no such file, or it has keys or values that this version does not know.
    """
    cfg = read_config(path)
    defaults = get_cfg()
    add_vif_config(defaults)
    values, standard = dict(leaves(cfg)), dict(leaves(defaults))
    changed = [
        (key, show(value, roots), show(standard.get(key), roots))
        for key, value in sorted(values.items())
        if value != standard.get(key)
    ]
    return RunConfig(cfg, changed, [(key, show(value, roots)) for key, value in sorted(values.items())])


def show(value: Any, roots: Sequence[str]) -> str:
    """A value as text, without the folders of the machine it comes from."""
    if isinstance(value, (list, tuple)):
        return repr(type(value)(shorten(part, roots) if isinstance(part, str) else part for part in value))
    return (shorten(value, roots) or '""') if isinstance(value, str) else repr(value)


def shorten(path: str, roots: Sequence[str]) -> str:
    """An absolute path relative to the root it is below, or its last part; other text as it is."""
    if not os.path.isabs(path):
        return path
    for root in roots:
        inside = os.path.join(os.path.abspath(root), "")
        if os.path.join(path, "").startswith(inside):
            return os.path.relpath(path, inside)
    return f".../{os.path.basename(path.rstrip(os.sep))}"
