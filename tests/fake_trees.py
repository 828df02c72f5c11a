"""Tiny data sets on disk, with the layouts of the real ones: small JPEGs, one seeded colour per identity."""

import contextlib
import csv
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from vif.data.synth.attributes import attribute_bytes

V1_FOLDERS = {
    "bounding_box_train": (0, 3),
    "query_all_c0": (0,),
    "bounding_box_test_all_c3": (3,),
    "query_all_c3": (3,),
    "bounding_box_test_all_c0": (0,),
}
V2_LISTS = {
    "exp1_aerial_to_cctv.txt": (0, 3),
    "exp2_aerial_to_wearable.txt": (0, 2),
    "exp4_cctv_to_aerial.txt": (3, 0),
    "exp5_wearable_to_aerial.txt": (2, 0),
}

# the 88 binary attributes of AG-ReIDv1 and v2, by the 15 of their READMEs
QUT = {
    "gender": "male female unknown",
    "age": "young middle old unknown",
    "height": "child short medium tall unknown",
    "weight": "thin medium fat unknown",
    "ethnic": "white black asian india unknown",
    "haircolor": "black brown white red gray occluded unknown",
    "hairstyle": "bald short medium long horsetail unknown",
    "beard": "on off unknown",
    "moustache": "on off unknown",
    "glasses": "normal sun off unknown",
    "head": "hat scarf neckless occluded unknown",
    "upper": "tshirt blouse sweater coat bikini naked dress uniform shirt suit hoodie cardiga unknown",
    "lower": "jeans leggins pants shorts skirt bikini dress uniform suit unknown",
    "feet": "sportshoe classicshoe highheels boots sandals nothing unknown",
    "bag": "normal backpack handbag rolling umbrella sportif market nothing unknown",
}


def write_attributes(
    path: Path, train: Dict[int, Dict[str, int]], test: Dict[int, Dict[str, int]], name: str = "qut_attribute"
) -> Path:
    """Write an attribute file of AG-ReID's form; `train` and `test` are pid -> {field: 1 or 2}."""
    parts = {}
    for part, rows in (("train", train), ("test", test)):
        fields = sorted({field for row in rows.values() for field in row})
        parts[part] = {field: np.array([row[field] for row in rows.values()], np.uint8) for field in fields}
        parts[part]["image_index"] = np.array([f"{pid:010d}" for pid in rows], dtype=object)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {name: parts})
    return path


def qut_row(pid: int) -> Dict[str, int]:
    """The 88 binary attributes of one identity, 1 no, 2 yes: one value of each of the 15, seeded."""
    rng = np.random.default_rng(pid)
    row = {}
    for group, values in QUT.items():
        names = values.split()
        chosen = rng.integers(len(names))
        row.update({group + value: 1 + int(k == chosen) for k, value in enumerate(names)})
    return row


def write_qut(path: Path, ids: int) -> Path:
    """The attribute file of `make_agreidv1` and `make_agreidv2`."""
    sides = ([int(f"{person:04d}{time:05d}0") for person in range(ids)] for time in (4041, 2140))
    train, test = ({pid: qut_row(pid) for pid in side} for side in sides)
    return write_attributes(path, train, test)


