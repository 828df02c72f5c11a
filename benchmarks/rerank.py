"""Re-ranking against fastreid's dense formulation, and at CARGO's size: time and memory.

    python benchmarks/rerank.py [--quick]

fastreid's formulation needs several N x N matrices and loops over images; it is compared at 2,000 images,
with its search on the CPU. CARGO's test set has 51,024 images, here of 768 dimensions; the neighbour search
counts.
"""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict

import numpy as np
import torch
from common import compare, main, report
from ranking import IDENTITIES, features, peak_kib

QUERIES, DIM = 312, 768


def images(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return features(rng, rng.integers(0, min(IDENTITIES, count // 20), count), DIM, 0.3)


def against_fastreid(count: int, rounds: int) -> Dict[str, Any]:
    """Process time on one thread: what other processes take does not count."""
    import faiss
    from vif.evaluation.rerank import rerank_distances  # first: importing vif makes fastreid importable

    compute_jaccard_distance = importlib.import_module("fastreid.utils.compute_dist").compute_jaccard_distance
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    found = images(count)
    unit = torch.nn.functional.normalize(torch.from_numpy(found))

    def theirs() -> np.ndarray:
        jaccard = compute_jaccard_distance(unit, k1=20, k2=6, search_option=3)[:QUERIES, QUERIES:]
        return 0.7 * jaccard + 0.3 * (1 - unit[:QUERIES] @ unit[QUERIES:].t()).numpy()

    rows: Dict[str, Any] = compare(
        {"fastreid": theirs, "vif": lambda: rerank_distances(found[:QUERIES], found[QUERIES:])},
        baseline="fastreid",
        rounds=rounds,
        warmup=1,
        clock=time.process_time,
    )
    difference = np.abs(theirs() - rerank_distances(found[:QUERIES], found[QUERIES:])).max()
    rows["largest difference"] = {"distance": float(difference)}
    return rows


def whole(count: int) -> Dict[str, float]:
    """In this process: time and memory of the whole test set."""
    from vif.evaluation.rerank import rerank_distances

    found = images(count)
    before, start, cpu = peak_kib(), time.perf_counter(), time.process_time()
    rerank_distances(found[:QUERIES], found[QUERIES:])
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "extra_mib": round((peak_kib() - before) / 1024, 1),
        "process_peak_mib": round(peak_kib() / 1024, 1),
    }


def run(quick: bool) -> bool:
    small, large = (500, 5_000) if quick else (2_000, 51_024)
    rows = against_fastreid(small, 1 if quick else 5)
    command = [sys.executable, __file__, "--whole", str(large)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    size = json.loads(done.stdout.splitlines()[-1])
    difference, seconds, peak = (
        rows["largest difference"]["distance"],
        size["seconds"],
        size["process_peak_mib"],
    )
    goals = [
        {"goal": "largest difference to fastreid <= 1e-5", "measured": difference, "met": difference <= 1e-5},
        {"goal": f"{large} x {DIM} within 120 s", "measured": seconds, "met": seconds <= 120},
        {"goal": f"{large} x {DIM} within 2048 MiB", "measured": peak, "met": peak <= 2048},
    ]
    sections = {f"{small} images, one thread": rows, "time and memory": {f"{large} x {DIM}": size}}
    return report("rerank", sections, goals, write=not quick)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--whole"]:
        print(json.dumps(whole(int(sys.argv[2]))))
    else:
        main(run, __doc__.splitlines()[0])
