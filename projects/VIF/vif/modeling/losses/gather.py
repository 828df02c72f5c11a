"""Losses over the batches of all processes, with gradients: equal to the loss of one process with all images.

Every process computes the same loss of all images. What reaches an image is the sum over the processes' equal
gradients; DistributedDataParallel's mean over processes then makes it one process's gradient.
"""

from typing import Any, List, Tuple

import torch
import torch.distributed as dist
from torch import nn


def _alone() -> bool:
    return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient


def sum_over_processes(x: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all processes; the gradient is the sum of all processes' gradients."""
    return x if _alone() else _Sum.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, sizes: Tuple[int, ...]) -> torch.Tensor:
        ctx.sizes = sizes
        return torch.cat(_all(x, sizes))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.split(ctx.sizes)[dist.get_rank()], None


def _all(x: torch.Tensor, sizes: Tuple[int, ...]) -> List[torch.Tensor]:
    """Each process's rows; collectives take equal shapes, so short ones are filled up on the way."""
    padded = x.new_zeros((max(sizes), *x.shape[1:]))
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return [part[:size] for part, size in zip(parts, sizes)]


def gather(features: torch.Tensor, targets: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """Features (B, D) and targets (B,) of all processes, in the order of their ranks; B may differ.

    Returns:
        (N, D) with gradients to every process's features, and (N,). With one process, what came in.
    """
    if _alone():
        return features, targets
    sizes = [torch.zeros(1, dtype=torch.int64, device=targets.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(targets)], dtype=torch.int64, device=targets.device))
    rows = tuple(int(size) for size in sizes)
    return _Gather.apply(features, rows), torch.cat(_all(targets, rows))


class Gathered(nn.Module):
    """A loss of features (B, D) and targets (B,), over the batches of all processes."""

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss of all processes' images; the same number on each."""
        return self.loss(*gather(features, targets))
