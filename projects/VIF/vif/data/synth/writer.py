"""SynthAG on disk, as CARGO: ``{train,query,gallery}/Cam{c}/Cam{c}_{day|night}_{pid}_{index}.jpg``.

Beside the pictures lie its parameters, ``synthag.json``, and what identities look like,
``synthag_attributes.mat``.
"""

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple, Union

import numpy as np
from PIL import Image
from tqdm import tqdm

from vif.data.synth.attributes import FILE as ATTRIBUTES
from vif.data.synth.attributes import attribute_bytes
from vif.data.synth.camera import AERIAL_CAMERAS, CAMERAS, GROUND_CAMERAS
from vif.data.synth.render import is_night, render_image
from vif.errors import DataError

VERSION = 1  # of the pictures: raise it whenever the same parameters give other bytes
MANIFEST = "synthag.json"
UNFINISHED = "synthag.unfinished.json"
SPLITS = ("train", "query", "gallery")
_QUALITY = 92


class SynthImage(NamedTuple):
    """One planned picture: where it goes and what it shows; ``number`` counts from 0 by person and camera."""

    split: str
    camid: int
    night: bool
    pid: int
    number: int

    @property
    def path(self) -> str:
        """Path below the data set's root, with forward slashes."""
        time = "night" if self.night else "day"
        return f"{self.split}/Cam{self.camid}/Cam{self.camid}_{time}_{self.pid}_{self.number}.jpg"


def _cameras_of(seed: int, pid: int, coverage: float) -> Tuple[List[int], int, int]:
    """Cameras that see ``pid`` (at least two of each view), and its aerial and ground query cameras."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 3, pid]))
    seen: List[int] = []
    queries: List[int] = []
    for cameras in (AERIAL_CAMERAS, GROUND_CAMERAS):
        order = [cameras[int(i)] for i in rng.permutation(len(cameras))]
        extra = rng.random(len(cameras)) < coverage
        seen += sorted(order[:2] + [c for c, more in zip(order[2:], extra) if more])
        queries.append(order[0])
    return seen, queries[0], queries[1]


def plan_synthag(
    *, ids: int, images_per_camera: int = 1, coverage: float = 1.0, seed: int = 0
) -> List[SynthImage]:
    """Every picture of the data set, without rendering any; see ``write_synthag`` for the arguments."""
    if ids < 4 or ids % 2:
        raise DataError(
            f"ids is the number of people in train and test together: even and 4 or more, not {ids}"
        )
    if images_per_camera < 1 or not 0.0 <= coverage <= 1.0 or seed < 0:
        raise DataError(
            "images_per_camera is 1 or more, coverage in [0, 1] and seed 0 or more, "
            f"not {images_per_camera}, {coverage} and {seed}"
        )
    out = []
    for pid in range(1, ids + 1):
        seen, aerial, ground = _cameras_of(seed, pid, coverage)
        for camid in seen:
            for index in range(images_per_camera):
                split = "train"
                if pid > ids // 2:
                    split = "query" if index == 0 and camid in (aerial, ground) else "gallery"
                out.append(SynthImage(split, camid, is_night(seed, pid, camid, index), pid, index))
    return out


def _write(job: Tuple[str, int, Tuple[int, int], List[SynthImage]]) -> int:
    """Renders and saves some pictures, each under another name until it is complete; a worker's task."""
    root, seed, size, images = job
    for image in images:
        path = os.path.join(root, *image.path.split("/"))
        part = f"{path}.{os.getpid()}.part"
        pixels = render_image(seed, image.pid, image.camid, image.number, size)
        Image.fromarray(pixels).save(part, format="JPEG", quality=_QUALITY, subsampling=0)
        os.replace(part, path)
    return len(images)


def _read_json(path: Path) -> Dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); delete the folder or choose another one"
        ) from error
    return content if isinstance(content, dict) else {}


def _missing(root: Path, parameters: Dict[str, Any], images: List[SynthImage]) -> List[SynthImage]:
    """The pictures still to be written, after the checks of what ``root`` holds already."""
    present = (
        {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()} if root.exists() else set()
    )
    if not present:
        return images
    known = next((name for name in (MANIFEST, UNFINISHED) if name in present), None)
    if known is None:
        raise DataError(f"{root} is not empty and holds no SynthAG; choose another folder or empty this one")
    found = _read_json(root / known).get("parameters")
    if found != parameters:
        raise DataError(
            f"{root} holds a SynthAG with the parameters {found}, asked for {parameters}; "
            "choose another folder or delete this one"
        )
    wanted = {image.path for image in images}
    beside = {MANIFEST, UNFINISHED, ATTRIBUTES}
    strange = sorted(p for p in present - wanted - beside if not p.endswith(".part"))
    if strange:
        raise DataError(
            f"{root} holds files that are not SynthAG's, such as {strange[0]}; move them elsewhere"
        )
    return [image for image in images if image.path not in present]


