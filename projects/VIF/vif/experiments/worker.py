"""One run of a sweep in a process of its own: `python -m vif.experiments.worker FOLDER`.

FOLDER holds config.yaml; the run leaves its log, its weights and, at its end, run.json there, or failed.txt
with the error that ended it.
"""

import contextlib
import fcntl
import os
import sys
import time
from types import SimpleNamespace
from typing import Any, Dict

import vif
from vif.config_file import read_config
from vif.files import write_json
from vif.hooks import COLLAPSED
from vif.versions import commit, versions
from vif.writers import WINDOW

CONFIG, RECORD, FAILURE = "config.yaml", "run.json", "failed.txt"


def run(folder: str) -> None:
    """Train and evaluate FOLDER/config.yaml, on from the last checkpoint if there is one; once only.

    Whoever comes second waits for the first, and finds the run done.
    """
    from fastreid.engine import default_setup

    with open(os.path.join(folder, ".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # goes when the process does, however it ends
        if os.path.exists(os.path.join(folder, RECORD)):
            return
        cfg = read_config(os.path.join(folder, CONFIG))
        cfg.OUTPUT_DIR = folder
        cfg.freeze()
        default_setup(cfg, SimpleNamespace(eval_only=False, config_file=""))
        start = time.time()
        trainer = vif.VIFTrainer(cfg)
        trainer.resume_or_load(resume=True)
        resumed = trainer.start_iter > 0
        results = trainer.train()
        write_json(os.path.join(folder, RECORD), _record(trainer, results, time.time() - start, resumed))


def _record(trainer: Any, results: Any, seconds: float, resumed: bool) -> Dict[str, Any]:
    """What the run leaves: scores, geometry of the last batches, and what it ran on."""
    histories = trainer.storage.histories()
    names = [n for n in ("pos_cos", "neg_cos", "hard_share", "feat_norm") if n in histories]
    geometry = {name: float(histories[name].median(WINDOW)) for name in names}
    return {
        "results": results,
        "geometry": geometry,
        "collapsed": geometry.get("neg_cos", 0.0) > COLLAPSED,
        "iterations": trainer.max_iter,
        "seconds": round(seconds, 1),
        "resumed": resumed,
        "versions": versions(),
        "commit": commit(),
    }


def main(folder: str) -> None:
    """`run`; an error is also left in failed.txt, for the results file."""
    failure = os.path.join(folder, FAILURE)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(failure)
    try:
        run(folder)
    except Exception as e:
        with open(failure, "w", encoding="utf-8") as f:
            f.write(f"{type(e).__name__}: {e}")
        raise


if __name__ == "__main__":
    main(sys.argv[1])
