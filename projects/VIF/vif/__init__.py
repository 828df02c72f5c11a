"""VIF-AGReID: view-invariant aerial-ground person re-identification, a plugin of fastreid.

Importing it registers its data sets, transform, loss, model and evaluator with fastreid. Without fastreid
the parts that need none still import: `vif.data.transforms`, `vif.modeling.losses`, `vif.evaluation`,
`vif.retrieval` (without torch, too), and `vif.Predictor.from_onnx`.
"""

import importlib.util
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inference import Predictor

__version__ = "0.1.0"

if importlib.util.find_spec("fastreid") is not None:
    from .plugin import (
        EVALUATOR_REGISTRY,
        LOSS_REGISTRY,
        TRANSFORM_REGISTRY,
        VIFTrainer,
        add_vif_config,
        check_config,
        verify_results,
    )

    # fastreid sets up handlers for its own name only: VIF's log lines go where fastreid's go.
    logging.getLogger("vif").parent = logging.getLogger("fastreid")

__all__ = [
    "EVALUATOR_REGISTRY",
    "LOSS_REGISTRY",
    "TRANSFORM_REGISTRY",
    "Predictor",
    "VIFTrainer",
    "__version__",
    "add_vif_config",
    "check_config",
    "verify_results",
]


def __getattr__(name: str) -> Any:
    if name == "Predictor":  # on demand: galleries (`vif.retrieval`) need no torch
        from .inference import Predictor

        return Predictor
    if name in __all__:
        from .compat import INSTALL_HINT

        raise ImportError(f"vif.{name} needs fastreid. {INSTALL_HINT}")
    raise AttributeError(f"module 'vif' has no attribute {name!r}")
