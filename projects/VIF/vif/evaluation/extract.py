"""From a model and image records to a FeatureTable: one forward pass an image, in one or many processes."""

import logging
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from fastreid.evaluation.evaluator import inference_context
from fastreid.utils import comm
from tqdm import tqdm

from ..data.unreadable import BadImage
from ..errors import DataError
from ..features import FeatureTable
from ..records import ImageRecord
from .left_out import LeftOut, to_meta

logger = logging.getLogger(__name__)


class Extracted(NamedTuple):
    """Features (N, D) of the test images `rows` (N,), ascending, and the images that could not be read."""

    features: np.ndarray
    rows: np.ndarray
    bad: List[BadImage]


def unique_rows(splits: Mapping[str, Sequence[ImageRecord]]) -> Tuple[List[ImageRecord], List[str]]:
    """Test records without repeats, and the comma-separated splits of each; "train" is left out."""
    names: Dict[ImageRecord, List[str]] = {}
    for split, records in splits.items():
        if split != "train":
            for record in records:
                names.setdefault(record, []).append(split)
    return list(names), [",".join(found) for found in names.values()]


@torch.no_grad()
def forward_batches(
    model: torch.nn.Module, loader: Any, flip: bool = False
) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Yield (index (B,) int64, features (B, D) float32) of this process's share of the loader.

    With `flip`, features are the mean over the image and its mirror image (fastreid's TEST.FLIP).
    """
    with inference_context(model):
        for batch in loader:
            # the mirror is made first: fastreid's models normalise the batch in place
            images = [batch["images"]] + ([batch["images"].flip(3)] if flip else [])
            outputs = [model({**batch, "images": image}).float() for image in images]
            yield batch["index"].cpu().numpy(), torch.stack(outputs).mean(dim=0).cpu().numpy()


def extract_features(model: torch.nn.Module, loader: Any, count: int, flip: bool = False) -> Extracted:
    """Features of the loader's images in data set order, the same on every process.

    Args:
        model: fastreid meta architecture.
        loader: a `DeviceLoader`; each process sees its share.
        count: images over all processes.
        flip: average with the mirror image.

    Returns:
        Features (N, D) float32, rows and bad images; N = count unless images are bad and left out.

    Raises:
        DataError: not one image could be read, or one where that is an error.
    """
    parts = []
    progress = tqdm(
        total=count, unit="image", desc="features", delay=2, disable=not comm.is_main_process(), leave=False
    )
    with progress:
        for index, features in forward_batches(model, loader, flip):
            parts.append((index, features))
            progress.update(len(index) * comm.get_world_size())
    shares = comm.all_gather((parts, list(loader.unreadable.found.values())))
    return join_parts([part for share, _ in shares for part in share], [i for _, bad in shares for i in bad])


def join_parts(parts: Sequence[Tuple[np.ndarray, np.ndarray]], bad: Sequence[BadImage]) -> Extracted:
    """One `Extracted` from (index, features) of parts of a data set, and the bad images of all parts."""
    if not parts:
        reason = bad[0].reason if bad else "there is none"
        raise DataError(f"not one test image could be read: {reason}")
    index = np.concatenate([index for index, _ in parts])
    rows, first = np.unique(index, return_index=True)
    features = np.concatenate([features for _, features in parts])[first]
    return Extracted(features, rows, sorted(set(bad)))


def extract_table(
    model: torch.nn.Module, loader: Any, splits: Mapping[str, Sequence[ImageRecord]], flip: bool = False
) -> FeatureTable:
    """FeatureTable of a data set's test records; `loader` runs over `unique_rows(splits)` in order."""
    extracted = extract_features(model, loader, len(unique_rows(splits)[0]), flip)
    meta = {"flip": "flip test"} if flip else {}
    return make_table(splits, extracted, meta, loader.dataset.bad_images != "error")


def make_table(
    splits: Mapping[str, Sequence[ImageRecord]],
    extracted: Extracted,
    meta: Dict[str, str],
    may_lack: bool = False,
) -> FeatureTable:
    """The features of `unique_rows(splits)` with their labels.

    Args:
        splits: records by split name.
        extracted: features of all these rows, or of those that could be read.
        meta: of the table.
        may_lack: note in meta which images are left out, be it none.
    """
    records, names = unique_rows(splits)
    if may_lack:
        bad = [(records[image.row], names[image.row], image.reason) for image in extracted.bad]
        meta = {**meta, **to_meta([LeftOut(r.path, split, r.view, reason) for r, split, reason in bad])}
    kept = [records[row] for row in extracted.rows]
    return FeatureTable(
        features=extracted.features,
        pids=np.array([r.pid for r in kept], dtype=np.int64),
        camids=np.array([r.camid for r in kept], dtype=np.int64),
        views=np.array([r.view for r in kept], dtype=np.str_),
        paths=np.array([r.path for r in kept], dtype=np.str_),
        splits=np.array([names[row] for row in extracted.rows], dtype=np.str_),
        meta=meta,
    )
