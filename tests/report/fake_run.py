"""A run's folder with everything that training writes but weights, and the images that its features name."""

import json
import os

import numpy as np
from vif.evaluation import evaluate_table, known_protocols
from vif.features import FeatureTable

from tests.fake_trees import make_synthag
from tests.tiny import tiny_cfg

LOG = """[11/25 22:00:59] fastreid INFO: Rank of current process: 0. World size: 1
[11/25 22:01:00] fastreid INFO: Environment info:
-------------------  ------------------------------------------------
sys.platform         linux
Python               3.11.7 (main) [GCC 12.2.0]
fastreid             1.3 @/home/someone/lib/fastreid
FASTREID_ENV_MODULE  <not set>
PyTorch              2.14.1 @/home/someone/lib/torch
GPU available        False
-------------------  ------------------------------------------------
PyTorch built with: secrets of /home/someone
[11/25 22:03:00] fastreid.engine.hooks INFO: Total training time: 0:02:00 (0:00:10 on hooks)
"""


def features_of(root, ids=4, dim=8, noise=0.8, seed=0):
    """Clustered features of the test images of `make_synthag(root, ids)`."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((2 * ids + 1, dim))
    rows = []
    for split in ("query", "gallery"):
        for path in sorted((root / "SynthAG" / split).rglob("*.jpg")):
            camera, _, pid, _ = path.stem.split("_")
            rows.append((str(path), int(pid), int(camera[3:]), split))
    paths, pids, camids, splits = (np.array(column) for column in zip(*rows))
    return FeatureTable(
        features=(centres[pids] + noise * rng.standard_normal((len(rows), dim))).astype(np.float32),
        pids=pids,
        camids=camids,
        views=np.where(camids <= 5, "aerial", "ground"),
        paths=paths,
        splits=splits,
        meta={"dataset": "SynthAG", "fingerprint": "0123456789abcdef"},
    )


def metrics(iterations=20):
    lines = []
    for i in range(iterations):
        row = {
            "iteration": i,
            "total_loss": 3 / (1 + i),
            "loss_cls": 2 / (1 + i),
            "lr": 0.01,
            "data_time": 0.1,
        }
        row.update(pos_cos=0.5, neg_cos=0.1, hard_share=0.2)
        if i % 10 == 9:
            row.update({"SynthAG/AG/mAP": 10.0 + i, "SynthAG/AG/Rank-1": 20.0 + i})
        lines.append(json.dumps(row))
    return "\n".join(lines) + "\n"


def make_run(tmp, **kinds):
    """Folder of the run; its data root is `tmp`/data. `kinds`: of `features_of`."""
    data, run = tmp / "data", tmp / "logs" / "run"
    make_synthag(data, kinds.get("ids", 4))
    run.mkdir(parents=True)
    table = features_of(data, **kinds)
    table.save(str(run / "features-SynthAG.npz"))
    cfg = tiny_cfg("SynthAG/vif.yml", run, "MODEL.WEIGHTS", os.path.join(str(tmp), "secret", "start.pth"))
    (run / "config.yaml").write_text(cfg.dump())
    (run / "metrics.json").write_text(metrics())
    (run / "log.txt").write_text(LOG)
    scores = {p.name: evaluate_table(table, p).scores() for p in known_protocols("SynthAG", [])}
    (run / "results.json").write_text(json.dumps({"SynthAG": scores}))
    return run
