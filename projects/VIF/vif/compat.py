"""The only file that bridges fastreid 1.3/1.4 to today's Python, torch and numpy.

Each bridge names what it serves and when it can go. Nothing of fastreid is copied or forked: names are
provided while its modules are imported, and three classes of its engine are subclassed and put in place.
"""

import collections
import collections.abc
import contextlib
import functools
import importlib
import importlib.util
import inspect
import itertools
import logging
import os
import random
import sys
import time
import types
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

import numpy as np
import torch

from .errors import ConfigError
from .files import atomic_path
from .positions import position_grids
from .weight_files import GRIDS, TIMM, read_weights
from .weights import load_weights

logger = logging.getLogger(__name__)

INSTALL_HINT = (
    "VIF-AGReID is a plugin of fastreid, which is not installed. Install it without its pins (it asks for "
    "torch 1.13): `pip install --no-deps fastreid==1.4.0`, then `pip install -r requirements.txt`; or put a "
    "clone of the fast-reid repository on PYTHONPATH."
)


@contextlib.contextmanager
def _old_names() -> Iterator[None]:
    """Names that fastreid's modules import and that newer releases dropped, for the time of the import.

    Serves: `from torch._six import string_classes` (gone since torch 2.0) and, in the release 1.3.0,
    `container_abcs, int_classes` (gone since torch 1.9) in `fastreid.data.build`; `from collections import
    Mapping` (gone since Python 3.10) there and in `fastreid.evaluation.testing`. Can go when fastreid imports
    them from where they live.
    """
    had_mapping = "Mapping" in vars(collections)  # Python 3.9 has it, and warns when it is taken from there
    six_name = "torch._six"
    six: Any
    try:
        six = importlib.import_module(six_name)
        had_six = True
    except ModuleNotFoundError:
        six = sys.modules[six_name] = types.ModuleType(six_name)
        had_six = False
    old = {"string_classes": (str, bytes), "int_classes": int, "container_abcs": collections.abc}
    added = [name for name in old if not hasattr(six, name)]
    for name in added:
        setattr(six, name, old[name])
    if not had_mapping:
        collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name in added:
            delattr(six, name)
        if not had_six:
            del sys.modules[six_name]
        if not had_mapping:
            del collections.Mapping  # type: ignore[attr-defined]


def install() -> None:
    """Import fastreid under the bridges and put the classes below in place. Repeating it changes nothing."""
    if importlib.util.find_spec("fastreid") is None:
        raise ImportError(INSTALL_HINT)
    with _old_names():
        for name in ("data", "evaluation", "modeling", "solver", "engine"):
            importlib.import_module(f"fastreid.{name}")
    defaults: Any = importlib.import_module("fastreid.engine.defaults")
    # Serves: SOLVER.AMP without CUDA and on torch.amp. Can go when fastreid uses torch.amp.
    defaults.AMPTrainer = engine_classes()["AMPTrainer"]
    # Serves: weights that train at all on torch >= 2.0; see `build_optimizer`.
    defaults.build_optimizer = build_optimizer
    # Serves: reading checkpoints without running code in them, writing them atomically.
    defaults.Checkpointer = engine_classes()["Checkpointer"]
    backbones: Any = importlib.import_module("fastreid.modeling.backbones").BACKBONE_REGISTRY._obj_map
    for name, build in backbones.items():
        if build.__module__.startswith("fastreid.") and not hasattr(build, "__wrapped__"):
            backbones[name] = with_local_weights(build)
    for name in ("build_train_loader", "test"):
        setattr(defaults.DefaultTrainer, name, _refusing(vars(defaults.DefaultTrainer)[name]))
    baseline: Any = importlib.import_module("fastreid.modeling.meta_arch.baseline").Baseline
    if "camids" in baseline.forward.__code__.co_consts and not hasattr(baseline.forward, "__wrapped__"):
        baseline.forward = without_cameras(baseline.forward)


def without_cameras(forward: Any) -> Any:
    """A Baseline's `forward` that takes batches without "camids".

    Serves: VDT's fork, whose Baseline takes the cameras out of every batch and does nothing with them, so
    that plain images had no features. Can go with that fork.
    """

    @functools.wraps(forward)
    def camera_free(self: Any, batch: Any) -> Any:
        return forward(self, {"camids": None, **batch} if isinstance(batch, dict) else batch)

    return camera_free


