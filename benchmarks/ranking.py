"""Ranking against fastreid's two evaluators and against the matrix product alone; memory over gallery size.

    python benchmarks/ranking.py [--quick]

The compiled evaluator of fastreid is built into a temporary folder, which needs Cython and a C compiler;
without them only its Python evaluator is compared. Data: CARGO's sizes, 312 queries and 50,712 gallery images
of 2,500 identities under 13 cameras, features of 768 dimensions with some signal (mAP about 9 %, so that the
hardest match lies far behind) or with much (mAP 100 %).
"""

import importlib.util
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np
import torch
from common import ROOT, compare, main, report

sys.path.insert(0, str(ROOT / "projects" / "VIF"))
QUERIES, GALLERY, DIM, IDENTITIES, CAMERAS = 312, 50_712, 768, 2_500, 13
BLOCK_BYTES = 512 << 20


def labels(rng: np.random.Generator, queries: int, gallery: int) -> Tuple[np.ndarray, ...]:
    """query_pids, gallery_pids, query_camids, gallery_camids."""
    sides = (queries, gallery)
    return (
        *(rng.integers(0, IDENTITIES, n) for n in sides),
        *(rng.integers(0, CAMERAS, n) for n in sides),
    )


def features(rng: np.random.Generator, pids: np.ndarray, dim: int, signal: float) -> np.ndarray:
    """(N, dim) float32, made in place: the memory benchmark measures what comes after."""
    out = rng.standard_normal((len(pids), dim), dtype=np.float32)
    centres = np.random.default_rng(0).standard_normal((IDENTITIES, dim), dtype=np.float32) * np.float32(
        signal
    )
    for start in range(0, len(pids), 1000):
        out[start : start + 1000] += centres[pids[start : start + 1000]]
    return out


def build_compiled(folder: Path) -> Optional[Callable[..., Any]]:
    """fastreid's compiled `evaluate_cy`, built in a copy of its folder; None, and why, if that fails."""
    spec = importlib.util.find_spec("fastreid")
    source = Path(str(spec.origin)).parent / "evaluation" / "rank_cylib"
    copy = folder / "rank_cylib"
    shutil.copytree(source, copy)
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    found = sorted(copy.glob("rank_cy.*.so"))
    if done.returncode or not found:
        print(f"fastreid's compiled evaluator was not built; it is left out.\n{done.stderr[-500:]}")
        return None
    module_spec = importlib.util.spec_from_file_location("rank_cy", found[0])
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module.evaluate_cy


