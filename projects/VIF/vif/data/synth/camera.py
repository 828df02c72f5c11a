"""The thirteen cameras: where each stands, and the pinhole projection of one picture.

World: the person stands at the origin, x to the person's right, y to the front, z up, metres.
Cameras 1-5 are aerial, 6-13 ground. The person's heading is the azimuth of the camera.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Tuple

import numpy as np

from vif.data.synth.shapes import Rays

AERIAL_CAMERAS = tuple(range(1, 6))
GROUND_CAMERAS = tuple(range(6, 14))
CAMERAS = AERIAL_CAMERAS + GROUND_CAMERAS


class Mount(NamedTuple):
    """Ranges of a camera: depression below the horizon in degrees, distance m, and the share of night."""

    depression: Tuple[float, float]
    distance: Tuple[float, float]
    night: float
    heading: Tuple[float, float]  # mean and spread of the person's heading in degrees; paths have a direction


MOUNTS = {
    1: Mount((76.0, 88.0), (9.0, 22.0), 0.15, (0.0, 180.0)),
    2: Mount((52.0, 64.0), (10.0, 26.0), 0.30, (30.0, 120.0)),
    3: Mount((62.0, 74.0), (9.0, 24.0), 0.25, (150.0, 120.0)),
    4: Mount((45.0, 55.0), (10.0, 30.0), 0.20, (200.0, 120.0)),
    5: Mount((48.0, 68.0), (8.0, 20.0), 0.40, (290.0, 120.0)),
    6: Mount((2.0, 12.0), (4.0, 9.0), 0.10, (10.0, 75.0)),
    7: Mount((8.0, 20.0), (5.0, 11.0), 0.25, (80.0, 75.0)),
    8: Mount((0.0, 8.0), (4.0, 8.0), 0.20, (180.0, 75.0)),
    9: Mount((10.0, 22.0), (5.0, 12.0), 0.35, (260.0, 75.0)),
    10: Mount((3.0, 14.0), (4.0, 12.0), 0.20, (330.0, 75.0)),
    11: Mount((6.0, 18.0), (5.0, 12.0), 0.30, (140.0, 75.0)),
    12: Mount((0.0, 10.0), (3.5, 8.0), 0.15, (225.0, 75.0)),
    13: Mount((5.0, 16.0), (5.0, 14.0), 0.45, (45.0, 75.0)),
}


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. Axes are unit vectors (3,) in the world; fx, fy, cx, cy in pixels."""

    position: np.ndarray
    right: np.ndarray
    down: np.ndarray
    forward: np.ndarray
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixel coordinates (N, 2) of world points (N, 3); pixel centres are at .5."""
        rel = np.asarray(points, dtype=np.float64) - self.position
        depth = (rel * self.forward).sum(-1)
        x = (rel * self.right).sum(-1) / depth * self.fx + self.cx
        y = (rel * self.down).sum(-1) / depth * self.fy + self.cy
        return np.stack([x, y], axis=-1)

    def rays(self, samples: float = 1.0) -> Rays:
        """The picture's rays, ``samples`` per pixel and direction, based near (0, 0, 0.9) m."""
        far = float(((np.array([0.0, 0.0, 0.9]) - self.position) * self.forward).sum())
        base = self.position + far * self.forward
        width, height = round(self.width * samples), round(self.height * samples)
        kx, ky = width / self.width, height / self.height
        return Rays(base, self.right, self.down, self.forward, far, 1.0, self.fx * kx, self.fy * ky,
                    self.cx * kx, self.cy * ky, width, height)  # fmt: skip


def look(
    depression: float, azimuth: float, distance: float, roll: float, target: np.ndarray
) -> Tuple[np.ndarray, ...]:
    """Position, right, down and forward of a camera that looks at ``target``; angles in degrees.

    Azimuth 0 stands in front of the person, 90 at the person's right side.
    """
    d, a, r = (math.radians(x) for x in (depression, azimuth, roll))
    forward = np.array([-math.sin(a) * math.cos(d), -math.cos(a) * math.cos(d), -math.sin(d)])
    right = np.array([-math.cos(a), math.sin(a), 0.0])
    down = np.array([-math.sin(a) * -math.sin(d), -math.cos(a) * -math.sin(d), -math.cos(d)])
    right, down = right * math.cos(r) + down * math.sin(r), down * math.cos(r) - right * math.sin(r)
    return target - distance * forward, right, down, forward


def sample_view(rng: np.random.Generator, camid: int) -> Tuple[float, float, float, float]:
    """Depression, azimuth (degrees), distance (m) and roll (degrees) of one picture of camera ``camid``."""
    mount = MOUNTS[camid]
    u = rng.random(4)
    low, high = mount.depression
    near, far = mount.distance
    middle, spread = mount.heading
    return (
        low + (high - low) * float(u[0]),
        middle + spread * (2.0 * float(u[1]) - 1.0),
        near + (far - near) * float(u[2]),
        (6.0 * float(u[3]) - 3.0),
    )
