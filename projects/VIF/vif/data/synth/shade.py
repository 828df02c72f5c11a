"""Colours of the visible samples: cloth patterns, faces, straps, folds, and light on all of them."""

from typing import Dict, Tuple

import numpy as np

from vif.data.synth.parts import (
    BAG,
    HAIR,
    HAT,
    HOOD,
    LOWER,
    MATERIALS,
    POCKET,
    SHOE,
    SKIN,
    SLEEVE,
    SOLE,
    UPPER,
)
from vif.data.synth.people import Identity
from vif.data.synth.pose import Joints
from vif.data.synth.shapes import Hits
from vif.data.synth.texture import noise

Array = np.ndarray
_GLOSS = np.zeros(MATERIALS, dtype=np.float32)
_GLOSS[[SKIN, HAIR, UPPER, SLEEVE, LOWER, SHOE, SOLE, HAT, BAG, POCKET]] = (
    0.10, 0.22, 0.02, 0.02, 0.02, 0.16, 0.02, 0.05, 0.12, 0.10)  # fmt: skip
_FOLDS = np.zeros(MATERIALS, dtype=np.float32)
_FOLDS[[UPPER, SLEEVE, LOWER, HAIR, BAG, HOOD]] = (0.26, 0.28, 0.19, 0.26, 0.06, 0.22)


def linear(rgb: Tuple[float, float, float]) -> Array:
    """The renderer's linear light of an sRGB colour in [0, 1]; gamma is 2, float32 (3,)."""
    return np.square(np.asarray(rgb, dtype=np.float32))


def palette(who: Identity) -> Array:
    """Linear base colour of every material, float32 (MATERIALS, 3)."""
    out = np.zeros((MATERIALS, 3), dtype=np.float32)
    bag = who.bag_colour.rgb
    sole = (
        (0.85, 0.84, 0.80)
        if sum(who.shoe_colour.rgb) < 2.0 or who.pattern_phase > 0.5
        else (0.30, 0.28, 0.26)
    )
    if who.shoe_colour.name in ("black", "brown", "charcoal") and who.pattern_phase < 0.6:
        sole = (0.08, 0.07, 0.07)
    for material, rgb in (
        (SKIN, who.skin.rgb),
        (HAIR, who.hair_colour.rgb),
        (UPPER, who.upper_colour.rgb),
        (SLEEVE, who.second_colour.rgb if who.pattern == "sleeves" else who.upper_colour.rgb),
        (LOWER, who.lower_colour.rgb),
        (SHOE, who.shoe_colour.rgb),
        (SOLE, sole),
        (HAT, who.hat_colour.rgb),
        (BAG, bag),
        (POCKET, tuple(0.72 * c for c in bag)),
        (HOOD, tuple(0.85 * c for c in who.upper_colour.rgb)),
    ):
        out[material] = linear(rgb)  # type: ignore[arg-type]
    return out


def _local(point: Tuple[Array, ...], origin: Array, axes: Array, some: Array) -> Tuple[Array, Array, Array]:
    rel = [point[k][some] - np.float32(origin[k]) for k in range(3)]
    a = np.asarray(axes, dtype=np.float32)
    x, y, z = (rel[0] * row[0] + rel[1] * row[1] + rel[2] * row[2] for row in a)
    return x, y, z


