"""Everything that importing `vif` registers with fastreid, and the names that a train_net.py needs."""

from . import compat

compat.install()  # before anything below imports fastreid's data, evaluation or engine

from .config import add_vif_config  # noqa: E402
from .config_checks import check_config  # noqa: E402
from .data import augmentations as _augmentations  # noqa: E402, F401  registers "PatchLevelRotateMix", ...
from .data.datasets import registry as _datasets  # noqa: E402, F401  registers CARGO, AGReIDv1, ...
from .evaluation import evaluator as _evaluator  # noqa: E402, F401  registers "ProtocolEvaluator"
from .modeling import backbones as _backbones  # noqa: E402, F401  registers "build_vif_vit_backbone"
from .modeling import explain as _explain  # noqa: E402, F401  registers "Explain"
from .modeling import meta_arch as _meta_arch  # noqa: E402, F401  registers "VIF" and "VIALLoss"
from .modeling import osnet as _osnet  # noqa: E402, F401  registers "OSNetHead"
from .modeling import pcb as _pcb  # noqa: E402, F401  registers "PCB"
from .modeling import timm_backbone as _timm  # noqa: E402, F401  registers "build_vif_timm_backbone"
from .modeling import vdt as _vdt  # noqa: E402, F401  registers "VDT" and "build_vdt_backbone"
from .modeling import vv as _vv  # noqa: E402, F401  registers "VV"
from .registries import EVALUATOR_REGISTRY, LOSS_REGISTRY, TRANSFORM_REGISTRY  # noqa: E402
from .trainer import VIFTrainer, verify_results  # noqa: E402

__all__ = [
    "EVALUATOR_REGISTRY",
    "LOSS_REGISTRY",
    "TRANSFORM_REGISTRY",
    "VIFTrainer",
    "add_vif_config",
    "check_config",
    "verify_results",
]
