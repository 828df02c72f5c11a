"""In which floating type a training step computes."""

import contextlib
import functools
from typing import Any, ContextManager

import torch

from .errors import ConfigError

DTYPES = ("auto", "float16", "bfloat16")
# instructions for bfloat16: of x86 and ARM, as Linux names them and as torch does
_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16", "svebf16", "sve_bf16")
NO_BFLOAT16 = (
    "This processor is not known to have instructions for bfloat16, without which it is many times slower: "
    "mixed precision computes in float32 here, as it does when it is off. SOLVER.AMP.DTYPE bfloat16 takes it "
    "all the same."
)


def amp_dtype(name: str, device_type: str) -> torch.dtype:
    """The type of SOLVER.AMP.DTYPE on a device.

    Args:
        name: one of `DTYPES`; "auto" is float16 on CUDA, as in fastreid; elsewhere bfloat16 where the
            processor computes in it, else float32.
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
    if name == "auto" and device_type != "cuda":
        return torch.bfloat16 if native_bfloat16() else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float16


@functools.lru_cache(maxsize=1)
def native_bfloat16(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Whether the processor has instructions for bfloat16; False where neither Linux nor torch can tell."""
    try:
        with open(cpuinfo, encoding="ascii", errors="replace") as f:
            found = set(f.read().split())
    except OSError:  # another system
        ask = getattr(torch.cpu, "get_capabilities", dict)  # older torch has none
        found = {name for name, there in ask().items() if there}
    return not found.isdisjoint(_BFLOAT16)


def autocast(device_type: str, dtype: torch.dtype) -> ContextManager[Any]:
    """torch's autocast in a half type; nothing at all in float32, which the CPU's refuses in torch 1.13."""
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device_type, dtype)


def grad_scaler(device_type: str) -> Any:
    """A new loss scaler, for float16."""
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device_type)
    return torch.cuda.amp.GradScaler()  # torch < 2.3
