"""Registries for what fastreid keeps closed: transforms, losses, evaluators.

A user adds one of his own without touching ours: register it under its name, then write that name in the
config. Each entry is called with the config, as fastreid's registries do.
"""

from typing import Any, List

from fastreid.utils.registry import Registry as FastreidRegistry

from .errors import ConfigError


class Registry(FastreidRegistry):
    """fastreid's registry; a failed look-up lists what there is."""

    def names(self) -> List[str]:
        """Registered names, sorted."""
        return sorted(self._obj_map)

    def get(self, name: str) -> Any:
        """Return the object registered under `name`, or raise ConfigError with the names there are."""
        if name not in self._obj_map:
            known = ", ".join(self.names()) or "nothing"
            raise ConfigError(f'"{name}" is not in the {self._name} registry; it holds: {known}.')
        return self._obj_map[name]


TRANSFORM_REGISTRY = Registry("TRANSFORM")
TRANSFORM_REGISTRY.__doc__ = """
Training-time image transforms, named in INPUT.TRANSFORMS. `entry(cfg)` returns a callable
`op(image, rng)`: uint8 (H, W, 3) array and numpy Generator in, uint8 (H, W, 3) array out.
"""

LOSS_REGISTRY = Registry("LOSS")
LOSS_REGISTRY.__doc__ = """
Losses of meta architecture VIF, named in MODEL.LOSSES.NAME beside fastreid's own. `entry(cfg)` returns a
module: features (N, D) before the BNNeck and targets (N,) in, 0-d tensor out, its weight applied.
"""

EVALUATOR_REGISTRY = Registry("EVALUATOR")
EVALUATOR_REGISTRY.__doc__ = """
Evaluators, named in TEST.EVALUATOR. `entry(cfg)` returns an object with
`evaluate(table, protocols) -> {protocol name: {metric: value}}`.
"""
