"""Any vision transformer of timm as a backbone: ViT, DeiT, DINOv2, DINOv3, image towers of CLIP and SigLIP.

Shape letters: B batch, D embedding, H x W image. timm is imported where it is used: vif works without it.
"""

import contextlib
import difflib
import functools
import logging
import os
import re
import textwrap
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from torch import nn

from ..compat import load_tensors
from ..errors import ConfigError, DataError

logger = logging.getLogger(__name__)
_NAME, _PATH = "MODEL.BACKBONE.TIMM.NAME", "MODEL.BACKBONE.PRETRAIN_PATH"


class Facts(NamedTuple):
    """What timm says of a model."""

    patch: Tuple[int, int]  # height and width of a token's patch
    feat_dim: int  # D
    mean: List[float]  # of the pixels its weights were trained on, 0..255
    std: List[float]
    source: str  # where its weights are


class TimmBackbone(nn.Module):
    """A timm vision transformer without its classifier: images (B, 3, H, W) in, features (B, D, 1, 1) out.

    The feature is the model's own, `timm.create_model(name, num_classes=0)(images)`: the class token, the mean
    of the class and the distillation token (DeiT), the mean of all patches (DINOv3 as timm builds it) or
    attention pooling (SigLIP). Position embeddings are resized to the image by timm.

    Args:
        name: timm's name of the model, with the tag of its weights or without.
        image_size: (H, W).
        stride: step of the patches, vertical and horizontal; a step below the patch's side makes them overlap.
        weights: None for random weights, a .pth or .safetensors file, or "" to let timm download its own.
        options: further arguments of `timm.create_model`.

    Raises:
        ConfigError: timm is missing, the model is no vision transformer or unknown, the size or the weights do
            not fit, the download failed.
        DataError: the file is missing, torn, or holds no tensors.
    """

    def __init__(
        self,
        name: str,
        image_size: Sequence[int],
        stride: Sequence[int],
        weights: Optional[str] = None,
        **options: Any,
    ) -> None:
        super().__init__()
        patch = inspect_model(name, **options).patch
        rows, columns = token_grid(image_size, patch, stride)
        # timm counts tokens as image // patch: give it the image that has as many without an overlap
        self.model = _create(name, weights, img_size=(rows * patch[0], columns * patch[1]), **options)
        embed = self.model.patch_embed
        embed.img_size, embed.strict_img_size, embed.proj.stride = tuple(image_size), True, tuple(stride)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (B, 3, H, W) in, features (B, D, 1, 1) out."""
        return self.model(images)[:, :, None, None]


@BACKBONE_REGISTRY.register()
def build_vif_timm_backbone(cfg: Any) -> TimmBackbone:
    """The model of MODEL.BACKBONE.TIMM.NAME for images of INPUT.SIZE_TRAIN."""
    check_timm_backbone(cfg)
    backbone, model = cfg.MODEL.BACKBONE, cfg.MODEL
    facts = inspect_model(backbone.TIMM.NAME, **_drop_rates(cfg))
    for key, used, trained in (("MEAN", model.PIXEL_MEAN, facts.mean), ("STD", model.PIXEL_STD, facts.std)):
        if backbone.PRETRAIN and max(abs(a - b) for a, b in zip(used, trained)) > 0.5:
            text = "MODEL.PIXEL_%s=%s, but the weights of timm's %s were trained with %s"
            logger.warning(text, key, list(used), backbone.TIMM.NAME, [round(x, 3) for x in trained])
    weights = backbone.PRETRAIN_PATH if backbone.PRETRAIN else None
    name, size = backbone.TIMM.NAME, cfg.INPUT.SIZE_TRAIN
    return TimmBackbone(name, size, backbone.STRIDE_SIZE, weights, **_drop_rates(cfg))


def check_timm_backbone(cfg: Any) -> None:
    """Raise ConfigError where the config does not go with the model; no weights are read or allocated."""
    backbone, size = cfg.MODEL.BACKBONE, cfg.INPUT.SIZE_TRAIN
    facts = inspect_model(backbone.TIMM.NAME, **_drop_rates(cfg))
    if backbone.FEAT_DIM != facts.feat_dim:
        raise ConfigError(
            f"MODEL.BACKBONE.FEAT_DIM={backbone.FEAT_DIM}, but {_NAME}={backbone.TIMM.NAME!r} gives "
            f"{facts.feat_dim} numbers; set it to {facts.feat_dim}."
        )
    token_grid(size, facts.patch, backbone.STRIDE_SIZE)
    if list(size) != list(cfg.INPUT.SIZE_TEST):
        raise ConfigError(
            f"INPUT.SIZE_TEST={cfg.INPUT.SIZE_TEST} is not INPUT.SIZE_TRAIN={size}: the position embeddings "
            "are of one size; set both to the same."
        )
    if backbone.PRETRAIN and backbone.PRETRAIN_PATH and not os.path.isfile(backbone.PRETRAIN_PATH):
        raise ConfigError(
            f"{_PATH}={backbone.PRETRAIN_PATH!r} is no file. Download {facts.source} and put it there, set "
            "the path to '' to let timm download it, or start from random weights with "
            "MODEL.BACKBONE.PRETRAIN False."
        )


def token_grid(image_size: Sequence[int], patch: Sequence[int], stride: Sequence[int]) -> Tuple[int, int]:
    """Rows and columns of tokens; ConfigError where the step leaves gaps or the patches do not fill the image."""
    for length, side, step in zip(image_size, patch, stride):
        if not 1 <= step <= side:
            raise ConfigError(
                f"MODEL.BACKBONE.STRIDE_SIZE={tuple(stride)} does not go with patches of {patch[0]} x {patch[1]}: "
                f"set it to {tuple(patch)}, or below for overlapping patches."
            )
        if length < side or (step == side and length % side):
            near = tuple(max(round(n / p), 1) * p for n, p in zip(image_size, patch))
            raise ConfigError(
                f"INPUT.SIZE_TRAIN={image_size[0]} x {image_size[1]} is no multiple of the model's patches of "
                f"{patch[0]} x {patch[1]}; take {near[0]} x {near[1]}."
            )
    rows, columns = ((n - p) // s + 1 for n, p, s in zip(image_size, patch, stride))
    return rows, columns


@functools.lru_cache(maxsize=None)
def inspect_model(name: str, **options: Any) -> Facts:
    """Facts of a timm model, from one built without memory for its weights (torch's device "meta")."""
    timm = _timm()
    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models("*vit*"), 5)) or "timm.list_models()"
        raise ConfigError(f"{_NAME}={name!r} is no model of timm {timm.__version__}; near it: {near}.")
    try:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=0, **options)
    except (RuntimeError, TypeError) as e:  # an unknown tag; an option that this model has not
        raise ConfigError(f"{_NAME}={name!r}: timm {timm.__version__} cannot build it ({e}).") from e
    embed = getattr(model, "patch_embed", None)
    if not isinstance(embed, timm.layers.PatchEmbed) or not hasattr(model, "blocks"):
        raise ConfigError(
            f"{_NAME}={name!r} is a {type(model).__name__}, no vision transformer of plain patches and blocks; "
            "take a vit_*, deit_*, eva* or beit* model of timm."
        )
    with torch.device("meta"):
        feat_dim = model(torch.empty(1, 3, *embed.img_size)).shape[-1]
    about = model.pretrained_cfg
    mean, std = ([255 * x for x in about[key]] for key in ("mean", "std"))
    source = f"model.safetensors of {about.get('hf_hub_id')} from the Hugging Face hub"
    return Facts(embed.patch_size, feat_dim, mean, std, source)


