"""The training step: fastreid's, with mixed precision through torch.amp and a check of every number."""

import contextlib
import time
from typing import Any, ContextManager, Dict, Optional

import numpy as np
import torch
from fastreid.engine.train_loop import SimpleTrainer
from fastreid.utils import comm
from fastreid.utils.events import EventStorage, get_event_storage

from ..nonfinite import Guard, raise_in_words
from ..precision import NO_BFLOAT16, amp_dtype, autocast, grad_scaler
from .process import say_once


class StepTrainer(SimpleTrainer):
    """One training step; without mixed precision its losses and weights are SimpleTrainer's, to the bit.

    Attributes:
        dtype: what autocast computes in; float32 is no autocast.
        grad_scaler: in float16 alone, else None; its state belongs into checkpoints.
        guard: what to do about numbers that are not finite; None stops at a loss, as fastreid does.
    """

    MIXED = False

    def __init__(self, model: Any, data_loader: Any, optimizer: Any, *wrapper: Any) -> None:
        super().__init__(model, data_loader, optimizer, *wrapper)
        self.device_type: str = next(model.parameters()).device.type
        self.guard: Optional[Guard] = None
        self.set_dtype(amp_dtype("auto", self.device_type) if self.MIXED else torch.float32)

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Compute in float32, or under autocast in float16 or bfloat16."""
        self.dtype = dtype
        self.grad_scaler = grad_scaler(self.device_type) if dtype == torch.float16 else None

    def run_step(self) -> None:
        """Forward, backward, and the optimizer's step where losses and gradients are finite."""
        assert self.model.training, "the model was changed to eval mode"
        if self.MIXED and self.dtype == torch.float32:
            say_once(NO_BFLOAT16)
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        if self.guard:
            self.guard.remember(self.model)
        with self._logging() as logged, autocast(self.device_type, self.dtype):
            loss_dict = self.model(data)
            losses = sum(loss_dict.values())
        self.optimizer.zero_grad()
        if self.grad_scaler:
            self.grad_scaler.scale(losses).backward()
            self.grad_scaler.unscale_(self.optimizer)  # before the check; clipping comes in the step
        else:
            losses.backward()
        numbers = self._numbers(loss_dict)
        fault = self._agree(numbers, data_time)
        # gradients out of float16's range are how the scale finds its place; a scale below 1 is no such case
        overflow = fault == "gradient" and self.grad_scaler and self.grad_scaler.get_scale() >= 1
        if fault and not overflow:
            self._refuse(fault, data, numbers, logged)
        else:
            if logged is not None:
                _hand_over(logged)
            self._step()
        if self.guard:
            self.guard.count(fault, bool(overflow))
            if comm.is_main_process():
                get_event_storage().put_scalars(**self.guard.counts(), smoothing_hint=False)

    def _logging(self) -> ContextManager[Optional[EventStorage]]:
        """Where the model logs: aside while batches may be skipped, so that no NaN of theirs stays."""
        return EventStorage(self.iter) if self.guard and self.guard.skips else contextlib.nullcontext()

    def _step(self) -> None:
        if self.grad_scaler:
            self.grad_scaler.step(self.optimizer)  # not where gradients are not finite
            self.grad_scaler.update()
        else:
            self.optimizer.step()
        if hasattr(getattr(self, "param_wrapper", None), "assert_buffer_is_valid"):
            self.param_wrapper.assert_buffer_is_valid()

    def _numbers(self, loss_dict: Dict[str, torch.Tensor]) -> Dict[str, float]:
        """Losses by name and the largest gradient as "", in one copy from the device."""
        values = {name: value.detach().float().reshape(()) for name, value in loss_dict.items()}
        if self.guard:
            groups = self.optimizer.param_groups
            grads = [p.grad for group in groups for p in group["params"] if p.grad is not None]
            largest = [torch.linalg.vector_norm(grad, float("inf")) for grad in grads]
            values[""] = torch.stack(largest).max()
        return dict(zip(values, torch.stack(list(values.values())).tolist()))

    def _agree(self, numbers: Dict[str, float], data_time: float) -> str:
        """Log the means over processes; "loss" or "gradient" if one is not finite, alike on all processes."""
        shares = comm.all_gather({**numbers, "data_time": data_time})
        slowest = float(np.max([share.pop("data_time") for share in shares]))
        means = {name: float(np.mean([share[name] for share in shares])) for name in numbers}
        gradient = means.pop("", 0.0)
        total = sum(means.values())
        storage = get_event_storage() if comm.is_main_process() else EventStorage()
        storage.put_scalar("data_time", slowest)
        if not np.isfinite(total):
            if self.guard is None:
                raise_in_words(self.iter, "loss", means)
            return "loss"
        if not np.isfinite(gradient) and not self.grad_scaler:
            return "gradient"
        storage.put_scalar("total_loss", total)
        if len(means) > 1:
            storage.put_scalars(**means)
        return "" if np.isfinite(gradient) else "gradient"

    def _refuse(
        self, fault: str, data: Any, numbers: Dict[str, float], logged: Optional[EventStorage]
    ) -> None:
        """Leave the batch out, or stop; `Guard.refuse` writes what reproduces it."""
        assert self.guard is not None
        if self.grad_scaler:
            self.grad_scaler.update(self.grad_scaler.get_scale())  # forgets this step, keeps the scale
        storage = logged or get_event_storage()
        norm = storage.latest().get("feat_norm", (None,))[0]
        self.guard.refuse(fault, self.iter, self.model, data, numbers, str(self.dtype)[6:], norm)


class AMPTrainer(StepTrainer):
    """StepTrainer in mixed precision: float16 on CUDA, as fastreid has it, else as `amp_dtype` says."""

    MIXED = True


def _hand_over(logged: EventStorage) -> None:
    storage, hints = get_event_storage(), logged.smoothing_hints()
    for name, (value, _) in logged.latest().items():
        storage.put_scalar(name, value, smoothing_hint=hints[name])
    storage._vis_data += logged._vis_data
    storage._histograms += logged._histograms