def against_fastreid(quick: bool, folder: Path) -> Dict[str, Any]:
    """Process time on one thread: fastreid's evaluators have one, and other processes do not count."""
    from vif.evaluation import rank_distances  # first: importing vif makes fastreid importable

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastreid.evaluation.rank import evaluate_py

    compiled = build_compiled(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sections: Dict[str, Any] = {}
    rng = np.random.default_rng(1)
    queries = 20 if quick else QUERIES
    names = labels(rng, queries, GALLERY)
    for title, signal in (("some signal", 0.3), ("much signal", 1.0)):
        sides = [torch.from_numpy(features(rng, pids, DIM, signal)) for pids in names[:2]]
        unit = [torch.nn.functional.normalize(side) for side in sides]
        dist = (1 - unit[0] @ unit[1].t()).numpy()
        cases: Dict[str, Callable[[], Any]] = {"vif rank_distances": lambda d=dist: rank_distances(d, *names)}
        if compiled is not None:
            cases["fastreid compiled"] = lambda d=dist: compiled(d, *names, 50)
        key = f"{queries} x {GALLERY} distances, {title}, one thread, speedup of vif over"
        rounds = {"rounds": 2 if quick else 7, "warmup": 1, "clock": time.process_time}
        sections[key] = against(cases, **rounds)
        cases["fastreid Python"] = lambda d=dist: evaluate_py(d, *names, 50, False)
        cases.pop("fastreid compiled", None)
        rounds.update(rounds=1 if quick else 3, warmup=0)
        sections[key]["fastreid Python"] = against(cases, **rounds)["fastreid Python"]
        ours, theirs = rank_distances(dist, *names), evaluate_py(dist, *names, 50, False)
        # fastreid leaves equal distances in any order; here the negative comes first.
        sections[key]["largest difference to fastreid Python"] = {
            "ap": float(np.abs(ours.ap - theirs[1]).max()),
            "inp": float(np.abs(ours.inp - theirs[2]).max()),
        }
    torch.set_num_threads(threads)
    return sections


def against(cases: Dict[str, Callable[[], Any]], **how: Any) -> Dict[str, Any]:
    """`compare`, with the ratio the other way round: how many times faster ours is than each case."""
    rows = compare(cases, baseline="vif rank_distances", **how)
    for row in rows.values():
        row["times_vif"] = 1 / row.pop("speedup")
        row.pop("speedup_iqr")
    return rows


def against_product(quick: bool) -> Dict[str, Any]:
    """Wall time on all threads: `rank_metrics` from features, and the product of the two matrices alone."""
    from vif.evaluation import rank_metrics

    rng = np.random.default_rng(2)
    sections: Dict[str, Any] = {}
    for title, signal in (("some signal", 0.3), ("much signal", 1.0)):
        names = labels(rng, QUERIES, GALLERY)
        query, gallery = (torch.from_numpy(features(rng, pids, DIM, signal)) for pids in names[:2])
        rows = compare(
            {
                "matrix product": lambda q=query, g=gallery: q @ g.t(),
                "vif rank_metrics": lambda q=query, g=gallery, n=names: rank_metrics(q, g, *n),
            },
            baseline="matrix product",
            rounds=3 if quick else 15,
        )
        sections[f"{QUERIES} x {GALLERY} x {DIM} features, {title}, {torch.get_num_threads()} threads"] = rows
    return sections


def peak_kib() -> int:
    """Largest resident size of this process so far. (Linux hands `ru_maxrss` down from parent to child.)"""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def peak_of(gallery: int, dim: int, queries: int) -> Dict[str, float]:
    """In this process: seconds, and by how much memory `rank_metrics` raises the peak."""
    from vif.evaluation import rank_metrics

    rng = np.random.default_rng(3)
    names = labels(rng, queries, gallery)
    query, found = (features(rng, pids, dim, 0.3) for pids in names[:2])
    rank_metrics(query[:500], found[:5000], names[0][:500], names[1][:5000], names[2][:500], names[3][:5000])
    before = peak_kib()
    start = time.perf_counter()
    ranking = rank_metrics(query, found, *names, block_bytes=BLOCK_BYTES)
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "extra_mib": round((peak_kib() - before) / 1024, 1),
        "features_mib": round(found.nbytes / 2**20, 1),
        "distance_matrix_mib": round(4 * queries * gallery / 2**20, 1),
        "mAP": round(ranking.scores()["mAP"], 4),
    }


def memory(quick: bool) -> Dict[str, Any]:
    """Each size in a process of its own, as a peak never falls again."""
    queries = 1_000 if quick else 10_000
    rows = {}
    for gallery in (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000):
        command = [sys.executable, __file__, "--peak-of", str(gallery), "256", str(queries)]
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        rows[f"{queries} x {gallery} x 256"] = json.loads(done.stdout.splitlines()[-1])
    return rows


def run(quick: bool) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        speed = against_fastreid(quick, Path(folder))
    product = against_product(quick)
    peaks = memory(quick)
    goals = []
    for title, rows in speed.items():
        for name, factor in (("fastreid compiled", 10), ("fastreid Python", 200)):
            if name in rows:
                ratio = rows[name]["times_vif"]
                goals.append(
                    {"goal": f"{name} / vif >= {factor} ({title})", "measured": ratio, "met": ratio >= factor}
                )
    for title, rows in product.items():
        ratio = 1 / rows["vif rank_metrics"]["speedup"]
        goals.append(
            {"goal": f"rank_metrics / product <= 1.5 ({title})", "measured": ratio, "met": ratio <= 1.5}
        )
    for title, row in peaks.items():
        extra = row["extra_mib"]
        goals.append({"goal": f"extra memory <= 512 MiB ({title})", "measured": extra, "met": extra <= 512})
    sections = {**speed, **product, "memory, block_bytes 512 MiB": peaks}
    return report("ranking", sections, goals, write=not quick)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak-of"]:
        print(json.dumps(peak_of(*map(int, sys.argv[2:]))))
    else:
        main(run, __doc__.splitlines()[0])
