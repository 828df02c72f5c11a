"""torch.compile of a backbone, in place: the names of its weights stay."""

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

from torch import nn

from ..errors import ConfigError

_COMPILERS = ("c++", "g++", "clang++", "cl")


def check_compile(device: str, meta_arch: str) -> None:
    """Refuse to compile where it cannot work.

    Args:
        device: torch device name.
        meta_arch: MODEL.META_ARCHITECTURE.

    Raises:
        ConfigError: torch is too old, no compiler or Python header or Triton is found, or the system reads
            the backbone's inside through hooks.
    """
    missing = ""
    if not hasattr(nn.Module, "compile"):
        missing = "torch 2.2 or newer"
    elif not any(map(shutil.which, filter(None, (os.environ.get("CXX"), *_COMPILERS)))):
        missing = f"a C++ compiler (one of {', '.join(_COMPILERS)}, or CXX)"
    elif not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        missing = "Python's header files (Python.h)"
    elif device.startswith("cuda") and importlib.util.find_spec("triton") is None:
        missing = "the package triton"
    if missing:
        raise ConfigError(f"MODEL.COMPILE=True needs {missing}, which is not here; turn it off.")
    if meta_arch == "Explain":
        raise ConfigError(
            "MODEL.COMPILE=True does not go with MODEL.META_ARCHITECTURE='Explain', which reads tokens in "
            "the backbone through hooks that a compiled one need not call; turn it off."
        )


def compile_in_place(backbone: nn.Module) -> None:
    """Compile at the first call, and again for evaluation and for other sizes of a batch."""
    backbone.compile()
