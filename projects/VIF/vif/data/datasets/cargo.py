"""CARGO, and SynthAG, which shares its layout.

`{train,query,gallery}/Cam{1..13}/Cam{c}_{day|night}_{pid}_{index}.jpg`; cameras 1-5 aerial, 6-13 ground.

Reference: Zhang et al., View-decoupled Transformer for Person Re-identification under Aerial-ground Camera
Network, CVPR 2024.
"""

import os
import re
from typing import List, NamedTuple

from ...errors import DataError
from ...records import AERIAL, GROUND, ImageRecord
from .checks import Splits, check_splits
from .counts import warn_counts
from .tree import Layout, find_root, scan_images

SPLITS = ("train", "query", "gallery")
AERIAL_CAMERAS = range(1, 6)
PATTERN = "Cam{1..13}_{day|night}_{pid}_{index}.jpg, as in Cam2_day_2519_320.jpg"
_NAME = re.compile(r"Cam([1-9]|1[0-3])_(?:day|night)_([0-9]{1,9})_[0-9]+\.(?i:jpe?g|png)")
_TREE = "train/, query/ and gallery/, each with folders Cam1/ to Cam13/ of images " + PATTERN

CARGO = Layout(
    "CARGO",
    ("CARGO", "CARGO/CARGO"),
    SPLITS,
    _TREE,
    "Ask its authors for it (project VDT-AGPReID).",
)
SYNTHAG = Layout(
    "SynthAG",
    ("SynthAG",),
    SPLITS,
    _TREE,
    "Make it with `vif synth --out <root>/SynthAG --ids 600 --seed 0`.",
)


class CargoName(NamedTuple):
    """What a CARGO file name says: identity, camera 1..13 and its view."""

    pid: int
    camid: int
    view: str


def parse_name(name: str) -> CargoName:
    """Read a file name such as `Cam2_day_2519_320.jpg`.

    Raises:
        DataError: the name does not have the pattern.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(f"{name!r} is not named {PATTERN}.")
    camid = int(match[1])
    return CargoName(int(match[2]), camid, AERIAL if camid in AERIAL_CAMERAS else GROUND)


def read_cargo(root: str) -> Splits:
    """Records of CARGO under the data root.

    Args:
        root: folder that holds CARGO/.

    Returns:
        "train", "query" and "gallery", sorted by path; camids 1..13, views aerial (1-5) and ground (6-13).

    Raises:
        DataError: missing or malformed; names the folder or file and the remedy.
    """
    return _read(root, CARGO)


def read_synthag(root: str) -> Splits:
    """Records of SynthAG, made by `vif synth`; see `read_cargo`."""
    return _read(root, SYNTHAG)


def _read(data_root: str, layout: Layout) -> Splits:
    root = find_root(data_root, layout)
    splits = {split: _read_split(os.path.join(root, split), root) for split in SPLITS}
    check_splits(f"{layout.name} at {root}", splits, SPLITS)
    if layout is CARGO:
        warn_counts(layout.name, root, splits)
    return splits


def _read_split(folder: str, root: str) -> List[ImageRecord]:
    records = []
    prefix = os.path.join(folder, "")
    for relative in scan_images(folder, root):
        path = prefix + relative
        parent, _, name = relative.rpartition("/")
        try:
            label = parse_name(name)
        except DataError as e:
            raise DataError(f"{path!r}: {e} Remove the file or give it such a name.") from e
        if parent != f"Cam{label.camid}":
            raise DataError(
                f"{path!r} belongs in a folder Cam{label.camid}/ by its name; move one of the two."
            )
        records.append(ImageRecord(path, *label))
    return records
