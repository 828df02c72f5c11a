"""From a model and image records to a FeatureTable: one forward pass an image, in one or many processes."""

import logging
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

import numpy as np
import torch
from fastreid.evaluation.evaluator import inference_context
from fastreid.utils import comm
from tqdm import tqdm

from ..features import FeatureTable
from ..records import ImageRecord

logger = logging.getLogger(__name__)


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


def extract_features(model: torch.nn.Module, loader: Any, count: int, flip: bool = False) -> np.ndarray:
    """Features of the loader's images in data set order, on every process.

    Args:
        model: fastreid meta architecture.
        loader: batches with "images" and "index"; each process sees its share.
        count: images over all processes.
        flip: average with the mirror image.

    Returns:
        (count, D) float32.
    """
    parts = []
    progress = tqdm(
        total=count, unit="image", desc="features", delay=2, disable=not comm.is_main_process(), leave=False
    )
    with progress:
        for index, features in forward_batches(model, loader, flip):
            parts.append((index, features))
            progress.update(len(index) * comm.get_world_size())
    gathered = [part for share in comm.all_gather(parts) for part in share]
    out = np.empty((count, gathered[0][1].shape[1]), dtype=np.float32)
    for index, features in gathered:
        out[index] = features
    return out


def extract_table(
    model: torch.nn.Module, loader: Any, splits: Mapping[str, Sequence[ImageRecord]], flip: bool = False
) -> FeatureTable:
    """FeatureTable of a data set's test records; `loader` runs over `unique_rows(splits)` in order."""
    features = extract_features(model, loader, len(unique_rows(splits)[0]), flip)
    return make_table(splits, features, {"flip": "flip test"} if flip else {})


def make_table(
    splits: Mapping[str, Sequence[ImageRecord]], features: np.ndarray, meta: Dict[str, str]
) -> FeatureTable:
    """The features (N, D) of `unique_rows(splits)` with their labels."""
    records, names = unique_rows(splits)
    return FeatureTable(
        features=features,
        pids=np.array([r.pid for r in records], dtype=np.int64),
        camids=np.array([r.camid for r in records], dtype=np.int64),
        views=np.array([r.view for r in records]),
        paths=np.array([r.path for r in records]),
        splits=np.array(names),
        meta=meta,
    )
