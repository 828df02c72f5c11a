"""From an identity and a pose to shapes: x is the person's right, y the front, z up, metres, feet on z = 0."""

import math
from dataclasses import dataclass
from typing import List, Tuple

import numpy as np

from vif.data.synth.people import Identity
from vif.data.synth.shapes import NO_CUT, Shapes, Vec

# parts: what an arm or a leg is blended with is decided by these, see RELATED
HEAD, NECK, TORSO, PELVIS = range(4)
ARMS = ((4, 5, 6), (7, 8, 9))  # left and right: upper arm, forearm, hand
LEGS = ((10, 11, 12), (13, 14, 15))  # left and right: thigh, shin, foot
HAIR_PART, HAT_PART, BAG_PART, SKIRT = range(16, 20)
# materials
SKIN, HAIR, UPPER, SLEEVE, LOWER, SHOE, SOLE, HAT, BAG, POCKET, HOOD = range(11)
MATERIALS = 11


def _related() -> np.ndarray:
    out = np.eye(20, dtype=bool)
    links = [(HEAD, NECK), (NECK, TORSO), (TORSO, PELVIS)]
    for arm, leg in zip(ARMS, LEGS):
        links += [(TORSO, arm[0]), (arm[0], arm[1]), (arm[1], arm[2])]
        links += [(PELVIS, leg[0]), (leg[0], leg[1])]
    for a, b in links:
        out[a, b] = out[b, a] = True
    return out


RELATED = _related()


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


def _frame(lean: float, sway: float, twist: float) -> Tuple[Vec, Vec, Vec]:
    """Right, front and up of a frame turned by twist about z, leaned forward and swayed to the right."""
    cl, sl, cs, ss, ct, st = (f(x) for x in (lean, sway, twist) for f in (math.cos, math.sin))
    up = (ss * ct + sl * cs * -st, ss * st + sl * cs * ct, cl * cs)
    front = (-st * cl, ct * cl, -sl)
    dot = sum(a * b for a, b in zip(up, front))
    up = tuple(a - dot * b for a, b in zip(up, front))
    norm = math.sqrt(sum(a * a for a in up))
    up = (up[0] / norm, up[1] / norm, up[2] / norm)
    right = (
        front[1] * up[2] - front[2] * up[1],
        front[2] * up[0] - front[0] * up[2],
        front[0] * up[1] - front[1] * up[0],
    )
    return right, front, up


class _Frame:
    """A place and three axes; ``at`` goes from its coordinates to the world."""

    def __init__(self, origin: Vec, axes: Tuple[Vec, Vec, Vec]) -> None:
        self.origin, self.axes = origin, axes

    def at(self, x: float, y: float, z: float) -> Vec:
        (ox, oy, oz), (r, f, u) = self.origin, self.axes
        return (
            ox + x * r[0] + y * f[0] + z * u[0],
            oy + x * r[1] + y * f[1] + z * u[1],
            oz + x * r[2] + y * f[2] + z * u[2],
        )

    def turn(self, x: float, y: float, z: float) -> Vec:
        r, f, u = self.axes
        return (
            x * r[0] + y * f[0] + z * u[0],
            x * r[1] + y * f[1] + z * u[1],
            x * r[2] + y * f[2] + z * u[2],
        )


def _step(start: Vec, direction: Vec, length: float) -> Vec:
    return (
        start[0] + direction[0] * length,
        start[1] + direction[1] * length,
        start[2] + direction[2] * length,
    )


