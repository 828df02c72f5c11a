"""A map of the features: two coordinates an image, by t-SNE or PCA."""

from typing import NamedTuple, Tuple

import numpy as np

from ..errors import ConfigError

METHODS = ("tsne", "pca")
IDENTITIES = 12
SAMPLE = 1500


class FeatureMap(NamedTuple):
    """Attributes:
    rows: (M,) int64 of the table, ascending.
    points: (M, 2) float64.
    identities: (K,) int64, those to colour.
    """

    rows: np.ndarray
    points: np.ndarray
    identities: np.ndarray


def map_features(
    features: np.ndarray,
    pids: np.ndarray,
    views: np.ndarray,
    method: str = "tsne",
    seed: int = 0,
    sample: int = SAMPLE,
) -> FeatureMap:
    """Features of length 1 in two dimensions; equal arguments give equal maps.

    The sample holds the images of `IDENTITIES` identities (drawn among those seen in every view where there
    are enough, with at least three images) and others, drawn until it is full.

    Args:
        features: (N, D).
        pids: (N,); negative ones are not coloured.
        views: (N,).
        method: of `METHODS`, both of scikit-learn.
        seed: of the draw and the method.
        sample: most images.

    Raises:
        ConfigError: unknown method.
    """
    if method not in METHODS:
        raise ConfigError(f"--map {method}: choose {' or '.join(METHODS)}.")
    rng = np.random.default_rng(seed)
    identities = _identities(pids, views, rng)
    chosen = np.flatnonzero(np.isin(pids, identities))
    if len(chosen) > sample // 2:
        chosen = rng.choice(chosen, sample // 2, replace=False)
    others = np.setdiff1d(np.arange(len(pids)), chosen)
    more = rng.choice(others, min(len(others), sample - len(chosen)), replace=False)
    rows = np.sort(np.concatenate([chosen, more])).astype(np.int64)
    unit = features[rows] / np.maximum(np.linalg.norm(features[rows], axis=1, keepdims=True), 1e-12)
    return FeatureMap(rows, _reduce(unit, method, seed), identities)


def _identities(pids: np.ndarray, views: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    names, counts = np.unique(pids[pids >= 0], return_counts=True)
    some = names[counts >= 3] if (counts >= 3).any() else names
    everywhere = some[np.isin(some, _seen_everywhere(pids, views))]
    pool = everywhere if len(everywhere) >= min(IDENTITIES, len(some)) else some
    return np.sort(rng.choice(pool, min(IDENTITIES, len(pool)), replace=False))


def _seen_everywhere(pids: np.ndarray, views: np.ndarray) -> np.ndarray:
    found = [set(pids[views == view].tolist()) for view in np.unique(views)]
    return np.array(sorted(set.intersection(*found)), dtype=np.int64)


def _reduce(unit: np.ndarray, method: str, seed: int) -> np.ndarray:
    count = len(unit)
    if count < 4 or np.ptp(unit, axis=0).max() == 0:
        return np.zeros((count, 2))
    unit = unit.astype(np.float64)
    if method == "pca":
        from sklearn.decomposition import PCA

        return _two(PCA(n_components=min(2, unit.shape[1]), random_state=seed).fit_transform(unit))
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (count - 1) / 3)
    start = "pca" if unit.shape[1] >= 2 else "random"
    return _two(TSNE(2, perplexity=perplexity, init=start, random_state=seed, n_jobs=1).fit_transform(unit))


def _two(points: np.ndarray) -> np.ndarray:
    missing = 2 - points.shape[1]
    result: Tuple[Tuple[int, int], Tuple[int, int]] = ((0, 0), (0, missing))
    return np.pad(points, result).astype(np.float64)
