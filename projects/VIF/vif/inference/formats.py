"""The formats of `vif export`: how each is written, and how its file is opened again as a backend."""

import inspect
import json
import warnings
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import torch

from ..errors import ConfigError, ExportError
from ..positions import position_grids
from ..weight_files import GRIDS
from .metadata import INPUT_NAME, OUTPUT_NAME, Signature
from .network import Network

FILES = {
    "safetensors": "model.safetensors",
    "onnx": "model.onnx",
    "torchscript": "model.torchscript.pt",
    "torch_export": "model.pt2",
}
CONFIG = "vif.config"  # metadata of .safetensors files: the config, YAML
# torch says by its own default which of its ONNX exporters is the current one
_DYNAMO = inspect.signature(torch.onnx.export).parameters.get("dynamo")
DYNAMO = _DYNAMO is not None and _DYNAMO.default is True
MIN_OPSET = 18 if DYNAMO else 17  # torch's implementation starts there; 17 has layer norm as one operator


def required(name: str) -> List[str]:
    """Packages that a format needs beside torch."""
    if name == "onnx":
        return ["onnx", "onnxruntime"] + (["onnxscript"] if DYNAMO else [])
    return ["safetensors"] if name == "safetensors" else []


def check_opset(opset: Optional[int]) -> None:
    """Refuse an opset that the installed exporter and onnx do not have; None is the exporter's own.

    Raises:
        ConfigError: names the range.
    """
    from onnx.defs import onnx_opset_version

    newest = onnx_opset_version()
    if opset is not None and not MIN_OPSET <= opset <= newest:
        raise ConfigError(
            f"--opset {opset}: torch {torch.__version__} and the installed onnx write {MIN_OPSET} to "
            f"{newest}; leave it out for torch's own."
        )


def write_onnx(network: Network, signature: Signature, path: str, opset: Optional[int] = None) -> None:
    """ONNX with a free batch size, all in one file, checked by onnx and with the signature as metadata.

    Raises:
        ExportError: the file has another opset than was asked for.
    """
    import onnx

    names: Dict[str, Any] = {"input_names": [INPUT_NAME], "output_names": [OUTPUT_NAME]}
    example = network.example(signature.height, signature.width)
    if DYNAMO:
        names["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
        names.update(dynamo=True, external_data=False, verbose=False, opset_version=opset)
    else:
        names["dynamic_axes"] = {INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}}
        names["opset_version"] = opset or MIN_OPSET
    with torch.no_grad():
        torch.onnx.export(network, (example,), path, **names)
    found = opset_of(path)
    if opset is not None and found != opset:
        raise ExportError(f"torch wrote opset {found} where --opset {opset} was asked for; leave it out.")
    stamp(onnx.load(path), signature, path)


def stamp(model: Any, signature: Signature, path: str) -> None:
    """Write an ONNX model with the signature in its metadata, after onnx's own check."""
    import onnx

    metadata = {prop.key: prop.value for prop in model.metadata_props}
    onnx.helper.set_model_props(model, {**metadata, **signature.to_dict()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def opset_of(path: str) -> int:
    """Version of ONNX's own operators in a file."""
    import onnx

    imports = onnx.load(path, load_external_data=False).opset_import
    return max(entry.version for entry in imports if entry.domain in ("", "ai.onnx"))


def write_torchscript(network: Network, signature: Signature, path: str) -> None:
    """A traced module with the signature in its extra files."""
    with torch.no_grad():
        traced = torch.jit.trace(network, (network.example(signature.height, signature.width),))
    torch.jit.save(traced, path, _extra_files=signature.to_dict())


def write_torch_export(network: Network, signature: Signature, path: str) -> None:
    """A program of torch.export with the signature in its extra files.

    Raises:
        ConfigError: this torch has no torch.export.
    """
    if not hasattr(torch, "export"):
        raise ConfigError(f"torch_export needs torch >= 2.3, not {torch.__version__}; take torchscript.")
    example = network.example(signature.height, signature.width)
    shapes = ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=shapes, strict=False)
    torch.export.save(program, path, extra_files=signature.to_dict())


def write_safetensors(model: torch.nn.Module, signature: Signature, config: str, path: str) -> None:
    """The state dict under fastreid's names; metadata: signature, config and grids of position embeddings."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    grids = json.dumps(position_grids(model))
    metadata = {"format": "pt", CONFIG: config, GRIDS: grids, **signature.to_dict()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)


class TorchFileBackend:
    """A TorchScript or torch.export file on the CPU, with the signature that it holds.

    Args:
        path: written by `write_torchscript` or, .pt2, by `write_torch_export`.
    """

    flip, device = False, "cpu"

    def __init__(self, path: str) -> None:
        extra = dict.fromkeys(_SIGNATURE_NAMES, "")
        if path.endswith(".pt2"):
            self.run: Any = torch.export.load(path, extra_files=extra).module()
        else:
            self.run = torch.jit.load(path, map_location="cpu", _extra_files=extra)
        texts = {k: v.decode() if isinstance(v, bytes) else v for k, v in extra.items()}
        self.signature = Signature.from_dict(texts)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) -> float32 (B, D)."""
        images = torch.from_numpy(batch)
        if not self.signature.uint8_input:
            mean, std = torch.tensor(self.signature.mean), torch.tensor(self.signature.std)
            images = ((images.float() - mean) / std).permute(0, 3, 1, 2).contiguous()
        with torch.no_grad():
            return np.asarray(self.run(images).numpy())


_SIGNATURE_NAMES = Signature(1, 1, (0, 0, 0), (1, 1, 1), False, False, 1, "").to_dict()


def quietly(function: Callable[[str], Any], path: str) -> Any:
    """Call without torch's warnings about tracing and old exporters: every file is verified afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(path)
