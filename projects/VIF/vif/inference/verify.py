"""What an exported file is worth: its features against the network's, and what it loses in retrieval.

A backend takes uint8 images (B, H, W, 3) and gives features (B, D), see `vif.inference.backends`.
"""

from typing import Any, Callable, Dict, Optional, Sequence

import numpy as np

from ..evaluation.evaluate import evaluate_table
from ..evaluation.protocols import Protocol
from ..features import FeatureTable

THRESHOLD = 0.9999  # least cosine of an image's features in full precision
BATCHES = (1, 2, 7)
Backend = Callable[[np.ndarray], np.ndarray]


def probes(height: int, width: int, count: int = sum(BATCHES), seed: int = 0) -> np.ndarray:
    """Images (count, height, width, 3) uint8 that differ as photos do: coarse colours, contrast and noise."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 256, (count, 8, 4, 3))
    rows, columns = (np.arange(n) * cells.shape[axis] // n for axis, n in ((1, height), (2, width)))
    coarse = cells[:, rows][:, :, columns] * rng.uniform(0.3, 1.0, (count, 1, 1, 1))
    noisy = coarse + rng.normal(0, 12, (count, height, width, 3))
    return np.asarray(np.clip(noisy, 0, 255).astype(np.uint8))


def agreement(expected: np.ndarray, found: np.ndarray) -> Dict[str, float]:
    """Cosines between rows of two (B, D) arrays, and their largest difference.

    Returns:
        ``cosine_min``, ``cosine_mean`` and ``max_abs_difference``; NaN where a feature is no number.
    """
    a, b = expected.astype(np.float64), found.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (a * b).sum(axis=1) / lengths
        return {
            "cosine_min": float(cosines.min()),
            "cosine_mean": float(cosines.mean()),
            "max_abs_difference": float(np.abs(a - b).max()),
        }


def verify(
    backend: Backend, images: np.ndarray, expected: np.ndarray, threshold: Optional[float] = THRESHOLD
) -> Dict[str, Any]:
    """Run a file on batches of `BATCHES` images and compare with the network.

    Args:
        backend: the file, opened.
        images: uint8 (sum(BATCHES), H, W, 3).
        expected: the network's features of these, (sum(BATCHES), D).
        threshold: least cosine that passes; None: any number passes (variants, whose loss is measured).

    Returns:
        ``passed``, ``threshold`` and ``batches``: for each batch size `agreement`, or ``error``.
    """
    batches: Dict[str, Dict[str, Any]] = {}
    passed, start = True, 0
    for size in BATCHES:
        rows = slice(start, start + size)
        start += size
        try:
            found = backend(images[rows])
        except Exception as error:  # of onnxruntime or torch, of any kind
            batches[str(size)] = {"error": f"{type(error).__name__}: {error}"}
            passed = False
            continue
        if found.shape != expected[rows].shape:
            batches[str(size)] = {"error": f"gave {found.shape}, expected {expected[rows].shape}"}
            passed = False
            continue
        numbers = agreement(expected[rows], found)
        lowest = numbers["cosine_min"]
        passed = passed and bool(np.isfinite(lowest)) and (threshold is None or lowest >= threshold)
        batches[str(size)] = {k: v if np.isfinite(v) else str(v) for k, v in numbers.items()}
    return {"passed": passed, "threshold": threshold, "batches": batches}


def retrieval_loss(
    full: FeatureTable, variant: FeatureTable, protocols: Sequence[Protocol]
) -> Dict[str, Any]:
    """What a variant's features of the same images lose against full precision.

    Args:
        full, variant: tables with the same rows.
        protocols: to score by cosine; none where the images have no labels.

    Returns:
        ``images``, ``cosine_min``, ``cosine_mean`` and ``protocols``: by name the scores of
        ``full_precision`` and ``variant``, and their ``difference`` in points of percent.
    """
    scores: Dict[str, Dict[str, Dict[str, float]]] = {}
    for protocol in protocols:
        a, b = (evaluate_table(table, protocol).scores() for table in (full, variant))
        difference = {name: b[name] - a[name] for name in ("Rank-1", "mAP", "mINP")}
        scores[protocol.name] = {"full_precision": a, "variant": b, "difference": difference}
    numbers = agreement(full.features, variant.features)
    del numbers["max_abs_difference"]
    return {"images": len(full), **numbers, "protocols": scores}
