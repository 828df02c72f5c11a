"""From a config to data sets, transforms and loaders: here fastreid's keys become plain arguments."""

import logging
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from fastreid.data import samplers
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.utils import comm

from ..compat import PrivateRandom, alone, own_entry
from ..errors import ConfigError, DataError
from ..evaluation.extract import unique_rows
from ..evaluation.protocols import PROTOCOLS, Protocol
from ..records import ImageRecord
from ..registries import TRANSFORM_REGISTRY
from . import transforms as T
from .loaders import CountedBatchSampler, DeviceLoader, ImageSet, make_loader

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TestSet:
    """What evaluation needs of a data set.

    Attributes:
        title: what the scores stand under: the data set's name, or "NAME held-out" (DATASETS.HOLDOUT).
        source: name of the data set whose images these are; those with one source share one extraction.
        splits: records by split name; "train" is absent or ignored.
        protocols: rows to score, the headline first.
    """

    title: str
    source: str
    splits: Dict[str, List[ImageRecord]]
    protocols: Tuple[Protocol, ...]


def data_root() -> str:
    """Folder of all data sets: FASTREID_DATASETS, else ``datasets``."""
    return os.environ.get("FASTREID_DATASETS", "datasets")


def find_dataset(cfg: Any, name: str, **kwargs: Any) -> Any:
    """Instance of a registered data set; an unknown name lists those there are."""
    if name not in DATASET_REGISTRY._obj_map:
        known = ", ".join(sorted(DATASET_REGISTRY._obj_map))
        raise ConfigError(f"DATASETS names {name!r}, which is not registered; there are {known}.")
    with own_entry(DATASET_REGISTRY, name):
        found = DATASET_REGISTRY.get(name)
    if cfg.DATASETS.HOLDOUT:
        if not hasattr(found, "row"):
            raise ConfigError(
                f"DATASETS.HOLDOUT works with VIF's data sets, not with fastreid's {name}; set 0."
            )
        kwargs["holdout"] = cfg.DATASETS.HOLDOUT
    data = cfg.DATASETS
    return found(root=data_root(), manifest=data.MANIFEST, attributes=data.ATTRIBUTES, **kwargs)


def build_test_set(cfg: Any, name: str, show: bool = True) -> TestSet:
    """The test side of one of our data sets, or of any of fastreid's (plain Market-1501 protocol)."""
    dataset = find_dataset(cfg, name)
    if show and comm.is_main_process():
        dataset.show_test()
    if hasattr(dataset, "protocols"):
        if not dataset.protocols:
            raise DataError(f"{name} has no query and gallery to score; take it out of DATASETS.TESTS.")
        title = dataset.source if cfg.DATASETS.HOLDOUT else name
        return TestSet(title, dataset.source, dataset.splits, dataset.protocols)
    splits = {
        split: [ImageRecord(path, int(pid), int(camid), "") for path, pid, camid in items]
        for split, items in (("query", dataset.query), ("gallery", dataset.gallery))
    }
    return TestSet(name, name, splits, PROTOCOLS["DEFAULT"])


