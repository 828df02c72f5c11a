"""What surrounds a person: light by day and night, ground, wall or skyline, and low walls in the way."""

import math
from dataclasses import dataclass
from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from vif.data.synth.camera import AERIAL_CAMERAS
from vif.data.synth.people import RGB
from vif.data.synth.shade import linear
from vif.data.synth.shapes import Rays
from vif.data.synth.texture import noise

Array = np.ndarray


@dataclass(frozen=True)
class Light:
    """One distant light and the sky. Colours are linear (3,) float32, ``towards`` a unit vector to the light."""

    night: bool
    towards: Array
    direct: Array
    ambient: Array
    bounce: Array
    exposure: Array
    noise: float


def sample_light(rng: np.random.Generator, night: bool) -> Light:
    """Sun and sky by day (from overcast to hard), a lamp and little else at night."""
    u = [float(v) for v in rng.random(12)]
    f32 = np.float32
    azimuth = 2 * math.pi * u[0]
    if night:
        elevation = math.radians(42 + 36 * u[1])
        lamps: Tuple[RGB, ...] = ((1.0, 0.66, 0.34), (1.0, 0.80, 0.56), (0.74, 0.86, 1.0), (0.95, 0.95, 0.90))
        colour = np.array(lamps[int(u[2] * 4)], dtype=f32)
        strength = 0.55 + 0.5 * u[3]
        direct = colour * f32(strength)
        ambient = np.array([0.15, 0.18, 0.27], dtype=f32) * f32(0.7 + 0.9 * u[4]) + colour * f32(0.06)
        exposure = f32(0.26 + 0.44 * u[5])
        grain = 0.012 + 0.030 * u[6]
    else:
        elevation = math.radians(24 + 50 * u[1])
        hard = 0.0 if u[3] < 0.28 else 0.35 + 0.65 * u[4]
        low = 1.0 - math.sin(elevation)
        sun = np.array([1.0, 0.96 - 0.22 * low, 0.90 - 0.45 * low], dtype=f32)
        direct = sun * f32(1.25 * hard + 0.10)
        ambient = np.array([0.56, 0.62, 0.72], dtype=f32) * f32(1.0 - 0.45 * hard)
        exposure = f32(0.85 + 0.62 * u[5])
        grain = 0.004 + 0.016 * u[6] ** 2
    cast = np.array([1 + 0.16 * (u[7] - 0.5), 1 + 0.08 * (u[8] - 0.5), 1 + 0.20 * (u[9] - 0.5)], dtype=f32)
    towards = np.array([math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth),
                        math.sin(elevation)])  # fmt: skip
    bounce = (direct * f32(towards[2]) + ambient) * f32(0.22)
    return Light(night, towards, direct, ambient, bounce, exposure * cast, grain)


class Finish(NamedTuple):
    """A surface: ``kind`` of pattern, two linear colours, size factor, turn of the pattern and an offset."""

    kind: str
    base: Array
    other: Array
    size: float
    turn: float
    offset: float


_GROUNDS: Tuple[Tuple[str, RGB, RGB], ...] = (
    ("rough", (0.44, 0.44, 0.46), (0.35, 0.35, 0.37)),  # asphalt
    ("rough", (0.62, 0.60, 0.57), (0.52, 0.50, 0.48)),  # concrete
    ("slabs", (0.66, 0.63, 0.59), (0.46, 0.44, 0.42)),
    ("slabs", (0.58, 0.58, 0.60), (0.40, 0.40, 0.42)),
    ("bricks", (0.62, 0.46, 0.38), (0.46, 0.36, 0.31)),
    ("bricks", (0.60, 0.59, 0.56), (0.45, 0.44, 0.42)),
    ("grass", (0.36, 0.48, 0.22), (0.24, 0.34, 0.14)),
    ("grass", (0.47, 0.50, 0.27), (0.34, 0.36, 0.18)),
    ("rough", (0.67, 0.57, 0.43), (0.52, 0.43, 0.32)),  # sand, earth
    ("stripes", (0.42, 0.42, 0.44), (0.86, 0.86, 0.84)),  # pedestrian crossing
)
_WALLS: Tuple[Tuple[str, RGB, RGB], ...] = (
    ("bricks", (0.58, 0.36, 0.28), (0.68, 0.62, 0.56)),
    ("bricks", (0.72, 0.68, 0.60), (0.58, 0.55, 0.50)),
    ("rough", (0.80, 0.77, 0.70), (0.68, 0.66, 0.60)),
    ("rough", (0.55, 0.58, 0.62), (0.46, 0.49, 0.53)),
    ("windows", (0.70, 0.66, 0.60), (0.20, 0.26, 0.32)),
    ("windows", (0.50, 0.46, 0.44), (0.24, 0.28, 0.33)),
    ("slabs", (0.62, 0.62, 0.63), (0.46, 0.46, 0.48)),
    ("grass", (0.22, 0.36, 0.16), (0.12, 0.22, 0.09)),  # a hedge
    ("shutter", (0.48, 0.52, 0.56), (0.34, 0.37, 0.40)),
)


