"""Shadows: the body seen from the light, and look-ups of what it hides."""

import math
from typing import Dict, Tuple

import numpy as np

from vif.data.synth.cast import cast
from vif.data.synth.scene import Light
from vif.data.synth.shapes import Array, Rays

_MAP, _REACH = 72, 1.25  # cells and half the map's size in m


def _shadow_rays(light: Light) -> Rays:
    forward = -light.towards
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right = right / math.sqrt(float((right * right).sum()))
    down = np.cross(forward, right)
    f = _MAP / (2 * _REACH)
    return Rays(
        np.array([0.0, 0.0, 0.9]), right, down, forward, 1.0, 0.0, f, f, _MAP / 2, _MAP / 2, _MAP, _MAP
    )


class ShadowMap:
    """The body as the light sees it, at 3.5 cm per cell: what lies in its shadow."""

    def __init__(self, shapes: Dict[str, Array], light: Light) -> None:
        self.rays = _shadow_rays(light)
        hits = cast({name: value[shapes["bulk"]] for name, value in shapes.items()}, self.rays)
        self.depth = np.full(_MAP * _MAP, np.float32(np.inf))
        self.depth[hits.pixel] = hits.depth
        cover = np.zeros((_MAP, _MAP), dtype=np.float32)
        cover.ravel()[hits.pixel] = 1
        for axis in (0, 1):
            cover = (np.roll(cover, 1, axis) + np.roll(cover, -1, axis) + 2 * cover) * np.float32(0.25)
        cover[[0, -1]] = 0
        cover[:, [0, -1]] = 0
        self.cover = cover.ravel()

    def _cell(self, point: Tuple[Array, ...]) -> Array:
        f32 = np.float32
        r = self.rays
        rel = [point[k] - f32(r.base[k]) for k in range(3)]
        i = (rel[0] * f32(r.right[0]) + rel[1] * f32(r.right[1]) + rel[2] * f32(r.right[2])) * f32(
            r.fx
        ) + f32(r.cx)
        j = (rel[0] * f32(r.down[0]) + rel[1] * f32(r.down[1]) + rel[2] * f32(r.down[2])) * f32(r.fy) + f32(
            r.cy
        )
        np.clip(i, 0, _MAP - 1, out=i)
        np.clip(j, 0, _MAP - 1, out=j)
        return j.astype(np.int32) * np.int32(_MAP) + i.astype(np.int32)

    def on_body(self, point: Tuple[Array, ...]) -> Array:
        """Share of the direct light that reaches points of the body (S,)."""
        f = self.rays.forward
        deep = (
            point[0] * np.float32(f[0])
            + point[1] * np.float32(f[1])
            + (point[2] - np.float32(0.9)) * np.float32(f[2])
        )
        return (deep < self.depth[self._cell(point)] + np.float32(0.055)).astype(np.float32)

    def on_ground(self, point: Tuple[Array, ...]) -> Array:
        """Share of the direct light that reaches points of the surroundings (N,)."""
        return 1 - self.cover[self._cell(point)]
