"""A vectorised ray caster for many affine round cones.

The quadratic is the usual one of a cone tangent to both spheres (Quilez, "rounded cone - intersection").
Shape letters: P primitives, R pairs of a primitive and a pixel of its screen box, S visible samples.
"""

from typing import Dict, List, Optional, Tuple

import numpy as np

from vif.data.synth.shapes import Array, Hits, Rays, bounds, world_points

_BITS = 7  # for the number of a primitive: at most 128
_NOTHING = 0x7F800000  # infinity as bits; NaN is above it
_BEHIND = 16.0  # m that make depths in parallel light positive
_CHUNK = 8000  # pairs of a primitive and a pixel that are worked on together: they stay in the cache


def cast(shapes: Dict[str, Array], rays: Rays, blend: Optional[Array] = None, radius: float = 0.012) -> Hits:
    """Nearest hit of every ray.

    Every primitive is intersected within its own screen box, in coordinates whose origin is its own: there
    the base point of a ray is ``z * turn`` and its direction ``ahead + diverge * turn`` with a ``turn`` that
    is linear in the pixel. So every dot product is a polynomial in (s, t), and float32 is exact enough.

    Args:
        shapes: from ``Shapes.pack``.
        rays: the pixel grid.
        blend: bool (parts, parts); normals of primitives whose parts are related are blended within
            ``radius`` metres, which rounds the joints. None: normals are not computed.
        radius: width of the blend, m.

    Returns:
        Hits; pixels without a hit are absent.
    """
    wide, high = rays.width, rays.height
    limits = np.array([wide, high, wide, high])
    edges = bounds(shapes, rays) + np.array([-0.5, -0.5, 0.5, 0.5])
    boxes = np.clip(np.concatenate([np.floor(edges[:, :2]), np.ceil(edges[:, 2:])], 1), 0, limits).astype(
        np.intp
    )
    spans = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    spans[spans.min(1) == 0] = 0
    table, zero, s0, t0 = _coefficients(shapes, rays)
    # depth and primitive in one number, so that the nearest is a minimum: positive float32 sort as their bits
    # do, and the last _BITS bits (15 um per m) make room for the primitive
    front = np.full((high, wide), _NOTHING, dtype=np.uint32)
    zero = (zero + (0.0 if rays.diverge else _BEHIND)).astype(np.float32)
    balls = shapes["length"] == 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        for is_ball in (True, False):
            chosen = np.flatnonzero((balls == is_ball) & (spans[:, 0] > 0))
            for prims in _chunks(chosen, (spans[:, 0] * spans[:, 1])[chosen]):
                coefficients, s = _expand(table, prims, boxes, spans, rays, s0, t0)
                found = _hit_ball(coefficients, s) if is_ball else _hit_cone(coefficients, s)
                counts = spans[prims, 0] * spans[prims, 1]
                found += np.repeat(zero[prims], counts)
                key = found.view(np.uint32)
                key &= np.uint32(0xFFFFFFFF << _BITS & 0xFFFFFFFF)
                key |= np.repeat(prims.astype(np.uint32), counts)
                start = 0
                for (x0, y0, x1, y1), count in zip(boxes[prims].tolist(), counts.tolist()):
                    box = front[y0:y1, x0:x1]
                    np.minimum(box, key[start : start + count].reshape(y1 - y0, x1 - x0), out=box)
                    start += count
    pixel = np.flatnonzero(front < _NOTHING)
    key = front.ravel()[pixel]
    primitive = (key & np.uint32((1 << _BITS) - 1)).astype(np.intp)
    key &= np.uint32(0xFFFFFFFF << _BITS & 0xFFFFFFFF)
    depth = key.view(np.float32)
    hits = Hits(pixel, primitive, depth if rays.diverge else depth - np.float32(_BEHIND), [])
    if blend is None or not len(pixel):
        return hits
    return hits._replace(normal=_normals(shapes, rays, hits, blend, radius, boxes))


def _chunks(prims: Array, cost: Array) -> List[Array]:
    """Runs of primitives with about ``_CHUNK`` pairs each."""
    if not len(prims):
        return []
    number = (np.cumsum(cost) - 1) // _CHUNK
    return np.split(prims, np.flatnonzero(np.diff(number)) + 1)


