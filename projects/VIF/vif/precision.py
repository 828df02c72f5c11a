"""In which floating type a training step computes."""

import contextlib
from typing import Any, ContextManager

import torch

from .errors import ConfigError

DTYPES = ("auto", "float16", "bfloat16")


def amp_dtype(name: str, device_type: str) -> torch.dtype:
    """The type of SOLVER.AMP.DTYPE on a device.

    Args:
        name: one of `DTYPES`; "auto" is float16 on CUDA, as in fastreid, and bfloat16 elsewhere.
        device_type: "cuda", "cpu", ...

    Raises:
        ConfigError: float16 anywhere but on CUDA.
    """
    if name == "float16" and device_type != "cuda":
        raise ConfigError(
            f"SOLVER.AMP.DTYPE='float16' is for CUDA, and this run is on {device_type}: float16 there has "
            "no fast kernels and loses small gradients; take 'bfloat16' or 'auto', or turn "
            "SOLVER.AMP.ENABLED off."
        )
    if name == "auto":
        name = "float16" if device_type == "cuda" else "bfloat16"
    return torch.float16 if name == "float16" else torch.bfloat16


def autocast(device_type: str, dtype: torch.dtype) -> ContextManager[Any]:
    """torch's autocast in a half type; nothing at all in float32, which the CPU's refuses in torch 1.13."""
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device_type, dtype)


def grad_scaler(device_type: str) -> Any:
    """A new loss scaler, for float16."""
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device_type)
    return torch.cuda.amp.GradScaler()  # torch < 2.3