class Joints:
    """Points of the skeleton in metres (feet on the ground), and the frames of torso and head."""

    def __init__(self, who: Identity, pose: Pose) -> None:
        h = who.height
        tight = {"longskirt": 0.5, "skirt": 0.8, "dress": 0.75}.get(who.lower, 0.8 if who.upper == "coat" else 1.0)
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
            knee = _step(hip, (sp, math.sin(a), -math.cos(a)), thigh)
            ankle = _step(knee, (sp * 0.6, math.sin(b), -math.cos(b)), shin)
            pitch = max(-0.9, min(0.35, b * 0.9 + 0.05))  # toes point down when the shin leans forward
            toe_dir = (0.12 * s, math.cos(pitch), math.sin(pitch))
            heel = _step(ankle, (toe_dir[0], toe_dir[1], toe_dir[2]), -0.022 * h)
            heel = (heel[0], heel[1] + 0.03 * h * math.sin(pitch), heel[2] - 0.024 * h)
            toe = _step(heel, toe_dir, 0.105 * h)
            feet += [heel[2] - 0.021 * h, toe[2] - 0.016 * h]
            legs.append((hip, knee, ankle, heel, toe))
        lift = -min(feet)
        self.legs = [tuple((p[0], p[1], p[2] + lift) for p in leg) for leg in legs]
        self.pelvis = _Frame((0.0, 0.0, lift), upright)
        self.torso = _Frame((0.0, 0.0, lift), _frame(pose.lean, pose.sway, pose.twist))
        # torso lengths: what the legs do not take of the height
        rest = h - (thigh + shin + self.ankle_height)
        self.scale = rest / (0.467 * h)
        up = self.scale * h
        self.shoulder_z, self.neck_z, self.chin_z = 0.280 * up, 0.305 * up, 0.345 * up
        self.shoulder_x = 0.108 * h * who.shoulders
        yaw = _frame(pose.lean * 0.4 + pose.nod, 0.0, pose.twist + pose.yaw)
        self.neck = self.torso.at(0.0, -0.008 * h, self.neck_z)
        self.head = _Frame(_step(self.neck, yaw[2], 0.088 * h), yaw)
        self.head = _Frame(_step(self.head.origin, yaw[1], 0.012 * h), yaw)
        self.arms = []
        for k, s in enumerate((-1.0, 1.0)):
            shoulder = self.torso.at(s * self.shoulder_x, -0.004 * h, self.shoulder_z - 0.012 * h)
            a, w = pose.shoulder[k], pose.spread[k]
            cw = math.cos(w)
            elbow = _step(
                shoulder, self.torso.turn(s * math.sin(w), math.sin(a) * cw, -math.cos(a) * cw), 0.172 * h
            )
            b = a + pose.elbow[k]
            turn = s * (math.sin(w * 0.5) - math.sin(pose.inward[k]) * min(1.0, pose.elbow[k]))
            flat = math.sqrt(max(0.05, 1.0 - turn * turn))
            fore = self.torso.turn(turn, math.sin(b) * flat, -math.cos(b) * flat)
            wrist = _step(elbow, fore, 0.150 * h)
            self.arms.append((shoulder, elbow, wrist, fore))


def build_body(who: Identity, pose: Pose) -> Tuple[Shapes, Joints]:
    """The person's shapes and joints."""
    j = Joints(who, pose)
    out = Shapes()
    out.frames = [(j.torso.origin, j.torso.axes), (j.head.origin, j.head.axes)]
    _torso(out, who, j)
    _arms(out, who, j)
    _legs(out, who, j)
    _head(out, who, j)
    _hair(out, who, j)
    _hat(out, who, j)
    _bag(out, who, j)
    return out, j


_LOOSE = {"tshirt": 0.010, "shirt": 0.012, "sweater": 0.016, "jacket": 0.024, "coat": 0.026, "hoodie": 0.022,
          "tank": 0.004}  # fmt: skip


