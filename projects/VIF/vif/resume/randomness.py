"""The random states of a process, as tensors and plain values."""

import random
from typing import Any, Dict

import numpy as np
import torch


def random_states(device: str = "cpu") -> Dict[str, Any]:
    """States of torch, numpy and Python, and of the GPU that `device` is on."""
    _, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, numbers, next_gauss = random.getstate()
    states: Dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": {
            "keys": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "gauss": float(gauss),
        },
        "python": {"version": version, "numbers": list(numbers), "gauss": next_gauss},
    }
    if device.startswith("cuda"):
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: Dict[str, Any], device: str = "cpu") -> None:
    """Put back what `random_states` returned."""
    torch.set_rng_state(states["torch"])
    of_numpy, of_python = states["numpy"], states["python"]
    keys = of_numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state(  # noqa: NPY002
        ("MT19937", keys, of_numpy["position"], of_numpy["has_gauss"], of_numpy["gauss"])
    )
    random.setstate((of_python["version"], tuple(of_python["numbers"]), of_python["gauss"]))
    if device.startswith("cuda") and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
