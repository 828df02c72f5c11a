"""Files of weights, read on the CPU as tensors and plain values: nothing that a file holds is ever run."""

import collections
import hashlib
import json
import pickle
import re
import zipfile
from typing import Any, Dict, Mapping, NamedTuple, Tuple

import numpy as np
import torch

from .errors import DataError

TIMM = "timm://"  # scheme of weights by timm's name: timm://vit_base_patch16_224.augreg_in21k_ft_in1k
GRIDS = "position_grids"  # where our checkpoints note the grids of their position embeddings
_CODE = re.compile(r"(?:GLOBAL|class) ([\w.]+)")  # what torch's reader says that it refused
_WRAPPERS = ("model", "state_dict", "teacher", "model_state")  # names under which programs save a state dict


class Weights(NamedTuple):
    """A state dict and where it comes from."""

    source: str
    tensors: Dict[str, torch.Tensor]
    grids: Mapping[str, Tuple[int, int]]  # rows and columns of position embeddings by name, if the file says
    rest: Dict[str, Any]  # what else the file holds: optimizer, epoch, ...


def read_weights(path: str) -> Weights:
    """Read a state dict, bare or under "model", "state_dict", "teacher" or "model_state".

    Args:
        path: .safetensors file, any other ending for a torch file, or timm://NAME, which timm downloads.

    Raises:
        DataError: as `load_tensors`; or the file holds no tensors by name.
        ConfigError: timm is missing, does not know the name, or could not download it.
    """
    if path.startswith(TIMM):
        from .modeling.timm_models import download

        return Weights(path, download(path[len(TIMM) :]), {}, {})
    content = load_tensors(path)
    rest: Dict[str, Any] = {}
    while isinstance(content, dict):
        wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), dict)), None)
        if wrapper is None:
            break
        rest = rest or {key: value for key, value in content.items() if key != wrapper}
        content = content[wrapper]
    found = content if isinstance(content, dict) else {}
    tensors = {str(key): value for key, value in found.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        holds = ", ".join(map(str, list(found)[:4])) or type(content).__name__
        raise DataError(
            f"{path} holds no tensors by name but: {holds}. A state dict is needed, bare or under "
            f"{', '.join(_WRAPPERS)}."
        )
    noted = rest.pop(GRIDS, {})
    try:
        grids = {str(key): (int(rows), int(columns)) for key, (rows, columns) in noted.items()}
    except (AttributeError, TypeError, ValueError):
        raise DataError(
            f"{path} notes under {GRIDS} no grids of position embeddings but {str(noted)[:80]!r}."
        ) from None
    return Weights(path, tensors, grids, rest)


def sha256(path: str) -> str:
    """Of a file, in hexadecimal digits; empty for timm://NAME, which is no file."""
    if path.startswith(TIMM):
        return ""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def plain_values(content: Any) -> Any:
    """`content` with numpy's numbers as Python's, in dicts, lists and tuples: they are code to the reader."""
    if type(content) is dict:
        return {key: plain_values(value) for key, value in content.items()}
    if type(content) in (list, tuple):
        return type(content)(plain_values(value) for value in content)
    return content.item() if isinstance(content, np.generic) else content


def load_tensors(path: str) -> Any:
    """Content of a .safetensors file or of a torch file, tensors and plain values only (`weights_only=True`).

    The metadata entry of a .safetensors file that notes the grids of position embeddings comes as in a torch
    file, and the tensors then under "model".

    Raises:
        DataError: the file is missing, torn, or holds code, pickled or as TorchScript.
    """
    try:
        if path.endswith(".safetensors"):
            return _load_safetensors(path)
        if _is_torchscript(path):
            raise DataError(
                f"{path} is a TorchScript archive, which holds code and is not read (OpenAI's CLIP is). "
                "Where you trust it, take its tensors out: "
                "`torch.save(torch.jit.load(path, 'cpu').state_dict(), 'weights.pth')`."
            )
        return _load_torch(path)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(
            f"Weights file {path} does not exist; check MODEL.WEIGHTS or MODEL.BACKBONE.PRETRAIN_PATH."
        ) from None
    except pickle.UnpicklingError as e:
        code = _CODE.search(str(e))
        what = f"pickled code ({code[1]})" if code else "pickled code or is no torch file"
        raise DataError(
            f"{path} holds {what}, and is not read: loading it could run anything. Where you trust it, take "
            "its tensors out: `torch.save(torch.load(path, 'cpu', weights_only=False)['model'], "
            "'weights.pth')`, with the key under which the file has them in place of 'model'."
        ) from e
    except Exception as e:  # the readers have errors of many kinds for bytes that they do not understand
        raise DataError(
            f"{path} is torn or no file of weights: {(str(e) or type(e).__name__).splitlines()[0]}. "
            "Download or copy it again."
        ) from e


def _load_torch(path: str) -> Any:
    from torch import _weights_only_unpickler as reader

    if not hasattr(reader, "BINFLOAT") and not issubclass(reader.Unpickler, pickle.Unpickler):
        _teach_floats(reader)
    return torch.load(path, map_location="cpu", weights_only=True)


def _teach_floats(reader: Any) -> None:
    """Serves: torch 1.13, whose reader of tensors and plain values knows no floats (learning rates, scores),
    and no Counter (steps of a schedule).

    What it allows stays allowed, and nothing else. Can go with torch < 2.
    """
    allowed = {**reader._get_allowed_globals(), "collections.Counter": collections.Counter}

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if f"{module}.{name}" not in allowed:
                raise pickle.UnpicklingError(f"Unsupported class {module}.{name}")
            return allowed[f"{module}.{name}"]

    reader.Unpickler = Unpickler
    reader.load = lambda file, **options: Unpickler(file, **options).load()


def _load_safetensors(path: str) -> Dict[str, Any]:
    try:
        from safetensors import safe_open
    except ImportError as e:
        raise DataError(f"{path} needs the package safetensors: `pip install safetensors`.") from e
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no dict
        metadata = file.metadata() or {}
    return {"model": tensors, GRIDS: json.loads(metadata[GRIDS])} if GRIDS in metadata else tensors


def _is_torchscript(path: str) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