def build_transforms(cfg: Any, is_train: bool) -> T.Compose:
    """fastreid's pipeline on uint8 images: same order and distributions; INPUT.TRANSFORMS before erasing."""
    inp = cfg.INPUT
    size = inp.SIZE_TRAIN if is_train else inp.SIZE_TEST
    ops: List[Any] = []
    if is_train and inp.AUTOAUG.ENABLED:
        from fastreid.data.transforms.autoaugment import AutoAugment

        ops.append(T.PILTransform(AutoAugment(), prob=inp.AUTOAUG.PROB))
    if size[0] > 0:
        ops.append(T.Resize(tuple(size), exact=inp.EXACT or not is_train))
    if not is_train:
        return T.Compose(ops + ([T.CenterCrop(_pair(inp.CROP.SIZE))] if inp.CROP.ENABLED else []))
    if inp.CROP.ENABLED:
        ops.append(T.RandomResizedCrop(_pair(inp.CROP.SIZE), scale=inp.CROP.SCALE, ratio=inp.CROP.RATIO))
    if inp.PADDING.ENABLED:
        ops.append(T.PadCrop(_pair(size), padding=inp.PADDING.SIZE, mode=inp.PADDING.MODE))
    if inp.FLIP.ENABLED:
        ops.append(T.HorizontalFlip(inp.FLIP.PROB))
    if inp.CJ.ENABLED:
        cj = inp.CJ
        ops.append(T.ColorJitter(cj.PROB, cj.BRIGHTNESS, cj.CONTRAST, cj.SATURATION, cj.HUE))
    if inp.AFFINE.ENABLED:
        ops.append(T.RandomAffine())
    if inp.AUGMIX.ENABLED:
        from fastreid.data.transforms.transforms import AugMix

        ops.append(T.PILTransform(AugMix(prob=inp.AUGMIX.PROB)))
    ops += [TRANSFORM_REGISTRY.get(name)(cfg) for name in inp.TRANSFORMS]
    if inp.REA.ENABLED:
        ops.append(T.RandomErasing(inp.REA.PROB, value=inp.REA.VALUE))
    return T.Compose(ops)


def _pair(size: Sequence[int]) -> Tuple[int, int]:
    return (int(size[0]), int(size[-1]))


def _build_sampler(cfg: Any, items: List[Any]) -> Any:
    """One of fastreid's samplers, seeded by SEED, giving the images of all processes."""
    name, seed = cfg.DATALOADER.SAMPLER_TRAIN, cfg.SEED
    batch, instances = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
    logger.info("Training sampler %s, seed %d", name, seed)
    check_batch(cfg, comm.get_world_size())
    if name == "TrainingSampler":
        return alone(samplers.TrainingSampler(len(items), seed=seed))
    if name == "ImbalancedDatasetSampler" and comm.get_world_size() > 1:
        raise ConfigError(
            "DATALOADER.SAMPLER_TRAIN='ImbalancedDatasetSampler' draws from each process's own random state, "
            "so processes would not share one batch; run one process, or choose another sampler."
        )
    if name == "ImbalancedDatasetSampler":
        return alone(samplers.ImbalancedDatasetSampler(items, seed=seed))
    if name in ("NaiveIdentitySampler", "BalancedIdentitySampler"):
        identities = len({pid for _, pid, _ in items})
        if identities < batch // instances:
            raise ConfigError(
                f"SOLVER.IMS_PER_BATCH={batch} with DATALOADER.NUM_INSTANCE={instances} needs "
                f"{batch // instances} identities a batch, and the training set has {identities}; set a "
                "smaller batch or more instances."
            )
        return alone(getattr(samplers, name)(items, batch, instances, seed=seed), batch)
    if name == "SetReWeightSampler":
        raise ConfigError(
            "DATALOADER.SAMPLER_TRAIN='SetReWeightSampler' of fastreid never completes a batch: it asks for "
            "batches larger than what it draws. Choose another sampler."
        )
    raise ConfigError(
        f"DATALOADER.SAMPLER_TRAIN={name!r} is unknown; choose TrainingSampler, NaiveIdentitySampler, "
        "BalancedIdentitySampler or ImbalancedDatasetSampler."
    )


def check_batch(cfg: Any, world: int) -> None:
    """Refuse a batch that processes cannot share evenly, or whose identities would fall apart."""
    batch, instances = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
    whole = world * instances if "Identity" in cfg.DATALOADER.SAMPLER_TRAIN else world
    if world > 1 and batch % whole:
        each = (
            f" with {instances} images of an identity each (DATALOADER.NUM_INSTANCE)" if whole > world else ""
        )
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH={batch}, the batch of all processes, does not divide among {world}{each}; "
            f"take {batch // whole * whole or whole}."
        )


