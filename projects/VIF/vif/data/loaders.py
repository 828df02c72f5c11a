"""Data set, batches and loaders: from image records to uint8 tensors on a device.

B batch, H x W image. Randomness belongs to the drawn sample, not to the process that makes it: the sampler
counts its draws, and draw number d gets its own generator from (seed, d). So results do not depend on the
number of workers, and a run can go on from any draw.
"""

from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vif.data.transforms import checks, read_image
from vif.data.transforms.base import Op, is_image
from vif.errors import ConfigError, DataError

Sample = Dict[str, Any]
Draw = Tuple[int, int]


class ImageSet(Dataset):  # type: ignore[type-arg, unused-ignore]
    """Images of (path, pid, camid, ...) records; attributes as fastreid's CommDataset has them.

    Args:
        items: records; the first three fields are path, pid and camid.
        transform: `op(image, rng) -> image` on uint8 arrays (H, W, 3), or None.
        seed: first half of every draw's seed, >= 0.
        relabel: True numbers identities and cameras from 0 in sorted order, as training needs it.
        read: `path -> uint8 (H, W, 3)`.
        labels: more labels of each record by name, arrays (len(items), ...), as some systems read them.

    Attributes:
        img_items: the records.
        pids: sorted distinct identities.
        cams: sorted distinct cameras.

    Raises:
        ConfigError: the seed is negative.
    """

    def __init__(
        self,
        items: Sequence[Any],
        transform: Optional[Op] = None,
        seed: int = 0,
        relabel: bool = False,
        read: Any = read_image,
        labels: Optional[Mapping[str, np.ndarray]] = None,
    ):
        self.img_items = list(items)
        self.labels = dict(labels or {})
        self.transform = transform
        self.seed = checks.integer("seed", seed, 0)
        self.relabel = relabel
        self.read = read
        self.pids = sorted({item[1] for item in self.img_items})
        self.cams = sorted({item[2] for item in self.img_items})
        self._pid_label = {pid: label for label, pid in enumerate(self.pids)} if relabel else {}
        self._cam_label = {cam: label for label, cam in enumerate(self.cams)} if relabel else {}

    def __len__(self) -> int:
        return len(self.img_items)

    @property
    def num_classes(self) -> int:
        """Number of identities."""
        return len(self.pids)

    @property
    def num_cameras(self) -> int:
        """Number of cameras."""
        return len(self.cams)

    def __getitem__(self, key: Union[int, Draw]) -> Sample:
        """One sample.

        Args:
            key: index, or (draw number, index). A bare index, as at test time, draws with number 0.

        Returns:
            ``images`` uint8 tensor (3, H, W), ``targets`` and ``camids`` int, ``img_paths`` str and
            ``index`` int, the place in `img_items`; and the image's row of each of `labels`.
        """
        draw, index = key if isinstance(key, tuple) else (0, key)
        path, pid, camid = self.img_items[index][:3]
        image = self.read(path)
        if self.transform is not None:
            image = self.transform(image, np.random.default_rng((self.seed, draw)))
        if not is_image(image):
            raise DataError(f"image {path} is no uint8 array (H, W, 3) after reading and transforms")
        return {
            "images": _to_tensor(image),
            "targets": self._pid_label[pid] if self.relabel else pid,
            "camids": self._cam_label[camid] if self.relabel else camid,
            "img_paths": path,
            "index": index,
            **{name: values[index] for name, values in self.labels.items()},
        }


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) -> (3, H, W), contiguous; cv2.split is the fastest way to take planes apart."""
    planes = np.empty((3,) + image.shape[:2], dtype=np.uint8)
    cv2.split(np.ascontiguousarray(image), [planes[0], planes[1], planes[2]])
    return torch.from_numpy(planes)


def collate(batch: Sequence[Sample]) -> Dict[str, Any]:
    """Samples as one batch.

    Returns:
        ``images`` uint8 (B, 3, H, W), ``targets``, ``camids`` and ``index`` int64 (B,), ``img_paths`` list;
        further labels as tensors (B, ...).

    Raises:
        DataError: images differ in size; names two of them.
    """
    first = batch[0]["images"]
    for sample in batch:
        if sample["images"].shape != first.shape:
            raise DataError(
                f"images of a batch must have one size: {batch[0]['img_paths']} is {tuple(first.shape[1:])}, "
                f"{sample['img_paths']} is {tuple(sample['images'].shape[1:])}; resize to (height, width)"
            )
    result: Dict[str, Any] = {"images": torch.stack([sample["images"] for sample in batch])}
    result["img_paths"] = [sample["img_paths"] for sample in batch]
    for name in batch[0].keys() - result.keys():
        result[name] = torch.from_numpy(np.stack([np.asarray(sample[name]) for sample in batch]))
    return result


class CountedBatchSampler:
    """Batches of (draw number, index) from a sampler of indices; an incomplete last batch is dropped.

    Counting goes on from one iteration to the next: a second epoch has other draws than the first.

    Args:
        sampler: yields indices; may be endless.
        batch_size: samples of a batch on this process, >= 1.
        start: draws on this process before the first batch, e.g. finished iterations * batch_size.
        rank, world_size: this process and the number of processes; draws interleave, so no two processes
            share one.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self, sampler: Iterable[int], batch_size: int, start: int = 0, rank: int = 0, world_size: int = 1
    ):
        self.sampler = sampler
        self.batch_size = checks.integer("batch_size", batch_size, 1)
        self.drawn = checks.integer("start", start, 0)
        self.world_size = checks.integer("world_size", world_size, 1)
        self.rank = checks.integer("rank", rank, 0)
        if rank >= world_size:
            raise ConfigError(f"rank must be below world_size {world_size}, got {rank}")

    def __iter__(self) -> Iterator[List[Draw]]:
        batch: List[Draw] = []
        for index in self.sampler:
            batch.append((self.drawn * self.world_size + self.rank, int(index)))
            self.drawn += 1
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        self.drawn -= len(batch)

    def __len__(self) -> int:
        """Batches of one pass; TypeError where the sampler is endless."""
        return len(self.sampler) // self.batch_size  # type: ignore[arg-type]


def init_worker(worker: int) -> None:
    """Worker processes run one thread each: their number is the parallelism."""
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
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,  # type: ignore[arg-type, unused-ignore]
        num_workers=checks.integer("workers", workers, 0),
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=init_worker,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # torch draws the workers' seeds, which nothing here uses, from it
    )


class DeviceLoader:
    """Moves a loader's batches to a device; on CUDA one batch ahead, on a stream of its own.

    Images travel as uint8 and become float32 (0..255) there, which fastreid's models normalise in place.

    Args:
        loader: yields dicts; pinned memory makes the copies overlap with computation.
        device: torch device or its name. On the CPU batches pass through.
    """

    def __init__(self, loader: Any, device: Union[str, torch.device]):
        self.loader = loader
        self.device = torch.device(device)

    @property
    def dataset(self) -> Any:
        """The loader's data set."""
        return self.loader.dataset

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        if self.device.type != "cuda":
            return (self._move(batch) for batch in self.loader)
        return self._ahead()

    def _move(self, batch: Dict[str, Any]) -> Dict[str, Any]:
        moved = {
            name: value.to(self.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }
        moved["images"] = moved["images"].float()
        return moved

    def _ahead(self) -> Iterator[Dict[str, Any]]:
        stream = torch.cuda.Stream(self.device)
        batches = iter(self.loader)

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
