"""Batches and loaders: from the samples of an `ImageSet` to uint8 tensors on a device.

B batch, H x W image. The sampler counts its draws, and a sample depends on its draw alone (`ImageSet`).
"""

import itertools
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Union

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vif.data.image_set import Draw, ImageSet, Sample
from vif.data.transforms import checks
from vif.data.unreadable import KEY, Unreadable
from vif.errors import ConfigError, DataError, VIFError
from vif.resume.signals import spare_workers, sparing_workers

__all__ = ["CountedBatchSampler", "DeviceLoader", "ImageSet", "collate", "make_loader"]


def collate(batch: Sequence[Sample]) -> Dict[str, Any]:
    """Samples as one batch.

    Returns:
        ``images`` uint8 (B, 3, H, W), ``targets``, ``camids`` and ``index`` int64 (B,), ``img_paths`` list;
        further labels as tensors (B, ...). ``unreadable`` list of `BadImage`, where any were met; it stands
        alone where no image is left.

    Raises:
        DataError: images differ in size; names two of them.
    """
    bad = [image for sample in batch for image in sample.get(KEY, ())]
    batch = [sample for sample in batch if "images" in sample]
    if not batch:
        return {KEY: bad}
    first = batch[0]["images"]
    for sample in batch:
        if sample["images"].shape != first.shape:
            raise DataError(
                f"images of a batch must have one size: {batch[0]['img_paths']} is {tuple(first.shape[1:])}, "
                f"{sample['img_paths']} is {tuple(sample['images'].shape[1:])}; resize to (height, width)"
            )
    result: Dict[str, Any] = {"images": torch.stack([sample["images"] for sample in batch])}
    result["img_paths"] = [sample["img_paths"] for sample in batch]
    for name in batch[0].keys() - result.keys() - {KEY}:
        result[name] = torch.from_numpy(np.stack([np.asarray(sample[name]) for sample in batch]))
    return {**result, KEY: bad} if bad else result


class Batches(Dataset):  # type: ignore[type-arg, unused-ignore]
    """Whole batches of `images`, by lists of keys; an error of the project's own comes as a value.

    Raised in a worker process, it would reach the main one as the text of a traceback.
    """

    def __init__(self, images: Any) -> None:
        self.images = images

    def __getitem__(self, keys: Sequence[Any]) -> Union[Dict[str, Any], VIFError]:
        try:
            return collate([self.images[key] for key in keys])
        except VIFError as error:
            return error


class _Loader(DataLoader):  # type: ignore[type-arg, unused-ignore]
    """torch's loader of `Batches`, which raises the errors among them."""

    def __iter__(self) -> Iterator[Any]:
        with sparing_workers():
            batches = super().__iter__()
        for batch in batches:
            if isinstance(batch, VIFError):
                raise batch
            yield batch


