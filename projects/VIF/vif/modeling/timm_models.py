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

from ..errors import ConfigError
from ..weight_files import TIMM, Weights, read_weights
from ..weights import ABSENT, LoadReport, align, refuse

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
    check_name(name, "MODEL.BACKBONE.TIMM.NAME")
    timm = _timm()
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
    return Facts(embed.patch_size, feat_dim, mean, std, _source(about.get("hf_hub_id")))


def create_model(name: str, weights: Optional[str], **options: Any) -> nn.Module:
    """`timm.create_model` with `num_classes=0`; logs what of the weights was loaded, resized and left out.

    Args:
        name: timm's name of the model, with the tag of its weights or without.
        weights: None for random weights, what `read_weights` takes, "" to let timm download its own.
        options: further arguments of `timm.create_model`.

    Raises:
        ConfigError: the weights do not fit the model; the download failed.
        DataError: nothing fits; the file is missing, torn, or holds no tensors by name.
    """
    timm = _timm()
    if weights is None:
        return timm.create_model(name, num_classes=0, **options)
    given = read_weights(weights) if weights else Weights(f"{TIMM}{name}", {}, {}, {})
    # the names that a transformer of timm has, to tell what a program has put before them
    names = align(given.tensors, {"patch_embed.proj.weight", "blocks.0.norm1.weight"})
    if (
        weights
    ):  # through timm's own filter, as its downloads: it renames keys and resizes position embeddings
        tensors = {new: given.tensors[key] for key, new in names.items()}
        options["pretrained_cfg_overlay"] = {"state_dict": tensors}
    with _listen() as messages:
        try:
            model = timm.create_model(name, pretrained=True, num_classes=0, **options)
        except Exception as e:  # torch, timm's filters and the hub's client each have errors of their own
            if not weights:
                raise _download_failed(name, e) from e
            cause = textwrap.shorten(f"{type(e).__name__}: {e}", 500)
            raise ConfigError(
                f"MODEL.BACKBONE.PRETRAIN_PATH={weights!r} does not fit timm's {name}: {cause}"
            ) from e
    model.pretrained_cfg.pop("state_dict", None)  # or the checkpoint stays in memory beside the model
    wanted = list(model.state_dict())
    missing, unexpected = (_listed(messages, start) for start in ("Missing keys (", "Unexpected keys ("))
    outside = [key for key in given.tensors if key not in names]
    resized = [message for message in messages if message.startswith("Resized ")]
    report = LoadReport(
        source=given.source,
        loaded=[key for key in wanted if key not in missing],
        resized=dict(message[len("Resized ") :].rstrip(".").split(": ", 1) for message in resized),
        left_out=dict.fromkeys([*outside, *unexpected], ABSENT),
        missing=missing,
    )
    if not report.loaded:
        refuse(given, wanted, report)
    report.log()
    return model


def download(name: str) -> Dict[str, torch.Tensor]:
    """State dict of a model of timm, with its classifier, from timm's own download.

    The global random state is as if no model had been made.

    Raises:
        ConfigError: timm is missing or has no such weights; the download failed.
    """
    check_download(name, TIMM)
    timm = _timm()
    with torch.random.fork_rng(devices=[]):
        try:
            return timm.create_model(name, pretrained=True).state_dict()
        except Exception as e:  # the hub's client has errors of its own
            raise _download_failed(name, e) from e


def check_name(name: str, key: str) -> None:
    """Raise ConfigError where timm is missing or has no model `name`, which the config's `key` gives."""
    timm = _timm()
    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), 5)) or "see timm.list_models()"
        raise ConfigError(f"{key}={name!r} is no model of timm {timm.__version__}; near it: {near}.")


def check_download(name: str, key: str) -> None:
    """Raise ConfigError as `check_name`, or where timm has no weights of this name to download."""
    check_name(name, key)
    timm = _timm()
    if not timm.models.is_model_pretrained(name):
        known = ", ".join(timm.list_pretrained(f"{name.split('.')[0]}.*")) or "none"
        raise ConfigError(f"{key}={name!r}: timm {timm.__version__} has no such weights of it, but: {known}.")


def _download_failed(name: str, error: Exception) -> ConfigError:
    cause = textwrap.shorten(f"{type(error).__name__}: {error}", 500)
    source = _source(_timm().get_pretrained_cfg(name).hf_hub_id)
    return ConfigError(
        f"timm could not download the weights of {name} ({cause}). Download {source}, put it at "
        f"weights/{name}.safetensors and set MODEL.BACKBONE.PRETRAIN_PATH to that file."
    )


def _source(hub_id: Optional[str]) -> str:
    return f"model.safetensors of {hub_id} on the Hugging Face hub"


def _listed(messages: List[str], start: str) -> List[str]:
    lists = [m[len(start) : m.index(")")] for m in messages if m.startswith(start)]
    return ", ".join(lists).split(", ") if lists else []


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
            "MODEL.BACKBONE.NAME build_vif_timm_backbone, as weights named timm://..., needs "
            "`pip install 'timm>=1.0.23'`."
        ) from e
    return timm
