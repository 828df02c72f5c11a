"""What VIF adds to fastreid's trainer hooks: a collapse warning, states, a named best checkpoint."""

import contextlib
import logging
from typing import Any, Dict, List

from fastreid.engine import hooks
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm
from fastreid.utils.events import get_event_storage

from .errors import CheckpointError
from .resume.files import thin
from .resume.state import collect
from .writers import WINDOW, Metrics

logger = logging.getLogger(__name__)

COLLAPSED = 0.95  # mean cosine of different people above which features have collapsed


class CollapseWarning(HookBase):
    """Warn when the features of all images point the same way, which the losses hide.

    Batch-hard triplet loss can squeeze every embedding to one direction; the identity loss still falls,
    because the BNNeck rescales what is left. Collapsed means: over the last `window` iterations negatives
    have a median mean cosine above `threshold`.
    """

    def __init__(self, window: int = WINDOW, threshold: float = COLLAPSED) -> None:
        self.window, self.threshold = window, threshold
        self._collapsed = False

    def state_dict(self) -> Dict[str, Any]:
        """Whether it has warned."""
        return {"collapsed": self._collapsed}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Go on with it."""
        self._collapsed = state["collapsed"]

    def after_step(self) -> None:
        """Look at the logged geometry every `window` iterations."""
        if (self.trainer.iter + 1) % self.window or "neg_cos" not in self.trainer.storage.histories():
            return
        neg_cos = float(self.trainer.storage.history("neg_cos").median(self.window))
        if neg_cos > self.threshold and not self._collapsed:
            pos_cos = self.trainer.storage.history("pos_cos").median(self.window)
            logger.warning(
                "The features have collapsed: over the last %d iterations different people have a mean "
                "cosine of %.3f (same person %.3f). Scores of such a network mean little. What helps: "
                "pre-trained weights, a smaller MODEL.LOSSES.TRI.SCALE or SOLVER.BASE_LR, a longer "
                "warm-up, or MODEL.HEADS.NECK_FEAT after (metric losses on the BNNeck's output).",
                self.window,
                neg_cos,
                pos_cos,
            )
        elif self._collapsed and neg_cos <= self.threshold:
            logger.info("The features have spread again: mean cosine of different people %.3f", neg_cos)
        self._collapsed = neg_cos > self.threshold


class Writers(hooks.PeriodicWriter):
    """fastreid's writer hook; evaluation scores reach metrics.json and TensorBoard.

    Writers skip what carries an iteration already written. fastreid's hook writes after the last step of an
    epoch, before that epoch's evaluation, and closes without a last write: those scores are lost. Here the
    end of an epoch is written once, after the evaluation. A disk that is full is said in the log, and the run
    goes on.
    """

    def after_step(self) -> None:
        """Write every `period` iterations, except at an epoch's end."""
        done = self.trainer.iter + 1
        if done % self._period == 0 and done % self.trainer.iters_per_epoch:
            self._write()

    def after_epoch(self) -> None:
        """Write the epoch's end."""
        self._write()

    def after_train(self) -> None:
        """Write what the last evaluation left, and close."""
        self._write()
        for writer in self._writers:
            with contextlib.suppress(OSError):
                writer.close()

    def state_dict(self) -> Dict[str, Any]:
        """The last iteration that each writer wrote."""
        return {type(w).__name__: w._last_write for w in self._writers if hasattr(w, "_last_write")}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Go on there."""
        for writer in self._writers:
            last = state.get(type(writer).__name__)
            if last is not None:
                writer._last_write = last
                if isinstance(writer, Metrics):
                    writer.cut(last)

    def _write(self) -> None:
        for writer in self._writers:
            try:
                writer.write()
            except OSError as e:
                logger.error("%s could not write (%s); the run goes on", type(writer).__name__, e)


class Evaluation(hooks.EvalHook):
    """fastreid's evaluation hook; a run that ends before its last step is not evaluated at the end."""

    def after_train(self) -> None:
        """Evaluate after the last epoch where the period has not done it."""
        if self.trainer.finished:
            super().after_train()


