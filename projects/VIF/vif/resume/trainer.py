"""fastreid's training loop, made to stop and to go on between any two steps."""

import contextlib
import logging
import os
import time
from typing import Any, Dict, List, Tuple

from fastreid.engine import DefaultTrainer
from fastreid.utils import comm
from fastreid.utils.events import EventStorage

from ..config import with_value
from ..errors import CheckpointError, Stopped, VIFError
from .files import RESUME, Found, clear_partial, leave_older_run
from .signals import StopSignals
from .state import (
    bound_histories,
    check_changes,
    collect,
    restore,
    restore_process,
    restore_scalars,
)

logger = logging.getLogger(__name__)

_GO_ON, _SAVE, _STOP = 0, 1, 2


class ResumableTrainer(DefaultTrainer):
    """fastreid's trainer whose runs go on exactly, from a checkpoint between any two steps.

    Args:
        cfg: fastreid config with VIF's keys and a SEED.
        seed_is_drawn: nobody chose SEED: a resumed run takes that of its checkpoint.

    A checkpoint's "epoch" is the last one that is done with all that follows its steps (schedule,
    evaluation); "run" holds the number of finished iterations and the rest of the state. fastreid's loop
    begins at an epoch's first step; this one at any, also after the last, with the evaluation still to come.

    Attributes:
        start_iter: finished iterations that the run goes on from.
        finished: all epochs are done.
    """

    def __init__(self, cfg: Any, seed_is_drawn: bool = False) -> None:
        super().__init__(cfg)
        self.seed_is_drawn = seed_is_drawn
        self.cfg: Any = self.cfg
        self.start_iter = 0
        self.finished = False
        self.signals = StopSignals()
        self._resumed: Dict[str, Any] = {}  # the checkpoint's "run"
        self._saved = (-1, 0)  # epoch and iteration of the newest checkpoint
        self._clock = time.monotonic()

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the newest good checkpoint of OUTPUT_DIR, or start with MODEL.WEIGHTS.

        Raises:
            CheckpointError: to resume, there are checkpoints and none is good.
            ConfigError: the config changed what the run means, and SOLVER.RESUME_CHANGED is not set.
        """
        if comm.is_main_process():
            clear_partial(self.cfg.OUTPUT_DIR)
        comm.synchronize()
        accepted: Dict[str, Tuple[Any, List[str]]] = {}  # config to go on with and its changed keys, by path

        def accept(found: Found) -> None:
            rest, cfg = found.weights.rest, self.cfg
            if "run" in rest and self.seed_is_drawn:
                cfg = with_value(cfg, "SEED", rest["run"]["config"]["SEED"])
            accepted[found.path] = (cfg, check_changes(self, cfg, rest) if "run" in rest else [])

        seed = self.cfg.SEED
        found = self.checkpointer.find(accept) if resume else None
        seen = comm.all_gather(found and (found.path, found.position))
        if len(set(seen)) > 1:
            raise CheckpointError(
                f"The processes do not see the same checkpoints in {self.cfg.OUTPUT_DIR}: {seen}. Put it on "
                "a file system that all machines share."
            )
        if found is None:
            if resume:
                logger.warning("%s has no checkpoint: the run starts from the beginning", self.cfg.OUTPUT_DIR)
            self.checkpointer.load(self.cfg.MODEL.WEIGHTS, checkpointables=[])
            return
        self.cfg, changed = accepted[found.path]
        if seed != self.cfg.SEED:
            self.rebuild()
        self._go_on_from(found, changed)

    def rebuild(self) -> None:
        """Loaders and hooks anew, under the seed that the run drew when it began."""
        logger.info("SEED was not set; this run drew %d when it began", self.cfg.SEED)
        self._trainer.data_loader = self.build_train_loader(self.cfg)
        self._trainer._data_loader_iter = iter(self._trainer.data_loader)
        self._hooks: List[Any] = []
        self.register_hooks(self.build_hooks())

    def _go_on_from(self, found: Found, changed: List[str]) -> None:
        fresh = {key: value.state_dict() for key, value in self.checkpointer.checkpointables.items()}
        rest = self.checkpointer.restore(found)
        self.start_epoch = int(rest["epoch"]) + 1
        self._resumed = rest.get("run", {})
        self.start_iter = self._resumed.get("iteration", self.start_epoch * self.iters_per_epoch)
        self._saved = (self.start_epoch - 1, self.start_iter)
        if self._resumed:
            restore(self, self._resumed)
        else:
            logger.warning(
                "%s was written by fastreid or an older version: weights, optimizer and schedule go on; "
                "random states, the best score and what log lines are smoothed over start anew",
                found.path,
            )
        if any(key.startswith("SOLVER.") for key in changed):
            self._reschedule(fresh)
        if comm.is_main_process() and os.path.basename(found.path) != f"{RESUME}.pth":
            with contextlib.suppress(FileNotFoundError):  # older: a kill came before it was removed
                os.unlink(os.path.join(self.cfg.OUTPUT_DIR, f"{RESUME}.pth"))
        # the loader's iterator has not begun: it forwards its sampler when it does
        self.data_loader.start(self.start_iter)
        logger.info("Going on after %d iterations, in epoch %d", self.start_iter, self.start_epoch + 1)

    def _reschedule(self, fresh: Dict[str, Any]) -> None:
        """The learning rates that the changed config has at this iteration; momentum is the checkpoint's."""
        optimizer = self.checkpointer.checkpointables["optimizer"]
        memory = optimizer.state_dict()["state"]
        optimizer.load_state_dict({**fresh["optimizer"], "state": memory})
        for name, scheduler in self.scheduler.items():
            scheduler.load_state_dict(fresh[name])
        for _ in range(min(self.start_iter, self.warmup_iters) if "warmup_sched" in self.scheduler else 0):
            self.scheduler["warmup_sched"].step()
        for epoch in range(1, self.start_epoch + 1):
            if epoch * self.iters_per_epoch + 1 > self.warmup_iters and epoch > self.delay_epochs:
                self.scheduler["lr_sched"].step()

    def train(self) -> Any:
        """Run all steps, evaluations and saves that are left.

        Returns:
            What the last `test` returned; None on processes other than the first.

        Raises:
            Stopped: a signal asked for it; the state is saved.
            CheckpointError: the last checkpoint, or that of a stopped run, could not be written.
        """
        if self.start_iter == 0 and comm.is_main_process():
            leave_older_run(self.cfg.OUTPUT_DIR)
        logger.info("Starting training from epoch %d", self.start_epoch)
        self.iter, self.epoch = self.start_iter, self.start_epoch - 1
        with EventStorage(max(self.iter - 1, 0)) as self.storage, StopSignals() as self.signals:
            bound_histories(self.storage)
            try:
                self.before_train()
                if self._resumed:
                    restore_scalars(self.storage, self._resumed["scalars"])
                    restore_process(self, self._resumed)
                self._run_epochs()
            except VIFError as e:  # whole in one line
                logger.error("Training stops: %s", e)
                self._save_before_failure()
                raise
            except Exception:
                logger.exception("Exception during training:")
                self._save_before_failure()
                raise
            finally:
                self.after_train()
            if not hasattr(self, "_last_eval_results"):  # the run was at its end already
                self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results if comm.is_main_process() else None

    def _run_epochs(self) -> None:
        for epoch in range(self.start_epoch, self.max_epoch):
            self.epoch = epoch
            self.before_epoch()
            while self.iter < (epoch + 1) * self.iters_per_epoch:
                self.before_step()
                self.run_step()
                self.after_step()
                self.iter += 1
                self._between_steps(epoch - 1)
            if (epoch + 1) % self.cfg.TEST.EVAL_PERIOD == 0:
                saved = self.save(epoch - 1)  # an evaluation that is cut off is run again from here
                self.signals.saved = saved and comm.get_world_size() == 1
                if self.signals.saved and self.signals.received:  # during the save
                    raise Stopped(self.signals.received)
            self.after_epoch()
            self.signals.saved = False
            self._between_steps(epoch)
        self.finished = True
        self.signals.saved = comm.get_world_size() == 1

    def _between_steps(self, epoch: int) -> None:
        """Save when it is time, stop when any process was told to; `epoch` is the last one that is done."""
        minutes = self.cfg.SOLVER.CHECKPOINT_MINUTES
        wish = _SAVE if minutes and time.monotonic() - self._clock >= 60 * minutes else _GO_ON
        wish = max(comm.all_gather(_STOP if self.signals.received else wish))
        if wish == _GO_ON or (wish == _STOP and self.iter >= self.max_iter and epoch + 1 == self.max_epoch):
            return
        saved = self.save(epoch)
        if wish == _STOP:
            name = self.signals.received or "a signal to another process"
            if not saved:
                raise CheckpointError(f"Stopped by {name}; the state could not be saved, as the log says.")
            logger.warning("Stopped by %s after %d iterations; --resume goes on from here", name, self.iter)
            raise Stopped(name)

    def save(self, epoch: int) -> bool:
        """Write model_resume.pth, unless a checkpoint of this very moment is there; all processes call it.

        Args:
            epoch: the last one that is done.

        Returns:
            Whether it is on disk; a failure is logged.
        """
        self._clock = time.monotonic()
        if self._saved == (epoch, self.iter):
            return True
        run = collect(self)
        done = True
        if comm.is_main_process():
            try:
                self.checkpointer.save(RESUME, epoch=epoch, run=run)
            except CheckpointError as e:
                logger.error("%s The run goes on, and tries again at the next save.", e)
                done = False
        if comm.all_gather(done)[0]:
            self.mark_saved(epoch)
            return True
        return False

    def mark_saved(self, epoch: int) -> None:
        """A checkpoint of this moment is on disk; all processes call it."""
        self._saved, self._clock = (epoch, self.iter), time.monotonic()

    def _save_before_failure(self) -> None:
        """Save where the batch could not be had: the step has not begun, the state is that of the last."""
        within = self.iter < (self.epoch + 1) * self.iters_per_epoch
        begun = self.data_loader.batches != self.iter - self.start_iter
        if within and not begun and comm.get_world_size() == 1:  # other processes are in the middle of a step
            self.save(self.epoch - 1)
