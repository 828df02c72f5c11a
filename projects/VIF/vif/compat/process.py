"""What a process has: device, seed, random state of samplers, warnings said once."""

import itertools
import logging
import os
import random
from typing import Any, Iterator, Optional, Set

import numpy as np
import torch

from ..errors import ConfigError, VIFError

logger = logging.getLogger(__name__)


def resolve_device(name: str) -> str:
    """Serves: MODEL.DEVICE "cuda" (fastreid's default) on a machine without a GPU: the CPU, said aloud."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        say_once(f'MODEL.DEVICE is "{name}" and this machine has no usable GPU: running on the CPU')
        return "cpu"
    return name


_SAID: Set[str] = set()


def say_once(message: str) -> None:
    """A warning of the log, once a process."""
    if message not in _SAID:
        _SAID.add(message)
        logger.warning(message)


def seed_everything(seed: int) -> int:
    """Serves: runs that repeat; fastreid's `seed_all_rng()` is called without a seed.

    Args:
        seed: 0 <= seed < 2**32; negative draws one from the system.

    Returns:
        The seed in force, so that a drawn one can be logged and used again.
    """
    if seed >= 2**32:
        raise ConfigError(f"SEED={seed} is too large; it must be below {2**32}")
    if seed < 0:
        seed = int.from_bytes(os.urandom(4), "little")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  fastreid and torchvision read the global state
    torch.manual_seed(seed)
    return seed


def shorten_own_error(record: logging.LogRecord) -> bool:
    """Serves: fastreid's train loop, which logs a traceback of what ends it; the project's own errors are
    whole in one line. A filter of its logger that keeps every record. Can go never.
    """
    if record.exc_info and isinstance(record.exc_info[1], VIFError):
        record.msg, record.args, record.exc_info = f"Training stops: {record.exc_info[1]}", (), None
    return True


def alone(sampler: Any, batch: Optional[int] = None) -> Any:
    """One of fastreid's samplers that gives the images of all processes, as it does where there is one.

    Serves: its samplers, which give each process its own part; NaiveIdentitySampler draws other batches then,
    in which an identity can be in two processes. Can go when a sampler takes rank and number of processes.

    Args:
        sampler: made with the batch of all processes.
        batch: its size, for a sampler of identities.
    """
    sampler._rank, sampler._world_size = 0, 1
    if batch is not None:
        sampler.batch_size = batch
    return sampler


class PrivateRandom:
    """Serves: fastreid's samplers, which draw from numpy's global state, after calling `np.random.seed`,
    and from torch's, without a seed.

    Iterating gives the sampler's own indices; the global states outside are as if nothing had been drawn, and
    nothing drawn outside changes the indices. Can go when the samplers own a generator.

    Args:
        sampler: any iterable of indices.
        chunk: indices drawn at a time (the states are swapped once a chunk).
        seed: of what the sampler draws without seeding it, >= 0.
    """

    def __init__(self, sampler: Any, chunk: int = 512, seed: int = 0) -> None:
        self.sampler = sampler
        self.chunk = chunk
        self.seed = seed

    def __iter__(self) -> Iterator[int]:
        indices = iter(self.sampler)
        numpys: Any = np.random.RandomState(self.seed).get_state()
        torchs = torch.Generator().manual_seed(self.seed).get_state()
        while True:
            outside = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
            np.random.set_state(numpys)  # noqa: NPY002
            torch.set_rng_state(torchs)
            try:
                drawn = list(itertools.islice(indices, self.chunk))
                numpys, torchs = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
            finally:
                np.random.set_state(outside[0])  # noqa: NPY002
                torch.set_rng_state(outside[1])
            if not drawn:
                return
            yield from (int(i) for i in drawn)