def _torso(out: Shapes, who: Identity, j: Joints) -> None:
    h, g, t = who.height, who.girth, j.torso
    up = j.scale * h
    loose = _LOOSE[who.upper]
    side = t.axes[0]
    chest = 0.094 * h * (0.55 + 0.45 * who.shoulders) * (0.4 + 0.6 * g) + loose
    waist = 0.080 * h * (0.3 + 0.7 * g) * (0.6 + 0.4 * who.hips) + loose + 0.012 * who.belly
    hip = 0.083 * h * (0.35 + 0.65 * g) * who.hips
    deep = 0.70
    tag = (TORSO, UPPER, 0)
    if who.upper in ("jacket", "hoodie", "coat"):
        waist += 0.008
    out.cone(tag, t.at(0, 0.004, 0.105 * up), t.at(0, 0.006, 0.218 * up), waist, chest, side, (1.0, deep))
    # shoulder girdle and trapezius
    y = j.shoulder_x - 0.012 * h
    out.cone(tag, t.at(-y, -0.004 * h, j.shoulder_z - 0.016 * h), t.at(y, -0.004 * h, j.shoulder_z - 0.016 * h),
             0.032 * h * g**0.5 + loose * 0.4, 0.032 * h * g**0.5 + loose * 0.4, t.axes[2], (1.0, 1.12))  # fmt: skip
    for s in (-1.0, 1.0):
        out.cone(tag, t.at(s * 0.012 * h, -0.010 * h, j.neck_z + 0.010 * h), t.at(s * y * 0.82, -0.004 * h, j.shoulder_z),
                 0.028 * h, 0.026 * h + loose * 0.5, side)  # fmt: skip
        out.ball(tag, t.at(s * 0.042 * h, chest * deep * 0.42, 0.222 * up),
                 (0.052 * h * g, 0.040 * h * g, 0.046 * h), t.axes[2], side)  # fmt: skip
    if who.belly > 0.05:
        out.ball(tag, t.at(0, waist * deep * 0.25, 0.115 * up),
                 (waist * 0.92, waist * deep * (0.72 + 0.45 * who.belly), 0.085 * h), t.axes[2], side)  # fmt: skip
    # what hangs below the belt: the hem of the upper, over the pelvis
    hem = {"coat": -0.27, "tank": 0.015, "shirt": -0.025, "sweater": 0.0, "tshirt": -0.012}.get(
        who.upper, 0.0
    ) * up
    if who.lower == "dress":
        hem = 0.0
    flare = 0.012 if who.upper in ("jacket", "hoodie", "sweater") else 0.006
    bottom = max(hip + loose * 0.8 + flare, waist * 0.96)
    if who.upper == "coat":
        bottom += 0.045
        middle, deep = _room(j, bottom)
        out.cone((SKIRT, UPPER, 0), t.at(0, 0, 0.10 * up), t.at(0, middle, hem - 0.06), waist, bottom + 0.01,
                 side, (1.0, deep), (0, 0, 1, 1 - 0.06 / (0.10 * up - hem + 0.06)))  # fmt: skip
    else:
        out.cone(tag, t.at(0, 0.002, 0.11 * up), t.at(0, -0.004, hem - 0.06), waist * 0.99, bottom, side, (1.0, 0.76),
                 (0, 0, 1, 1 - 0.06 / (0.11 * up - hem + 0.06)))  # fmt: skip
    if who.upper in ("jacket", "coat", "shirt", "hoodie"):  # collar
        wide = 0.040 * h if who.upper != "hoodie" else 0.052 * h
        out.ball(
            tag, t.at(0, -0.008 * h, j.neck_z + 0.004 * h), (wide, wide * 1.02, 0.026 * h), t.axes[2], side
        )
    if who.upper == "hoodie" and who.hat != "hood":
        out.ball((TORSO, HOOD, 0), t.at(0, -0.056 * h, j.neck_z - 0.012 * h), (0.068 * h, 0.036 * h, 0.040 * h),
                 t.turn(0, -0.4, 1), side)  # fmt: skip
    # pelvis and buttocks, in the lower's cloth
    p = j.pelvis
    low = (PELVIS, LOWER, 0)
    out.cone(
        low,
        p.at(0, 0, 0.005 * h),
        p.at(0, 0, 0.075 * up),
        hip,
        min(waist, hip) * 0.97,
        p.axes[0],
        (1.0, 0.74),
    )
    for s in (-1.0, 1.0) if who.upper != "coat" else ():
        out.ball(low, p.at(s * 0.040 * h, -0.026 * h * g, -0.020 * h), (0.047 * h * g, 0.046 * h * g, 0.050 * h),
                 p.axes[2], p.axes[0])  # fmt: skip


