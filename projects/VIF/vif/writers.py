"""Writers of what fastreid's storage of scalars holds: a progress line, TensorBoard, metrics.json."""

import datetime
import json
import logging
import os
from typing import List, Optional

from fastreid.utils.events import EventWriter, JSONWriter, TensorboardXWriter, get_event_storage

logger = logging.getLogger(__name__)

WINDOW = 50  # iterations that losses and geometry are smoothed over


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


class TensorBoard(EventWriter):
    """fastreid's TensorBoard writer, opened at the first write: steps after it, of a killed run, are purged.

    Args:
        folder: of the event files.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._last_write = -1
        self._writer: Optional[TensorboardXWriter] = None

    def write(self) -> None:
        """Write what is new; a writer that failed is replaced by the next write."""
        if self._writer is None:
            start = {"purge_step": self._last_write + 1} if self._last_write >= 0 else {}
            self._writer = TensorboardXWriter(self.folder, **start)
            self._writer._last_write = self._last_write
        try:
            self._writer.write()
        except OSError:
            self._writer = None
            raise
        self._last_write = self._writer._last_write

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


class Metrics(JSONWriter):
    """fastreid's metrics.json; what a killed run wrote after its checkpoint is cut off on resuming."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def cut(self, last: int) -> None:
        """Remove the lines of iterations after `last`, and half a line at the end."""
        with open(self.path, "rb") as f:
            lines = f.readlines()
        kept = 0
        for line in lines:
            try:
                iteration = json.loads(line)["iteration"]
            except (ValueError, KeyError, TypeError):
                break
            if iteration > last or not line.endswith(b"\n"):
                break
            kept += len(line)
        os.truncate(self.path, kept)
