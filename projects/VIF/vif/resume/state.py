"""The state of a trainer beside what fastreid saves: enough to go on as if nothing had happened.

Plain values and tensors only, under the key "run" of a checkpoint, where stock fastreid looks past it.
"""

import functools
import hashlib
import logging
import os
from typing import Any, Dict, List

import torch
from fastreid.config import get_cfg
from fastreid.utils import comm
from fastreid.utils.history_buffer import HistoryBuffer

from ..compat.checkpointer import FrozenSteps
from ..compat.process import seed_everything
from ..config import add_vif_config, leaves
from ..errors import ConfigError
from ..versions import commit, versions
from .changes import compare
from .files import FORMAT, plain
from .randomness import random_states, set_random_states

logger = logging.getLogger(__name__)

TIMES = ("time", "data_time", "images_per_second", "eta_seconds")  # of the process that measured them
_OPTIMIZER = ("SOLVER.OPT", "SOLVER.AMSGRAD")  # which its state hangs on
HISTORY = 1000  # values that are kept of each scalar; the longest look back is that of the time left


def collect(trainer: Any) -> Dict[str, Any]:
    """The state between two steps; every process calls it, the main one gets it, the others {}."""
    main = comm.is_main_process()
    ranks = comm.gather(
        {
            "random": random_states(trainer.cfg.MODEL.DEVICE),
            # statistics of batch normalisation, which without synchronisation are each process's own
            "unreadable": trainer.data_loader.unreadable.state_dict(),
            "buffers": {} if main else {name: b.cpu() for name, b in trainer.model.named_buffers()},
        }
    )
    if not main:
        return {}
    scaler = trainer.grad_scaler
    return {
        "format": FORMAT,
        "iteration": trainer.iter,
        "ranks": ranks,
        "hooks": {name: hook.state_dict() for name, hook in stateful(trainer).items()},
        "scalars": scalars(trainer.storage),
        "scaler": {} if scaler is None else scaler.state_dict(),
        "guard": trainer.guard.state_dict(),
        "frozen": FrozenSteps(trainer.optimizer).state_dict(),
        "config": {key: plain(value) for key, value in leaves(trainer.cfg)},
        "data": fingerprint(trainer.data_loader.dataset),
        "versions": circumstances(trainer),
    }


def restore(trainer: Any, run: Dict[str, Any]) -> None:
    """Put back what `collect` returned but for the random states and scalars, which come last."""
    for name, hook in stateful(trainer).items():
        if name in run["hooks"]:
            hook.load_state_dict(run["hooks"][name])
    if trainer.grad_scaler is not None and run["scaler"]:
        trainer.grad_scaler.load_state_dict(run["scaler"])
    trainer.guard.load_state_dict(run["guard"])
    FrozenSteps(trainer.optimizer).load_state_dict(run["frozen"])


def restore_process(trainer: Any, run: Dict[str, Any]) -> None:
    """This process's random states, statistics and counts; fresh ones where their number changed."""
    rank, ranks = comm.get_rank(), run["ranks"]
    if len(ranks) != comm.get_world_size():
        seed_everything((trainer.cfg.SEED + rank + run["iteration"]) % 2**32)
        return
    buffers = dict(trainer.model.named_buffers())
    for name, value in ranks[rank]["buffers"].items():
        buffers[name].copy_(value)
    trainer.data_loader.unreadable.load_state_dict(ranks[rank]["unreadable"])
    set_random_states(ranks[rank]["random"], trainer.cfg.MODEL.DEVICE)


def circumstances(trainer: Any) -> Dict[str, str]:
    """What a run depends on beside its config: versions, and what SOLVER.AMP.DTYPE "auto" is here."""
    return {**versions(), "commit": commit(), "precision": str(trainer._trainer.dtype)[6:]}


def stateful(trainer: Any) -> Dict[str, Any]:
    """The trainer's hooks that have a state, by the names of their classes."""
    return {type(hook).__name__: hook for hook in trainer._hooks if hasattr(hook, "state_dict")}


@functools.lru_cache(maxsize=1)
def fingerprint(dataset: Any) -> Dict[str, Any]:
    """Number of training images, and a digest of their names and labels."""
    digest = hashlib.sha256()
    for item in dataset.img_items:
        digest.update(f"{os.path.basename(item[0])}|{item[1]}|{item[2]}\n".encode())
    return {"images": len(dataset.img_items), "digest": digest.hexdigest()[:16]}