def _arms(out: Shapes, who: Identity, j: Joints) -> None:
    h = who.height
    g = 0.5 + 0.5 * who.girth
    loose = _LOOSE[who.upper]
    side = j.torso.axes[0]
    for k, (upper, fore, hand) in enumerate(ARMS):
        shoulder, elbow, wrist, along = j.arms[k]
        bare = who.sleeves != "long"
        r = (0.0265 * h * g, 0.0225 * h * g, 0.0150 * h * g)
        if bare:
            out.cone((upper, SKIN, 0), shoulder, elbow, r[0], r[1], side)
            out.cone((fore, SKIN, 0), elbow, wrist, r[1], r[2], side)
            if who.sleeves == "short":
                out.cone((upper, SLEEVE, 0), shoulder, elbow, r[0] * 1.12 + loose, r[0] * 1.12 + loose * 1.3, side,
                         cut=(0, 0, 1, 0.60))  # fmt: skip
            else:
                out.ball((upper, UPPER, 0), shoulder, (r[0] * 1.1, r[0] * 1.15, r[0] * 0.9), (0, 0, 1), side)
        else:
            wide = loose * 0.75 + 0.002
            out.cone((upper, SLEEVE, 0), shoulder, elbow, r[0] + wide * 1.2, r[1] + wide, side)
            out.cone((fore, SLEEVE, 0), elbow, wrist, r[1] + wide, r[2] + wide * 0.8 + 0.003, side)
        palm = _step(wrist, along, 0.030 * h)
        out.cone((hand, SKIN, 0), wrist, palm, 0.0150 * h, 0.0195 * h, side, (0.62, 1.0))
        out.cone(
            (hand, SKIN, 0), palm, _step(palm, along, 0.030 * h), 0.018 * h, 0.011 * h, side, (0.55, 1.0)
        )


