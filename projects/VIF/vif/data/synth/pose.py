"""Poses and the skeleton: x is the person's right, y the front, z up, metres, feet on z = 0."""

import math
from dataclasses import dataclass
from typing import List, Tuple

import numpy as np

from vif.data.synth.people import Identity
from vif.data.synth.shapes import Vec


@dataclass(frozen=True)
class Pose:
    """Angles in radians of one moment; ``left`` and ``right`` in this order.

    Attributes:
        hip, knee: flexion; splay: of the legs outwards.
        shoulder, elbow: flexion; spread: of the arms outwards; inward: turn of the forearm to the middle.
        lean, sway, twist: of the torso to the front, to the right and about z.
        yaw, nod: of the head.
    """

    hip: Tuple[float, float]
    knee: Tuple[float, float]
    splay: float
    shoulder: Tuple[float, float]
    elbow: Tuple[float, float]
    spread: Tuple[float, float]
    inward: Tuple[float, float]
    lean: float
    sway: float
    twist: float
    yaw: float
    nod: float


def sample_pose(rng: np.random.Generator) -> Pose:
    """A moment of walking, standing, running or of holding a phone."""
    u = [float(v) for v in rng.random(16)]
    moving = u[0]
    stride, bend = 0.0, 0.06
    if moving > 0.97:
        stride, bend = 0.55, 0.35  # running
    elif moving > 0.22:
        stride = 0.22 + 0.24 * u[1]
    phase = 2 * math.pi * u[2]
    swing = stride * (0.6 + 0.6 * u[3])
    hips, knees, shoulders, elbows = [], [], [], []
    for side in (0, 1):
        p = phase + math.pi * side
        hips.append(stride * math.sin(p) + 0.05 + 0.5 * stride * max(0.0, math.cos(p)) * 0.5)
        knees.append(bend + 1.9 * stride * max(0.0, math.cos(p + 0.35)) + 0.05 * u[4])
        shoulders.append(-swing * math.sin(p) + 0.1 * (u[5 + side] - 0.5))
        elbows.append(
            0.15 + 0.35 * u[7] + 0.5 * swing * max(0.0, -math.sin(p)) + (1.0 if moving > 0.97 else 0.0)
        )
    if stride == 0.0:
        hips = [0.10 * (u[8] - 0.5), 0.10 * (u[9] - 0.5)]
        knees = [0.04 + 0.2 * max(0.0, u[10] - 0.6), 0.04 + 0.2 * max(0.0, 0.4 - u[10])]
    inward = [0.15 + 0.2 * u[11], 0.15 + 0.2 * u[12]]
    spread = [0.07 + 0.10 * u[13], 0.07 + 0.10 * u[12]]
    if u[14] < 0.13:  # a phone, before the chest or at the ear
        k = int(u[15] * 2)
        ear = u[14] < 0.05
        shoulders[k], elbows[k] = (0.75, 2.25) if ear else (0.35, 1.75)
        inward[k], spread[k] = (0.1, 0.45) if ear else (0.55, 0.12)
    elif u[14] < 0.21:  # hands in the pockets
        shoulders, elbows, inward, spread = [-0.28, -0.26], [0.72, 0.72], [0.3, 0.3], [0.24, 0.24]
    v = [float(x) for x in rng.normal(size=6)]
    return Pose(
        hip=(hips[0], hips[1]),
        knee=(knees[0], knees[1]),
        splay=0.03 + 0.05 * u[9] * (2.0 if stride == 0.0 else 0.6),
        shoulder=(shoulders[0], shoulders[1]),
        elbow=(elbows[0], elbows[1]),
        spread=(spread[0], spread[1]),
        inward=(inward[0], inward[1]),
        lean=0.03 + 0.10 * stride + 0.03 * v[0],
        sway=0.03 * v[1],
        twist=0.25 * stride * math.sin(phase) + 0.05 * v[2],
        yaw=max(-0.8, min(0.8, 0.28 * v[3])),
        nod=0.05 + 0.13 * v[4] + (0.25 if 0.05 <= u[14] < 0.13 else 0.0),
    )


def _turned(lean: float, sway: float, twist: float) -> Tuple[Vec, Vec, Vec]:
    """Right, front and up of a frame turned by twist about z, leaned forward and swayed to the right."""
    cl, sl, cs, ss, ct, st = (f(x) for x in (lean, sway, twist) for f in (math.cos, math.sin))
    up = (ss * ct + sl * cs * -st, ss * st + sl * cs * ct, cl * cs)
    front = (-st * cl, ct * cl, -sl)
    dot = sum(a * b for a, b in zip(up, front))
    up = (up[0] - dot * front[0], up[1] - dot * front[1], up[2] - dot * front[2])
    norm = math.sqrt(sum(a * a for a in up))
    up = (up[0] / norm, up[1] / norm, up[2] / norm)
    right = (
        front[1] * up[2] - front[2] * up[1],
        front[2] * up[0] - front[0] * up[2],
        front[0] * up[1] - front[1] * up[0],
    )
    return right, front, up


