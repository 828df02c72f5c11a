"""A periodic noise table, made once per process from a fixed seed, and cheap look-ups in it."""

from functools import lru_cache

import numpy as np

SIDE = 256


@lru_cache(maxsize=1)
def table() -> np.ndarray:
    """Three periodic noise fields, float32 (3, SIDE, SIDE), zero mean, unit variance, within [-2.5, 2.5]."""
    rng = np.random.default_rng(np.random.SeedSequence(20250))
    f = np.minimum(np.arange(SIDE), SIDE - np.arange(SIDE))
    radius = np.sqrt(f[:, None] ** 2.0 + f[None, :] ** 2.0)
    out = []
    for _ in range(3):
        white = np.fft.fft2(rng.standard_normal((SIDE, SIDE)))
        smooth = np.fft.ifft2(white * np.exp(-np.square(radius / 26.0)) / (4.0 + radius)).real
        out.append(np.clip(smooth / smooth.std(), -2.5, 2.5))
    return np.stack(out).astype(np.float32)


def noise(u: np.ndarray, v: np.ndarray, field: int) -> np.ndarray:
    """Noise at (u, v), one period of the table per 16 units; nearest neighbour, any shape, float32."""
    scale = np.float32(SIDE / 16.0)
    i = (u * scale).astype(np.int32) & (SIDE - 1)
    j = (v * scale).astype(np.int32) & (SIDE - 1)
    return table().reshape(3, -1)[field].take((i << 8) | j)


@lru_cache(maxsize=1)
def _grains() -> np.ndarray:
    return np.random.default_rng(np.random.SeedSequence(20251)).standard_normal(1 << 18, dtype=np.float32)


def grain(rng: np.random.Generator, count: int) -> np.ndarray:
    """``count`` normal numbers, float32: a random piece of a table where that is long enough."""
    pool = _grains()
    if count > len(pool) // 2:
        return rng.standard_normal(count, dtype=np.float32)
    start = int(rng.integers(len(pool) - count))
    return pool[start : start + count]