def write_image(
    path: Path, pid: int, camid: int = 0, size: Tuple[int, int] = (32, 64), seed: int = 0
) -> Path:
    """Write a JPEG of `size` (width, height): two colours by identity, brightness by camera, some noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    colours = np.random.default_rng([seed, pid]).uniform(30, 225, (2, 3))
    noise = np.random.default_rng([seed, pid, camid, *path.name.encode()])
    image = np.repeat(colours, (height - height // 2, height // 2), axis=0)[:, None, :]
    image = image * (0.8 + 0.03 * camid) + noise.normal(0, 8, (height, width, 3))
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(path, quality=90)
    return path


def make_cargo(
    root: Path,
    ids: int = 4,
    images: int = 1,
    cameras: Sequence[int] = tuple(range(1, 14)),
    size: Tuple[int, int] = (32, 64),
    name: str = "CARGO",
) -> Path:
    """`ids` identities to train (1..) and as many to test; `images` of each under each camera.

    Each test identity has one query under the first and one under the last of the cameras.
    """
    home = Path(root) / name
    for pid in range(1, 2 * ids + 1):
        split = "train" if pid <= ids else "gallery"
        for camid in cameras:
            time = "night" if camid % 2 else "day"
            for index in range(images):
                write_image(
                    home / split / f"Cam{camid}" / f"Cam{camid}_{time}_{pid}_{index}.jpg", pid, camid, size
                )
        if split == "gallery":
            for camid in sorted({cameras[0], cameras[-1]}):
                file = home / "query" / f"Cam{camid}" / f"Cam{camid}_day_{pid}_{images}.jpg"
                write_image(file, pid, camid, size)
    return home


def make_synthag(root: Path, ids: int = 4, images: int = 1, size: Tuple[int, int] = (32, 64)) -> Path:
    """As `make_cargo`, under the name of SynthAG, with its attribute file."""
    home = make_cargo(root, ids, images, size=size, name="SynthAG")
    content = attribute_bytes(0, range(1, ids + 1), range(ids + 1, 2 * ids + 1))
    (home / "synthag_attributes.mat").write_bytes(content)
    return home


def agreid_name(
    person: int, camera: int, frame: int, time: int = 2140, altitude: int = 0, letter: str = ""
) -> str:
    """A file name of AG-ReIDv1 or v2."""
    return f"P{person:04d}T{time:05d}A{altitude}C{camera}F{frame}{letter}.jpg"


def make_agreidv1(
    root: Path, ids: int = 3, images: int = 2, size: Tuple[int, int] = (32, 64), name: str = "AG-ReIDv1"
) -> Path:
    """`ids` identities to train and as many to test; `images` of each in every folder and camera."""
    home = Path(root) / name
    for k, (folder, cameras) in enumerate(V1_FOLDERS.items()):
        for person in range(ids):
            pid = person if k == 0 else ids + person
            for camera in cameras:
                for i in range(images):
                    file = agreid_name(person, camera, 1000 * k + i, time=4041 if k == 0 else 2140)
                    write_image(home / folder / file, pid, camera, size)
    write_qut(home / "qut_attribute_v4_88_attributes.mat", ids)
    return home


def make_agreidv2(
    root: Path,
    ids: int = 3,
    images: int = 2,
    size: Tuple[int, int] = (32, 64),
    name: str = "AG-ReID.v2",
    nested: bool = False,
    line_end: str = "\n",
    last_line_end: bool = True,
) -> Path:
    """`ids` identities to train and as many to test; `images` of each in every folder and camera.

    Nested is how the published download unpacks: images in NAME/AG-ReID.v2, lists in NAME. The last wearable
    image of each identity has the letter Z after its frame.

    Returns:
        The folder that holds train_all, query and gallery.
    """
    outer = Path(root) / name
    home = outer / "AG-ReID.v2" if nested else outer
    listed: dict = {side: {0: [], 2: [], 3: []} for side in ("query", "gallery")}
    for k, folder in enumerate(("train_all", "query", "gallery")):
        for person in range(ids):
            pid = person if k == 0 else ids + person
            identity = f"P{person:04d}T{4041 if k == 0 else 2140:05d}A0"
            for camera in (0, 2, 3):
                for i in range(images):
                    letter = "Z" if camera == 2 and i == images - 1 else ""
                    relative = f"{folder}/{identity}/{identity}C{camera}F{1000 * k + i}{letter}.jpg"
                    write_image(home / relative, pid, camera, size)
                    if folder != "train_all":
                        listed[folder][camera].append(relative)
    for file, (query_camera, gallery_camera) in V2_LISTS.items():
        lines = [*reversed(listed["query"][query_camera]), *listed["gallery"][gallery_camera]]
        text = line_end.join(lines) + (line_end if last_line_end else "")
        (outer / file).write_bytes(text.encode())
    write_qut(outer / "qut_attribute_v8.mat", ids)
    return home


def make_market1501(root: Path, ids: int = 4, images: int = 2, size: Tuple[int, int] = (32, 64)) -> Path:
    """`ids` identities to train and as many to test under three cameras, distractors (0000) and junk (-1)."""
    home = Path(root) / "Market-1501-v15.09.15"
    for pid in range(2 * ids):
        for camid in (1, 2, 3):
            for i in range(images):
                name = f"{pid + 1:04d}_c{camid}s1_{i:06d}_00.jpg"
                folder = "bounding_box_train" if pid < ids else "bounding_box_test"
                write_image(home / folder / name, pid, camid, size)
            if pid >= ids:
                name = f"{pid + 1:04d}_c{camid}s1_{images:06d}_00.jpg"
                write_image(home / "query" / name, pid, camid, size)
    for pid, name in ((90, "0000_c1s1_000001_00.jpg"), (91, "-1_c2s1_000001_00.jpg")):
        write_image(home / "bounding_box_test" / name, pid, 1, size)
    return home


def write_manifest(
    path: Path, rows: Iterable[Sequence[object]], header: Optional[Sequence[str]] = None
) -> Path:
    """Write a manifest of rows (split, path, pid, camid, view)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([header or ("split", "path", "pid", "camid", "view"), *rows])
    return path


def make_manifest(
    root: Path,
    ids: int = 3,
    images: int = 2,
    views: Sequence[str] = ("aerial", "ground"),
    size: Tuple[int, int] = (32, 64),
) -> Path:
    """`ids` identities to train and as many to test under one camera per view; returns the CSV file."""
    home = Path(root) / "own"
    rows: List[Tuple[object, ...]] = []
    for pid in range(2 * ids):
        for camid, view in enumerate(views):
            for i in range(images):
                relative = f"images/{view}_{pid}_{i}.jpg"
                write_image(home / relative, pid, camid, size)
                split = "train" if pid < ids else "query" if i == 0 else "gallery"
                rows.append((split, relative, pid, camid, view))
    return write_manifest(home / "manifest.csv", rows)


@contextlib.contextmanager
def installed(root: Path, *makes: Callable[..., Path]) -> Iterator[Path]:
    """Data sets of four identities below `root`, where FASTREID_DATASETS points; by default all four."""
    for make in makes or (make_cargo, make_synthag, make_agreidv1, make_agreidv2):
        make(root, ids=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(root))
        yield root
