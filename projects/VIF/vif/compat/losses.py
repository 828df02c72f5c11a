"""fastreid's losses under autocast."""

import functools
import importlib
from typing import Any, Callable

import torch

NAMES = ("cross_entropy_loss", "triplet_loss", "pairwise_circleloss", "pairwise_cosface")
# where `from fastreid.modeling.losses import *` has put them
MODULES = ("losses", "meta_arch.baseline", "meta_arch.mgn")


def in_float32(loss: Callable[..., Any]) -> Callable[..., Any]:
    """A loss of (features or logits, ...) that computes in float32 whatever autocast says.

    float32 and wider input gives the same bits as before.
    """

    @functools.wraps(loss)
    def wide(inputs: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(inputs.device.type, enabled=False):
            wide_enough = inputs.dtype in (torch.float32, torch.float64)
            return loss(inputs if wide_enough else inputs.float(), *args, **kwargs)

    return wide


def losses_in_float32() -> None:
    """Put `in_float32` around fastreid's losses. Repeating it changes nothing.

    Serves: SOLVER.AMP. The triplet loss takes squared distances as a difference of products, which float16
    cannot hold above 65,504 (features longer than 256) and bfloat16 rounds to 8 bits. Can go when fastreid's
    losses leave autocast.
    """
    for path in MODULES:
        module: Any = importlib.import_module(f"fastreid.modeling.{path}")
        for name in NAMES:
            loss = getattr(module, name, None)
            if loss is not None and not hasattr(loss, "__wrapped__"):
                setattr(module, name, in_float32(loss))
