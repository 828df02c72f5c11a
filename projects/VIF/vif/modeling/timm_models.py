"""Vision transformers of timm without a classifier: facts, creation, weights from a file.

timm is imported where it is used: vif works without it.
"""

import contextlib
import difflib
import functools
import logging
import textwrap
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch
from torch import nn

from ..compat import load_tensors
from ..errors import ConfigError, DataError

logger = logging.getLogger(__name__)


class Facts(NamedTuple):
    """What timm says of a model."""

    patch: Tuple[int, int]  # height and width of a token's patch
    feat_dim: int  # D of the features (B, D)
    mean: List[float]  # of the pixels its weights were trained on, 0..255
    std: List[float]
    source: str  # where its weights are


@functools.cache
def inspect_model(name: str, **options: Any) -> Facts:
    """Facts of a model, from one built without memory for its weights (torch's device "meta").

    Raises:
        ConfigError: timm is missing, does not know the name or an option, or it is no vision transformer.
    """
    timm = _timm()
    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), 5)) or "see timm.list_models()"
        raise ConfigError(
            f"MODEL.BACKBONE.TIMM.NAME={name!r} is no model of timm {timm.__version__}; near it: {near}."
        )
    try:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=0, **options)
    except (RuntimeError, TypeError) as e:  # an unknown tag; an option that this model does not have
        raise ConfigError(
            f"MODEL.BACKBONE.TIMM.NAME={name!r}: timm {timm.__version__} cannot build it with "
            f"{options} ({e})."
        ) from e
    embed = getattr(model, "patch_embed", None)
    if not isinstance(embed, timm.layers.PatchEmbed) or not hasattr(model, "blocks"):
        raise ConfigError(
            f"MODEL.BACKBONE.TIMM.NAME={name!r} is a {type(model).__name__}, no vision transformer of plain "
            "patches and blocks; take one of timm's vit_*, deit*, eva* or beit*."
        )
    with torch.device("meta"):
        feat_dim = model(torch.empty(1, 3, *embed.img_size)).shape[1]
    about = model.pretrained_cfg
    mean, std = ([255 * x for x in about[key]] for key in ("mean", "std"))
    source = f"model.safetensors of {about.get('hf_hub_id')} on the Hugging Face hub"
    return Facts(embed.patch_size, feat_dim, mean, std, source)


def create_model(name: str, weights: Optional[str], **options: Any) -> nn.Module:
    """`timm.create_model` with `num_classes=0`; logs what of the weights was loaded, resized and left out.

    Args:
        name: timm's name of the model, with the tag of its weights or without.
        weights: None for random weights, a .pth or .safetensors file, "" to let timm download its own.
        options: further arguments of `timm.create_model`.

    Raises:
        ConfigError: the weights do not fit the model; the download failed.
        DataError: the file is missing, torn, or holds no tensors by name.
    """
    timm = _timm()
    if weights is None:
        return timm.create_model(name, num_classes=0, **options)
    tensors = _read(weights) if weights else None
    # through timm's own filter, as its downloads: it renames keys and resizes position embeddings
    options.update(pretrained=True, num_classes=0, pretrained_cfg_overlay={"state_dict": tensors})
    with _listen() as messages:
        try:
            model = timm.create_model(name, **options)
        except Exception as e:  # torch, timm's filters and the hub's client each have errors of their own
            cause = textwrap.shorten(f"{type(e).__name__}: {e}", 500)
            if weights:
                text = f"MODEL.BACKBONE.PRETRAIN_PATH={weights!r} does not fit timm's {name}: {cause}"
            else:
                text = (
                    f"timm could not download the weights of {name} ({cause}). Download "
                    f"{inspect_model(name).source} and name the file in MODEL.BACKBONE.PRETRAIN_PATH."
                )
            raise ConfigError(text) from e
    model.pretrained_cfg.pop("state_dict", None)  # or the checkpoint stays in memory beside the model
    wanted = list(model.state_dict())
    lists = [m[len("Missing keys (") : m.index(")")] for m in messages if m.startswith("Missing keys (")]
    missing = ", ".join(lists).split(", ") if lists else []
    if len(missing) == len(wanted):
        raise ConfigError(
            f"MODEL.BACKBONE.PRETRAIN_PATH={weights!r}: nothing in it fits timm's {name}. It holds "
            f"{', '.join(list(tensors or ())[:4])}, ...; the model wants {', '.join(wanted[:4])}, ..."
        )
    loaded = len(wanted) - len(missing)
    logger.info("%s: %d of %d tensors from %s", name, loaded, len(wanted), weights or "timm's download")
    for message in messages:
        logger.info("timm: %s", message)
    if missing:
        logger.warning("%s: random, as the weights lack them: %s", name, ", ".join(missing))
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
        raise DataError(f"{path} holds no tensors by name; MODEL.BACKBONE.PRETRAIN_PATH needs a state dict.")
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


def _timm() -> Any:
    try:
        import timm
    except ImportError as e:
        raise ConfigError(
            "MODEL.BACKBONE.NAME build_vif_timm_backbone needs `pip install 'timm>=1.0.23'`."
        ) from e
    return timm
