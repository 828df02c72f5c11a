"""`vif extract`: the features of a data set as a file; an interrupted extraction goes on where it was."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from typing import Any, Dict, List, Tuple

import numpy as np
from tqdm import tqdm

from ..data.build import TestSet, build_test_loader, build_test_set
from ..data.unreadable import BadImage
from ..errors import DataError, ProcessError
from ..features import FeatureTable
from ..files import atomic_path, write_json
from ..inference.fingerprint import fingerprint
from ..processes.place import find_place
from ..trainer import VIFTrainer, prepare
from ..weight_files import sha256
from .extract import Extracted, forward_batches, join_parts, make_table, unique_rows
from .left_out import META

logger = logging.getLogger(__name__)
PART_IMAGES = 4096  # images between two saves


def extract_file(cfg: Any, name: str, out: str) -> FeatureTable:
    """Extract the features of one data set and write them to `out`, .npz or .safetensors.

    Finished parts lie in `out`.parts until the whole is written; a later call with the same config, weights
    and images uses them, any other call removes them.

    Args:
        cfg: config with VIF's keys; MODEL.WEIGHTS names the checkpoint.
        name: registered data set.
        out: file to write.

    Raises:
        ConfigError: no weights, or an unknown data set.
        ProcessError: a launcher has started several processes.
        DataError: an unreadable file, or an ending that is neither .npz nor .safetensors.
    """
    if not out.endswith((".npz", ".safetensors")):
        raise DataError(f"--out {out}: expected a name that ends in .npz or .safetensors.")
    if find_place(os.environ) is not None:
        raise ProcessError("vif extract runs in one process; start it without torchrun or srun.")
    cfg = prepare(cfg)
    dataset = build_test_set(cfg, name, show=False)
    model = VIFTrainer.load_model(cfg)
    meta = {**_provenance(cfg, dataset), "fingerprint": fingerprint(model.state_dict())}
    folder = out + ".parts"
    done = _open_parts(folder, meta)
    records, _ = unique_rows(dataset.splits)
    missing = np.setdiff1d(np.arange(len(records)), done)
    if len(missing):
        _extract_parts(model, cfg, dataset, missing, folder, len(records))
    table = make_table(dataset.splits, _join(folder), meta, META in meta)
    table.save(out)
    shutil.rmtree(folder)
    return table


def _provenance(cfg: Any, dataset: TestSet) -> Dict[str, str]:
    """Text that tells these features from others: data set, weights, config, images."""
    records, _ = unique_rows(dataset.splits)
    weights = cfg.MODEL.WEIGHTS
    config = json.dumps([cfg.MODEL.dump(), cfg.INPUT.dump(), cfg.TEST.FLIP.dump()])
    meta = {
        "dataset": dataset.source,
        "weights": " sha256 ".join(filter(None, (os.path.basename(weights), sha256(weights)))),
        "config": f"sha256 {hashlib.sha256(config.encode()).hexdigest()}",
        "images": f"sha256 {hashlib.sha256(repr(records).encode()).hexdigest()}",
    }
    if cfg.DATALOADER.BAD_IMAGES == "skip":
        meta[META] = "[]"
    return {**meta, "flip": "flip test"} if cfg.TEST.FLIP.ENABLED else meta


def _open_parts(folder: str, meta: Dict[str, str]) -> np.ndarray:
    """Rows that an earlier call with the same meta has left; everything else in the folder is removed."""
    note = os.path.join(folder, "meta.json")
    same = False
    if os.path.isfile(note):
        with contextlib.suppress(ValueError), open(note, encoding="utf-8") as f:
            same = json.load(f) == meta
    if not same:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(note, meta)
        return np.empty(0, dtype=np.int64)
    rows = [rows for path in _parts(folder) for rows in _done(*_read_part(path))]
    found = np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)
    logger.warning("%s holds the features of %d images; going on from there", folder, len(found))
    return found


def _parts(folder: str) -> List[str]:
    return sorted(os.path.join(folder, n) for n in os.listdir(folder) if n.endswith(".npz") and n[0] != ".")


def _read_part(path: str) -> Tuple[np.ndarray, np.ndarray, List[BadImage]]:
    """Rows, features and bad images of one part."""
    try:
        with np.load(path, allow_pickle=False) as part:
            bad = [BadImage(*image) for image in json.loads(str(part["bad"]))]
            return part["index"], part["features"], bad
    except Exception as error:  # numpy raises what zipfile, zlib or struct do
        raise DataError(f"{path} is torn ({error}); remove it, and its images are read again.") from error


def _done(index: np.ndarray, _: np.ndarray, bad: List[BadImage]) -> List[np.ndarray]:
    """Rows that a part settles: with features, or found bad."""
    return [index, np.array([image.row for image in bad], dtype=np.int64)]


def _extract_parts(
    model: Any, cfg: Any, dataset: TestSet, missing: np.ndarray, folder: str, count: int
) -> None:
    with tqdm(total=count, initial=count - len(missing), unit="image", desc="features", delay=2) as bar:
        for start in range(0, len(missing), PART_IMAGES):
            rows = missing[start : start + PART_IMAGES]
            loader = build_test_loader(cfg, dataset.splits, rows.tolist())
            index, features = [], []
            for some, values in forward_batches(model, loader, cfg.TEST.FLIP.ENABLED):
                index.append(some)
                features.append(values)
                bar.update(len(some))
            done = np.concatenate(index) if index else np.empty(0, dtype=np.int64)
            found = np.concatenate(features) if index else np.empty((0, 0), dtype=np.float32)
            bad = np.array(json.dumps(list(loader.unreadable.found.values())))
            with atomic_path(os.path.join(folder, f"{rows[0]:09d}.npz")) as partial, open(partial, "wb") as f:
                np.savez(f, index=done, features=found, bad=bad)


def _join(folder: str) -> Extracted:
    parts = [_read_part(path) for path in _parts(folder)]
    good = [(index, features) for index, features, _ in parts if len(index)]
    return join_parts(good, [image for _, _, bad in parts for image in bad])