def _create(name: str, weights: Optional[str], **options: Any) -> nn.Module:
    """`timm.create_model`; says what became of the weights, and refuses those of which nothing fits."""
    timm = _timm()
    if weights is None:
        return timm.create_model(name, num_classes=0, **options)
    tensors = _read(weights) if weights else None
    try:
        with _listen() as messages:
            overlay = {"state_dict": tensors}  # timm filters, renames and resizes it as its own download
            model = timm.create_model(
                name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **options
            )
    except Exception as e:  # torch, timm's filters and the hub's client each have errors of their own
        cause = textwrap.shorten(f"{type(e).__name__}: {e}", 500)
        if weights:
            raise ConfigError(f"{_PATH}={weights!r} does not fit timm's {name}: {cause}") from e
        raise ConfigError(
            f"timm could not download the weights of {name} ({cause}). Download "
            f"{inspect_model(name).source} by hand and name the file in {_PATH}."
        ) from e
    model.pretrained_cfg.pop("state_dict", None)  # timm would keep the checkpoint beside the model
    wanted = list(model.state_dict())
    missing = [key for m in messages for found in re.findall(r"^Missing keys \((.*?)\)", m) for key in found.split(", ")]
    if len(missing) == len(wanted):
        raise ConfigError(
            f"{_PATH}={weights!r}: nothing in it fits timm's {name}. It holds {', '.join(list(tensors or ())[:4])}, "
            f"...; the model wants {', '.join(wanted[:4])}, ..."
        )
    logger.info(
        "%s: %d of %d tensors from %s", name, len(wanted) - len(missing), len(wanted), weights or "timm's download"
    )
    for message in messages:
        logger.info("timm: %s", message)
    if missing:
        logger.warning("%s: random, because the weights lack them: %s", name, ", ".join(missing))
    return model


def _read(path: str) -> Dict[str, Any]:
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        try:
            tensors = load_file(path)
        except Exception as e:  # the library has an exception of its own
            raise DataError(f"{path} is no readable .safetensors file ({e}); download it again.") from e
    else:
        tensors = load_tensors(path)
    if not isinstance(tensors, dict) or not tensors:
        raise DataError(f"{path} holds no tensors by name; {_PATH} needs a state dict.")
    return tensors


@contextlib.contextmanager
def _listen() -> Iterator[List[str]]:
    """What timm logs: the only place where it says which weights it resized, missed or left out."""
    messages: List[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    timm_logger = logging.getLogger("timm")
    level = timm_logger.level
    timm_logger.addHandler(handler)
    timm_logger.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        timm_logger.setLevel(level)
        timm_logger.removeHandler(handler)


def _drop_rates(cfg: Any) -> Dict[str, float]:
    """timm's names of fastreid's rates; those at zero are left out, as some models lack one or the other."""
    backbone = cfg.MODEL.BACKBONE
    rates = {
        "drop_path_rate": backbone.DROP_PATH_RATIO,
        "pos_drop_rate": backbone.DROP_RATIO,
        "proj_drop_rate": backbone.DROP_RATIO,
        "attn_drop_rate": backbone.ATT_DROP_RATE,
    }
    return {name: rate for name, rate in rates.items() if rate}


def _timm() -> Any:
    try:
        import timm
    except ImportError as e:
        raise ConfigError("build_vif_timm_backbone needs timm: pip install 'timm>=1.0.20'.") from e
    return timm
