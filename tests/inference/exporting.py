"""A network to export, its inputs, and its features by fastreid's own path."""

import importlib.util

import vif
import numpy as np
import pytest
import torch
from vif.inference import formats

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="needs onnx and onnxruntime")
FORMATS = [
    name
    for name in formats.FILES
    if (name != "onnx" or HAS_ONNX) and (name != "torch_export" or hasattr(torch, "export"))
]
VARIANTS = ("fp16", "int8") if HAS_ONNX else ()


def trained(cfg, path):
    """A checkpoint of a random network whose batch statistics matter."""
    torch.manual_seed(0)
    model = vif.VIFTrainer.build_model(cfg)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    torch.save({"model": model.state_dict()}, path)
    return str(path)


def images(cfg, count, seed=1):
    height, width = cfg.INPUT.SIZE_TEST
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def expected(cfg, weights, pixels, unit=True):
    """Features by fastreid's own path: the loaded model on float images in 0..255."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = weights
    model = vif.VIFTrainer.load_model(cfg).eval()
    with torch.no_grad():
        rows = model({"images": torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32))}).numpy()
    return np.stack([row / np.sqrt(np.sum(row.astype(float) ** 2)) for row in rows]) if unit else rows


def run_onnx(path, values):
    import onnxruntime as ort

    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"images": values})[
        0
    ]


def by_hand(cfg, pixels):
    mean, std = np.array(cfg.MODEL.PIXEL_MEAN), np.array(cfg.MODEL.PIXEL_STD)
    return ((pixels - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