def bound_histories(storage: Any) -> None:
    """Keep the last `HISTORY` values of each scalar, not all of the run's."""
    storage._history.default_factory = functools.partial(HistoryBuffer, HISTORY)


def scalars(storage: Any) -> Dict[str, Any]:
    """What the storage of scalars holds but times: log lines and metrics.json are smoothed over it."""
    return {
        name: {
            "values": torch.tensor(history.values(), dtype=torch.float64),
            "count": history._count,
            "mean": float(history._global_avg),
            "latest": list(storage._latest_scalars[name]),
            "smooth": storage._smoothing_hints[name],
        }
        for name, history in storage.histories().items()
        if name not in TIMES
    }


def restore_scalars(storage: Any, saved: Dict[str, Any]) -> None:
    """Put back what `scalars` returned."""
    for name, entry in saved.items():
        history = storage._history[name]
        history._data = [(value, int(iteration)) for value, iteration in entry["values"].tolist()]
        history._count, history._global_avg = entry["count"], entry["mean"]
        storage._latest_scalars[name] = tuple(entry["latest"])
        storage._smoothing_hints[name] = entry["smooth"]


def check_changes(trainer: Any, cfg: Any, rest: Dict[str, Any]) -> List[str]:
    """Say what changed since the checkpoint, and refuse what changes the run's meaning.

    Args:
        trainer: as its config built it; nothing in it changes.
        cfg: to go on with.
        rest: what the checkpoint holds beside weights.

    Returns:
        Keys of the config of the second kind, which SOLVER.RESUME_CHANGED lets pass.

    Raises:
        ConfigError: there are such changes; names each with its old and new value. Also under
            SOLVER.RESUME_CHANGED where position or optimizer of the checkpoint mean nothing any more.
    """
    run = rest["run"]
    defaults = get_cfg()
    add_vif_config(defaults)
    changes = compare(run["config"], dict(leaves(cfg)), dict(leaves(defaults)))
    for name, version in circumstances(trainer).items():
        before = run["versions"].get(name, "")
        if before != version:
            logger.warning("This run was started with %s %s and goes on with %s", name, before, version)
    if changes.free:
        logger.info("Changed since the checkpoint: %s", "; ".join(changes.free))
    bound = list(changes.bound)
    world, data = comm.get_world_size(), fingerprint(trainer.data_loader.dataset)
    if len(run["ranks"]) != world:
        bound.append(
            f"processes: {len(run['ranks'])} -> {world} (each has its own dropout and order of images)"
        )
    if run["data"] != data:
        bound.append(f"training images: {run['data']} -> {data}")
    lost = _lost(trainer, rest, changes.keys)
    if lost:
        raise ConfigError(
            f"This run was started with other settings: {'; '.join(bound + lost)}. It cannot go on so, not "
            f"with SOLVER.RESUME_CHANGED True either: {'; '.join(lost)}. Take the old settings, or start "
            "another run."
        )
    if bound and not cfg.SOLVER.RESUME_CHANGED:
        raise ConfigError(
            f"This run was started with other settings: {'; '.join(bound)}. To go on as it was, take the old "
            "ones; to go on with the new ones, set SOLVER.RESUME_CHANGED True; or start another run."
        )
    if bound:
        logger.warning("The run goes on changed, as SOLVER.RESUME_CHANGED says: %s", "; ".join(bound))
    return changes.keys


def _lost(trainer: Any, rest: Dict[str, Any], keys: List[str]) -> List[str]:
    """Changes after which the checkpoint's number of iterations, or its optimizer, says nothing."""
    run = rest["run"]
    before = run["data"]["images"] // run["config"]["SOLVER.IMS_PER_BATCH"]
    lost = []
    if before != trainer.iters_per_epoch:
        lost.append(f"iterations per epoch: {before} -> {trainer.iters_per_epoch}")
    lost += [f"{key}: the optimizer's state is of another kind" for key in _OPTIMIZER if key in keys]
    old, new = (
        [len(group["params"]) for group in state["param_groups"]]
        for state in (rest["optimizer"], trainer.checkpointer.checkpointables["optimizer"].state_dict())
    )
    if old != new:
        lost.append(f"parameters in each group of the optimizer: {old} -> {new}")
    return lost
