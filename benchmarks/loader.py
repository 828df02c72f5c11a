"""Training pipeline, one process and one thread: images per second of CPU time, against fastreid's own.

    python benchmarks/loader.py

Both read, transform and collate batches of 64 from the same generated JPEG files with the paper's recipe:
resize to 256 x 128 bicubic, pad 10 and crop, flip, erasing 0.5. fastreid's batches are float32, ours uint8
(the model converts them on its device).
"""

import itertools
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "projects" / "VIF"))
import common

BATCH, FILES = 64, 192
SIZE = (256, 128)


def write_images(folder: Path, count: int) -> list:
    """JPEG files, quality 90, heights 160-400: smooth colours, texture and sensor noise."""
    from PIL import Image

    rng, items = np.random.default_rng(0), []
    for k in range(count):
        height, width = [(256, 128), (400, 180), (200, 90), (320, 140), (160, 80)][k % 5]
        coarse = Image.fromarray(rng.integers(30, 226, (12, 6, 3), dtype=np.uint8))
        fine = Image.fromarray(rng.integers(0, 256, (height // 3, width // 3, 3), dtype=np.uint8))
        pixels = sum(
            weight * np.asarray(part.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
            for weight, part in ((0.85, coarse), (0.15, fine))
        )
        pixels += rng.normal(0, 3, pixels.shape)
        path = folder / f"{k:04d}.jpg"
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=90)
        items.append((str(path), k % 32, k % 4))
    return items


def fastreid_batches(items, order):
    """fastreid's data set, transforms and collate function."""
    import vif  # noqa: F401  installs the bridges that fastreid's import needs
    from fastreid.config import get_cfg
    from fastreid.data.build import fast_batch_collator
    from fastreid.data.common import CommDataset
    from fastreid.data.transforms import build_transforms

    cfg = get_cfg()
    cfg.INPUT.SIZE_TRAIN = list(SIZE)
    for name in ("FLIP", "PADDING", "REA"):
        cfg.INPUT[name].ENABLED = True
    data = CommDataset(items, build_transforms(cfg, is_train=True))
    return lambda: fast_batch_collator([data[index] for index in itertools.islice(order, BATCH)])


def vif_batches(items, order, fast=True, plrm=False):
    """Our data set, transforms and collate function."""
    from vif.data import transforms as T
    from vif.data.loaders import ImageSet, collate

    ops = [T.Resize(SIZE, exact=not fast), T.PadCrop(SIZE, padding=10), T.HorizontalFlip()]
    ops += [T.PatchLevelRotateMix()] if plrm else []
    ops += [T.RandomErasing()]
    read = T.read_image_fast if fast else T.read_image
    data, draws = ImageSet(items, T.Compose(ops), relabel=True, read=read), itertools.count()
    return lambda: collate([data[next(draws), index] for index in itertools.islice(order, BATCH)])


def stages(items, rounds):
    """Where our time goes, per batch of 64."""
    from vif.data import transforms as T
    from vif.data.loaders import _to_tensor

    rng = np.random.default_rng(0)
    paths = [item[0] for item in items[:BATCH]]
    images = [T.read_image(path) for path in paths]
    sized = [T.Resize(SIZE)(image, rng) for image in images]

    def each(op, inputs):
        return lambda: [op(value, rng) for value in inputs]

    cases = {
        "read, Pillow": lambda: [T.read_image(path) for path in paths],
        "read, fast": lambda: [T.read_image_fast(path) for path in paths],
        "resize, Pillow": each(T.Resize(SIZE), images),
        "resize, fast": each(T.Resize(SIZE, exact=False), images),
        "pad and crop": each(T.PadCrop(SIZE, padding=10), sized),
        "flip": each(T.HorizontalFlip(), sized),
        "PLRM": each(T.PatchLevelRotateMix(), sized),
        "erasing": each(T.RandomErasing(), sized),
        "generator of a draw": lambda: [np.random.default_rng((0, draw)) for draw in range(BATCH)],
        "to tensor": lambda: [_to_tensor(image) for image in sized],
    }
    times = common.compare(cases, "read, Pillow", rounds=rounds, clock=time.process_time)
    return {name: {key: row[key] for key in ("median_s", "iqr_s", "rounds")} for name, row in times.items()}


def kernel_difference(items):
    """Training pixels against test pixels, in grey levels."""
    from vif.data import transforms as T

    rows = {"decoder": [], "resize": []}
    exact, fast = T.Resize(SIZE), T.Resize(SIZE, exact=False)
    for path, *_ in items[:40]:
        image = T.read_image(path)
        rows["decoder"].append(np.abs(T.read_image_fast(path).astype(int) - image).ravel())
        rows["resize"].append(np.abs(fast(image, None).astype(int) - exact(image, None)).ravel())
    errors = {name: np.concatenate(values) for name, values in rows.items()}
    return {name: {"mean": round(float(e.mean()), 3), "max": int(e.max())} for name, e in errors.items()}


def run(quick: bool) -> bool:
    common.one_thread()
    warnings.filterwarnings("ignore", message="TypedStorage is deprecated")  # fastreid's
    rounds = 3 if quick else 25
    theirs, ours = "fastreid", "vif"
    with tempfile.TemporaryDirectory() as folder:
        items = write_images(Path(folder), FILES)
        orders = [itertools.cycle(range(FILES)) for _ in range(4)]
        cases = {
            theirs: fastreid_batches(items, orders[0]),
            ours: vif_batches(items, orders[1]),
            "vif with PLRM": vif_batches(items, orders[2], plrm=True),
            "vif, pixels as at test time": vif_batches(items, orders[3], fast=False),
        }
        times = common.compare(cases, theirs, rounds=rounds, clock=time.process_time)
        for row in times.values():
            row["images_per_cpu_s"] = round(BATCH / row["median_s"], 1)
        parts, difference = stages(items, rounds), kernel_difference(items)
    goal = {
        "goal": "at least 2 times fastreid's images/s per core",
        "measured": times[ours]["speedup"],
        "at_least": 2,
    }
    goal["met"] = goal["measured"] >= goal["at_least"]
    sections = {
        f"Batch of {BATCH}: read, transform, collate": times,
        f"Stages of {BATCH} images": parts,
        "Training pixels against test pixels, grey levels": difference,
    }
    return common.report("loader", sections, [goal], write=not quick)


if __name__ == "__main__":
    common.main(run, __doc__.splitlines()[0])