def _finish(rng: np.random.Generator, table: Tuple[Tuple[str, RGB, RGB], ...], turned: bool) -> Finish:
    kind, base, other = table[int(rng.integers(len(table)))]
    u = [float(v) for v in rng.random(6)]
    shade = [0.86 + 0.28 * u[0] + 0.10 * (v - 0.5) for v in u[1:4]]
    first = linear(tuple(min(0.97, a * b) for a, b in zip(base, shade)))  # type: ignore[arg-type]
    second = linear(tuple(min(0.97, a * b) for a, b in zip(other, shade)))  # type: ignore[arg-type]
    return Finish(kind, first, second, 0.7 + 0.7 * u[4], 2 * math.pi * u[5] if turned else 0.0, 7.0 * u[0])


def _paint(finish: Finish, u: Array, v: Array, fade: Array) -> Tuple[Array, Array]:
    """Tone (N,) and share of the second colour (N,) of a finish at surface coordinates in metres.

    ``fade`` (N,) in [0, 1] takes the fine detail away with distance.
    """
    if finish.turn:
        c, s = np.float32(math.cos(finish.turn)), np.float32(math.sin(finish.turn))
        u, v = u * c - v * s, u * s + v * c
    u, v = u + np.float32(finish.offset), v + np.float32(finish.offset * 1.7)
    size = np.float32(finish.size)
    coarse = noise(u * np.float32(1.1), v * np.float32(1.1), 0)
    fine = noise(u * 11, v * 11, 1)
    grain = np.float32(0.055)
    if finish.kind == "grass":
        blades = noise(u * 26, v * 9, 2)
        tone = 1 + fade * (np.float32(0.20) * fine + np.float32(0.18) * blades) + np.float32(0.09) * coarse
        return np.maximum(tone, 0.25), np.clip(np.float32(0.4) + np.float32(0.35) * coarse, 0, 1)
    tone = 1 + np.float32(0.07) * coarse + grain * fade * fine
    if finish.kind == "rough":
        return tone, np.clip(np.float32(0.4) * coarse * np.float32(0.8), 0, 1)
    if finish.kind == "stripes":
        return tone, ((v / np.float32(1.1) % 1) < 0.5).astype(np.float32) * np.float32(0.9)
    if finish.kind == "shutter":
        return tone, fade * ((v / np.float32(0.12) % 1) < 0.3).astype(np.float32)
    if finish.kind == "windows":
        wide, tall = np.float32(1.5) * size, np.float32(1.35) * size
        pane = ((u / wide % 1) < 0.62) & (((v + np.float32(0.5)) / tall % 1) > 0.35)
        return tone + pane * np.float32(0.12) * coarse, pane.astype(np.float32)
    if finish.kind == "slabs":
        step, line = np.float32(0.55) * size, np.float32(0.018)
        a, b = u / step, v / step
    else:  # bricks
        step, line = np.float32(0.26) * size, np.float32(0.012)
        b = v / (step * np.float32(0.45))
        a = u / step + np.float32(0.5) * (np.floor(b) % 2)
    i, j = np.floor(a), np.floor(b)
    tile = noise(i * np.float32(3.37), j * np.float32(5.71), 2)
    half = line / step
    joint = (a - i < half * 2) | (b - j < half * (2 if finish.kind == "slabs" else 4.4))
    return tone + np.float32(0.06) * fade * tile, joint.astype(np.float32) * fade


class Box(NamedTuple):
    """A box on the ground: centre (x, y), direction of its long side, half sizes and height in m, colour."""

    x: float
    y: float
    turn: float
    half: Tuple[float, float]
    height: float
    finish: Finish


@dataclass(frozen=True)
class Scene:
    """Finishes and planes. ``wall`` is (normal x, normal y, distance behind the person) or None."""

    ground: Finish
    verge: Optional[Tuple[Finish, float, float, float]]  # finish beyond the line cos*x + sin*y > distance
    wall: Optional[Tuple[float, float, float]]
    wall_finish: Finish
    sky: Array
    skyline: Finish
    boxes: Tuple[Box, ...]


