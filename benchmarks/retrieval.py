"""Recall@10 against queries/s of the gallery's index kinds; build time and memory beside it.

    python benchmarks/retrieval.py [--hard] [--quick] [--n N] [--queries Q] [--rounds R] [--keep DIR]

Data: N vectors of 256 dimensions (default 1,000,000), images of N / 20 people: Gaussian centres plus noise,
so that two images of one person have a cosine near 0.74; people have unequally many images (exponential
shares). Queries are further images, of people drawn evenly. The variance falls from dimension to dimension
so that the participation ratio (sum of variances squared over the sum of their squares) is 32: features of
SynthAG's gallery, from the network of configs/SynthAG/vif.yml, have 8 between people and 17 within. `--hard`
takes 173 instead, nearly as many directions as there are dimensions, where neighbours of people with few
images are as good as random and every index struggles. It is synthetic: your own features decide.

What is timed is what a gallery does: candidates from FAISS, then their exact cosines; all queries in one
call, and one query a call; CPU time of one thread, wall time of several. Recall counts rows of the exact
top 10, and rows as near as its last. `--keep` keeps the built indices, and what building took, for another
run. `--quick` and another N or Q than the default write nothing. The plot needs matplotlib.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import numpy as np
from common import ROOT, compare, report

sys.path.insert(0, str(ROOT / "projects" / "VIF"))
N, QUERIES, DIM, K = 1_000_000, 1_000, 256, 10
Search = Callable[[np.ndarray], np.ndarray]  # queries (Q, DIM) -> cosines (Q, K)
PLOTS = ROOT / "docs" / "images"
EFFORTS = {"hnsw": (32, 64, 96, 128, 160, 192, 256), "ivfpq": (16, 32, 64, 128, 256)}


def crowd(count: int, queries: int, hard: bool = False) -> Tuple[np.ndarray, np.ndarray]:
    """Vectors (count, DIM) and queries (queries, DIM) of length 1."""
    rng = np.random.default_rng(0)
    people = max(1, count // 20)
    variance = 1 / (1 + np.arange(DIM) / 32) if hard else np.exp(-np.arange(DIM) / 16)
    spread = np.sqrt(variance).astype(np.float32)
    centres = rng.standard_normal((people, DIM), dtype=np.float32) * spread
    share = rng.exponential(size=people)

    def images(pids: np.ndarray) -> np.ndarray:
        out = np.empty((len(pids), DIM), dtype=np.float32)
        for start in range(0, len(pids), 50_000):
            part = slice(start, start + 50_000)
            out[part] = centres[pids[part]]
            out[part] += rng.standard_normal(out[part].shape, dtype=np.float32) * spread * np.float32(0.6)
            out[part] /= np.linalg.norm(out[part], axis=1, keepdims=True)
        return out

    return images(rng.choice(people, count, p=share / share.sum())), images(rng.integers(0, people, queries))


def build(vectors: np.ndarray, keep: Path) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Searchers by name of their case, and time and memory of each kind; all threads build."""
    import faiss
    from vif.retrieval import HNSW, IVFPQ
    from vif.retrieval.kinds import kind_to_json
    from vif.retrieval.searcher import Searcher

    searchers: Dict[str, Any] = {}
    costs: Dict[str, Any] = {"flat": {"build_s": 0.0, "index_mib": 0.0}}
    for kind, effort in ((HNSW(), "ef_search"), (IVFPQ(), "probes")):
        file, cost = (keep / f"{kind.kind}-{len(vectors)}.{ending}" for ending in ("faiss", "json"))
        kept = json.loads(cost.read_text(encoding="utf-8")) if cost.exists() else {}
        if kept.get("parameters") != kind_to_json(kind):
            start, load = time.perf_counter(), os.getloadavg()[0]
            index = kind.build(vectors)
            seconds = time.perf_counter() - start
            faiss.write_index(index, str(file))
            found = {
                "build_s": round(seconds, 1),
                "load_before": round(load, 2),
                "index_mib": round(file.stat().st_size / 2**20, 1),
                "parameters": kind_to_json(kind),
            }
            cost.write_text(json.dumps(found), encoding="utf-8")
            print(kind.kind, found, flush=True)
        index = faiss.read_index(str(file))
        costs[kind.kind] = json.loads(cost.read_text(encoding="utf-8"))
        for value in EFFORTS[kind.kind]:
            searchers[f"{kind.kind} {effort} {value}"] = Searcher(
                replace(kind, **{effort: value}), index, vectors
            )
    return searchers, costs


def recall(scores: np.ndarray, expected: np.ndarray) -> float:
    """Share of the K places whose cosine is at least that of the exact K-th neighbour: ties count."""
    return float((scores >= expected[:, -1:]).mean())


