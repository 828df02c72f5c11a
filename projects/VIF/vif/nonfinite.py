"""Losses and gradients that are not finite: stop with what reproduces them, or leave the batch out."""

import logging
import math
import os
from typing import Any, Dict, List, Mapping, NoReturn, Optional, Tuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from .errors import DataError, NonFiniteError
from .files import atomic_path, write_json

logger = logging.getLogger(__name__)

MODEL, BATCH, RANDOM = "model.", "batch.", "random."  # parts of the file of tensors


def raise_in_words(iteration: int, fault: str, losses: Mapping[str, float], what_next: str = "") -> NoReturn:
    """Stop the run.

    Raises:
        NonFiniteError: always.
    """
    parts = ", ".join(f"{name} {value:g}" for name, value in losses.items())
    raise NonFiniteError(
        f"The {fault} is not finite at iteration {iteration} ({parts}). {what_next}".rstrip()
    )


class Guard:
    """What a training step does about a loss or gradient that is not finite.

    Args:
        action: "stop", or "skip": the batch is left out and counted.
        limit: batches in a row that "skip" leaves out; one more stops the run.
        folder: where reports go.
        config: the run's config as YAML, for the report.
        rank, world_size: this process and their number; each writes a report of its own batch.
        images: reads batches again: (draw, index) -> sample with uint8 ``images`` (3, H, W).
    """

    def __init__(
        self,
        action: str,
        limit: int,
        folder: str,
        config: str,
        images: Any,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.skips = action == "skip"
        self.limit, self.folder, self.config, self.images = limit, folder, config, images
        self.rank, self.world_size = rank, world_size
        self.skipped = self.in_a_row = self.overflows = 0
        self._buffers: List[Tuple[torch.Tensor, torch.Tensor]] = []
        self._random: Dict[str, torch.Tensor] = {}

    def remember(self, model: torch.nn.Module) -> None:
        """Keep what a forward pass changes: buffers (running statistics) and the state dropout draws from."""
        self._buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        self._random = {"cpu": torch.get_rng_state()}
        device = next(model.parameters()).device
        if device.type == "cuda":
            self._random["cuda"] = torch.cuda.get_rng_state(device)

    @torch.no_grad()
    def restore(self) -> None:
        """Set the buffers back to what they were."""
        for buffer, value in self._buffers:
            buffer.copy_(value)

    def count(self, fault: str, overflow: bool) -> None:
        """Count a finished step; an overflow is a step of float16 that its scaler left out."""
        self.in_a_row = self.in_a_row + 1 if fault and not overflow else 0
        self.skipped += bool(self.in_a_row)
        self.overflows += overflow

    def counts(self) -> Dict[str, int]:
        """What the log shows."""
        shown = {"skipped_batches": self.skipped} if self.skips else {}
        return {**shown, "amp_overflows": self.overflows} if self.overflows else shown

    def state_dict(self) -> Dict[str, int]:
        """The counts, for checkpoints."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "overflows": self.overflows}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on counting from a checkpoint."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]
        self.overflows = state["overflows"]

    def refuse(
        self,
        fault: str,
        iteration: int,
        model: Any,
        batch: Any,
        numbers: Mapping[str, float],
        dtype: str,
        feature_norm: Optional[float] = None,
    ) -> None:
        """Undo the forward pass and report the batch; all processes must call.

        Args:
            fault: "loss" or "gradient".
            iteration: counted from 0.
            model: with the gradients of the refused step.
            batch: what the model took.
            numbers: this process's losses by name, and its largest gradient as "".
            dtype: what the step computed in.
            feature_norm: mean length of the batch's features, where it is known.

        A report that cannot be written is said, in the log or the error.

        Raises:
            NonFiniteError: the action is "stop", or too many batches in a row were left out.
        """
        self.restore()
        stop = not self.skips or self.in_a_row >= self.limit
        path = os.path.join(self.folder, f"nonfinite_{iteration:07d}")
        path += f"_rank{self.rank}" if self.world_size > 1 else ""
        losses = {name: value for name, value in numbers.items() if name}
        model = getattr(model, "module", model)  # of DistributedDataParallel
        report = {
            "fault": fault,
            "iteration": iteration,
            "rank": self.rank,
            "world_size": self.world_size,
            "precision": dtype,
            "losses": {name: _readable(value) for name, value in losses.items()},
            "largest_gradient": _readable(numbers.get("", math.nan)),
            "feature_norm": _readable(feature_norm),
            "weight_norm": _readable(_norm(model.parameters())),
            "not_finite": _not_finite(model),
            "batch": _rows(batch),
            "state": f"{os.path.basename(path)}.safetensors" if stop else None,
            "config": self.config,
        }
        told = f"{path}.json names the batch"
        try:
            write_json(f"{path}.json", report)
            if stop:
                self._write_state(f"{path}.safetensors", model, batch)
                told += " and what is not finite; vif.replay runs it again"
        except (OSError, SafetensorError, DataError) as e:
            told = f"{path}.* could not be written ({e})"
        if not stop:
            logger.warning(
                "The %s is not finite at iteration %d: this batch is left out (%d so far); %s",
                fault,
                iteration,
                self.skipped + 1,
                told,
            )
            return
        why = f"{self.in_a_row} batches before it were left out already. " if self.in_a_row else ""
        raise_in_words(iteration, fault, losses, f"{why}{told}.")

    def _write_state(self, path: str, model: Any, batch: Any) -> None:
        """The model before the step, the batch before the model, and the random state between the two."""
        tensors = {f"{MODEL}{name}": value for name, value in model.state_dict().items()}
        tensors.update({f"{RANDOM}{name}": value for name, value in self._random.items()})
        labels = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
        tensors.update({f"{BATCH}{name}": value for name, value in labels.items()})
        if "draws" in batch:  # read once more: fastreid's models change the batch's images in place
            keys = zip(batch["draws"].tolist(), batch["index"].tolist())
            tensors[f"{BATCH}images"] = torch.stack([self.images[key]["images"] for key in keys])
        with atomic_path(path) as partial:
            save_file(
                {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, partial
            )


def _rows(batch: Any) -> List[Dict[str, Any]]:
    columns = {"target": "targets", "camid": "camids", "index": "index", "draw": "draws"}
    found = {name: batch[key].tolist() for name, key in columns.items() if key in batch}
    return [
        {"path": path, **{name: values[i] for name, values in found.items()}}
        for i, path in enumerate(batch.get("img_paths", []))
    ]


@torch.no_grad()
def _not_finite(model: torch.nn.Module) -> Dict[str, List[str]]:
    """Names of what holds a NaN or an infinity."""
    named = list(model.named_parameters())
    kinds = {
        "parameters": named,
        "buffers": list(model.named_buffers()),
        "gradients": [(name, p.grad) for name, p in named if p.grad is not None],
    }
    return {
        kind: [name for name, value in pairs if not bool(value.isfinite().all())]
        for kind, pairs in kinds.items()
    }


@torch.no_grad()
def _norm(tensors: Any) -> float:
    return float(np.linalg.norm([float(t.float().norm()) for t in tensors]))


def _readable(value: Optional[float]) -> Any:
    """A number as JSON has it; "nan", "inf" and "-inf" as words."""
    return value if value is None or math.isfinite(value) else str(value)