def sample_scene(rng: np.random.Generator, camid: int, azimuth: float, night: bool) -> Scene:
    """Surroundings as a camera at ``azimuth`` (degrees) sees them; independent of who the person is."""
    aerial = camid in AERIAL_CAMERAS
    u = [float(v) for v in rng.random(16)]
    a = math.radians(azimuth)
    towards = (math.sin(a), math.cos(a))
    ground = _finish(rng, _GROUNDS, True)
    verge = None
    if u[0] < 0.45:
        angle = 2 * math.pi * u[1]
        distance = 0.35 + 1.6 * u[2] if aerial else 0.5 + 3.5 * u[2]
        verge = (_finish(rng, _GROUNDS, True), math.cos(angle), math.sin(angle), distance)
    wall = None
    if u[3] < (0.10 if aerial else 0.68):
        turn = a + math.radians(80.0) * (u[4] - 0.5)
        gap = 0.6 + 1.2 * u[5] if aerial else 0.6 + 7.0 * u[5] ** 1.5
        wall = (math.sin(turn), math.cos(turn), gap)
    boxes: List[Box] = []
    if u[6] < (0.07 if aerial else 0.13):  # a low wall between the camera and the person
        gap = 0.45 + 0.5 * u[7]
        tall = 0.30 + 0.45 * u[8] if aerial else 0.35 + 0.55 * u[8]
        slide = 1.2 * (u[9] - 0.5)
        boxes.append(Box(towards[0] * gap + towards[1] * slide, towards[1] * gap - towards[0] * slide,
                         a + 0.5 * (u[10] - 0.5), (0.9 + 1.5 * u[11], 0.10 + 0.08 * u[8]), tall,
                         _finish(rng, _WALLS[:4] + _WALLS[6:7], False)))  # fmt: skip
    if u[12] < 0.25:  # something behind: a bench, a planter, a parked car
        angle = a + math.pi + 1.9 * (u[13] - 0.5)
        gap = 1.0 + 2.2 * u[14]
        boxes.append(Box(math.sin(angle) * gap, math.cos(angle) * gap, angle + u[15] * 2, (0.35 + 0.9 * u[9], 0.25 + 0.3 * u[8]),
                         0.35 + 0.7 * u[10], _finish(rng, _WALLS[2:4] + _WALLS[6:8], False)))  # fmt: skip
    sky = np.array([0.03, 0.04, 0.07] if night else [0.55, 0.66, 0.82], dtype=np.float32) * np.float32(
        0.8 + 0.5 * u[2]
    )
    return Scene(
        ground, verge, wall, _finish(rng, _WALLS, False), sky, _finish(rng, _WALLS, False), tuple(boxes)
    )


class Backdrop(NamedTuple):
    """Surroundings by pixel, flat over H * W: albedo (3, N), normal (3, N), point (3, N), depth, lit (N,) bool."""

    albedo: Array
    normal: List[Array]
    point: List[Array]
    depth: Array
    lit: Array


def _mix(finish: Finish, tone: Array, share: Array) -> Array:
    base, other = finish.base[:, None], finish.other[:, None]
    return (base + (other - base) * share) * tone


