"""Training runs in processes of their own that are killed at chosen moments, and what they leave.

The child is forked from a server that has imported vif and done nothing else: torch forbids a backward pass
in a fork of a process in which its engine has threads, and what other tests did must not matter. The kill is
SIGKILL. Nothing in the project knows of moments: the child patches itself.
"""

import functools
import json
import logging
import multiprocessing
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import vif
import cloudpickle
import torch
from vif.errors import VIFError

from tests.tiny import tiny_cfg

OPTS = ("SOLVER.MAX_EPOCH", 3, "SOLVER.LOG_PERIOD", 2)  # of the run `unbroken`
TIMES = {"time", "data_time", "images_per_second", "eta_seconds"}


class Moments:
    """Counts what happens in a child; at moment `last` the child kills itself."""

    def __init__(self, last, counter):
        self.last, self.counter, self.pid = last, counter, os.getpid()

    def pass_by(self, name):
        if os.getpid() != self.pid:  # a loader's worker
            return
        self.counter.value += 1
        if self.counter.value == self.last:
            print(f"KILLED at moment {self.last}: {name}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner, name, before=True, after=True):
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def outer(*args, **kwargs):
            if before:
                self.pass_by(f"before {name}")
            result = inner(*args, **kwargs)
            if after:
                self.pass_by(f"after {name}")
            return result

        setattr(owner, name, outer)


def _half_saves(moments):
    """A save passes a moment with half of its bytes written."""
    inner = torch.save

    def save(content, f):
        if moments.counter.value + 1 == moments.last:
            inner(content, f)
            f.truncate(f.tell() // 2)
            f.flush()
        moments.pass_by("half a save")
        inner(content, f)

    torch.save = save


def _train(name, output, opts, resume, last, counter, prepare, environment):
    os.environ.clear()
    os.environ.update(environment)  # the server has that of its own start
    multiprocessing.set_start_method(None, force=True)  # loader workers start as in any program
    log = open(f"{output}.txt", "a")  # noqa: SIM115  ends with the process
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
    logger = logging.getLogger("fastreid")
    logger.handlers, logger.propagate = [logging.StreamHandler(log)], False
    logger.setLevel(logging.INFO)
    code = 1
    try:
        torch.set_num_threads(1)
        trainer = vif.VIFTrainer(tiny_cfg(name, output, *opts))
        trainer.resume_or_load(resume=resume)
        moments = Moments(last, counter)
        _half_saves(moments)
        moments.around(type(trainer.optimizer), "step")
        moments.around(os, "replace")
        moments.around(os, "unlink", after=False)
        moments.around(os, "truncate", after=False)
        moments.around(trainer.model.backbone, "forward", after=False)
        if prepare:
            cloudpickle.loads(prepare)(trainer)
        trainer.train()
        code = 0
    except SystemExit as e:
        code = e.code
    except VIFError as e:
        print(f"error: {e}")
    except BaseException:
        traceback.print_exc()
        code = 3
    log.flush()
    os._exit(code)


def build(folder, *opts, resume=True):
    """A trainer in this process, of a run of four epochs, that goes on from what the folder has."""
    trainer = vif.VIFTrainer(tiny_cfg("SynthAG/vif.yml", folder, "SOLVER.MAX_EPOCH", 4, *opts))
    trainer.resume_or_load(resume=resume)
    return trainer


def train(output, *opts, resume=False, kill=0, prepare=None, name="SynthAG/vif.yml", during=None):
    """Train in a child.

    Args:
        output: OUTPUT_DIR; what the child prints is appended to OUTPUT_DIR.txt, beside it.
        opts: config keys and values on top of `tests.tiny`.
        kill: number of the moment at which the child kills itself; 0: never.
        prepare: called with the trainer in the child before it trains.
        during: called with the process in the parent while it runs.

    Returns:
        (exit code, negative for a signal; moments passed).
    """
    Path(output).mkdir(parents=True, exist_ok=True)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["vif"])
    counter = server.Value("i", 0, lock=False)
    prepare = prepare and cloudpickle.dumps(prepare)  # pickle takes no function within a function
    given = (name, str(output), opts, resume, kill, counter, prepare, dict(os.environ))
    child = server.Process(target=_train, args=given)
    child.start()
    if during:
        during(child)
    deadline = time.monotonic() + 120
    while child.exitcode is None and time.monotonic() < deadline:  # join would wait for loader workers too
        time.sleep(0.02)
    assert child.exitcode is not None, "the child hangs"
    return child.exitcode, counter.value


def printed(output):
    """What all children of this folder printed."""
    return Path(f"{output}.txt").read_text()


def differences(a, b, ignore=(), path=""):
    """Where two checkpoints differ, to the bit; the folder's name and the state of the source tree aside."""
    if isinstance(a, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [path]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{path}: {sorted(map(str, a.keys() ^ b.keys()))}"]
        names = [name for name in a if not str(name).endswith(("OUTPUT_DIR", "commit", *ignore))]
        return [d for name in names for d in differences(a[name], b[name], ignore, f"{path}/{name}")]
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return [f"{path}: {len(a)} and {len(b)} long"]
        return [d for k, pair in enumerate(zip(a, b)) for d in differences(*pair, ignore, f"{path}/{k}")]
    return [] if a == b else [f"{path}: {a} {b}"]


def assert_same_run(one, other, ignore=()):
    """Two runs left the same: every tensor and value of their checkpoints, scores, lines of metrics.json."""
    one, other = Path(one), Path(other)
    names = sorted(p.name for p in one.glob("*.pth"))
    assert names == sorted(p.name for p in other.glob("*.pth"))
    assert "model_final.pth" in names
    for name in names:
        assert differences(torch.load(one / name), torch.load(other / name), ignore) == [], name
    assert (one / "results.json").read_text() == (other / "results.json").read_text()
    assert metrics(one) == metrics(other)


def metrics(output):
    """The lines of metrics.json, without times."""
    lines = [json.loads(line) for line in (Path(output) / "metrics.json").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]