def _legs(out: Shapes, who: Identity, j: Joints) -> None:
    h = who.height
    g = 0.35 + 0.65 * who.girth
    side = (1.0, 0.0, 0.0)
    loose = {"trousers": 0.010, "slim": 0.002, "wide": 0.024, "shorts": 0.018}.get(who.lower, 0.0)
    bare = who.lower in ("shorts", "skirt", "longskirt", "dress")
    shin_end = {"trousers": 0.036, "slim": 0.026, "wide": 0.050}.get(who.lower, 0.0) * h
    for k, (thigh, shin, foot) in enumerate(LEGS):
        hip, knee, ankle, heel, toe = j.legs[k]
        r = (0.048 * h * g, 0.0325 * h * g, 0.0205 * h * g)
        skin = (0, SKIN, 0)
        if bare:
            top = (thigh, LOWER, 0) if who.lower == "shorts" else (thigh, *skin[1:])
            shown = {"skirt": 0.62, "longskirt": 1.2, "dress": 0.80}.get(who.lower, 0.0)  # below the hem
            out.cone((thigh, SKIN, 0), hip, knee, r[0], r[1], side, cut=(0, 0, -1, -shown) if shown else NO_CUT)
            if who.lower == "shorts":
                out.cone(top, hip, _step(hip, _unit(hip, knee), 0.24 * h), r[0] + loose * 0.6, r[0] * 0.93 + loose,
                         side, cut=(0, 0, 1, 0.80 if who.pattern_phase < 0.6 else 0.95))  # fmt: skip
            out.cone((shin, SKIN, 0), knee, ankle, r[1], r[2], side, cut=(0, 0, -1, -0.35) if shown > 1 else NO_CUT)
            calf = tuple(0.70 * a + 0.30 * b for a, b in zip(knee, ankle))
            down = _unit(ankle, knee)
            if shown <= 1:
                out.ball((shin, SKIN, 0), (calf[0], calf[1] - 0.010 * h, calf[2]), (0.030 * h * g, 0.031 * h * g, 0.066 * h),
                         down, side)  # fmt: skip
        else:
            out.cone((thigh, LOWER, 0), hip, knee, r[0] + loose, r[1] + loose, side)
            end = max(shin_end, r[2] + 0.004)
            out.cone((shin, LOWER, 0), knee, _step(ankle, _unit(knee, ankle), 0.012 * h), r[1] + loose, end, side,
                     (1.0, 1.1), (0, 0, 1, 1.0))  # fmt: skip
        # shoe: heel to toe, flattened, on a thin sole
        out.cone((foot, SHOE, 0), heel, toe, 0.0240 * h, 0.0185 * h, side, (1.0, 1.0))
        out.cone((foot, SHOE, 0), ankle, _step(heel, _unit(heel, toe), 0.016 * h), 0.023 * h, 0.026 * h, side)
        drop = 0.0125 * h
        out.cone((foot, SOLE, 0), (heel[0], heel[1], heel[2] - drop), (toe[0], toe[1], toe[2] - drop * 0.5),
                 0.0262 * h, 0.0215 * h, side, (1.0, 0.45))  # fmt: skip
    if who.lower in ("skirt", "longskirt", "dress"):
        p = j.pelvis
        hipr = max(0.083 * h * (0.35 + 0.65 * who.girth) * who.hips, 0.050 * h * who.hips + 0.040 * h * g)
        drop = {"skirt": 0.23, "longskirt": 0.40, "dress": 0.28}[who.lower] * h
        flare = {"skirt": 0.045, "longskirt": 0.055, "dress": 0.06}[who.lower]
        middle, deep = _room(j, hipr + flare)
        out.cone((SKIRT, LOWER, 0), p.at(0, 0, 0.05 * h), p.at(0, middle, -drop - 0.10), hipr * 0.99,
                 hipr + flare, side, (1.0, deep), (0, 0, 1, 1 - 0.10 / (drop + 0.10 + 0.05 * h)))  # fmt: skip


def _room(j: Joints, radius: float) -> Tuple[float, float]:
    """Where the middle of a hem lies, m to the front, and its depth over its width, so that knees stay inside."""
    knees = [leg[1][1] for leg in j.legs]
    middle = 0.6 * (knees[0] + knees[1])
    reach = max(abs(y - middle) for y in knees) + 0.075
    return middle, max(0.78, min(1.30, reach / radius))


def _unit(a: Vec, b: Vec) -> Vec:
    d = (b[0] - a[0], b[1] - a[1], b[2] - a[2])
    n = math.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
    return (d[0] / n, d[1] / n, d[2] / n)


def _head(out: Shapes, who: Identity, j: Joints) -> None:
    h, f = who.height, j.head
    k = 0.45 * 1.72 + 0.55 * h  # heads vary less than heights
    up, side = f.axes[2], f.axes[0]
    tag = (HEAD, SKIN, 1)
    out.cone((NECK, SKIN, 0), j.torso.at(0, -0.006 * h, j.neck_z - 0.012 * h), f.at(0, -0.017 * k, -0.022 * k),
             0.034 * h * who.girth**0.5, 0.0325 * h * who.girth**0.3, side)  # fmt: skip
    out.ball(tag, f.at(0, -0.006 * k, 0.014 * k), (0.0440 * k, 0.0545 * k, 0.0535 * k), up, side)
    out.ball(
        tag, f.at(0, 0.012 * k, -0.024 * k), (0.0370 * k, 0.0400 * k, 0.0450 * k), f.turn(0, -0.15, 1), side
    )
    out.cone(
        tag, f.at(0, 0.048 * k, 0.004 * k), f.at(0, 0.0555 * k, -0.0155 * k), 0.0055 * k, 0.0080 * k, side
    )
    for s in (-1.0, 1.0):
        out.ball(
            tag, f.at(s * 0.0435 * k, -0.004 * k, -0.003 * k), (0.006 * k, 0.011 * k, 0.016 * k), up, side
        )