def render_backdrop(scene: Scene, rays: Rays) -> Backdrop:
    """Ray casts ground, wall, skyline and boxes on the grid of a camera's rays."""
    f32 = np.float32
    s = ((np.arange(rays.width) + 0.5 - rays.cx) / rays.fx)[None, :]
    t = ((np.arange(rays.height) + 0.5 - rays.cy) / rays.fy)[:, None]
    turn = [((rays.forward[k] + rays.right[k] * s).astype(f32) + (rays.down[k] * t).astype(f32)).ravel()
            for k in range(3)]  # fmt: skip
    place = rays.base - rays.spread * rays.forward
    eye = [f32(v) for v in place]
    far = f32(120.0)
    with np.errstate(divide="ignore"):
        depth = -eye[2] / turn[2]
    depth = np.where((depth > 0) & (depth < far), depth, far)
    on_ground = depth < far
    x, y = eye[0] + depth * turn[0], eye[1] + depth * turn[1]
    distance = float(np.sqrt((place**2).sum()))
    fade = np.clip(1.9 - f32(0.75 / distance) * depth, 0, 1).astype(f32)
    tone, share = _paint(scene.ground, x, y, fade)
    albedo = _mix(scene.ground, tone, share)
    if scene.verge is not None:
        finish, c, sn, gap = scene.verge
        out = x * f32(c) + y * f32(sn) - f32(gap)
        some = np.flatnonzero(out > 0)
        if len(some):
            tone, share = _paint(finish, x[some], y[some], fade[some])
            albedo[:, some] = _mix(finish, tone, share)
            kerb = np.flatnonzero((out > 0) & (out < 0.12))
            albedo[:, kerb] = f32(0.42)
    z = np.zeros_like(x)
    normal = [np.zeros_like(x), np.zeros_like(x), np.ones_like(x)]
    lit = on_ground.copy()
    if scene.wall is not None:
        nx, ny, gap = scene.wall
        slope = turn[0] * f32(nx) + turn[1] * f32(ny)
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = (-f32(gap) - eye[0] * f32(nx) - eye[1] * f32(ny)) / slope
        some = np.flatnonzero((slope < 0) & (reach > 0) & (reach < depth))
        if len(some):
            d = reach[some]
            px, py = eye[0] + d * turn[0][some], eye[1] + d * turn[1][some]
            pz = eye[2] + d * turn[2][some]
            tone, share = _paint(scene.wall_finish, px * f32(-ny) + py * f32(nx), pz, np.ones_like(d))
            tone = tone * (1 - f32(0.45) * np.exp(-pz * 7))  # dirt and less sky at its foot
            albedo[:, some] = _mix(scene.wall_finish, tone, share)
            depth[some], x[some], y[some], z[some] = d, px, py, pz
            normal[0][some], normal[1][some], normal[2][some] = f32(nx), f32(ny), 0
            lit[some] = True
    sky = np.flatnonzero(~lit)
    if len(sky):
        side = turn[0][sky] * f32(rays.right[0]) + turn[1][sky] * f32(rays.right[1])
        rise = turn[2][sky]
        roof = f32(0.10) + f32(0.05) * noise(
            np.floor(side * 9) * f32(1.7) + scene.skyline.offset, side * 0, 0
        )
        tree = f32(0.04) * noise(side * 14, side * 0 + f32(scene.skyline.offset), 1)
        built = rise < (roof if scene.skyline.kind != "grass" else roof + tree)
        tone, share = _paint(scene.skyline, side * 22, rise * 22, np.ones_like(rise))
        house = _mix(scene.skyline, tone, share) * f32(0.55) + scene.sky[:, None] * f32(0.18)
        cloud = 1 + f32(0.12) * noise(side * 4, rise * 9, 0)
        albedo[:, sky] = np.where(built, house, scene.sky[:, None] * cloud * (1.25 - rise))
    back = Backdrop(albedo, normal, [x, y, z], depth, lit)
    for box in scene.boxes:
        _box(back, box, eye, turn)
    return back


def _box(back: Backdrop, box: Box, eye: List[Array], turn: List[Array]) -> None:
    """Draws a box into the backdrop where it is nearer, by the slab method in the box's own axes."""
    f32 = np.float32
    c, s = f32(math.cos(box.turn)), f32(math.sin(box.turn))
    half = (f32(box.half[0]), f32(box.half[1]), f32(box.height / 2))
    ox, oy = eye[0] - f32(box.x), eye[1] - f32(box.y)
    origin = (ox * c - oy * s, ox * s + oy * c, eye[2] - half[2])
    ray = (turn[0] * c - turn[1] * s, turn[0] * s + turn[1] * c, turn[2])
    enter, leave = [], []
    with np.errstate(divide="ignore", invalid="ignore"):
        for k in range(3):
            inverse = 1 / ray[k]
            one, two = (-half[k] - origin[k]) * inverse, (half[k] - origin[k]) * inverse
            enter.append(np.minimum(one, two))
            leave.append(np.maximum(one, two))
    first = np.maximum(np.maximum(enter[0], enter[1]), enter[2])
    last = np.minimum(np.minimum(leave[0], leave[1]), leave[2])
    some = np.flatnonzero((first < last) & (first > 0) & (first < back.depth))
    if not len(some):
        return
    d = first[some]
    face = np.argmax(np.stack([enter[k][some] for k in range(3)]), axis=0)
    q = [origin[k] + d * ray[k][some] for k in range(3)]
    along = np.where(face == 0, q[1], q[0])
    up = np.where(face == 2, q[1], q[2] + half[2])
    tone, share = _paint(box.finish, along, up, np.ones_like(d))
    back.albedo[:, some] = _mix(box.finish, tone, share)
    sign = -np.sign(np.take_along_axis(np.stack([r[some] for r in ray]), face[None], 0)[0])
    nx, ny = np.where(face == 0, sign, 0), np.where(face == 1, sign, 0)
    back.normal[0][some], back.normal[1][some] = nx * c + ny * s, ny * c - nx * s
    back.normal[2][some] = np.where(face == 2, sign, 0)
    for k in range(3):
        back.point[k][some] = eye[k] + d * turn[k][some]
    back.depth[some] = d
    back.lit[some] = True