def _coefficients(shapes: Dict[str, Array], rays: Rays) -> Tuple[Array, Array, Array, Array]:
    """Polynomials in (s, t) of every primitive, what to add to its ray parameter, and its centre (s, t).

    Rows of the table, each (P,): m3, low and dd by (1, s, t, ss, st, tt); m2, lift, the cut and what
    multiplies the ray parameter in the cut by (1, s, t); d2; what makes ``low`` the other sphere's.
    """
    rel = shapes["origin"] - rays.base
    plane = (rel * rays.forward).sum(1)
    z = rays.spread + plane if rays.diverge else np.ones(len(rel))
    s0, t0 = (rel * rays.right).sum(1) / z, (rel * rays.down).sum(1) / z
    f, r, d = np.einsum("pij,aj->api", shapes["matrix"], np.stack([rays.forward, rays.right, rays.down]))
    k = rays.diverge
    ahead = f + k * (r * s0[:, None] + d * t0[:, None])
    length, ra, rb = shapes["length"], shapes["ra"], shapes["rb"]
    aa, ar, ad, rr, rd, dd = (
        (a * b).sum(1) for a, b in ((ahead, ahead), (ahead, r), (ahead, d), (r, r), (r, d), (d, d))
    )
    nothing = np.zeros_like(aa)
    taper = ra - rb
    n, c = shapes["cut"][:, :3], shapes["cut"][:, 3]
    na, nr, nd = ((n * v).sum(1) for v in (ahead, r, d))
    table = np.stack([
        nothing, z * ar, z * ad, k * z * rr, 2 * k * z * rd, k * z * dd,
        -ra * ra, nothing, nothing, z * z * rr, 2 * z * z * rd, z * z * dd,
        aa, 2 * k * ar, 2 * k * ad, k * rr, 2 * k * rd, k * dd,
        length * ahead[:, 2], k * length * r[:, 2], k * length * d[:, 2],
        -ra * taper, z * length * r[:, 2], z * length * d[:, 2],
        -c, z * nr, z * nd, na, k * nr, k * nd,
        length * length - taper * taper, ra * ra - rb * rb + length * length - 2 * ra * taper,
    ])  # fmt: skip
    return table, z if rays.diverge else plane, s0, t0


def _expand(
    table: Array, prims: Array, boxes: Array, spans: Array, rays: Rays, s0: Array, t0: Array
) -> Tuple[Array, Array]:
    """Coefficients (K, R) float32 of polynomials in s alone, and s (R,), over the boxes of ``prims``."""
    rows = spans[prims, 1]
    of_row = np.repeat(np.arange(len(prims)), rows)
    y = np.arange(len(of_row)) - np.repeat(np.cumsum(rows) - rows - boxes[prims, 1], rows)
    t = (y + 0.5 - rays.cy) / rays.fy - t0[prims][of_row]
    c = table[:, prims][:, of_row]
    tt = t * t
    by_row = [
        c[0] + t * c[2] + tt * c[5], c[1] + t * c[4], c[3],
        c[6] + t * c[8] + tt * c[11], c[7] + t * c[10], c[9],
        c[12] + t * c[14] + tt * c[17], c[13] + t * c[16], c[15],
        c[24] + t * c[26], c[25], c[27] + t * c[29], c[28],
    ]  # fmt: skip
    if c[30].any():
        by_row += [c[18] + t * c[20], c[19], c[21] + t * c[23], c[22], c[30], c[31]]
    width = spans[prims, 0][of_row]
    start = np.cumsum(width) - width
    left = (boxes[prims, 0][of_row] - start + 0.5 - rays.cx) / rays.fx - s0[prims][of_row]
    by_pair = np.repeat(np.stack([left, *by_row]).astype(np.float32), width, axis=1)
    s = np.arange(by_pair.shape[1], dtype=np.float32) * np.float32(1.0 / rays.fx)
    s += by_pair[0]
    return by_pair[1:], s


def _cut_off(c: Array, s: Array, found: Array) -> None:
    """Takes away the hits beyond the cutting plane, in place."""
    side = c[12] * s
    side += c[11]
    side *= found
    side += c[10] * s
    side += c[9]
    found[side > 0] = np.inf


def _quadratic(c: Array, s: Array, first: int) -> Array:
    out = c[first + 2] * s
    out += c[first + 1]
    out *= s
    out += c[first]
    return out


def _hit_ball(c: Array, s: Array) -> Array:
    """Ray parameter of the first hit, inf or NaN where there is none (R,)."""
    m3, low, dd = (_quadratic(c, s, k) for k in (0, 3, 6))
    low *= dd
    found = m3 * m3
    found -= low
    np.sqrt(found, out=found)
    found += m3
    found /= dd
    np.negative(found, out=found)
    _cut_off(c, s, found)
    return found


