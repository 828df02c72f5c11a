"""From images to features without a data set: Predictor and what it is made of."""

from typing import TYPE_CHECKING, Any

from .images import ImageFailure
from .metadata import Signature

if TYPE_CHECKING:
    from .predictor import Predictor

__all__ = ["ImageFailure", "Predictor", "Signature"]


def __getattr__(name: str) -> Any:
    if name == "Predictor":  # on demand: commands that read no image need no torch
        from .predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'vif.inference' has no attribute {name!r}")