class CountedBatchSampler:
    """Batches of (draw number, index) from a sampler of indices; an incomplete last batch is dropped.

    The sampler gives the images of all processes, and each process takes its part of every batch: together
    they see what one process would see. Counting goes on from one iteration to the next: a second epoch has
    other draws than the first.

    Args:
        sampler: yields indices; may be endless.
        batch_size: samples of a batch on this process, >= 1.
        start: draws of all processes before the first batch: finished iterations * batch_size * world_size.
        rank, world_size: this process and the number of processes.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self, sampler: Iterable[int], batch_size: int, start: int = 0, rank: int = 0, world_size: int = 1
    ):
        self.sampler = sampler
        self.batch_size = checks.integer("batch_size", batch_size, 1)
        self.drawn = checks.integer("start", start, 0)
        self._skip = 0
        self.world_size = checks.integer("world_size", world_size, 1)
        self.rank = checks.integer("rank", rank, 0)
        if rank >= world_size:
            raise ConfigError(f"rank must be below world_size {world_size}, got {rank}")

    def forward(self, batches: int) -> None:
        """Begin the first pass after so many batches, as if they had been drawn."""
        self._skip = checks.integer("batches", batches, 0) * self.batch_size * self.world_size
        self.drawn += self._skip

    def __iter__(self) -> Iterator[List[Draw]]:
        batch: List[Draw] = []
        skipped, self._skip = self._skip, 0
        for index in itertools.islice(self.sampler, skipped, None):
            batch.append((self.drawn, int(index)))
            self.drawn += 1
            if len(batch) == self.batch_size * self.world_size:
                yield batch[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]
                batch = []
        self.drawn -= len(batch)

    def __len__(self) -> int:
        """Batches of one pass; TypeError where the sampler is endless."""
        return len(self.sampler) // (self.batch_size * self.world_size)  # type: ignore[arg-type]


def init_worker(worker: int) -> None:
    """Worker processes run one thread each, their number is the parallelism; signals are not for them."""
    spare_workers()
    cv2.setNumThreads(0)  # not 1: that would wait for the threads of a pool that a fork leaves behind
    torch.set_num_threads(1)


def make_loader(
    dataset: Any, batch_sampler: Iterable[Any], workers: int = 0, pin_memory: bool = False
) -> Any:
    """torch's DataLoader with `collate` and single-threaded workers that stay alive between passes.

    Args:
        dataset: an `ImageSet`.
        batch_sampler: yields lists of keys: `CountedBatchSampler` (training) or lists of indices.
        workers: processes, >= 0; 0 works in this process.
        pin_memory: True where batches go to a GPU.
    """
    return _Loader(
        Batches(dataset),
        sampler=batch_sampler,  # type: ignore[arg-type, unused-ignore]
        batch_size=None,
        num_workers=checks.integer("workers", workers, 0),
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        worker_init_fn=init_worker,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # torch draws the workers' seeds, which nothing here uses, from it
    )


def _as_it_is(batch: Any) -> Any:
    return batch


class DeviceLoader:
    """Moves a loader's batches to a device; on CUDA one batch ahead, on a stream of its own.

    Images travel as uint8 and become float32 (0..255) there, which fastreid's models normalise in place.

    Args:
        loader: yields dicts; pinned memory makes the copies overlap with computation.
        device: torch device or its name. On the CPU batches pass through.
        unreadable: counts the bad images that batches come with.

    Attributes:
        batches: how many were handed out.
    """

    def __init__(
        self, loader: Any, device: Union[str, torch.device], unreadable: Optional[Unreadable] = None
    ):
        self.loader = loader
        self.device = torch.device(device)
        self.unreadable = unreadable or Unreadable()
        self.batches = 0

    @property
    def dataset(self) -> Any:
        """The loader's data set."""
        found = self.loader.dataset
        return found.images if isinstance(found, Batches) else found

    def __len__(self) -> int:
        return len(self.loader)

    def start(self, batches: int) -> None:
        """Begin after so many batches, also in an iterator that was made and has not been asked for any."""
        self.loader.sampler.forward(batches)

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        ahead = self._ahead() if self.device.type == "cuda" else map(self._move, self._counted())
        for batch in ahead:
            self.batches += 1
            yield batch

    def _counted(self) -> Iterator[Dict[str, Any]]:
        """Batches that have images; what could not be read is counted and goes no further."""
        for batch in self.loader:  # which starts workers and sampler when the first batch is asked for
            self.unreadable.add(batch.pop(KEY, ()))
            if batch:
                yield batch

    def _move(self, batch: Dict[str, Any]) -> Dict[str, Any]:
        moved = {
            name: value.to(self.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }
        moved["images"] = moved["images"].float()
        return moved

    def _ahead(self) -> Iterator[Dict[str, Any]]:
        stream = torch.cuda.Stream(self.device)
        batches = self._counted()

        def load() -> Optional[Dict[str, Any]]:
            batch = next(batches, None)
            if batch is None:
                return None
            with torch.cuda.stream(stream):
                return self._move(batch)

        ready = load()
        while ready is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(stream)
            for value in ready.values():
                if isinstance(value, torch.Tensor):
                    value.record_stream(current)  # its memory is the side stream's: keep it until used
            batch, ready = ready, load()
            yield batch