def _hair(out: Shapes, who: Identity, j: Joints) -> None:
    k = 0.45 * 1.72 + 0.55 * who.height
    f = j.head
    up, side = f.axes[2], f.axes[0]
    tag = (HAIR_PART, HAIR, 1)
    style = who.hair
    if style == "bald" or who.hat == "hood":
        return
    face = (0.0, 0.82, -0.57, 0.26)
    if style == "afro":
        out.ball(
            tag,
            f.at(0, -0.016 * k, 0.030 * k),
            (0.075 * k, 0.078 * k, 0.072 * k),
            up,
            side,
            (0, 0.8, -0.6, 0.30),
        )
        return
    thick = {"buzz": 1.02, "short": 1.06, "ponytail": 1.05, "bun": 1.05}.get(style, 1.10)
    out.ball(tag, f.at(0, -0.008 * k, 0.015 * k), (0.0440 * k * thick, 0.0545 * k * thick, 0.0535 * k * thick * 1.02),
             up, side, face)  # fmt: skip
    if style in ("short", "buzz"):  # down to the nape
        out.ball(tag, f.at(0, -0.022 * k, -0.014 * k), (0.0385 * k * thick, 0.0370 * k * thick, 0.0400 * k), up, side,
                 (0, 1, 0, 0.35))  # fmt: skip
    if style in ("bob", "long"):
        low = -0.050 if style == "bob" else -0.135
        out.cone(tag, f.at(0, -0.030 * k, 0.005 * k), f.at(0, -0.050 * k, low * k), 0.047 * k,
                 0.044 * k if style == "bob" else 0.034 * k, side, (1.08, 0.72))  # fmt: skip
        for s in (-1.0, 1.0):
            out.cone(tag, f.at(s * 0.036 * k, -0.006 * k, 0.012 * k),
                     f.at(s * 0.043 * k, -0.010 * k, (low * 0.9 if style == "bob" else -0.085) * k),
                     0.018 * k, 0.014 * k, side)  # fmt: skip
    elif style == "ponytail":
        out.ball(tag, f.at(0, -0.066 * k, 0.030 * k), (0.018 * k,) * 3, up, side)
        out.cone(
            tag, f.at(0, -0.074 * k, 0.022 * k), f.at(0, -0.086 * k, -0.095 * k), 0.020 * k, 0.009 * k, side
        )
    elif style == "bun":
        out.ball(tag, f.at(0, -0.052 * k, 0.058 * k), (0.027 * k,) * 3, up, side)
    elif style == "short":
        out.ball(
            tag, f.at(0, 0.012 * k, 0.056 * k), (0.034 * k, 0.036 * k, 0.018 * k), f.turn(0, 0.25, 1), side
        )


