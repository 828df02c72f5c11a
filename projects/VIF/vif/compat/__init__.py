"""The only place that bridges fastreid 1.3/1.4 to today's Python, torch and numpy.

Each bridge names what it serves and when it can go. Nothing of fastreid is copied or forked: names are
provided while its modules are imported, and classes of its engine are subclassed and put in place.
"""

import importlib
import importlib.util
import logging
from typing import Any

from .builders import build_model, build_optimizer, refusing, with_local_weights, without_cameras
from .entries import own_entry, register
from .losses import losses_in_float32
from .names import old_names
from .process import PrivateRandom, alone, resolve_device, say_once, seed_everything, shorten_own_error

__all__ = [
    "INSTALL_HINT",
    "PrivateRandom",
    "alone",
    "build_optimizer",
    "install",
    "own_entry",
    "register",
    "resolve_device",
    "say_once",
    "seed_everything",
    "with_local_weights",
    "without_cameras",
]

INSTALL_HINT = (
    "VIF-AGReID is a plugin of fastreid, which is not installed. Install it without its pins (it asks for "
    "torch 1.13): `pip install --no-deps fastreid==1.4.0`, then `pip install -r requirements.txt`; or put a "
    "clone of the fast-reid repository on PYTHONPATH."
)


def install() -> None:
    """Import fastreid under the bridges and put the classes below in place. Repeating it changes nothing."""
    if importlib.util.find_spec("fastreid") is None:
        raise ImportError(INSTALL_HINT)
    with old_names():
        for name in ("data", "evaluation", "modeling", "solver", "engine"):
            importlib.import_module(f"fastreid.{name}")
    defaults: Any = importlib.import_module("fastreid.engine.defaults")
    step: Any = importlib.import_module(".step", __name__)
    # Serves: SOLVER.AMP on torch.amp and on the CPU, losses that are not finite met alike by all processes.
    # Can go when fastreid uses torch.amp and gathers its losses everywhere.
    defaults.SimpleTrainer, defaults.AMPTrainer = step.StepTrainer, step.AMPTrainer
    losses_in_float32()
    # Serves: MODEL.COMPILE and MODEL.BACKBONE.VIT.ATTENTION. Can go never.
    defaults.build_model = build_model
    # Serves: weights that train at all on torch >= 2.0; see `build_optimizer`.
    defaults.build_optimizer = build_optimizer
    # Serves: reading checkpoints without running code in them, writing them atomically.
    checkpointer: Any = importlib.import_module(".checkpointer", __name__)
    defaults.Checkpointer = checkpointer.Checkpointer
    # Serves: several processes on the CPU; see `data_parallel`.
    distributed: Any = importlib.import_module(".distributed", __name__)
    defaults.DistributedDataParallel = distributed.data_parallel
    logging.getLogger("fastreid.engine.train_loop").addFilter(shorten_own_error)
    backbones: Any = importlib.import_module("fastreid.modeling.backbones").BACKBONE_REGISTRY._obj_map
    for name, build in backbones.items():
        if build.__module__.startswith("fastreid.") and not hasattr(build, "__wrapped__"):
            backbones[name] = with_local_weights(build)
    for name in ("build_train_loader", "test"):
        setattr(defaults.DefaultTrainer, name, refusing(vars(defaults.DefaultTrainer)[name]))
    baseline: Any = importlib.import_module("fastreid.modeling.meta_arch.baseline").Baseline
    if "camids" in baseline.forward.__code__.co_consts and not hasattr(baseline.forward, "__wrapped__"):
        baseline.forward = without_cameras(baseline.forward)
