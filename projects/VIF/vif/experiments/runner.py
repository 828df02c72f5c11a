"""Run a sweep: each run in a process of its own, several at a time; what is finished is skipped."""

import contextlib
import json
import logging
import os
import platform
import subprocess
import sys
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..data.build import data_root
from ..errors import STOPPED, ConfigError
from ..files import atomic_path, write_json
from ..progress import bar
from ..resume.signals import StopSignals
from .results import FORMAT
from .sweep import Run, Sweep
from .worker import CONFIG, FAILURE, RECORD

logger = logging.getLogger(__name__)

OUTPUT = "output.txt"  # what a run prints


def run_sweep(sweep: Sweep, out: str, jobs: int = 1, threads: Optional[int] = None) -> Tuple[str, int]:
    """Run what is not finished yet, and write the results file.

    Each run has the folder OUT/runs/ID. A run that was killed goes on from its last checkpoint; one that
    failed is tried again; equal runs of several sweeps into one OUT run once.

    Args:
        sweep: what to run.
        out: folder of runs and results; use another one when the images change.
        jobs: runs at a time, >= 1. With several GPUs each takes the next one in turn.
        threads: CPU threads of each run; None: cores / jobs.

    Returns:
        (path of the results file, OUT/NAME.json, written anew after every run; number of failed runs).

    Raises:
        ConfigError: jobs or threads are below 1.
        Stopped: a signal came; the runs that went on have saved.
    """
    for name, value in (("jobs", jobs), ("threads", threads)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}.")
    threads = threads or max(1, (os.cpu_count() or 1) // jobs)
    path = os.path.join(out, f"{sweep.name}.json")
    waiting: List[Run] = []
    for run in {run.id: run for run in sweep.runs}.values():
        folder = prepare(run, out)
        if not os.path.exists(os.path.join(folder, RECORD)):
            waiting.append(run)
    logger.info("%s: %d runs, %d to do, results in %s", sweep.name, len(sweep.runs), len(waiting), path)
    write_json(path, collect(sweep, out))
    with StopSignals() as signals:
        signals.saved = True  # at once: the runs are told, and save
        for code, run in bar(_run_all(waiting, out, jobs, threads), sweep.name, "run", total=len(waiting)):
            if code == STOPPED:
                logger.warning(
                    "%s, seed %d, was stopped by a signal; it goes on next time", run.arm, run.seed
                )
            elif code:
                log = os.path.join(out, "runs", run.id, OUTPUT)
                logger.error("%s, seed %d, ended with code %d; see %s", run.arm, run.seed, code, log)
            write_json(path, collect(sweep, out))
    return path, sum(entry["status"] == "failed" for entry in collect(sweep, out)["runs"])


def _run_all(waiting: List[Run], out: str, jobs: int, threads: int) -> Iterator[Tuple[int, Run]]:
    """(exit code, run) of each, as they end; leaving early ends those that still go on."""
    queue = list(reversed(waiting))
    running: Dict[int, Tuple[Any, Run]] = {}
    try:
        while queue or running:
            for slot in range(jobs):
                if queue and slot not in running:
                    run = queue.pop()
                    running[slot] = (start(run, out, slot, threads), run)
            time.sleep(0.2)
            for slot, (process, run) in list(running.items()):
                if process.poll() is not None:
                    del running[slot]
                    yield process.returncode, run
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()


def prepare(run: Run, out: str) -> str:
    """The run's folder, with its config written there."""
    folder = os.path.join(out, "runs", run.id)
    os.makedirs(folder, exist_ok=True)
    config = os.path.join(folder, CONFIG)
    if not os.path.exists(config):
        with atomic_path(config) as partial, open(partial, "w", encoding="utf-8") as f:
            f.write(run.cfg.dump())
    return folder


def start(run: Run, out: str, slot: int, threads: int) -> Any:
    """Start the run's process; its output goes to output.txt in its folder."""
    folder = os.path.join(out, "runs", run.id)
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "FASTREID_DATASETS": data_root()}
    device = pick_gpu(slot, visible_gpus())
    if device:
        env["CUDA_VISIBLE_DEVICES"] = device
    with open(os.path.join(folder, OUTPUT), "ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "vif.experiments.worker", folder],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=env,
        )


def visible_gpus() -> List[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]


def pick_gpu(slot: int, gpus: List[str]) -> str:
    """The GPU of a slot, in turn; empty without any."""
    return gpus[slot % len(gpus)] if gpus else ""


def collect(sweep: Sweep, out: str) -> Dict[str, Any]:
    """The results file's content: every run of the sweep with what is known of it now."""
    return {
        "format": FORMAT,
        "sweep": sweep.name,
        "title": sweep.title,
        "table": sweep.table,
        "data": sweep.data,
        "baseline": sweep.baseline,
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "gpus": gpu_names(),
            "system": platform.platform(),
        },
        "runs": [_entry(run, out) for run in sweep.runs],
    }


def _entry(run: Run, out: str) -> Dict[str, Any]:
    entry: Dict[str, Any] = {
        "id": run.id,
        "arm": run.arm,
        "seed": run.seed,
        "grid": run.grid,
        "values": run.values,
        "config": "/".join(run.config.split(os.sep)[-2:]),
        "set": run.set,
    }
    folder = os.path.join(out, "runs", run.id)
    with contextlib.suppress(FileNotFoundError), open(os.path.join(folder, RECORD), encoding="utf-8") as f:
        return {**entry, "status": "done", "error": "", **json.load(f)}
    with contextlib.suppress(FileNotFoundError), open(os.path.join(folder, FAILURE), encoding="utf-8") as f:
        return {**entry, "status": "failed", "error": f.read()}
    return {**entry, "status": "waiting", "error": ""}


def processor() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            names = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor()


def gpu_names() -> List[str]:
    """The GPUs' names."""
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
