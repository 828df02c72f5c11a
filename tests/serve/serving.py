"""A small gallery with images, the network that made it, and a server over it in a process of its own."""

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import vif
import numpy as np
import torch
from vif.retrieval import create_gallery

from tests import fake_trees
from tests.tiny import CONFIGS, TINY, tiny_cfg

ROOT = Path(__file__).parents[2]
NIGHT = 1_772_323_200.0  # 2026-03-01, the time of camera 1; each further camera is an hour later


@dataclass
class People:
    """A folder of images of 4 identities under 13 cameras, its gallery, and the network of its vectors."""

    images: Path
    gallery: Path
    weights: Path
    predictor: vif.Predictor

    @property
    def network(self):
        config = ["--config-file", str(CONFIGS / "SynthAG/vif.yml"), "--weights", str(self.weights)]
        return [*config, "--set", *map(str, TINY)]


def make_people(root: Path) -> People:
    images = fake_trees.make_synthag(root / "data", ids=4) / "gallery"
    torch.manual_seed(0)
    cfg = tiny_cfg("SynthAG/vif.yml", root, "MODEL.HEADS.NUM_CLASSES", 4)
    torch.save({"model": vif.VIFTrainer.build_model(cfg).state_dict()}, root / "model.pth")
    predictor = vif.Predictor(cfg, root / "model.pth", device="cpu")
    table, failures = predictor.folder(images)
    assert not failures
    names = [re.fullmatch(r"Cam(\d+)/Cam\d+_(day|night)_(\d+)_0\.jpg", path).groups() for path in table.paths]
    table.camids = np.array([int(camid) for camid, _, _ in names])
    table.pids = np.array([int(pid) for _, _, pid in names])
    table.views = np.where(table.camids <= 5, "aerial", "ground")
    table.meta["root"] = str(images)
    times = NIGHT + 3600.0 * (table.camids - 1)
    create_gallery(
        str(root / "people"), table, times=times, extra={"light": [light for _, light, _ in names]}
    )
    return People(images, root / "people", root / "model.pth", predictor)


class Server:
    """`vif serve` on a free port of loopback; ends with the block."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "vif.cli", "serve", *map(str, arguments), "--port", "0"]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "projects" / "VIF"), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.said = ""
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            end = time.monotonic() + 120
            while "Ctrl-C" not in self.said:
                assert ready.select(max(0, end - time.monotonic())), f"no address in time: {self.said}"
                part = os.read(self.process.stdout.fileno(), 65536)
                assert part, f"ended early: {self.said}"
                self.said += part.decode()
        self.url = re.search(r"http://\S+", self.said).group()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self, number=signal.SIGTERM):
        """Exit code after a signal, and what it said after its address."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=30)
        return self.process.returncode, rest.decode()
