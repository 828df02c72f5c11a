"""Feature tables of clustered people, and a naive search to compare with."""

import numpy as np
from vif.features import FeatureTable

FINGERPRINT = "0123456789abcdef"


def people(count, seed=0, dim=16, prefix="a", identities=20, meta=None):
    """`count` images of people around identity centres; 4 cameras, the first two aerial."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((identities, dim))
    pids = rng.integers(0, identities, count)
    camids = rng.integers(0, 4, count)
    return FeatureTable(
        features=(centres[pids] + 0.5 * rng.standard_normal((count, dim))).astype(np.float32),
        pids=pids,
        camids=camids,
        views=np.where(camids < 2, "aerial", "ground"),
        paths=np.array([f"{prefix}/{index}.jpg" for index in range(count)], dtype=np.str_),
        splits=np.full(count, "gallery"),
        meta={"fingerprint": FINGERPRINT} if meta is None else meta,
    )


def unit(vectors):
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def naive_search(query, rows, k):
    """[(distance, id)] of a dict id -> (vector, ...), nearest first, equal distances by id; float64."""
    found = []
    for id_, (vector, *_) in rows.items():
        found.append((1 - float(unit(query) @ unit(vector)), id_))
    return sorted(found)[:k]


def assert_same_neighbours(found, query, expected, tolerance=2e-6):
    """Equal distances place by place, and equal ids within groups of (nearly) equal distances."""
    ids = found.ids[query][found.ids[query] >= 0].tolist()
    distances = found.distances[query][: len(ids)]
    np.testing.assert_allclose(distances, [d for d, _ in expected], atol=tolerance)
    assert len(set(ids)) == len(ids)
    by_id = {id_: d for d, id_ in expected}
    last = expected[-1][0] if expected else 0
    for id_, distance in zip(ids, distances):  # beyond the last distance, a tie may bring another row
        assert abs(by_id.get(id_, last) - distance) < tolerance
