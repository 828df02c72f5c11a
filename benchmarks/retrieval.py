"""Recall@10 against queries/s of the gallery's index kinds; build time and memory beside it.

    python benchmarks/retrieval.py [--quick] [--n N] [--queries Q]

Data: N vectors of 256 dimensions (default 1,000,000), images of N / 20 people: centres whose variance falls
from dimension to dimension, as that of a trained network's features does, plus noise, so that two images of
one person have a cosine near 0.74; people have unequally many images (exponential shares). Queries are
further images, of people drawn evenly. It is synthetic: recall on your own features may differ.

What is timed is what a gallery does: candidates from FAISS, then their exact cosines; all queries in one
call. Recall counts rows of the exact top 10, and rows as near as its last. `--quick` and another N or Q
than the default write nothing. The plot needs matplotlib.
"""

import argparse
import os
import sys
import time
from dataclasses import replace
from typing import Any, Callable, Dict, Tuple

import numpy as np
from common import RESULTS, ROOT, compare, report

sys.path.insert(0, str(ROOT / "projects" / "VIF"))
N, QUERIES, DIM, K = 1_000_000, 1_000, 256, 10
EFFORTS = {"hnsw": (16, 32, 64, 128, 256, 512), "ivfpq": (4, 8, 16, 32, 64, 128)}


def crowd(count: int, queries: int) -> Tuple[np.ndarray, np.ndarray]:
    """Vectors (count, DIM) and queries (queries, DIM) of length 1."""
    rng = np.random.default_rng(0)
    people = max(1, count // 20)
    spread = (1 / np.sqrt(1 + np.arange(DIM) / 32)).astype(np.float32)
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


def build(vectors: np.ndarray) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Searchers by name of their case, and time and memory of each kind; all threads build."""
    import faiss
    from vif.retrieval import HNSW, IVFPQ
    from vif.retrieval.index import Searcher

    searchers: Dict[str, Any] = {}
    costs: Dict[str, Any] = {"flat": {"build_s": 0.0, "index_mib": 0.0}}
    for kind, effort in ((HNSW(), "ef_search"), (IVFPQ(), "probes")):
        start = time.perf_counter()
        index = kind.build(vectors)
        seconds = time.perf_counter() - start
        size = faiss.serialize_index(index).nbytes
        costs[kind.kind] = {"build_s": round(seconds, 1), "index_mib": round(size / 2**20, 1)}
        for value in EFFORTS[kind.kind]:
            searchers[f"{kind.kind} {effort} {value}"] = Searcher(
                replace(kind, **{effort: value}), index, vectors
            )
    return searchers, costs


def recall(scores: np.ndarray, expected: np.ndarray) -> float:
    """Share of the K places whose cosine is at least that of the exact K-th neighbour: ties count."""
    return float((scores >= expected[:, -1:]).mean())


def measure(count: int, queries: int, rounds: int) -> Tuple[Dict[str, Any], list]:
    """Sections and goals of the report."""
    from threadpoolctl import threadpool_limits
    from vif.retrieval.exact import exact_search, import_faiss

    vectors, asked = crowd(count, queries)
    ids = np.arange(count)
    searchers, costs = build(vectors)
    expected = exact_search(asked, vectors, ids, K)[0]
    cases: Dict[str, Callable[[], Any]] = {"flat": lambda: exact_search(asked, vectors, ids, K)}
    for name, searcher in searchers.items():
        cases[name] = lambda searcher=searcher: searcher.search(asked, vectors, ids, K, None)
    recalls = {name: recall(case()[0], expected) for name, case in cases.items()}
    sections: Dict[str, Any] = {"memory beside the vectors, build time": costs}
    sections["vectors_mib"] = round(vectors.nbytes / 2**20, 1)
    goals = []
    faiss = import_faiss()
    for threads in dict.fromkeys((1, os.cpu_count() or 1)):
        with threadpool_limits(threads):
            faiss.omp_set_num_threads(threads)
            rows = compare(cases, baseline="flat", rounds=rounds, warmup=1)
        for name, row in rows.items():
            row["queries_per_s"] = round(queries / row["median_s"], 1)
            row["recall_at_10"] = round(recalls[name], 5)
        title = f"{queries} queries x {count} x {DIM}, {threads} thread{'s' * (threads > 1)}"
        sections[title] = rows
        best = max(
            (row["speedup"] for name, row in rows.items() if name != "flat" and recalls[name] >= 0.99),
            default=0.0,
        )
        goals.append(
            {
                "goal": f"queries/s over flat at recall >= 0.99 >= 10, {title}",
                "measured": best,
                "met": best >= 10,
            }
        )
    return sections, goals


def plot(sections: Dict[str, Any], path: str) -> None:
    """Recall against queries/s, a panel for each number of threads."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = {title: rows for title, rows in sections.items() if "thread" in title}
    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 4), sharey=True, squeeze=False)
    for axis, (title, rows) in zip(axes[0], panels.items()):
        for kind, mark in (("flat", "s"), ("hnsw", "o-"), ("ivfpq", "^-")):
            points = [row for name, row in rows.items() if name.split()[0] == kind]
            x, y = ([point[key] for point in points] for key in ("recall_at_10", "queries_per_s"))
            axis.plot(x, y, mark, label=kind)
        axis.axvline(0.99, color="grey", linewidth=0.8, linestyle=":")
        axis.set(title=title, xlabel="recall@10 of exact search", yscale="log")
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
    parser.add_argument("--plot", metavar="FILE", help="write the plot there (default: beside the JSON)")
    args = parser.parse_args()
    count = 20_000 if args.quick else args.n
    sections, goals = measure(count, args.queries, rounds=1 if args.quick else 5)
    write = (count, args.queries) == (N, QUERIES)
    met = report("retrieval", sections, goals, write=write)
    for title, rows in sections.items():
        if "thread" in title:
            for name, row in rows.items():
                print(
                    f"{title}: {name:<18} recall {row['recall_at_10']:.4f}  {row['queries_per_s']:>10,.0f}/s"
                )
    if args.plot or write:
        plot(sections, args.plot or str(RESULTS / "retrieval.png"))
    sys.exit(0 if met or not write else 1)


if __name__ == "__main__":
    main()
