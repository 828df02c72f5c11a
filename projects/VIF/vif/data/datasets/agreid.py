"""AG-ReIDv1 and AG-ReIDv2: one grammar of names, two layouts.

References: Nguyen et al., Aerial-Ground Person Re-ID, ICME 2023; Nguyen et al., AG-ReID.v2: Bridging Aerial
and Ground Views for Person Re-identification, IEEE TIFS 2024.
"""

import os
import re
from typing import Dict, List, NamedTuple, Optional

from ...errors import DataError
from ...records import AERIAL, CCTV, GROUND, WEARABLE, ImageRecord
from .checks import Splits, check_splits
from .counts import warn_counts
from .tree import Layout, ListedFiles, find_beside, find_root, scan_images

V1_VIEWS = {0: AERIAL, 3: GROUND}
V2_VIEWS = {0: AERIAL, 2: WEARABLE, 3: CCTV}
PATTERN = "P{person}T{time}A{altitude}C{camera}F{frame}.jpg, as in P0006T02140A0C0F1831.jpg"
# 32 wearable files of AG-ReIDv2 end with a letter after the frame (F8671Z).
_NAME = re.compile(r"P([0-9]{4})T([0-9]{5})A([0-9])C([0-9])F[0-9]+[A-Za-z]?\.(?i:jpe?g|png)")
_IDENTITY = re.compile(r"P[0-9]{4}T[0-9]{5}A[0-9]")
_LINE = re.compile(r"(query|gallery)/" + _IDENTITY.pattern + r"/[^/\\]+")

_V1_FOLDERS: Dict[str, Dict[str, Optional[int]]] = {  # folders of a split, and their camera if one
    "train": {"bounding_box_train": None},
    "query": {"query_all_c0": 0, "query_all_c3": 3},
    "gallery": {"bounding_box_test_all_c3": 3, "bounding_box_test_all_c0": 0},
}
AGREIDV1 = Layout(
    "AGReIDv1",
    ("AG-ReIDv1", "AG-ReID", "AG-ReID.v1", "AG_ReID_v1", "AG-ReIDv1/AG-ReID", "AG-ReID/AG-ReID"),
    tuple(folder for folders in _V1_FOLDERS.values() for folder in folders),
    f"bounding_box_train/, query_all_c0/, bounding_box_test_all_c3/, query_all_c3/ and "
    f"bounding_box_test_all_c0/ of images {PATTERN}",
    "Get it from its authors (project AG-ReID).",
)

LISTS = {
    "A2C": "exp1_aerial_to_cctv.txt",
    "A2W": "exp2_aerial_to_wearable.txt",
    "C2A": "exp4_cctv_to_aerial.txt",
    "W2A": "exp5_wearable_to_aerial.txt",
}
AGREIDV2 = Layout(
    "AGReIDv2",
    (
        "AG-ReID.v2",
        "AG-ReIDv2",
        "AG_ReID_v2",
        "AG-ReID.v2/AG-ReID.v2",
        "AG-ReIDv2/AG-ReID.v2",
        "AG_ReID_v2/AG-ReID.v2",
    ),
    ("train_all", "query", "gallery"),
    f"train_all/, query/ and gallery/, each with a folder per identity (P0006T02140A0/) of images {PATTERN}, "
    f"and beside them or one folder up the lists {', '.join(LISTS.values())}",
    "Get it from its authors (project AG-ReID.v2).",
)


class AGReIDName(NamedTuple):
    """What a file name says: identity (P, T and A together, see `decode_identity`) and camera 0..9."""

    pid: int
    camid: int


