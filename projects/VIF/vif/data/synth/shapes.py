"""Affine round cones: the one primitive of SynthAG, and a vectorised ray caster for many of them.

A round cone is the convex hull of two spheres (radii ``ra`` at the local origin, ``rb`` at height ``length``
on the local z axis); scaling the local axes makes ellipsoids (``length`` 0), flattened capsules and cut
cones of it. Shape letters: P primitives, R (primitive, pixel) pairs, S visible samples.
The quadratic is the usual one of a cone tangent to both spheres (Quilez, "rounded cone - intersection").
"""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

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
        self, tags: Tuple[int, int, int], centre: Vec, radii: Vec, up: Vec, side: Vec, cut: Sequence[float] = NO_CUT
    ) -> None:
        """Add an ellipsoid with semi-axes ``radii`` along side, up x side and up; ``cut`` in unit-ball space."""
        self._rows.append((*centre, *up, *side, 0.0, 1.0, 1.0, *radii, *cut))
        self._tags.append(tags)

    def pack(self) -> Dict[str, Array]:
        """Arrays over P: matrix (P, 3, 3) world -> local, origin, length, radii, cut, part, material, frame."""
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
            "part": tags[:, 0],
            "material": tags[:, 1],
            "frame": tags[:, 2],
        }


def bounds(shapes: Dict[str, Array], rays: Rays) -> Array:
    """Screen boxes (P, 4) x0, y0, x1, y1 of the primitives, in pixels, not clipped to the picture."""
    low = np.full((len(shapes["length"]), 2), np.inf)
    high = -low
    deep = np.sqrt(((shapes["extent"] * rays.forward).sum(2) ** 2).sum(1))
    ends = ((shapes["origin"], shapes["ra"]), (shapes["origin"] + shapes["axis"] * shapes["length"][:, None], shapes["rb"]))
    for column, (axis, f, c) in enumerate(((rays.right, rays.fx, rays.cx), (rays.down, rays.fy, rays.cy))):
        wide = np.sqrt(((shapes["extent"] * axis).sum(2) ** 2).sum(1))
        for end, radius in ends:
            middle = ((end - rays.base) * axis).sum(1)
            depth = rays.spread + rays.diverge * ((end - rays.base) * rays.forward).sum(1)
            for sign in (-1.0, 1.0):
                z = np.maximum(depth + sign * rays.diverge * deep * radius, 0.05)
                low[:, column] = np.minimum(low[:, column], (middle - wide * radius) / z * f + c)
                high[:, column] = np.maximum(high[:, column], (middle + wide * radius) / z * f + c)
    return np.concatenate([low, high], axis=1)


class Hits(NamedTuple):
    """Visible samples: pixel index (S,), primitive (S,), depth along the ray (S,), normals 3 x (S,) world."""

    pixel: Array
    primitive: Array
    depth: Array
    normal: Tuple[Array, Array, Array]


def _pairs(boxes: Array, width: int, height: int, margin: float) -> Tuple[Array, Array, Array]:
    """Primitive, x and y of each pair of a primitive and a pixel in its screen box, as int32 (R,)."""
    x0 = np.clip(np.floor(boxes[:, 0] - margin), 0, width).astype(np.int64)
    x1 = np.clip(np.ceil(boxes[:, 2] + margin) + 1, 0, width).astype(np.int64)
    y0 = np.clip(np.floor(boxes[:, 1] - margin), 0, height).astype(np.int64)
    y1 = np.clip(np.ceil(boxes[:, 3] + margin) + 1, 0, height).astype(np.int64)
    w, h = np.maximum(x1 - x0, 0), np.maximum(y1 - y0, 0)
    h[w == 0] = 0
    # one entry per screen row of each box, then one per pixel of each row: no division per pixel
    prim_of_row = np.repeat(np.arange(len(w), dtype=np.int32), h)
    first_row = np.cumsum(h) - h
    y_of_row = np.arange(len(prim_of_row)) + np.repeat(y0 - first_row, h)
    w_of_row = w[prim_of_row]
    start = np.cumsum(w_of_row) - w_of_row
    total = int(w_of_row.sum())
    x = np.arange(total, dtype=np.int32) + np.repeat((x0[prim_of_row] - start).astype(np.int32), w_of_row)
    y = np.repeat(y_of_row.astype(np.int32), w_of_row)
    return np.repeat(prim_of_row, w_of_row), x, y