def build_train_loader(cfg: Any) -> DeviceLoader:
    """Endless batches of DATASETS.NAMES on MODEL.DEVICE; the same for any number of worker processes."""
    items: List[Any] = []
    labels: Dict[str, List[np.ndarray]] = {name: [] for name in cfg.DATALOADER.LABELS}
    for name in cfg.DATASETS.NAMES:
        dataset = find_dataset(cfg, name, combineall=cfg.DATASETS.COMBINEALL)
        if comm.is_main_process():
            dataset.show_train()
        items.extend(dataset.train)
        for label, rows in labels.items():
            rows.append(_train_labels(dataset, name, label))
    if not items:
        raise DataError(f"{', '.join(cfg.DATASETS.NAMES)} has no training images; check DATASETS.NAMES.")
    transform = build_transforms(cfg, is_train=True)
    if labels and comm.is_main_process():
        logger.info(
            "%s reads, beside identities, these labels: %s", cfg.MODEL.META_ARCHITECTURE, ", ".join(labels)
        )
    image_set = ImageSet(
        items,
        transform,
        seed=cfg.SEED,
        relabel=True,
        read=T.read_image if cfg.INPUT.EXACT else T.read_image_fast,
        labels={name: _joined(cfg, name, rows) for name, rows in labels.items()},
        bad_images="replace" if cfg.DATALOADER.BAD_IMAGES == "skip" else "error",
    )
    world = comm.get_world_size()
    batches = CountedBatchSampler(
        PrivateRandom(_build_sampler(cfg, items), seed=cfg.SEED),
        cfg.SOLVER.IMS_PER_BATCH // world,
        rank=comm.get_rank(),
        world_size=world,
    )
    device = cfg.MODEL.DEVICE
    loader = make_loader(image_set, batches, cfg.DATALOADER.NUM_WORKERS, pin_memory=device.startswith("cuda"))
    return DeviceLoader(loader, device)


def _train_labels(dataset: Any, name: str, label: str) -> np.ndarray:
    """`train_labels` of one of our data sets; fastreid's own have none."""
    if not hasattr(dataset, "train_labels"):
        raise DataError(
            f"DATALOADER.LABELS asks for {label!r}, which data set {name} of fastreid does not have."
        )
    if len(dataset.train) != len(dataset.splits["train"]):
        raise ConfigError("DATALOADER.LABELS does not go with DATASETS.COMBINEALL; turn one of them off.")
    return dataset.train_labels(label)


def _joined(cfg: Any, label: str, rows: List[np.ndarray]) -> np.ndarray:
    """One label of all training sets."""
    if label == "attributes" and len(rows) > 1:
        raise ConfigError(
            f"DATALOADER.LABELS asks for attributes of DATASETS.NAMES={tuple(cfg.DATASETS.NAMES)}; each data "
            "set has attributes of its own: train on one of them."
        )
    return np.concatenate(rows)


def build_test_loader(
    cfg: Any, splits: Dict[str, List[ImageRecord]], rows: Optional[Sequence[int]] = None
) -> DeviceLoader:
    """Every test image once, in order; processes take whole batches in turn.

    A batch is the same however many processes there are: in batches of another size the features of an image
    differ in their last bits.

    Args:
        cfg: config with VIF's keys.
        splits: records by split name.
        rows: which of `unique_rows(splits)`, on this process alone; None: all, shared between processes.
    """
    records, _ = unique_rows(splits)
    bad_images = "leave out" if cfg.DATALOADER.BAD_IMAGES == "skip" else "error"
    image_set = ImageSet(records, build_transforms(cfg, is_train=False), bad_images=bad_images)
    share = list(range(len(records)) if rows is None else rows)
    size = cfg.TEST.IMS_PER_BATCH
    batches = [share[i : i + size] for i in range(0, len(share), size)]
    if rows is None:
        batches = batches[comm.get_rank() :: comm.get_world_size()]
    device = cfg.MODEL.DEVICE
    loader = make_loader(image_set, batches, cfg.DATALOADER.NUM_WORKERS, pin_memory=device.startswith("cuda"))
    return DeviceLoader(loader, device)