class Frame:
    """A place and three axes; ``at`` goes from its coordinates to the world."""

    def __init__(self, origin: Vec, axes: Tuple[Vec, Vec, Vec]) -> None:
        self.origin, self.axes = origin, axes

    def at(self, x: float, y: float, z: float) -> Vec:
        """The world point with these coordinates."""
        (ox, oy, oz), (r, f, u) = self.origin, self.axes
        return (
            ox + x * r[0] + y * f[0] + z * u[0],
            oy + x * r[1] + y * f[1] + z * u[1],
            oz + x * r[2] + y * f[2] + z * u[2],
        )

    def turn(self, x: float, y: float, z: float) -> Vec:
        """The world direction with these components."""
        r, f, u = self.axes
        return (
            x * r[0] + y * f[0] + z * u[0],
            x * r[1] + y * f[1] + z * u[1],
            x * r[2] + y * f[2] + z * u[2],
        )


def step(start: Vec, direction: Vec, length: float) -> Vec:
    """The point ``length`` along ``direction``."""
    return (
        start[0] + direction[0] * length,
        start[1] + direction[1] * length,
        start[2] + direction[2] * length,
    )


class Joints:
    """Points of the skeleton in metres (feet on the ground), and the frames of torso and head."""

    def __init__(self, who: Identity, pose: Pose) -> None:
        h = who.height
        tight = {"longskirt": 0.5, "skirt": 0.8, "dress": 0.75}.get(
            who.lower, 0.6 if who.upper == "coat" else 1.0
        )
        upright: Tuple[Vec, Vec, Vec] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
        thigh, shin = 0.245 * h * who.legs, 0.243 * h * who.legs
        self.ankle_height = 0.045 * h
        half = 0.050 * h * who.hips
        feet: List[float] = []
        legs: List[Tuple[Vec, Vec, Vec, Vec, Vec]] = []
        for k, s in enumerate((-1.0, 1.0)):
            sp = math.sin(pose.splay) * s
            hip = (s * half, 0.0, 0.0)
            a = pose.hip[k] * tight
            b = a - pose.knee[k] * tight
            knee = step(hip, (sp, math.sin(a), -math.cos(a)), thigh)
            ankle = step(knee, (sp * 0.6, math.sin(b), -math.cos(b)), shin)
            pitch = max(-0.9, min(0.35, b * 0.9 + 0.05))  # toes point down when the shin leans forward
            toe_dir = (0.12 * s, math.cos(pitch), math.sin(pitch))
            heel = step(ankle, (toe_dir[0], toe_dir[1], toe_dir[2]), -0.022 * h)
            heel = (heel[0], heel[1] + 0.03 * h * math.sin(pitch), heel[2] - 0.024 * h)
            toe = step(heel, toe_dir, 0.105 * h)
            feet += [heel[2] - 0.021 * h, toe[2] - 0.016 * h]
            legs.append((hip, knee, ankle, heel, toe))
        lift = -min(feet)
        self.legs = [tuple((p[0], p[1], p[2] + lift) for p in leg) for leg in legs]
        self.pelvis = Frame((0.0, 0.0, lift), upright)
        self.torso = Frame((0.0, 0.0, lift), _turned(pose.lean, pose.sway, pose.twist))
        # torso lengths: what the legs do not take of the height
        rest = h - (thigh + shin + self.ankle_height)
        self.scale = rest / (0.467 * h)
        up = self.scale * h
        self.shoulder_z, self.neck_z, self.chin_z = 0.280 * up, 0.305 * up, 0.345 * up
        self.shoulder_x = 0.108 * h * who.shoulders
        yaw = _turned(pose.lean * 0.4 + pose.nod, 0.0, pose.twist + pose.yaw)
        self.neck = self.torso.at(0.0, -0.008 * h, self.neck_z)
        self.head = Frame(step(self.neck, yaw[2], 0.088 * h), yaw)
        self.head = Frame(step(self.head.origin, yaw[1], 0.012 * h), yaw)
        self.arms = []
        for k, s in enumerate((-1.0, 1.0)):
            shoulder = self.torso.at(s * self.shoulder_x, -0.004 * h, self.shoulder_z - 0.012 * h)
            a, w = pose.shoulder[k], pose.spread[k]
            cw = math.cos(w)
            elbow = step(
                shoulder, self.torso.turn(s * math.sin(w), math.sin(a) * cw, -math.cos(a) * cw), 0.172 * h
            )
            b = a + pose.elbow[k]
            turn = s * (math.sin(w * 0.5) - math.sin(pose.inward[k]) * min(1.0, pose.elbow[k]))
            flat = math.sqrt(max(0.05, 1.0 - turn * turn))
            fore = self.torso.turn(turn, math.sin(b) * flat, -math.cos(b) * flat)
            wrist = step(elbow, fore, 0.150 * h)
            self.arms.append((shoulder, elbow, wrist, fore))


def unit(a: Vec, b: Vec) -> Vec:
    """Unit vector from ``a`` to ``b``."""
    d = (b[0] - a[0], b[1] - a[1], b[2] - a[2])
    n = math.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
    return (d[0] / n, d[1] / n, d[2] / n)
