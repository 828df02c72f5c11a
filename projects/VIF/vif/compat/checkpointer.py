"""fastreid's checkpointer: tensors only, whole files, the newest good one; and a counter in a closure."""

import contextlib
import inspect
import os
from typing import Any, Callable, List, Optional

import torch
from fastreid.utils.checkpoint import Checkpointer as FastreidCheckpointer

from ..errors import CheckpointError, DataError
from ..files import atomic_path, write_text
from ..positions import position_grids
from ..resume.files import LAST, RESUME, Found, checkpoints, find
from ..weight_files import GRIDS, TIMM, plain_values, read_weights
from ..weights import fit, load_weights, shorten


class Checkpointer(FastreidCheckpointer):
    """fastreid's checkpointer; it reads tensors only, loads what fits, replaces a file in one step."""

    def load(self, path: str, checkpointables: Optional[List[str]] = None) -> Any:
        """fastreid's, and weights by timm's name."""
        if path.startswith(TIMM):  # which is no path to fastreid
            load_weights(self.model, read_weights(path))
            return {}
        return super().load(path, checkpointables)

    def _load_file(self, f: str) -> Any:
        weights = read_weights(f)
        return {**weights.rest, "model": weights}

    def _load_model(self, checkpoint: Any) -> None:
        load_weights(self.model, checkpoint.pop("model"))

    def has_checkpoint(self) -> bool:
        """Whether the folder has a checkpoint, good or not."""
        return super().has_checkpoint() or bool(checkpoints(self.save_dir))

    def resume_or_load(self, path: str, *, resume: bool = True) -> Any:
        """fastreid's; a checkpoint that is not good is refused by its name, and the one before it taken.

        Raises:
            CheckpointError: there are checkpoints, and none is good.
        """
        found = self.find() if resume else None
        return self.load(path, checkpointables=[]) if found is None else self.restore(found)

    def find(self, accept: Callable[[Found], None] = lambda found: None) -> Optional[Found]:
        """The checkpoint to go on from, or None where there is none at all; as `vif.resume.files.find`."""

        def check(found: Found) -> None:
            accept(found)
            _, report = fit(found.weights, self.model)
            strange = [*report.missing, *report.left_out, *report.resized]
            if strange:
                raise DataError(f"{found.path} is of another network: {shorten(strange, 4)}.")

        return find(self.save_dir, list(self.checkpointables), check)

    def restore(self, found: Found) -> Any:
        """Load model and all that the run needs.

        Returns:
            What else the file holds: epoch, metric, ...
        """
        self.logger.info("Going on from %s", found.path)
        load_weights(self.model, found.weights)
        rest = dict(found.weights.rest)
        for key, checkpointable in self.checkpointables.items():
            checkpointable.load_state_dict(rest.pop(key))
        return rest

    def save(self, name: str, **kwargs: Any) -> None:
        """Write NAME.pth in the output folder, whole or not at all, and tag it as the last.

        model_best is not tagged: the same epoch's own checkpoint follows.

        Raises:
            CheckpointError: it could not be written; what was there is as it was.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        rest = plain_values({GRIDS: position_grids(self.model), **kwargs, **states})
        data = {"model": self.model.state_dict(), **rest}
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        try:
            with atomic_path(path) as partial, open(partial, "wb") as f:
                torch.save(data, f)
            if name != "model_best":
                self.tag_last_checkpoint(f"{name}.pth")
        except (OSError, RuntimeError) as e:  # torch's writer has RuntimeErrors for a disk's
            raise CheckpointError(
                f"{path} could not be written: {_reason(e)}. What was saved before is as it was."
            ) from e
        if name not in (RESUME, "model_best"):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.save_dir, f"{RESUME}.pth"))

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the newest checkpoint, in one step."""
        write_text(os.path.join(self.save_dir, LAST), last_filename_basename)


def _reason(error: BaseException) -> str:
    """What the system said, below what the writer made of it."""
    cause: Optional[BaseException] = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause.strerror or str(cause)
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0]


class FrozenSteps:
    """The steps that an optimizer with frozen layers has made.

    Serves: resuming within SOLVER.FREEZE_ITERS. fastreid counts them in a variable of a closure, where a
    resumed run would begin again at 0. Can go when the optimizer's state holds them.
    """

    def __init__(self, optimizer: Any) -> None:
        step = inspect.unwrap(type(optimizer).step)
        names = step.__code__.co_freevars
        self._cell: Any = step.__closure__[names.index("cnt")] if "cnt" in names else None

    def state_dict(self) -> Any:
        """The number, 0 without frozen layers."""
        return {"steps": self._cell.cell_contents if self._cell else 0}

    def load_state_dict(self, state: Any) -> None:
        """Set it."""
        if self._cell:
            self._cell.cell_contents = state["steps"]