def cast(shapes: Dict[str, Array], rays: Rays, blend: Optional[Array] = None, radius: float = 0.012) -> Hits:
    """Nearest hit of every ray.

    Args:
        shapes: from ``Shapes.pack``.
        rays: the pixel grid.
        blend: bool (parts, parts); normals of primitives whose parts are related are blended within
            ``radius`` metres, which rounds the joints. None: normals are not computed.
        radius: width of the blend, m.

    Returns:
        Hits, float32; pixels without a hit are absent.
    """
    f32 = np.float32
    prim, px, py = _pairs(bounds(shapes, rays), rays.width, rays.height, 1.5 if blend is not None else 0.5)
    pixel = py * np.int32(rays.width) + px
    s_axis = ((np.arange(rays.width) + 0.5 - rays.cx) / rays.fx).astype(f32)
    t_axis = ((np.arange(rays.height) + 0.5 - rays.cy) / rays.fy).astype(f32)
    s, t = s_axis[px], t_axis[py]
    matrix = shapes["matrix"]
    local = {
        "o": np.einsum("pij,pj->pi", matrix, rays.base - shapes["origin"]).T.astype(f32),
        "f": np.einsum("pij,j->pi", matrix, rays.forward).T.astype(f32),
        "r": np.einsum("pij,j->pi", matrix, rays.right).T.astype(f32),
        "d": np.einsum("pij,j->pi", matrix, rays.down).T.astype(f32),
    }
    spread, diverge = f32(rays.spread), f32(rays.diverge)
    o, d = [], []
    for k in range(3):
        turn = local["r"][k][prim] * s + local["d"][k][prim] * t
        o.append(local["o"][k][prim] + spread * turn)
        d.append(local["f"][k][prim] + diverge * turn)
    length = shapes["length"].astype(f32)[prim]
    ra = shapes["ra"].astype(f32)[prim]
    rb = shapes["rb"].astype(f32)[prim]
    cut = shapes["cut"].T.astype(f32)
    depth = _intersect(o, d, length, ra, rb)
    ok = np.isfinite(depth)
    cuts = cut[3] != 1.0
    if cuts.any():
        some = np.flatnonzero(cuts[prim] & ok)
        which = prim[some]
        side = -cut[3][which]
        for k in range(3):
            side += cut[k][which] * (o[k][some] + depth[some] * d[k][some])
        ok[some[side > 0]] = False
    hit = np.flatnonzero(ok)
    order = hit[np.argsort(-depth[hit], kind="stable")]
    owner = np.full(rays.width * rays.height, -1, dtype=np.int64)
    owner[pixel[order]] = order  # the last, nearest one stays
    seen = np.flatnonzero(owner >= 0)
    pair = owner[seen]
    hits = Hits(seen, prim[pair], depth[pair], (depth[:0],) * 3)
    if blend is None or not len(pair):
        return hits
    # gradients of the distance at the visible point, of the hit primitive and of its near relatives
    part = shapes["part"]
    own_part = np.full(len(owner), -1, dtype=np.int64)
    own_part[seen] = part[hits.primitive]
    surface = np.zeros(len(owner), dtype=f32)
    surface[seen] = hits.depth
    related = np.zeros((blend.shape[0], blend.shape[1] + 1), dtype=bool)
    related[:, :-1] = blend
    near = np.flatnonzero(related[part[prim], own_part[pixel]])
    where, which = pixel[near], prim[near]
    z = surface[where]
    q = [o[k][near] + z * d[k][near] for k in range(3)]
    n, gap = _gradient(q, length[near], ra[near], rb[near])
    gap *= shapes["size"].astype(f32)[which]
    keep = np.flatnonzero(np.abs(gap) < 2.2 * radius)
    where, which, gap = where[keep], which[keep], gap[keep]
    n = [v[keep] for v in n]
    m = matrix.astype(f32)
    world = [sum(m[:, k, j][which] * n[k] for k in range(3)) for j in range(3)]
    weight = np.exp(-np.square(gap / f32(radius)))
    weight /= np.sqrt(world[0] ** 2 + world[1] ** 2 + world[2] ** 2) + f32(1e-12)
    total = [np.bincount(where, weight * v, minlength=len(owner))[seen].astype(f32) for v in world]
    norm = 1.0 / (np.sqrt(total[0] ** 2 + total[1] ** 2 + total[2] ** 2) + f32(1e-9))
    return hits._replace(normal=(total[0] * norm, total[1] * norm, total[2] * norm))


def _intersect(o: List[Array], d: List[Array], length: Array, ra: Array, rb: Array) -> Array:
    """Ray parameter of the first intersection with each pair's round cone, inf where there is none (R,)."""
    rr = ra - rb
    m0 = length * length
    m1 = length * o[2]
    m2 = length * d[2]
    dd = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    m3 = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
    m5 = o[0] * o[0] + o[1] * o[1] + o[2] * o[2]
    d2 = m0 - rr * rr
    lift = m1 - ra * rr
    k2 = d2 * dd - m2 * m2
    k1 = d2 * m3 - m2 * lift
    k0 = d2 * (m5 - ra * ra) - lift * lift
    inf = np.float32(np.inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(k1 * k1 - k0 * k2)
        z = (-k1 - root) / k2
        y = lift + z * m2
        best = np.where((y > 0) & (y < d2), z, inf)
        inside = np.flatnonzero(k2 < 0)  # looking down the axis, within the cone's own angle
        if len(inside):
            z2 = ((-k1 + root) / k2)[inside]
            y2 = (lift[inside]) + z2 * m2[inside]
            fine = (y2 > 0) & (y2 < d2[inside])
            best[inside] = np.minimum(best[inside], np.where(fine, z2, inf))
        low = (-m3 - np.sqrt(m3 * m3 - dd * (m5 - ra * ra))) / dd
        low_y = lift + low * m2
        np.copyto(best, low, where=(low < best) & (low_y <= 0))
        m6 = m3 - m2
        m7 = m5 - 2 * m1 + m0
        top = (-m6 - np.sqrt(m6 * m6 - dd * (m7 - rb * rb))) / dd
        top_y = lift + top * m2
        np.copyto(best, top, where=(top < best) & (top_y >= d2))
    return best


def _gradient(q: List[Array], length: Array, ra: Array, rb: Array) -> Tuple[List[Array], Array]:
    """Local outward direction at ``q`` and the local distance to the round cone."""
    rr = ra - rb
    d2 = np.maximum(length * length - rr * rr, np.float32(1e-9))
    h = np.clip((length * q[2] - (ra * rr) * (length > 0)) / d2, 0, 1)
    n = [q[0], q[1], q[2] - length * h]
    far = np.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2) + np.float32(1e-12)
    return n, far - (ra - rr * h)
