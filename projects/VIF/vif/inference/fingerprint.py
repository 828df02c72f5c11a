"""A short name of a network's weights, by which their features are told from those of others."""

import hashlib
import re
from typing import Any, Mapping

# identity classifiers of fastreid's Baseline and what derives from it, PCB, fastreid's MGN
_CLASSIFIER = re.compile(r"(heads|b\d+_head)\.(weight|classifiers\.\d+\.weight)")


def fingerprint(state: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of sha256 over names, types, shapes and bytes, in the order of the names.

    Identity classifiers are left out: features do not depend on them, and other tools take them away.

    Args:
        state: torch tensors by name, as `model.state_dict()` gives them.
    """
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        if not _CLASSIFIER.fullmatch(name):
            tensor = state[name].detach().cpu().contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
