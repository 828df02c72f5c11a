"""Backends: a batch of uint8 images in, features out. Shape letters: B batch, H x W input, D embedding.

A backend is a callable with a `signature`: uint8 (B, H, W, 3) RGB in, float32 (B, D) out, of any length. It
keeps no state between calls, so that threads may share it.
"""

import os
from typing import Any, List

import numpy as np

from ..errors import ConfigError, DataError
from .metadata import INPUT_NAME, Signature

ONNX_HINT = "`pip install onnxruntime` (or onnxruntime-gpu, for CUDA)"


class TorchBackend:
    """A fastreid meta architecture, which normalises by itself.

    Args:
        model: takes a dict with "images", float32 (B, 3, H, W) in 0..255; put in eval mode here.
        signature: of the model.
        flip: mean of the features of the image and its mirror image (TEST.FLIP).
    """

    def __init__(self, model: Any, signature: Signature, flip: bool = False):
        self.model = model.eval()
        self.signature = signature
        self.flip = flip
        self.device = str(next(model.parameters()).device)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) -> float32 (B, D)."""
        import torch

        with torch.inference_mode():
            # contiguous: the strides of a permuted tensor would choose other convolutions than evaluation's
            images = torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2).contiguous()
            views = [images] + ([images.flip(3)] if self.flip else [])
            # .float() gives each pass a tensor of its own: fastreid's models normalise it in place
            outputs = [self.model({"images": view.float()}).float() for view in views]
            return np.asarray(torch.stack(outputs).mean(dim=0).cpu().numpy())


class OnnxBackend:
    """A file of `vif export`, run by onnxruntime; needs neither torch nor fastreid.

    Args:
        path: .onnx file, with a `Signature` in its metadata.
        device: "auto" (CUDA where onnxruntime has it), "cpu" or "cuda".

    Raises:
        ConfigError: onnxruntime is missing or has no such device.
        DataError: no such file, no ONNX file, or no signature in it.
    """

    flip = False

    def __init__(self, path: str, device: str = "auto"):
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError(f"Predictor.from_onnx needs {ONNX_HINT}.") from error
        if not os.path.isfile(path):
            raise DataError(f"there is no file {path!r}. Write it with `vif export`.")
        providers = _providers(onnxruntime.get_available_providers(), device)
        try:
            self.session = onnxruntime.InferenceSession(path, providers=providers)
        except Exception as error:  # exceptions of its own, one for each kind of damage
            raise DataError(f"{path} is no ONNX file that onnxruntime reads ({error}).") from error
        self.device = "cuda" if "CUDAExecutionProvider" in self.session.get_providers() else "cpu"
        if device.startswith("cuda") and self.device != "cuda":
            raise ConfigError(f"device={device!r}: onnxruntime could not start CUDA; see its own message.")
        try:
            self.signature = Signature.from_dict(self.session.get_modelmeta().custom_metadata_map)
        except DataError as error:
            raise DataError(f"{path}: {error}.") from error
        self._mean = np.array(self.signature.mean, dtype=np.float32)
        self._std = np.array(self.signature.std, dtype=np.float32)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) -> float32 (B, D)."""
        if not self.signature.uint8_input:
            normalised = (batch.astype(np.float32) - self._mean) / self._std
            batch = np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))
        return np.asarray(self.session.run(None, {INPUT_NAME: batch})[0], dtype=np.float32)


def _providers(available: List[str], device: str) -> List[Any]:
    """onnxruntime's names for a device, the CPU last."""
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device={device!r} is unknown; choose auto, cpu or cuda.")
    cuda = "CUDAExecutionProvider"
    if kind == "cpu" or (kind == "auto" and cuda not in available):
        return ["CPUExecutionProvider"]
    if cuda not in available:
        raise ConfigError(f"device={device!r}: this onnxruntime has no CUDA; `pip install onnxruntime-gpu`.")
    return [(cuda, {"device_id": int(index or 0)}), "CPUExecutionProvider"]