def surface(
    who: Identity, joints: Joints, shapes: Dict[str, Array], hits: Hits, point: Tuple[Array, ...]
) -> Tuple[Array, Array, Tuple[Array, ...]]:
    """Linear base colour (3, S), gloss (S,) and bumped normals 3 x (S,) of the samples at ``point``."""
    material = shapes["material"][hits.primitive]
    colour = palette(who).T[:, material]
    gloss = _GLOSS[material]
    # folds and locks: noise in the primitive's own coordinates tilts the normal
    matrix = shapes["matrix"].astype(np.float32)
    origin = shapes["origin"].astype(np.float32)
    rel = [point[k] - origin[:, k][hits.primitive] for k in range(3)]
    q = [sum(matrix[:, i, k][hits.primitive] * rel[k] for k in range(3)) for i in range(3)]
    scale = np.where(shapes["length"] > 0, 1.0, 0.1).astype(np.float32)[hits.primitive]
    around = np.arctan2(q[0], q[1]) * np.float32(0.12)
    shift = (hits.primitive * 37 + who.pid * 11).astype(np.float32) * np.float32(0.173)
    along = q[2] * scale
    amount = _FOLDS[material]
    stretch = np.where(material == HAIR, np.float32(0.35), np.float32(1.6))
    bump = noise(around * 9 + along * 4 + shift, along * 9 * stretch + shift * 2, 0)
    lift = noise(around * 8 - along * 3 + shift * 3, along * 8 * stretch - shift, 1)
    n = hits.normal
    normal = (n[0] + amount * bump, n[1] + amount * lift, n[2] + amount * (bump - lift) * np.float32(0.7))
    size = 1.0 / np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2)
    normal = tuple(v * size for v in normal)
    # weave and mottling
    colour = colour * (1 + np.float32(0.10) * amount * 3 * noise(around * 30 + shift, along * 40, 2))
    torso = joints.torso
    cloth = np.flatnonzero((material == UPPER) | (material == SLEEVE))
    if len(cloth):
        xyz = _local(point, np.array(torso.origin), np.array(torso.axes), cloth)
        arm = material[cloth] == SLEEVE
        _upper(who, joints, colour, cloth, xyz, arm, (around[cloth], along[cloth]))
    if who.bag in ("backpack", "messenger") and len(cloth):
        some = cloth[~arm]
        x, y, z = (v[~arm] for v in xyz)
        if who.bag == "backpack":
            wide = np.abs(np.abs(x) - np.float32(0.060 * who.height)) < 0.017
            strap = wide & (y > 0.0) & (z > 0.13 * who.height) & (z < joints.shoulder_z + 0.03)
        else:
            slope = (x * np.float32(who.bag_side) + 0.10) / 0.22
            strap = np.abs(joints.shoulder_z * (1 - slope) - z) < 0.035
        colour[:, some[strap]] = linear(tuple(0.8 * c for c in who.bag_colour.rgb))[:, None]  # type: ignore[arg-type]
    legs = np.flatnonzero(material == LOWER)
    if len(legs):
        _lower(
            who,
            joints,
            colour,
            legs,
            (around[legs], point[2][legs]),
            shapes["part"][hits.primitive[legs]],
        )
    head = np.flatnonzero((shapes["frame"][hits.primitive] == 1) & (material == SKIN))
    if len(head):
        _face(who, joints, colour, gloss, head, point)
    return colour, gloss, normal


def _upper(
    who: Identity,
    joints: Joints,
    colour: Array,
    cloth: Array,
    xyz: Tuple[Array, ...],
    arm: Array,
    uv: Tuple[Array, Array],
) -> None:
    x, y, z = xyz
    h = np.float32(who.height)
    second = linear(who.second_colour.rgb)[:, None]
    across = np.where(arm, uv[1], z)
    around = np.where(arm, uv[0], np.arctan2(x, np.abs(y) + 0.03) * np.float32(0.12))
    period = np.float32(0.085 * who.pattern_scale)
    phase = np.float32(who.pattern_phase)
    mark = np.zeros(len(cloth), dtype=bool)
    pattern = who.pattern
    if pattern == "stripes":
        mark = (across / period + phase) % 1 < 0.45
    elif pattern == "pinstripes":
        mark = (around / (period * np.float32(0.5)) + phase) % 1 < 0.33
    elif pattern == "checks":
        one = (across / period + phase) % 1 < 0.42
        two = (around / period + phase) % 1 < 0.42
        mark = one & two
        half = one ^ two
        colour[:, cloth[half]] = 0.55 * colour[:, cloth[half]] + 0.45 * second
    elif pattern == "two-tone":
        mark = np.where(arm, phase < 0.5, z > h * np.float32(0.19 + 0.05 * who.pattern_phase))
    elif pattern == "logo":
        mark = (
            ~arm & (y > 0) & (np.abs(x) < 0.052 * h * who.pattern_scale) & (np.abs(z - 0.205 * h) < 0.026 * h)
        )
    elif pattern == "backprint":
        mark = (
            ~arm & (y < 0) & (x * x + (z - np.float32(0.20) * h) ** 2 < (0.058 * h * who.pattern_scale) ** 2)
        )
    elif pattern == "camo":
        mark = noise(around * 9 + phase * 9, across * 9, 1) > 0.25
        dark = noise(around * 9 - 3, across * 9 + phase * 7, 2) > 0.6
        colour[:, cloth[dark]] *= 0.35
    elif pattern == "open":
        gap = np.float32(0.020) * h + np.float32(0.10) * np.clip(np.float32(0.16) * h - z, -0.05, 0.3)
        mark = ~arm & (y > 0) & (np.abs(x) < gap)
    elif pattern == "sash":
        mark = ~arm & (
            np.abs(x * np.float32(who.bag_side) + z - np.float32(0.19) * h) < 0.045 * who.pattern_scale
        )
    colour[:, cloth[mark]] = second
    if who.upper in ("jacket", "coat", "hoodie", "shirt") and pattern != "open":
        seam = ~arm & (y > 0) & (np.abs(x) < 0.006)
        colour[:, cloth[seam]] *= 0.55
    if who.upper in ("jacket", "hoodie", "sweater"):
        hem = ~arm & (z < 0.012 * h) & (z > -0.05 * h)
        colour[:, cloth[hem]] *= 0.70
    if who.upper in ("tshirt", "sweater") and who.lower != "dress":
        ring = ~arm & (z > joints.neck_z - 0.002) & (x * x + y * y < 0.004)
        colour[:, cloth[ring]] *= 0.75
    if who.upper == "tank" or (who.upper == "tshirt" and who.pattern_phase < 0.3):  # the neckline shows skin
        deep = 0.030 * h if who.upper == "tank" else 0.014 * h
        low = ~arm & (z > joints.neck_z - deep - 0.02) & (np.abs(x) < 0.042 * h) & (y > -0.01)
        if who.upper == "tank":
            low |= ~arm & (z > joints.shoulder_z - 0.03 * h) & (np.abs(x) > 0.085 * h)
        colour[:, cloth[low]] = linear(who.skin.rgb)[:, None]


