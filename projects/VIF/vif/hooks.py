"""What VIF adds to fastreid's trainer hooks: a progress line, a collapse warning, a named best checkpoint."""

import datetime
import logging
from typing import Any, List, Optional

from fastreid.engine import hooks
from fastreid.engine.train_loop import HookBase
from fastreid.utils.events import EventWriter, get_event_storage

logger = logging.getLogger(__name__)

COLLAPSED = 0.95  # mean cosine of different people above which features have collapsed
WINDOW = 50  # iterations that geometry is smoothed over


class ProgressWriter(EventWriter):
    """One line of progress: epoch, iteration, losses, accuracy, learning rate, images/s, time left, geometry.

    Losses and geometry are medians over the last `window` iterations.

    Args:
        max_iter: iterations of the whole run.
        max_epoch: epochs of the whole run.
        batch_size: images of one iteration over all processes.
        window: iterations to smooth over.
    """

    def __init__(self, max_iter: int, max_epoch: int, batch_size: int, window: int = WINDOW) -> None:
        self.max_iter, self.max_epoch, self.batch_size, self.window = max_iter, max_epoch, batch_size, window
        self._written: Optional[int] = None

    def write(self) -> None:
        """Log the line, once an iteration; also puts images_per_second and eta_seconds into the storage."""
        storage = get_event_storage()
        if storage.iter in (self._written, self.max_iter):
            return
        self._written = storage.iter
        values = {k: h.median(self.window) for k, h in storage.histories().items()}
        parts: List[str] = [
            f"epoch {storage.epoch + 1}/{self.max_epoch}",
            f"iter {storage.iter + 1}/{self.max_iter}",
        ]
        parts += [f"{k} {v:.3f}" for k, v in values.items() if "loss" in k]
        if "cls_accuracy" in values:
            parts.append(f"acc {100 * values['cls_accuracy']:.1f}%")
        if "lr" in values:
            parts.append(f"lr {storage.history('lr').latest():.2e}")
        if "time" in values and values["time"] > 0:
            speed = self.batch_size / values["time"]
            eta = storage.history("time").median(1000) * (self.max_iter - storage.iter - 1)
            storage.put_scalars(images_per_second=speed, eta_seconds=eta, smoothing_hint=False)
            parts += [f"{speed:.0f} images/s", f"left {datetime.timedelta(seconds=int(eta))}"]
        if "neg_cos" in values:
            parts.append(
                f"cos same {values['pos_cos']:.2f} other {values['neg_cos']:.2f} "
                f"hard {100 * values['hard_share']:.1f}% norm {values['feat_norm']:.1f}"
            )
        logger.info("  ".join(parts))


class CollapseWarning(HookBase):
    """Warn when the features of all images point the same way, which the losses hide.

    Batch-hard triplet loss can squeeze every embedding to one direction; the identity loss still falls,
    because the BNNeck rescales what is left. Collapsed means: over the last `window` iterations negatives
    have a median mean cosine above `threshold`.
    """

    def __init__(self, window: int = WINDOW, threshold: float = COLLAPSED) -> None:
        self.window, self.threshold = window, threshold
        self._collapsed = False

    def after_step(self) -> None:
        """Look at the logged geometry every `window` iterations."""
        if (self.trainer.iter + 1) % self.window or "neg_cos" not in self.trainer.storage.histories():
            return
        neg_cos = self.trainer.storage.history("neg_cos").median(self.window)
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
    end of an epoch is written once, after the evaluation.
    """

    def after_step(self) -> None:
        """Write every `period` iterations, except at an epoch's end."""
        done = self.trainer.iter + 1
        if done % self._period == 0 and done % self.trainer.iters_per_epoch:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        """Write what the last evaluation left, and close."""
        for writer in self._writers:
            writer.write()
            writer.close()


class BestCheckpointer(hooks.PeriodicCheckpointer):
    """fastreid's checkpoint hook; model_best is chosen by one named number of one test set.

    Args:
        metric: key of the evaluation's scalars, "data set/protocol/metric".
    """

    def __init__(self, checkpointer: Any, period: int, metric: str) -> None:
        super().__init__(checkpointer, period)
        self.metric_name = metric

    def before_train(self) -> None:
        """Say what chooses model_best."""
        self.max_epoch = self.trainer.max_epoch
        logger.info(
            "model_best.pth is the epoch of the highest %s, chosen on the test set: report model_final.pth",
            self.metric_name,
        )
