"""Affine round cones: the one primitive of SynthAG, and the rays that look at it.

A round cone is the convex hull of two spheres (radii ``ra`` at the local origin, ``rb`` at height ``length``
on the local z axis); scaling the local axes makes ellipsoids (``length`` 0), flattened capsules and cut
cones of it. Shape letters: P primitives, S visible samples.
"""

from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

Vec = Tuple[float, float, float]
Array = np.ndarray
NO_CUT = (0.0, 0.0, 0.0, 1.0)


class Rays(NamedTuple):
    """Rays of a pixel grid: pixel (x, y) has s = (x - cx) / fx and t = (y - cy) / fy.

    The ray's base point is ``base + spread * (s * right + t * down)``; its direction is ``forward + diverge *
    (s * right + t * down)``. Perspective: spread = distance of the plane through ``base``, diverge = 1;
    parallel light: spread = 1, diverge = 0. The base lies near the body, which keeps float32 exact enough.
    """

    base: Array
    right: Array
    down: Array
    forward: Array
    spread: float
    diverge: float
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int


class Shapes:
    """A list of affine round cones in world coordinates (metres), filled by ``cone`` and ``ball``."""

    def __init__(self) -> None:
        self._rows: List[Tuple[float, ...]] = []
        self._tags: List[Tuple[int, int, int]] = []
        self.frames: List[Tuple[Vec, Sequence[Vec]]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def cone(
        self,
        tags: Tuple[int, int, int],
        a: Vec,
        b: Vec,
        ra: float,
        rb: float,
        side: Vec,
        scale: Tuple[float, float] = (1.0, 1.0),
        cut: Sequence[float] = NO_CUT,
    ) -> None:
        """Add a round cone from ``a`` (radius ``ra``) to ``b`` (``rb``); ``side`` points along its local x.

        ``tags`` are part, material and texture frame. ``scale`` are the factors of the radii along local x
        and y. ``cut`` (nx, ny, nz, c): points with n . q > c, in local coordinates, do not exist; z is a
        fraction of the length there.
        """
        axis = (b[0] - a[0], b[1] - a[1], b[2] - a[2])
        length = (axis[0] ** 2 + axis[1] ** 2 + axis[2] ** 2) ** 0.5
        row = (*a, *axis, *side, length, ra, rb, scale[0], scale[1], 1.0)
        nx, ny, nz, c = cut
        self._rows.append((*row, nx, ny, nz / length, c))
        self._tags.append(tags)

    def ball(
        self,
        tags: Tuple[int, int, int],
        centre: Vec,
        radii: Vec,
        up: Vec,
        side: Vec,
        cut: Sequence[float] = NO_CUT,
    ) -> None:
        """Add an ellipsoid with semi-axes ``radii`` along side, up x side, up; ``cut`` in the unit ball."""
        self._rows.append((*centre, *up, *side, 0.0, 1.0, 1.0, *radii, *cut))
        self._tags.append(tags)

    def pack(self) -> Dict[str, Array]:
        """Arrays over P: matrix (P, 3, 3) world -> local, origin, length, radii, cut, part, material, frame;
        ``bulk`` are those that cast a visible shadow."""
        rows = np.array(self._rows, dtype=np.float64)
        tags = np.array(self._tags, dtype=np.int64)
        z = rows[:, 3:6]
        z = z / np.sqrt((z * z).sum(1, keepdims=True))
        x = rows[:, 6:9]
        x = x - z * (x * z).sum(1, keepdims=True)
        x = x / np.sqrt((x * x).sum(1, keepdims=True))
        y = np.cross(z, x)
        scale = rows[:, 12:15]
        axes = np.stack([x, y, z], axis=1)
        return {
            "origin": rows[:, 0:3],
            "matrix": axes / scale[:, :, None],
            "extent": axes * scale[:, :, None],
            "axis": z,
            "length": rows[:, 9],
            "ra": rows[:, 10],
            "rb": rows[:, 11],
            "cut": rows[:, 15:19],
            "size": scale.min(1),
            "bulk": np.maximum(rows[:, 10], rows[:, 11]) * np.sort(scale, axis=1)[:, 1] > 0.028,
            "part": tags[:, 0],
            "material": tags[:, 1],
            "frame": tags[:, 2],
        }


def bounds(shapes: Dict[str, Array], rays: Rays) -> Array:
    """Screen boxes (P, 4) x0, y0, x1, y1 around the primitives, in pixels, not clipped to the picture."""
    axes = np.stack([rays.right, rays.down, rays.forward])
    first = np.einsum("pk,ak->ap", shapes["origin"] - rays.base, axes)
    second = first + np.einsum("pk,ak->ap", shapes["axis"] * shapes["length"][:, None], axes)
    place = np.stack([first, second], axis=1)  # (axis, end, P)
    reach = np.sqrt(np.square(np.einsum("pik,ak->api", shapes["extent"], axes)).sum(2))
    reach = reach[:, None] * np.stack([shapes["ra"], shapes["rb"]])
    depth = rays.spread + rays.diverge * place[2]
    near = np.maximum(depth - rays.diverge * reach[2], 0.05)
    far = np.maximum(depth + rays.diverge * reach[2], 0.05)
    low, high = place[:2] - reach[:2], place[:2] + reach[:2]
    low = np.minimum(low / near, low / far).min(1)
    high = np.maximum(high / near, high / far).max(1)
    scale, shift = np.array([[rays.fx], [rays.fy]]), np.array([[rays.cx], [rays.cy]])
    return np.concatenate([low * scale + shift, high * scale + shift]).T


class Hits(NamedTuple):
    """Visible samples: pixel index (S,), primitive (S,), depth (S,), and normals, world, 3 x (S,) float32.

    Depth is measured along ``Rays.forward``, m, from the eye or, in parallel light, from ``base``.
    """

    pixel: Array
    primitive: Array
    depth: Array
    normal: List[Array]


def world_points(rays: Rays, pixel: Array, depth: Array) -> List[Array]:
    """World coordinates 3 x (S,) of hits at ``depth`` behind pixels of the grid."""
    f32 = np.float32
    s = ((np.arange(rays.width) + 0.5 - rays.cx) / rays.fx).astype(f32)[pixel % rays.width]
    t = ((np.arange(rays.height) + 0.5 - rays.cy) / rays.fy).astype(f32)[pixel // rays.width]
    if rays.diverge:
        eye = rays.base - rays.spread * rays.forward
        return [f32(eye[k]) + depth * (f32(rays.forward[k]) + f32(rays.right[k]) * s + f32(rays.down[k]) * t)
                for k in range(3)]  # fmt: skip
    return [f32(rays.base[k]) + depth * f32(rays.forward[k]) + f32(rays.right[k]) * s + f32(rays.down[k]) * t
            for k in range(3)]  # fmt: skip
