"""fastreid's functions that build or feed a model, wrapped."""

import functools
import inspect
from typing import Any, Callable

from ..weight_files import read_weights
from ..weights import load_weights


def without_cameras(forward: Any) -> Any:
    """A Baseline's `forward` that takes batches without "camids".

    Serves: VDT's fork, whose Baseline takes the cameras out of every batch and does nothing with them, so
    that plain images had no features. Can go with that fork.
    """

    @functools.wraps(forward)
    def camera_free(self: Any, batch: Any) -> Any:
        return forward(self, {"camids": None, **batch} if isinstance(batch, dict) else batch)

    return camera_free


def refusing(method: Any) -> Any:
    """fastreid's own way to data or scores, refused where a key of VIF's would have no effect on it.

    Serves: a train_net.py that calls `add_vif_config` and keeps fastreid's trainer. Can go never.
    """
    inner = method.__func__
    if hasattr(inner, "__wrapped__"):
        return method

    @functools.wraps(inner)
    def checked(cls: Any, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        from ..unread import refuse_unread

        refuse_unread(cfg)
        return inner(cls, cfg, *args, **kwargs)

    return classmethod(checked)


def build_model(cfg: Any) -> Any:
    """fastreid's, with MODEL.BACKBONE.VIT.ATTENTION, the backbone compiled where MODEL.COMPILE says so."""
    from fastreid.modeling import build_model as fastreid_build_model

    from ..modeling.attention import set_attention
    from ..modeling.compiling import compile_in_place

    model = fastreid_build_model(cfg)
    if "VIT" in cfg.MODEL.BACKBONE:  # a config with VIF's keys
        set_attention(model, cfg.MODEL.BACKBONE.VIT.ATTENTION)
        if cfg.MODEL.COMPILE:
            compile_in_place(model.backbone)
    return model


def build_optimizer(cfg: Any, model: Any, contiguous: bool = True) -> Any:
    """fastreid's optimizer; gradients are zeroed and not dropped, layers are frozen by their whole name.

    Serves: fastreid lays all parameters and gradients out in flat buffers and steps on those. Since torch 2.0
    `zero_grad()` sets gradients to None; then the flat buffer has none, the optimizer steps over nothing, and
    the weights stay as they were, without an error. Can go when fastreid zeroes in place.

    Serves: MODEL.FREEZE_LAYERS, which fastreid takes as prefixes: MGN's "b1" also froze its head "b1_head",
    so that nothing trained for FREEZE_ITERS. Can go when fastreid compares whole names, as its hook does.

    Returns:
        (optimizer, parameter wrapper), as fastreid returns them; from its release 1.3.0, which has no flat
        buffers and compares whole names, the optimizer alone.
    """
    from fastreid.solver.build import build_optimizer as fastreid_build_optimizer

    if "contiguous" not in inspect.signature(fastreid_build_optimizer).parameters:
        return fastreid_build_optimizer(cfg, model)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.FREEZE_LAYERS = [rf"{name}\." for name in cfg.MODEL.FREEZE_LAYERS]  # regular expressions there
    optimizer, wrapper = fastreid_build_optimizer(cfg, model, contiguous)
    optimizer.zero_grad = functools.partial(optimizer.zero_grad, set_to_none=False)
    return optimizer, wrapper


def with_local_weights(build: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A registered backbone that loads MODEL.BACKBONE.PRETRAIN_PATH through `vif.weights`.

    Serves: fastreid's own backbones, which run the code in that file (torch < 2.6), each want another wrapper
    in it, and go on where nothing fits; without a path they download their weights as ever. Can go when
    fastreid reads tensors only and says what it loaded.
    """

    @functools.wraps(build)
    def build_and_load(cfg: Any) -> Any:
        if not (cfg.MODEL.BACKBONE.PRETRAIN and cfg.MODEL.BACKBONE.PRETRAIN_PATH):
            return build(cfg)
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.BACKBONE.PRETRAIN = False
        model = build(cfg)
        load_weights(model, read_weights(cfg.MODEL.BACKBONE.PRETRAIN_PATH))
        return model

    return build_and_load
