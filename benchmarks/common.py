"""What every benchmark needs: interleaved timing, the machine's description, JSON under benchmarks/results.

Cases are timed in turns within one run, in an order drawn anew for each round, so that whatever else the
machine does, and what a case leaves behind, hits all of them alike; a ratio is taken within each round, and
its median over rounds is what is reported.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = (
    "numpy",
    "torch",
    "torchvision",
    "opencv-python",
    "opencv-python-headless",
    "pillow",
    "fastreid",
    "faiss-cpu",
    "faiss-gpu",
    "pymilvus",
    "milvus-lite",
    "onnx",
    "onnxruntime",
)


def one_thread() -> None:
    """numpy, torch and OpenCV on one thread; call before the first measurement."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def machine() -> Dict[str, Any]:
    """CPU, cores, load, versions and commit, as far as they can be known."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version(name))},
        "commit": _git("rev-parse", "--short", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "projects", "benchmarks/*.py")),
        "date": date.today().isoformat(),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> Optional[str]:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*command: str) -> str:
    done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def compare(
    cases: Dict[str, Callable[[], Any]],
    baseline: str,
    rounds: int = 30,
    calls: Optional[Dict[str, int]] = None,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
    rest: float = 0.0,
) -> Dict[str, Dict[str, float]]:
    """Time cases in turns.

    Args:
        cases: name -> function without arguments.
        baseline: the case that ratios refer to.
        rounds: measurements of each case.
        calls: calls per measurement, 1 where a case is not named.
        warmup: rounds that are not counted.
        clock: `time.process_time` for single-threaded work: what other processes take does not count.
        rest: seconds of sleep before each measurement, where libraries' threads spin on after a call.

    Returns:
        name -> ``median_s``, ``iqr_s`` (seconds per call), ``speedup`` (baseline's time / this case's, median
        over rounds; > 1 is faster), ``speedup_iqr`` and ``rounds``.
    """
    calls = calls or {}
    seconds: Dict[str, list] = {name: [] for name in cases}
    order = np.random.default_rng(0)
    for round_ in range(warmup + rounds):
        for name in order.permutation(list(cases)).tolist():
            repeat = calls.get(name, 1)
            time.sleep(rest)
            start = clock()
            for _ in range(repeat):
                cases[name]()
            spent = (clock() - start) / repeat
            if round_ >= warmup:
                seconds[name].append(spent)
    return {
        name: {
            "median_s": float(np.median(values)),
            "iqr_s": _iqr(values),
            "speedup": float(np.median(np.divide(seconds[baseline], values))),
            "speedup_iqr": _iqr(np.divide(seconds[baseline], values)),
            "rounds": rounds,
        }
        for name, values in seconds.items()
    }


def _iqr(values: Sequence[float]) -> float:
    low, high = np.percentile(values, [25, 75])
    return float(high - low)


def report(name: str, sections: Dict[str, Any], goals: Sequence[Dict[str, Any]], write: bool = True) -> bool:
    """Print a table, write benchmarks/results/<name>.json; whether all goals are met.

    Args:
        name: file name without suffix.
        sections: title -> result of `compare`, or any JSON value.
        goals: dicts with ``goal`` (text), ``measured`` (number) and ``met`` (bool).
        write: False leaves the committed JSON alone.
    """
    for title, section in sections.items():
        print(f"\n{title}")
        if not (isinstance(section, dict) and all(isinstance(row, dict) for row in section.values())):
            print(f"  {section}")
            continue
        for case, row in section.items():
            if "median_s" in row:
                ratio = (
                    f"speedup {row['speedup']:6.2f} (IQR {row['speedup_iqr']:.2f})"
                    if "speedup" in row
                    else ""
                )
                print(f"  {case:<44} {row['median_s'] * 1e3:9.3f} ms (IQR {row['iqr_s'] * 1e3:.3f})  {ratio}")
            else:
                print(f"  {case:<44} {row}")
    print()
    for goal in goals:
        print(f"{'met   ' if goal['met'] else 'MISSED'} {goal['goal']}: {goal['measured']:.2f}")
    if write:
        RESULTS.mkdir(exist_ok=True)
        content = {"machine": machine(), "goals": list(goals), "results": sections}
        (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return all(goal["met"] for goal in goals)


def main(run: Callable[[bool], bool], description: str) -> None:
    """Command line of a benchmark: ``--quick`` runs a few rounds and writes nothing.

    Args:
        run: takes `quick`, returns whether all goals are met; a missed goal is exit status 1.
        description: for ``--help``.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a few rounds, no JSON: does it run at all")
    quick = parser.parse_args().quick
    met = run(quick)
    sys.exit(0 if met or quick else 1)