def _lower(
    who: Identity, joints: Joints, colour: Array, legs: Array, uvz: Tuple[Array, ...], part: Array
) -> None:
    around, z = uvz
    second = linear(who.second_colour.rgb)[:, None]
    if who.lower_pattern == "sidestripe":
        outer = np.where((part >= 10) & (part <= 12), -1.0, 1.0).astype(np.float32)
        mark = (part >= 10) & (part <= 15) & (np.abs(around - outer * np.float32(0.188)) < 0.045)
        colour[:, legs[mark]] = second
    elif who.lower_pattern == "checks":
        period = np.float32(0.10 * who.pattern_scale)
        mark = ((around / period * np.float32(1.2)) % 1 < 0.4) ^ (
            ((z - joints.pelvis.origin[2]) / period) % 1 < 0.4
        )
        colour[:, legs[mark]] = 0.5 * colour[:, legs[mark]] + 0.5 * second
    if who.lower_colour.name == "denim":
        worn = np.float32(1.0) + 0.40 * np.exp(-np.square(around / np.float32(0.11)))
        colour[:, legs] *= worn
    belt = (z > joints.pelvis.origin[2] + 0.045 * who.height) & (part == 3)
    colour[:, legs[belt]] *= 0.35


def _face(
    who: Identity, joints: Joints, colour: Array, gloss: Array, head: Array, point: Tuple[Array, ...]
) -> None:
    k = np.float32(0.45 * 1.72 + 0.55 * who.height)
    x, y, z = (v / k for v in _local(point, np.array(joints.head.origin), np.array(joints.head.axes), head))
    front = y > 0.012
    side = np.abs(x)
    skin = linear(who.skin.rgb)[:, None]

    def paint(where: Array, rgb: Array, opacity: float = 1.0) -> None:
        some = head[where]
        colour[:, some] = (1 - opacity) * colour[:, some] + opacity * rgb

    cheek = front & (np.square((side - 0.022) / 0.012) + np.square((z + 0.018) / 0.012) < 1)
    paint(cheek, skin * np.array([[1.05], [0.78], [0.74]], dtype=np.float32), 0.5)
    socket = front & (np.square((side - 0.0175) / 0.0125) + np.square((z - 0.006) / 0.0105) < 1)
    paint(socket, skin * np.float32(0.45), 0.55)
    white = front & (np.square((side - 0.0175) / 0.0085) + np.square((z - 0.004) / 0.0050) < 1)
    paint(white, np.full((3, 1), 0.55, dtype=np.float32), 0.5)
    eye = front & (np.square((side - 0.0172) / 0.0048) + np.square((z - 0.004) / 0.0055) < 1)
    paint(eye, np.full((3, 1), 0.012, dtype=np.float32))
    brow = front & (np.abs(z - 0.0165 - 0.08 * (0.02 - side)) < 0.0032) & (side > 0.007) & (side < 0.028)
    paint(brow, linear(who.hair_colour.rgb)[:, None] * 0.6, 0.8)
    mouth = front & (np.abs(z + 0.0395) < 0.0036) & (side < 0.0135)
    paint(mouth, skin * np.array([[0.72], [0.36], [0.36]], dtype=np.float32), 0.85)
    if who.beard:
        chin = (y > 0.0) & (z < -0.028 + 0.2 * (side - 0.02)) & ~mouth
        paint(chin, linear(who.hair_colour.rgb)[:, None], 0.75)
    if who.hair in ("buzz", "bald"):
        stubble = (z > 0.03) | ((y < 0) & (z > -0.03))
        if who.hair == "buzz":
            paint(stubble, linear(who.hair_colour.rgb)[:, None], 0.5)
    if who.glasses:
        far = np.square((side - 0.0185) / 0.0155) + np.square((z - 0.004) / 0.0125)
        frame = (y > 0.0) & (
            (np.abs(far - 0.9) < 0.32) | ((np.abs(z - 0.006) < 0.0022) & (far > 0.9) & (z > 0))
        )
        if who.pattern_phase > 0.6:  # dark lenses
            frame |= front & (far < 0.9)
        paint(frame & (y > -0.02), np.full((3, 1), 0.006, dtype=np.float32))
        gloss[head[frame]] = 0.5