def _counts(images: Iterable[SynthImage]) -> Dict[str, Dict[str, int]]:
    out: Dict[str, Dict[str, int]] = {}
    for split in SPLITS:
        some = [image for image in images if image.split == split]
        out[split] = {"images": len(some), "ids": len({image.pid for image in some})}
    return out


def write_synthag(
    out: Union[str, Path],
    *,
    ids: int = 200,
    images_per_camera: int = 1,
    coverage: float = 1.0,
    seed: int = 0,
    size: Tuple[int, int] = (128, 64),
    workers: Optional[int] = None,
    progress: bool = True,
) -> Dict[str, Any]:
    """Writes SynthAG into ``out``; the same arguments give the same bytes for any number of workers.

    Identities 1 to ids / 2 are the training set, the others the test set with one aerial and one ground query
    each. Every identity is seen by at least two cameras of each view, so that every query has a match in its
    own view and in the other one. ``synthag_attributes.mat`` says what each identity wears and looks like.

    Args:
        out: folder for the data set itself; missing, empty, or holding a SynthAG of the same arguments, which
            is completed where files are missing and otherwise left alone.
        ids: number of people, even and at least 4.
        images_per_camera: pictures of a person by each camera that sees it.
        coverage: chance that a person is seen by a camera beyond the two sure ones of each view; 1 = by all.
        seed: of the whole world, 0 or more.
        size: (height, width) in pixels.
        workers: processes; None = one per processor where that pays off, 1 = none beside this one. Processes
            are forked; where the system cannot, spawned: then call this below
            ``if __name__ == "__main__":``.
        progress: show a progress bar on stderr.

    Returns:
        The manifest, also written as ``synthag.json`` when all pictures are there: ``parameters`` and
        ``counts`` by split (``images``, ``ids``), and ``written``, the number of pictures this call rendered
        (0: the data set was already there).

    Raises:
        DataError: an argument is out of range, or ``out`` holds anything else.
    """
    root = Path(out)
    parameters: Dict[str, Any] = {
        "version": VERSION,
        "ids": ids,
        "images_per_camera": images_per_camera,
        "coverage": float(coverage),
        "seed": seed,
        "size": [int(v) for v in size],
    }
    images = plan_synthag(ids=ids, images_per_camera=images_per_camera, coverage=coverage, seed=seed)
    if len(size) != 2 or min(size) < 16:
        raise DataError(f"size is (height, width), each 16 pixels or more, not {size!r}")
    if workers is not None and workers < 1:
        raise DataError(f"workers is 1 or more, or None for one per processor, not {workers}")
    if root.exists() and not root.is_dir():
        raise DataError(f"{root} is a file; name a folder")
    todo = _missing(root, parameters, images)
    manifest = {"parameters": parameters, "counts": _counts(images)}
    if not todo and all((root / name).exists() for name in (MANIFEST, ATTRIBUTES)):
        return {**manifest, "written": 0}
    for split in SPLITS:
        for camid in CAMERAS:
            (root / split / f"Cam{camid}").mkdir(parents=True, exist_ok=True)
    (root / UNFINISHED).write_text(json.dumps({"parameters": parameters}) + "\n", encoding="utf-8")
    (root / MANIFEST).unlink(missing_ok=True)
    for part in root.glob("*/*/*.part"):
        part.unlink()
    if workers is None:  # another process pays off from some hundred pictures on
        workers = min(os.cpu_count() or 1, 1 + len(todo) // 400)
    _run(root, seed, (int(size[0]), int(size[1])), todo, workers, progress)
    attributes = attribute_bytes(seed, range(1, ids // 2 + 1), range(ids // 2 + 1, ids + 1))
    (root / ATTRIBUTES).write_bytes(attributes)
    (root / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    (root / UNFINISHED).unlink()
    return {**manifest, "written": len(todo)}


def _run(
    root: Path, seed: int, size: Tuple[int, int], todo: List[SynthImage], workers: int, progress: bool
) -> None:
    step = 26
    jobs = [(str(root), seed, size, todo[i : i + step]) for i in range(0, len(todo), step)]
    with tqdm(total=len(todo), desc="SynthAG", unit="image", disable=not progress) as bar:
        if workers == 1 or len(jobs) < 2:
            for job in jobs:
                bar.update(_write(job))
            return
        # fork where there is one: a spawned worker would import torch and fastreid again, for seconds
        method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
            for count in pool.map(_write, jobs):
                bar.update(count)