def _hit_cone(c: Array, s: Array) -> Array:
    """Ray parameter of the first hit, inf or NaN where there is none (R,)."""
    m3, low, dd = (_quadratic(c, s, k) for k in (0, 3, 6))
    m2 = c[14] * s
    m2 += c[13]
    lift = c[16] * s
    lift += c[15]
    d2 = c[17]
    inverse = np.float32(-1.0) / dd
    first = m3 * m3
    first -= dd * low
    np.sqrt(first, out=first)
    first += m3
    first *= inverse
    m6 = m3 - m2
    last = low + c[18]
    last -= lift
    last -= lift
    last *= dd
    np.subtract(m6 * m6, last, out=last)
    np.sqrt(last, out=last)
    last += m6
    last *= inverse
    k2 = dd * d2
    k2 -= m2 * m2
    k1 = m3 * d2
    k1 -= m2 * lift
    low *= d2
    low -= lift * lift
    low *= k2
    root = k1 * k1
    root -= low
    np.sqrt(root, out=root)
    found = root + k1
    found /= k2
    np.negative(found, out=found)
    y = m2 * found  # along the axis: 0 and d2 where the side touches the balls
    y += lift
    found[~((y > 0) & (y < d2))] = np.inf
    # the balls lie within the hull: where the cone's side is in front, they are behind it
    np.fmin(found, first, out=found)
    np.fmin(found, last, out=found)
    _cut_off(c, s, found)
    return found


def _normals(
    shapes: Dict[str, Array], rays: Rays, hits: Hits, blend: Array, radius: float, boxes: Array
) -> List[Array]:
    """Blended unit normals: gradients of the distances to related primitives, weighted by nearness."""
    f32 = np.float32
    wide, high = rays.width, rays.height
    point = world_points(rays, hits.pixel, hits.depth)
    number = np.zeros(high * wide, dtype=np.intp)
    number[hits.pixel] = np.arange(len(hits.pixel))
    part = shapes["part"]
    parts = np.full(high * wide, len(blend), dtype=np.intp)
    parts[hits.pixel] = part[hits.primitive]
    number_at, part_at = number.reshape(high, wide), parts.reshape(high, wide)
    related = np.zeros((len(blend), len(blend) + 1), dtype=bool)
    related[:, :-1] = blend
    samples, counts = [], []
    for row, (x0, y0, x1, y1) in zip(related[part], boxes.tolist()):
        some = number_at[y0:y1, x0:x1][row[part_at[y0:y1, x0:x1]]]
        samples.append(some)
        counts.append(len(some))
    all_samples, all_prims = np.concatenate(samples), np.repeat(np.arange(len(counts)), counts)
    taper = shapes["ra"] - shapes["rb"]
    length = shapes["length"]
    d2 = np.maximum(length * length - taper * taper, 1e-9)
    row_offset = np.einsum("pij,pj->pi", shapes["matrix"], shapes["origin"])
    constants = np.concatenate([
        shapes["matrix"].reshape(-1, 9).T, row_offset.T,
        [length / d2, -shapes["ra"] * taper / d2 * (length > 0), length],
        [shapes["ra"], taper, shapes["size"] / radius],
    ]).astype(f32)  # fmt: skip
    total = np.zeros((3, len(hits.pixel)))
    for start in range(0, len(all_samples), _CHUNK):
        some = all_samples[start : start + _CHUNK]
        each = np.bincount(all_prims[start : start + _CHUNK], minlength=len(counts))
        c = np.repeat(constants, each, axis=1)
        x, y, z = (v[some] for v in point)
        q = []
        for i in range(3):
            v = c[3 * i] * x
            v += c[3 * i + 1] * y
            v += c[3 * i + 2] * z
            v -= c[9 + i]
            q.append(v)
        h = c[12] * q[2]
        h += c[13]
        np.clip(h, 0.0, 1.0, out=h)
        q[2] -= h * c[14]
        gap = np.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2])
        gap -= c[15]
        gap += c[16] * h
        gap *= c[17]
        near = np.flatnonzero(np.abs(gap) < 2.5)
        some, gap = some[near], gap[near]
        q = [v[near] for v in q]
        m = c[:9].take(near, axis=1)
        n = [q[0] * m[k] + q[1] * m[3 + k] + q[2] * m[6 + k] for k in range(3)]
        weight = np.exp(-(gap * gap))
        weight /= np.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]) + f32(1e-9)
        for k in range(3):
            total[k] += np.bincount(some, weight * n[k], minlength=total.shape[1])
    norm = 1 / (np.sqrt(np.square(total).sum(0)) + 1e-12)
    return [(v * norm).astype(f32) for v in total]
