"""Features of image files: our Predictor, from a checkpoint and ONNX, against fastreid's DefaultPredictor.

    python benchmarks/predictor.py [--quick]

Every case but the last starts from JPEG files and ends with an array of features. DefaultPredictor takes
tensors: around it stands what fastreid's demo does, OpenCV reading and resizing one image after the other; it
is given whole batches. Random weights: the time does not depend on them. Wall time, all cores, no GPU.
"""

import itertools
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "projects" / "VIF"))
import common
from loader import write_images

ROOT = Path(__file__).resolve().parents[1]
SIZE = (256, 128)
BATCHES = (1, 64)
THEIRS = "fastreid DefaultPredictor"
# the demo's network (width 192, depth 6) and the paper's (ViT-B/16)
NETWORKS = {"small ViT": "SynthAG/vif.yml", "ViT-B/16": "CARGO/vif.yml"}


def config(name: str, folder: str) -> Any:
    """A shipped config at 256 x 128 on the CPU, with a checkpoint of random weights in MODEL.WEIGHTS."""
    import vif
    import torch
    from vif.inference.build import read_config

    keys = ["INPUT.SIZE_TRAIN", list(SIZE), "INPUT.SIZE_TEST", list(SIZE), "MODEL.DEVICE", "cpu"]
    keys += ["MODEL.BACKBONE.PRETRAIN", False, "MODEL.HEADS.NUM_CLASSES", 100, "TEST.FLIP.ENABLED", False]
    cfg = read_config(str(ROOT / "configs" / name), keys)
    torch.manual_seed(0)
    path = os.path.join(folder, "random.pth")
    torch.save({"model": vif.VIFTrainer.build_model(cfg).state_dict()}, path)
    cfg.MODEL.WEIGHTS = path
    return cfg


def default_predictor(cfg: Any) -> Any:
    """fastreid's DefaultPredictor behind the reading of fastreid's demo: paths -> features (B, D)."""
    import torch
    from fastreid.engine import DefaultPredictor

    predictor = DefaultPredictor(cfg)

    def features(paths: List[str]) -> np.ndarray:
        images = []
        for path in paths:
            image = cv2.imread(path)[:, :, ::-1]
            image = cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
            images.append(torch.as_tensor(image.astype("float32").transpose(2, 0, 1)))
        return predictor(torch.stack(images)).numpy()

    return features


def measure(name: str, paths: List[str], folder: str, quick: bool) -> Dict[str, Any]:
    """`common.compare` for each batch size, with images/s."""
    import vif
    from vif.inference.export import export

    cfg = config(name, folder)
    out = os.path.join(folder, "export")
    few = os.path.join(folder, "few")
    os.makedirs(few, exist_ok=True)
    for path in paths[:4]:
        Path(few, os.path.basename(path)).write_bytes(Path(path).read_bytes())
    export(cfg, cfg.MODEL.WEIGHTS, out, uint8=True, variant_names=("fp16", "int8"), images=few)
    ours: Dict[str, Any] = {"vif.Predictor": vif.Predictor(cfg, cfg.MODEL.WEIGHTS, device="cpu")}
    for label, file in (("fp32", "model.onnx"), ("fp16", "model.fp16.onnx"), ("int8", "model.int8.onnx")):
        predictor = vif.Predictor.from_onnx(os.path.join(out, file), device="cpu")
        ours[f"vif.Predictor.from_onnx, {label}"] = predictor
    session = ours["vif.Predictor.from_onnx, fp32"].backend.session
    sections = {}
    for batch in BATCHES:
        batches = [paths[i : i + batch] for i in range(0, len(paths) - batch + 1, batch)]
        cases: Dict[str, Any] = {THEIRS: _case(default_predictor(cfg), batches)}
        cases.update({label: _case(predictor, batches) for label, predictor in ours.items()})
        pixels = np.zeros((batch, *SIZE, 3), dtype=np.uint8)
        cases["onnxruntime alone, fp32, pixels ready"] = lambda x=pixels: session.run(None, {"images": x})
        rounds = 1 if quick else (15 if batch == 1 else 5)
        # onnxruntime's threads spin on for some time after a call
        rows = common.compare(cases, THEIRS, rounds=rounds, warmup=1, rest=0.0 if quick else 0.3)
        for row in rows.values():
            row["images_per_s"] = round(batch / row["median_s"], 1)
        sections[f"{name}, {SIZE[0]} x {SIZE[1]}, batch {batch}"] = rows
    return sections


def _case(features: Any, batches: List[List[str]]) -> Any:
    """A call for each round: rounds have different images, the cases of a round the same."""
    order = itertools.cycle(batches)
    return lambda: features(next(order))


def run(quick: bool) -> bool:
    import torch

    sections: Dict[str, Any] = {
        "threads": {"torch": torch.get_num_threads(), "decoding": min(8, os.cpu_count() or 1)}
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = [path for path, *_ in write_images(Path(folder), max(BATCHES) if quick else 256)]
        for title, name in NETWORKS.items():
            if quick and title != "small ViT":
                continue
            with tempfile.TemporaryDirectory() as own:
                for section, rows in measure(name, paths, own, quick).items():
                    sections[section.replace(name, title)] = rows
    return common.report("predictor", sections, [], write=not quick)


if __name__ == "__main__":
    common.main(run, __doc__.splitlines()[0])
