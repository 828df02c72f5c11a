"""What surrounds a person: light by day and night, ground, wall or skyline, and low walls in the way."""

import math
from dataclasses import dataclass
from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from vif.data.synth.camera import AERIAL_CAMERAS
from vif.data.synth.people import RGB
from vif.data.synth.shade import linear

Array = np.ndarray


@dataclass(frozen=True)
class Light:
    """One distant light and the sky. Colours are linear, float32 (3,); ``towards`` is a unit vector to it.

    ``shadows`` is False under clouds; ``noise`` is the sensor's standard deviation, 1 = white.
    """

    night: bool
    shadows: bool
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
        shadows = True
    else:
        elevation = math.radians(24 + 50 * u[1])
        shadows = u[3] >= 0.28
        hard = 0.35 + 0.65 * u[4] if shadows else 0.0
        low = 1.0 - math.sin(elevation)
        sun = np.array([1.0, 0.96 - 0.22 * low, 0.90 - 0.45 * low], dtype=f32)
        direct = sun * f32(1.25 * hard + 0.10)
        ambient = np.array([0.56, 0.62, 0.72], dtype=f32) * f32(1.0 - 0.45 * hard)
        exposure = f32(0.85 + 0.62 * u[5])
        grain = 0.004 + 0.016 * u[6] ** 2
    cast = np.array([1 + 0.16 * (u[7] - 0.5), 1 + 0.08 * (u[8] - 0.5), 1 + 0.20 * (u[9] - 0.5)], dtype=f32)
    towards = np.array(
        [
            math.cos(elevation) * math.cos(azimuth),
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
        ]
    )
    bounce = (direct * f32(towards[2]) + ambient) * f32(0.22)
    return Light(night, shadows, towards, direct, ambient, bounce, exposure * cast, grain)


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
        boxes.append(
            Box(
                towards[0] * gap + towards[1] * slide,
                towards[1] * gap - towards[0] * slide,
                a + 0.5 * (u[10] - 0.5),
                (0.9 + 1.5 * u[11], 0.10 + 0.08 * u[8]),
                tall,
                _finish(rng, _WALLS[:4] + _WALLS[6:7], False),
            )
        )
    if u[12] < 0.25:  # something behind: a bench, a planter, a parked car
        angle = a + math.pi + 1.9 * (u[13] - 0.5)
        gap = 1.0 + 2.2 * u[14]
        boxes.append(
            Box(
                math.sin(angle) * gap,
                math.cos(angle) * gap,
                angle + u[15] * 2,
                (0.35 + 0.9 * u[9], 0.25 + 0.3 * u[8]),
                0.35 + 0.7 * u[10],
                _finish(rng, _WALLS[2:4] + _WALLS[6:8], False),
            )
        )
    sky = np.array([0.03, 0.04, 0.07] if night else [0.55, 0.66, 0.82], dtype=np.float32) * np.float32(
        0.8 + 0.5 * u[2]
    )
    return Scene(
        ground, verge, wall, _finish(rng, _WALLS, False), sky, _finish(rng, _WALLS, False), tuple(boxes)
    )
