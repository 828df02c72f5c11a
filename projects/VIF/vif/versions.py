"""What the numbers of a run depend on beside its config: versions and the commit of the source."""

import functools
import os
import platform
import subprocess
from typing import Dict

import vif


def versions() -> Dict[str, str]:
    """Of what the numbers depend on."""
    import cv2
    import numpy as np
    import torch

    return {
        "vif": vif.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "python": platform.python_version(),
    }


@functools.lru_cache(maxsize=1)
def commit() -> str:
    """Commit of the source tree, "+" when files differ from it; empty outside its repository."""
    here, name = os.path.split(os.path.abspath(__file__))

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", name)  # an environment in another project's tree is not its source
        return git("describe", "--always", "--dirty=+", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return ""