class Freeze(hooks.LayerFreeze):
    """fastreid's hook of frozen layers, with a state: which layers are in evaluation mode."""

    def state_dict(self) -> Dict[str, Any]:
        """Whether layers are frozen, and those that do not train."""
        idle = [name for name, module in self.model.named_modules() if name and not module.training]
        return {"frozen": self.is_frozen, "idle": idle}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Put the layers back."""
        self.is_frozen = state["frozen"]
        for name, module in self.model.named_modules():
            if name in state["idle"]:
                module.training = False


class BestCheckpointer(hooks.PeriodicCheckpointer):
    """fastreid's checkpoint hook, on every process; model_best is chosen by one named number of one test set.

    It comes after the writers, so that a run that goes on from a checkpoint finds its scores written. A disk
    that is full costs a periodic checkpoint, not the run; the last one must be written.

    Args:
        metric: key of the evaluation's scalars, "data set/protocol/metric".
        keep: how many checkpoints of epochs stay; 0: all.
    """

    def __init__(self, checkpointer: Any, period: int, metric: str, keep: int = 0) -> None:
        super().__init__(checkpointer, period)
        self.metric_name, self.keep = metric, keep

    def before_train(self) -> None:
        """Say what chooses model_best."""
        self.max_epoch = self.trainer.max_epoch
        logger.info(
            "model_best.pth is the epoch of the highest %s, chosen on the test set: report model_final.pth",
            self.metric_name,
        )

    def state_dict(self) -> Dict[str, Any]:
        """The best score so far, and of what."""
        return {"metric": self.metric_name, "best": self.best_metric}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Go on with it, if it is of the same number."""
        if state["metric"] == self.metric_name:
            self.best_metric = state["best"]
        else:
            logger.warning("model_best was chosen by %s; its choice starts anew", state["metric"])

    def after_epoch(self) -> None:
        """Save every `period` epochs and after the last, the best first; the best of those evaluated, always.

        Raises:
            CheckpointError: the last checkpoint could not be written.
        """
        epoch = self.trainer.epoch
        final = epoch + 1 >= self.max_epoch
        due = final or (epoch + 1) % self.period == 0
        failed = self._save(epoch, ("model_final" if final else f"model_{epoch:04d}") if due else "")
        if failed and final:
            raise CheckpointError(failed)
        if failed:
            logger.error("%s The run goes on, and tries again at the next save.", failed)
        elif due:
            self.trainer.mark_saved(epoch)

    def after_train(self) -> None:
        """The best may be the last epoch, evaluated now where the period has not done it.

        Raises:
            CheckpointError: it could not be written.
        """
        failed = self._save(self.trainer.epoch, "") if self.trainer.finished else ""
        if failed:
            raise CheckpointError(failed)

    def _save(self, epoch: int, name: str) -> str:
        """Save model_best where this is it, and the checkpoint `name` unless that is empty.

        Returns:
            What went wrong, or nothing; the same on all processes.
        """
        storage = get_event_storage()
        metric, iteration = storage.latest().get(self.metric_name, (-1, 0))
        if iteration != storage.iter:  # of an epoch before
            metric = -1
        better = comm.all_gather(metric > self.best_metric)[0]
        files = (["model_best"] if better else []) + ([name] if name else [])
        state = collect(self.trainer) if files else {}
        failed = self._write(files, epoch, metric, state) if comm.is_main_process() else ""
        if comm.is_main_process() and name and not failed:
            thin(self.checkpointer.save_dir, self.keep, epoch)
        return comm.all_gather(failed)[0]

    def _write(self, files: List[str], epoch: int, metric: float, run: Dict[str, Any]) -> str:
        """What went wrong, or nothing."""
        best, failed = self.best_metric, ""
        for file in files:
            self.best_metric = best if failed else max(best, metric)
            run["hooks"][type(self).__name__] = self.state_dict()
            try:
                self.checkpointer.save(file, epoch=epoch, metric=metric, run=run)
            except CheckpointError as e:
                failed, self.best_metric = str(e), best
        return failed
