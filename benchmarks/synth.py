"""Images per second of SynthAG on one core, 128 x 64, with and without the JPEG encoder, CPU time.

    python benchmarks/synth.py
    python benchmarks/synth.py --out benchmarks/results/synth.json

Prints JSON. Every round renders the same 52 pictures: 4 people under all 13 cameras.
"""

import argparse
import io
import json
import os
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "projects" / "VIF"))

import common
import numpy as np


def run(rounds: int) -> dict:
    from PIL import Image
    from vif.data.synth import CAMERAS, render_image, sample_identity

    pictures = [(0, pid, camid) for pid in range(1, 5) for camid in CAMERAS]
    rates = {"render": [], "render and encode": []}
    for round_ in range(rounds + 1):
        for name, values in rates.items():
            sample_identity.cache_clear()
            start = time.process_time()
            for picture in pictures:
                pixels = render_image(*picture)
                if name != "render":
                    Image.fromarray(pixels).save(io.BytesIO(), format="JPEG", quality=92, subsampling=0)
            if round_:  # the first one warms up
                values.append(len(pictures) / (time.process_time() - start))
    return {
        "machine": common.machine(),
        "size": [128, 64],
        "rounds": rounds,
        "pictures_per_round": len(pictures),
        "images_per_second": {
            name: {
                "median": round(float(np.median(values)), 1),
                "quartiles": [round(float(v), 1) for v in np.percentile(values, [25, 75])],
                "best": round(max(values), 1),
            }
            for name, values in rates.items()
        },
        "goal": {"images_per_second": 60, "met": bool(np.median(rates["render and encode"]) >= 60)},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, help="also write the JSON to this file")
    arguments = parser.parse_args()
    result = json.dumps(run(arguments.rounds), indent=2)
    print(result)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(result + "\n", encoding="utf-8")
