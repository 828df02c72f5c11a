"""From a config and a checkpoint to a backend and its transform: fastreid's keys become plain arguments."""

import os
from typing import Tuple, Union

import torch
from fastreid.config import CfgNode

from ..config_file import read_config
from ..data.build import build_transforms
from ..data.transforms import Compose
from ..errors import ConfigError
from ..trainer import VIFTrainer
from .backends import TorchBackend
from .fingerprint import fingerprint
from .metadata import Signature

ConfigLike = Union[str, "os.PathLike[str]", CfgNode]


def build_torch_backend(config: ConfigLike, weights: str, device: str) -> Tuple[TorchBackend, Compose]:
    """The model of a config with a checkpoint's weights, and the config's test transform.

    Args:
        config: file, or config with VIF's keys.
        weights: checkpoint.
        device: "auto" (CUDA where there is one), or a name of torch's.

    Raises:
        ConfigError: the config cannot work, or there is no such device.
        DataError: the checkpoint is missing, or no checkpoint.
    """
    cfg = (config if isinstance(config, CfgNode) else read_config(os.fspath(config))).clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = os.fspath(weights)
    cfg.MODEL.DEVICE = choose_device(device)
    cfg.MODEL.BACKBONE.PRETRAIN = False  # the checkpoint holds the whole model
    cfg.MODEL.COMPILE = False  # no use for an exporter, nor for a few images
    cfg.DATASETS.MANIFEST = cfg.DATASETS.ATTRIBUTES = ""  # files of the training machine
    cfg.freeze()
    height, width = _input_size(cfg.INPUT)
    model = VIFTrainer.load_model(cfg).eval()
    with torch.inference_mode():
        blank = torch.zeros(1, 3, height, width, device=cfg.MODEL.DEVICE)
        dim = model({"images": blank}).shape[1]
    mean, std = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    signature = Signature(
        height=height,
        width=width,
        mean=(float(mean[0]), float(mean[1]), float(mean[2])),
        std=(float(std[0]), float(std[1]), float(std[2])),
        uint8_input=True,
        l2_output=False,
        dim=int(dim),
        fingerprint=fingerprint(model.state_dict()),
    )
    return TorchBackend(model, signature, cfg.TEST.FLIP.ENABLED), build_transforms(cfg, is_train=False)


def _input_size(inp: CfgNode) -> Tuple[int, int]:
    """What the test transform makes of any image."""
    size = inp.CROP.SIZE if inp.CROP.ENABLED else inp.SIZE_TEST
    if not inp.CROP.ENABLED and (len(size) != 2 or min(size) < 1):
        raise ConfigError(f"INPUT.SIZE_TEST={list(size)} leaves images of many sizes; name height and width.")
    return int(size[0]), int(size[-1])


def choose_device(name: str) -> str:
    """`name`, or for "auto" CUDA where it works and else the CPU.

    Raises:
        ConfigError: no device of torch's, or CUDA that is not there; evaluation would go on on the CPU.
    """
    usable = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if usable else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device={name!r} is unknown to torch; choose auto, cpu or cuda.") from error
    count = torch.cuda.device_count() if usable else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(f"device={name!r}: torch finds {count} usable GPUs here; choose auto or cpu.")
    return name
