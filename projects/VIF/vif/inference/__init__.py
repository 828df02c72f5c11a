"""From images to features without a data set: Predictor and what it is made of."""

from .images import ImageFailure
from .metadata import Signature
from .predictor import Predictor

__all__ = ["ImageFailure", "Predictor", "Signature"]