def _refusing(method: Any) -> Any:
    """fastreid's own way to data or scores, refused where a key of VIF's would have no effect on it.

    Serves: a train_net.py that calls `add_vif_config` and keeps fastreid's trainer. Can go never.
    """
    inner = method.__func__
    if hasattr(inner, "__wrapped__"):
        return method

    @functools.wraps(inner)
    def checked(cls: Any, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        from .unread import refuse_unread

        refuse_unread(cfg)
        return inner(cls, cfg, *args, **kwargs)

    return classmethod(checked)


_SECOND: Dict[Tuple[str, str], Any] = {}  # VIF's entries by registry and name, where the host came first


def register(registry: Any) -> Callable[[Any], Any]:
    """Decorator: `registry.register()`, also where the host has an entry of that name.

    Serves: forks of fastreid with data sets CARGO or a meta architecture PCB of their own (VDT's has both).
    Theirs stay for their trainer; VIF's own look-ups go through `own_entry`. Can go with those forks.
    """

    def add(entry: Any) -> Any:
        theirs = registry._obj_map.get(entry.__name__)
        if theirs is None:
            registry.register(entry)
        elif theirs.__module__ != entry.__module__:
            _SECOND[registry._name, entry.__name__] = entry
        return entry

    return add


@contextlib.contextmanager
def own_entry(registry: Any, name: str) -> Iterator[None]:
    """For a time, `name` in `registry` means VIF's entry where there are two, not the host's; said aloud."""
    ours = _SECOND.get((registry._name, name))
    if ours is None:
        yield
        return
    theirs = registry._obj_map[name]
    say_once(
        f"the fastreid at hand has a {name!r} of its own ({theirs.__module__}). For VIF's trainer and "
        f"commands the name means VIF's ({ours.__module__}); fastreid's own trainer keeps the other one"
    )
    registry._obj_map[name] = ours
    try:
        yield
    finally:
        registry._obj_map[name] = theirs


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


_ENGINE: Dict[str, type] = {}


def engine_classes() -> Dict[str, type]:
    """Subclasses of fastreid's engine, built once fastreid can be imported."""
    if _ENGINE:
        return _ENGINE
    from fastreid.engine.train_loop import SimpleTrainer
    from fastreid.utils.checkpoint import Checkpointer as FastreidCheckpointer

    class AMPTrainer(SimpleTrainer):
        """Mixed precision through torch.amp; on a machine without CUDA it runs in float32 and says so."""

        def __init__(self, model: Any, data_loader: Any, optimizer: Any, *wrapper: Any) -> None:
            super().__init__(model, data_loader, optimizer, *wrapper)
            self.device_type = next(model.parameters()).device.type
            self.enabled = self.device_type == "cuda"
            if not self.enabled:
                logger.warning("SOLVER.AMP.ENABLED needs CUDA; this run trains in float32")
            if hasattr(torch.amp, "GradScaler"):
                self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=self.enabled)
            else:  # torch < 2.3
                self.grad_scaler = torch.cuda.amp.GradScaler(enabled=self.enabled)

        def run_step(self) -> None:
            start = time.perf_counter()
            data = next(self._data_loader_iter)
            data_time = time.perf_counter() - start
            with torch.autocast(self.device_type, dtype=self.amp_dtype, enabled=self.enabled):
                loss_dict = self.model(data)
                losses = sum(loss_dict.values())
            self.optimizer.zero_grad()
            self.grad_scaler.scale(losses).backward()
            self._write_metrics(loss_dict, data_time)
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()

        @property
        def amp_dtype(self) -> torch.dtype:
            return torch.float16 if self.device_type == "cuda" else torch.bfloat16

    class Checkpointer(FastreidCheckpointer):
        """fastreid's checkpointer; it reads tensors only, loads what fits, replaces a file in one step."""

        def load(self, path: str, checkpointables: Optional[List[str]] = None) -> Any:
            if path.startswith(TIMM):  # which is no path to fastreid
                load_weights(self.model, read_weights(path))
                return {}
            return super().load(path, checkpointables)

        def _load_file(self, f: str) -> Any:
            weights = read_weights(f)
            return {**weights.rest, "model": weights}

        def _load_model(self, checkpoint: Any) -> None:
            load_weights(self.model, checkpoint.pop("model"))

        def save(self, name: str, **kwargs: Any) -> None:
            if not self.save_dir or not self.save_to_disk:
                return
            data = {"model": self.model.state_dict(), GRIDS: position_grids(self.model), **kwargs}
            data.update({key: obj.state_dict() for key, obj in self.checkpointables.items()})
            path = os.path.join(self.save_dir, f"{name}.pth")
            self.logger.info("Saving checkpoint to %s", path)
            with atomic_path(path) as partial:
                torch.save(data, partial)
            self.tag_last_checkpoint(f"{name}.pth")

    _ENGINE.update(AMPTrainer=AMPTrainer, Checkpointer=Checkpointer)
    return _ENGINE


def resolve_device(name: str) -> str:
    """Serves: MODEL.DEVICE "cuda" (fastreid's default) on a machine without a GPU: the CPU, said aloud."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        say_once(f'MODEL.DEVICE is "{name}" and this machine has no usable GPU: running on the CPU')
        return "cpu"
    return name


_SAID: Set[str] = set()


def say_once(message: str) -> None:
    """A warning of the log, once a process."""
    if message not in _SAID:
        _SAID.add(message)
        logger.warning(message)


def seed_everything(seed: int) -> int:
    """Serves: runs that repeat; fastreid's `seed_all_rng()` is called without a seed.

    Args:
        seed: 0 <= seed < 2**32; negative draws one from the system.

    Returns:
        The seed in force, so that a drawn one can be logged and used again.
    """
    if seed >= 2**32:
        raise ConfigError(f"SEED={seed} is too large; it must be below {2**32}")
    if seed < 0:
        seed = int.from_bytes(os.urandom(4), "little")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  fastreid and torchvision read the global state
    torch.manual_seed(seed)
    return seed


class PrivateRandom:
    """Serves: fastreid's samplers, which draw from numpy's global state after calling `np.random.seed`.

    Iterating gives the sampler's own indices; the global state outside is as if nothing had been drawn, and
    nothing drawn outside changes the indices. Can go when the samplers own a generator.

    Args:
        sampler: any iterable of indices.
        chunk: indices drawn at a time (the state is swapped once a chunk).
    """

    def __init__(self, sampler: Any, chunk: int = 512) -> None:
        self.sampler = sampler
        self.chunk = chunk

    def __iter__(self) -> Iterator[int]:
        indices = iter(self.sampler)
        state: Optional[Any] = None
        while True:
            outside = np.random.get_state()  # noqa: NPY002
            if state is not None:
                np.random.set_state(state)  # noqa: NPY002
            try:
                drawn = list(itertools.islice(indices, self.chunk))
                state = np.random.get_state()  # noqa: NPY002
            finally:
                np.random.set_state(outside)  # noqa: NPY002
            if not drawn:
                return
            yield from (int(i) for i in drawn)