def measure(vectors: np.ndarray, asked: np.ndarray, rounds: int, keep: Path) -> Tuple[Dict[str, Any], list]:
    """Sections and goals of the report."""
    from threadpoolctl import threadpool_limits
    from vif.retrieval.exact import exact_search, import_faiss

    ids = np.arange(len(vectors))
    searchers, costs = build(vectors, keep)
    found: Dict[str, Search] = {"flat": lambda queries: exact_search(queries, vectors, ids, K)[0]}
    for name, searcher in searchers.items():
        found[name] = lambda queries, searcher=searcher: searcher.search(queries, vectors, ids, K, None)[0]
    expected = found["flat"](asked)
    recalls = {name: round(recall(search(asked), expected), 5) for name, search in found.items()}
    sections: Dict[str, Any] = {
        "memory beside the vectors, build time": costs,
        "vectors_mib": round(vectors.nbytes / 2**20, 1),
    }
    goals = []
    together = {name: partial(search, asked) for name, search in found.items()}
    alone = {name: _in_turn(search, asked) for name, search in found.items()}
    ways = (
        (f"{len(asked)} queries in one call", together, len(asked), {}),
        ("one query a call", alone, 1, dict.fromkeys(searchers, 20)),
    )
    for threads in dict.fromkeys((1, os.cpu_count() or 1)):
        clock = time.process_time if threads == 1 else time.perf_counter
        for way, cases, queries, calls in ways:
            with threadpool_limits(threads):
                import_faiss().omp_set_num_threads(threads)
                rows = compare(cases, "flat", rounds, calls, warmup=1, clock=clock)
            for name, row in rows.items():
                row["queries_per_s"] = round(queries / row["median_s"], 1)
                row["recall_at_10"] = recalls[name]
            title = f"{len(vectors)} x {DIM}, {way}, {threads} thread{'s' * (threads > 1)}"
            sections[title] = rows
            near = [
                row["speedup"] for name, row in rows.items() if name in searchers and recalls[name] >= 0.99
            ]
            best = max(near, default=0.0)
            goal = f"queries/s over flat at recall >= 0.99 >= 10: {title}"
            goals.append({"goal": goal, "measured": best, "met": best >= 10})
    return sections, goals


def _in_turn(search: Search, asked: np.ndarray) -> Callable[[], np.ndarray]:
    """Searches for one query, the next one at each call."""
    turn = itertools.cycle(range(len(asked)))

    def one() -> np.ndarray:
        start = next(turn)
        return search(asked[start : start + 1])

    return one


def plot(sections: Dict[str, Any], path: str) -> None:
    """Recall against queries/s, a panel for each number of threads."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = {title: rows for title, rows in sections.items() if "thread" in title}
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 4), sharey=True, squeeze=False)
    for axis, (title, rows) in zip(axes[0], panels.items()):
        for kind, mark in (("flat", "s"), ("hnsw", "o-"), ("ivfpq", "^-")):
            points = [row for name, row in rows.items() if name.split()[0] == kind]
            x, y = ([point[key] for point in points] for key in ("recall_at_10", "queries_per_s"))
            axis.plot(x, y, mark, label=kind)
        axis.axvline(0.99, color="grey", linewidth=0.8, linestyle=":")
        axis.set(title=title.split(", ", 1)[1], xlabel="recall@10 of exact search", yscale="log")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("queries/s")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20,000 vectors, one round, no JSON")
    parser.add_argument(
        "--n", type=int, default=N, help=f"vectors (default {N}); another number writes no JSON"
    )
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--keep", metavar="DIR", help="indices built there before are not built again")
    parser.add_argument("--hard", action="store_true", help="vectors of as many directions as dimensions")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", metavar="FILE", help="write the plot there (default: docs/images)")
    args = parser.parse_args()
    count = 20_000 if args.quick else args.n
    name = "retrieval_hard" if args.hard else "retrieval"
    with tempfile.TemporaryDirectory() as temporary:
        keep = Path(args.keep or temporary) / name
        keep.mkdir(parents=True, exist_ok=True)
        data = crowd(count, args.queries, args.hard)
        sections, goals = measure(*data, 1 if args.quick else args.rounds, keep)
    write = (count, args.queries) == (N, QUERIES)
    met = report(name, sections, goals, write=write)
    for title, rows in sections.items():
        if "thread" in title:
            print(title)
            for case, row in rows.items():
                print(f"  {case:<18} recall {row['recall_at_10']:.4f}  {row['queries_per_s']:>10,.0f}/s")
    if args.plot or write:
        plot(sections, args.plot or str(PLOTS / f"{name}.png"))
    sys.exit(0 if met or not write else 1)


if __name__ == "__main__":
    main()
