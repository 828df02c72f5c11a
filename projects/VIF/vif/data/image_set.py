"""Data set: from image records to samples, uint8 tensors with labels.

H x W image. Randomness belongs to the drawn sample, not to the process that makes it: draw number d gets its
own generator from (seed, d). So results do not depend on the number of workers, and a run can go on from any
draw.
"""

from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from vif.data.transforms import checks, read_image
from vif.data.transforms.base import Op, is_image
from vif.data.unreadable import KEY, BadImage, Substitutes
from vif.errors import DataError, UnreadableImage

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
        bad_images: what an image that cannot be read does: "error"; "replace", another image takes its place
            (`Substitutes`); "leave out", its sample has no image.

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
        bad_images: str = "error",
    ):
        self.img_items = list(items)
        self.labels = dict(labels or {})
        self.transform = transform
        self.seed = checks.integer("seed", seed, 0)
        self.relabel = relabel
        self.read = read
        self.bad_images = bad_images
        self._substitutes = (
            Substitutes([item[1] for item in self.img_items]) if bad_images == "replace" else None
        )
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
            ``index`` int, the place in `img_items`, ``draws`` int, the draw number; and the image's row of
            each of `labels`. Where images are bad and that is no error, ``unreadable``, those that were met;
            without any other they stand alone.

        Raises:
            DataError: the image cannot be read, or nothing that could take its place.
        """
        draw, index = key if isinstance(key, tuple) else (0, key)
        try:
            return self._sample(self.read(self.img_items[index][0]), index, draw)
        except UnreadableImage as error:
            if self.bad_images == "error":
                raise
            bad = [BadImage(index, self.img_items[index][0], str(error))]
        if self._substitutes is None:
            return {KEY: bad}
        for other in self._substitutes.of(index, self.img_items[index][1], self.seed, draw):
            try:
                return {**self._sample(self.read(self.img_items[other][0]), other, draw), KEY: bad}
            except UnreadableImage as error:
                bad.append(BadImage(other, self.img_items[other][0], str(error)))
        raise DataError(
            f"{bad[0].reason}; nor can the {len(bad) - 1} images be read that could take its place: check "
            "that the data set is still there"
        )

    def _sample(self, image: np.ndarray, index: int, draw: int) -> Sample:
        path, pid, camid = self.img_items[index][:3]
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
            "draws": draw,
            **{name: values[index] for name, values in self.labels.items()},
        }


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) -> (3, H, W), contiguous; cv2.split is the fastest way to take planes apart."""
    planes = np.empty((3,) + image.shape[:2], dtype=np.uint8)
    cv2.split(np.ascontiguousarray(image), [planes[0], planes[1], planes[2]])
    return torch.from_numpy(planes)
