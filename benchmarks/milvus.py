"""A gallery in a folder and on Milvus Lite, side by side: making it, opening it, searches, disk, memory.

    python benchmarks/milvus.py [--quick] [--rows N ...]

Needs `pip install -r requirements-milvus.txt`, in an environment of its own, without torch. It is Milvus
Lite, a database in the program's own process: nothing here says how fast a Milvus server or cluster is.
Vectors and queries are those of `retrieval.py`, with 10 cameras, half of them aerial.

Searches are whole calls of `gallery.search`, checks and metadata included; memory is the peak of a process
that opens a gallery and searches it (RSS, mapped files included), less that of one that only imports.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict

import numpy as np
from common import ROOT, compare, report
from retrieval import K, crowd

sys.path.insert(0, str(ROOT / "projects" / "VIF"))
ROWS, QUERIES = (10_000, 100_000), 100
PLACES = {"folder": "gallery", "Milvus Lite": "gallery.db"}


def people(vectors: np.ndarray, prefix: str) -> Any:
    """A table of vectors; every camera has a tenth of the images."""
    from vif.features import FeatureTable

    count = np.arange(len(vectors))
    return FeatureTable(
        features=vectors,
        pids=count // 20,
        camids=count % 10,
        views=np.where(count % 2, "ground", "aerial"),
        paths=np.array([f"{prefix}/{i:08d}.jpg" for i in count]),
        splits=np.full(len(count), ""),
        meta={"fingerprint": "benchmark"},
    )


def size_mib(path: str) -> float:
    """Of a file or of all files below a folder."""
    files = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names] or [path]
    return round(sum(map(os.path.getsize, files)) / 2**20, 1)


def peak_mib(uri: str) -> float:
    """Peak memory of a process that opens a gallery and searches it; "" only imports."""
    command = [sys.executable, __file__, "--peak-of", uri]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def peak_of(uri: str) -> None:
    from vif.retrieval import open_gallery

    if uri:
        gallery = open_gallery(uri)
        for _ in range(3):
            gallery.search(np.ones(gallery.dim, dtype=np.float32), K)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure(count: int, rounds: int) -> Dict[str, Any]:
    """Sections of the report for one number of rows."""
    from vif.retrieval import Filter, create_gallery, open_gallery

    vectors, asked = crowd(count, QUERIES)
    table, queries = people(vectors, "gallery"), people(asked, "query")
    filters = {
        "": Filter(),
        ", one view of two": Filter(views=["aerial"]),
        ", one camera of ten": Filter(camids=[3]),
        ", not the query's camera": Filter(other_cameras=True),
    }
    made: Dict[str, Dict[str, float]] = {}
    sections: Dict[str, Any] = {f"{count} rows": made}
    with tempfile.TemporaryDirectory() as folder:
        galleries, least = {}, peak_mib("")
        for place, name in PLACES.items():
            uri = os.path.join(folder, name)
            start = time.perf_counter()
            gallery = create_gallery(uri, table)
            gallery.save()
            spent = time.perf_counter() - start
            getattr(gallery, "close", int)()
            start = time.perf_counter()
            galleries[place] = open_gallery(uri)
            galleries[place].search(asked[:1], K)
            opened = time.perf_counter() - start
            made[place] = {
                "made_s": round(spent, 2),
                "rows_per_s": round(count / spent),
                "opened_and_searched_s": round(opened, 3),
                "disk_mib": size_mib(uri),
                "memory_mib": round(peak_mib(copy_of(uri)) - least, 1),
            }
        exact = galleries["folder"]
        if exact.index.kind != "flat":
            made["folder"]["index"] = exact.index.kind
        for words, where in filters.items():
            for many, call in (("one query", 1), (f"{QUERIES} queries in one call", QUERIES)):
                some = people(asked[:call], "query")
                cases = {
                    place: (lambda gallery=gallery, some=some, where=where: gallery.search(some, K, where))
                    for place, gallery in galleries.items()
                }
                sections[f"{count} rows, {many}{words}"] = compare(cases, "folder", rounds, warmup=1)
        expected = nearest(vectors, asked)
        for place, gallery in galleries.items():
            found = gallery.search(queries, K).ids
            made[place]["recall_at_10"] = float(
                np.mean([np.isin(*ids).mean() for ids in zip(found, expected)])
            )
            getattr(gallery, "close", int)()
    return sections


def copy_of(uri: str) -> str:
    """A gallery that this process has not open."""
    import shutil

    target = f"{uri[:-3]}-copy.db" if uri.endswith(".db") else f"{uri}-copy"
    (shutil.copytree if os.path.isdir(uri) else shutil.copy)(uri, target)
    return target


def nearest(vectors: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """(Q, K) positions of each query's K nearest rows, by brute force."""
    return np.argsort(-(asked @ vectors.T), axis=1)[:, :K]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2,000 rows, one round, no JSON")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help=f"default: {ROWS}; others: no JSON")
    parser.add_argument("--peak-of", metavar="GALLERY", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak_of is not None:
        peak_of(args.peak_of)
        return
    sections: Dict[str, Any] = {}
    for count in [2_000] if args.quick else args.rows:
        sections.update(measure(count, 1 if args.quick else 5))
    report("milvus", sections, [], write=not args.quick and tuple(args.rows) == ROWS)


if __name__ == "__main__":
    main()