def _hat(out: Shapes, who: Identity, j: Joints) -> None:
    k = 0.45 * 1.72 + 0.55 * who.height
    f = j.head
    up, side = f.axes[2], f.axes[0]
    tag = (HAT_PART, HAT, 1)
    if who.hat == "cap":
        out.ball(
            tag,
            f.at(0, -0.006 * k, 0.020 * k),
            (0.0520 * k, 0.0625 * k, 0.0560 * k),
            up,
            side,
            (0, 0, -1, -0.12),
        )
        out.ball(
            tag, f.at(0, 0.062 * k, 0.026 * k), (0.043 * k, 0.046 * k, 0.0065 * k), f.turn(0, 0.18, 1), side
        )
    elif who.hat == "beanie":
        out.ball(
            tag,
            f.at(0, -0.008 * k, 0.022 * k),
            (0.0530 * k, 0.0630 * k, 0.0630 * k),
            up,
            side,
            (0, 0, -1, 0.0),
        )
        out.ball(tag, f.at(0, -0.007 * k, 0.026 * k), (0.0555 * k, 0.0655 * k, 0.0140 * k), up, side)
    elif who.hat == "sunhat":
        out.ball(
            tag,
            f.at(0, -0.006 * k, 0.030 * k),
            (0.0520 * k, 0.0610 * k, 0.0540 * k),
            up,
            side,
            (0, 0, -1, 0.0),
        )
        out.ball(tag, f.at(0, -0.004 * k, 0.033 * k), (0.110 * k, 0.118 * k, 0.0085 * k), up, side)
    elif who.hat == "hood":
        out.ball(
            tag,
            f.at(0, -0.014 * k, 0.010 * k),
            (0.0570 * k, 0.0680 * k, 0.0680 * k),
            up,
            side,
            (0, 0.93, -0.36, 0.52),
        )
        out.cone(
            tag,
            f.at(0, -0.030 * k, -0.01 * k),
            j.torso.at(0, -0.02, j.neck_z),
            0.050 * k,
            0.052 * k,
            side,
            (1.0, 0.8),
        )


def _bag(out: Shapes, who: Identity, j: Joints) -> None:
    h, t = who.height, j.torso
    side = t.axes[0]
    tag = (BAG_PART, BAG, 0)
    back = -0.070 * h * (0.4 + 0.6 * who.girth) - _LOOSE[who.upper]
    if who.bag == "backpack":
        top, bottom = j.shoulder_z - 0.045 * h, j.shoulder_z - 0.195 * h
        for s in (-1.0, 1.0):
            out.cone(tag, t.at(s * 0.026 * h, back - 0.034 * h, bottom), t.at(s * 0.024 * h, back - 0.026 * h, top),
                     0.055 * h, 0.050 * h, side, (1.0, 0.82))  # fmt: skip
            out.cone(tag, t.at(s * 0.062 * h, 0.0, j.shoulder_z + 0.012 * h), t.at(s * 0.060 * h, back, j.shoulder_z - 0.02 * h),
                     0.017 * h, 0.017 * h, side, (1.0, 0.6))  # fmt: skip
        out.cone((BAG_PART, POCKET, 0), t.at(-0.026 * h, back - 0.068 * h, bottom + 0.010 * h),
                 t.at(0.026 * h, back - 0.068 * h, bottom + 0.010 * h), 0.040 * h, 0.040 * h, t.axes[2], (1.0, 0.55))  # fmt: skip
    elif who.bag == "messenger":
        x = who.bag_side * (0.098 * h * (0.5 + 0.5 * who.girth) + 0.025)
        z = -0.005 * h
        for dz in (-0.030, 0.0, 0.030):
            out.cone(tag, t.at(x, -0.080 * h, z + dz * h), t.at(x, 0.055 * h, z + dz * h), 0.032 * h, 0.032 * h,
                     side, (0.75, 1.0))  # fmt: skip
    elif who.bag == "handbag":
        k = 0 if who.bag_side < 0 else 1
        wrist, along = j.arms[k][2], j.arms[k][3]
        grip = _step(wrist, along, 0.045 * h)
        z = max(grip[2] - 0.10 * h, 0.10)
        for dy in (-0.035, 0.035):
            out.cone(
                (BAG_PART, POCKET, 0), grip, (grip[0], grip[1] + dy * h, z + 0.03 * h), 0.006, 0.006, side
            )
        for dz, wide in ((-0.024, 0.062), (-0.002, 0.058), (0.018, 0.054)):
            out.cone(tag, (grip[0], grip[1] - wide * h, z + dz * h), (grip[0], grip[1] + wide * h, z + dz * h),
                     0.028 * h, 0.028 * h, side, (0.85, 1.0))  # fmt: skip