def parse_name(name: str) -> AGReIDName:
    """Read a file name such as `P0006T02140A0C0F1831.jpg`.

    P alone numbers people anew in every recording; P, T and A together are the identity:
    pid = (P * 100000 + T) * 10 + A.

    Raises:
        DataError: the name does not have the pattern.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(f"{name!r} is not named {PATTERN}.")
    return AGReIDName(int(match[1] + match[2] + match[3]), int(match[4]))


def decode_identity(pid: int) -> str:
    """The identity as the data set writes it: 6021400 is "P0006T02140A0"."""
    return f"P{pid // 1_000_000:04d}T{pid // 10 % 100_000:05d}A{pid % 10}"


def read_agreidv1(root: str) -> Splits:
    """Records of AG-ReIDv1 under the data root.

    Returns:
        "train", "query" and "gallery", sorted by path. Query and gallery hold both directions; A2G and G2A
        are told apart by view: aerial (C0) and ground (C3).

    Raises:
        DataError: missing or malformed; names the folder or file and the remedy.
    """
    home = find_root(root, AGREIDV1)
    splits = {
        split: sorted(
            record
            for folder, camera in folders.items()
            for record in _read_folder(home, folder, V1_VIEWS, camera)
        )
        for split, folders in _V1_FOLDERS.items()
    }
    check_splits(f"AGReIDv1 at {home}", splits, tuple(splits))
    warn_counts("AGReIDv1", home, splits)
    return splits


def read_agreidv2(root: str) -> Splits:
    """Records of AG-ReIDv2 under the data root.

    Returns:
        "train" and, for each published list, "query@A2C", "gallery@A2C", ... (A2C, A2W, C2A, W2A), sorted by
        path; views aerial (C0), wearable (C2) and cctv (C3).

    Raises:
        DataError: missing or malformed; names the folder, file or line and the remedy.
    """
    home = find_root(root, AGREIDV2)
    splits: Splits = {"train": _read_folder(home, "train_all", V2_VIEWS, None)}
    files = ListedFiles(home)
    for protocol, list_name in LISTS.items():
        sides = _read_list(_find_list(home, list_name), files)
        splits.update({f"{side}@{protocol}": records for side, records in sides.items()})
    check_splits(f"AGReIDv2 at {home}", splits, tuple(splits))
    warn_counts("AGReIDv2", home, splits)
    return splits


def _record(path: str, where: str, views: Dict[int, str], camera: Optional[int]) -> ImageRecord:
    """Record of `.../[identity/]name`; `camera` is the one that the folder stands for, if any."""
    folder, name = os.path.split(path)
    try:
        label = parse_name(name)
    except DataError as e:
        raise DataError(f"{where}: {e} Remove it or give it such a name.") from e
    if label.camid not in views or camera not in (None, label.camid):
        expected = " or ".join(f"C{c}" for c in (views if camera is None else [camera]))
        raise DataError(f"{where}: {name!r} is of camera C{label.camid}; only {expected} belongs here.")
    parent = os.path.basename(folder)
    if _IDENTITY.fullmatch(parent) and parent != decode_identity(label.pid):
        raise DataError(f"{where}: {name!r} is not of identity {parent}, the folder it lies in.")
    return ImageRecord(path, label.pid, label.camid, views[label.camid])


def _read_folder(home: str, name: str, views: Dict[int, str], camera: Optional[int]) -> List[ImageRecord]:
    folder = os.path.join(home, name)
    paths = [os.path.join(folder, relative) for relative in scan_images(folder, home)]
    return [_record(path, repr(path), views, camera) for path in paths]


def _find_list(home: str, name: str) -> str:
    """The published download unpacks its lists one folder above the images."""
    found, tried = find_beside(home, name)
    if found:
        return found
    raise DataError(
        f"AGReIDv2 at {home} lacks the list {name} (looked for {' and '.join(tried)}); it comes with the "
        "data set and defines a protocol: put it there."
    )


def _read_list(list_path: str, files: ListedFiles) -> Splits:
    """Records of one list by side; lines `query/<ID>/<image>` or `gallery/<ID>/<image>`."""
    try:
        with open(list_path, encoding="utf-8-sig") as f:
            lines = f.read().split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{list_path} cannot be read as UTF-8 text ({e}); get it again.") from e
    sides: Splits = {"query": [], "gallery": []}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line:
            continue
        where = f"{list_path}, line {number}"
        match = _LINE.fullmatch(line)
        if match is None:
            raise DataError(
                f"{where}: {line!r} is not query/<ID>/<image> or gallery/<ID>/<image>, with an <ID> such as "
                f"P0006T02140A0 and images {PATTERN}."
            )
        sides[match[1]].append(_record(os.path.join(files.root, line), where, V2_VIEWS, None))
        files.resolve(line, where)
    return {side: sorted(records) for side, records in sides.items()}
