"""fastreid in several processes: groups, DDP, batch norm; import it after `install`."""

import datetime
from typing import Any

import torch
import torch.distributed as dist
from fastreid.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..modeling.losses.gather import sum_over_processes

_gloo_group = comm._get_global_gloo_group  # fastreid's


def enter_group(store: Any, node: int, timeout: datetime.timedelta) -> None:
    """Serves: `comm.get_local_rank`, which needs a group of each machine's processes. Can go never.

    Under NCCL fastreid gathers objects through a group of Gloo that waits as long as torch's default; this
    gives it one that waits for `timeout`, as for a first process that ranks while the others wait.

    Args:
        store: the process group's own; all processes call this.
        node: number of this process's machine.
        timeout: of a collective.
    """
    if dist.get_backend() == "nccl":
        wide = dist.new_group(backend="gloo", timeout=timeout)
        comm._get_global_gloo_group = lambda: wide
    store.set(f"node/{dist.get_rank()}", str(node))
    nodes = [int(store.get(f"node/{rank}")) for rank in range(dist.get_world_size())]
    for number in sorted(set(nodes)):
        group = dist.new_group([rank for rank, n in enumerate(nodes) if n == number])
        if number == node:
            comm._LOCAL_PROCESS_GROUP = group


def leave_group() -> None:
    """End the process group, and fastreid's."""
    comm._LOCAL_PROCESS_GROUP = None
    comm._get_global_gloo_group = _gloo_group
    _gloo_group.cache_clear()
    dist.destroy_process_group()


def data_parallel(model: Any, device_ids: Any = None, broadcast_buffers: bool = False) -> Any:
    """Serves: DistributedDataParallel on the CPU, which takes no device; fastreid always names one.

    Can go when fastreid does. `device_ids` is ignored: a process has one GPU, the current one.
    """
    ids = [torch.cuda.current_device()] if next(model.parameters()).is_cuda else None
    return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=broadcast_buffers)


def sync_norm_on_cpu(model: Any) -> Any:
    """`model`; where it is on the CPU, fastreid's "syncBN" layers become ones that work there.

    Serves: torch's SyncBatchNorm and DistributedDataParallel, which refuse it on the CPU, old torch even in
    one process. Can go when torch synchronises there.
    """
    if not next(model.parameters()).is_cuda:
        for module in model.modules():
            if isinstance(module, nn.SyncBatchNorm):
                module.__class__ = SyncBatchNorm  # the same parameters and buffers
    return model


def share_buffers(model: Any) -> None:
    """Give every process the first one's buffers: running statistics differ where they are not synchronised.

    Without it each process would extract features with statistics of its own, and with others than the
    checkpoint holds, which the first one writes.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, on the CPU; see `sync_norm_on_cpu`."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any (B, C, ...), as torch's SyncBatchNorm."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(B, C, ...) -> the same shape; in training it changes the running statistics."""
        if not self.training or comm.get_world_size() == 1:
            return super().forward(input)
        dtype, input = input.dtype, input.to(self.running_mean.dtype)  # which autocast may have halved
        over = [d for d in range(input.dim()) if d != 1]
        shape = [1, -1] + [1] * (input.dim() - 2)
        count = sum_over_processes(input.new_tensor(float(input.numel() // input.shape[1])))
        mean = sum_over_processes(input.sum(over)) / count
        centred = input - mean.view(shape)
        variance = sum_over_processes(centred.square().sum(over)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1), momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(dtype)
