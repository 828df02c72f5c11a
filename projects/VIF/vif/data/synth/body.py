"""From an identity and a pose to shapes: torso, arms and legs with what they wear."""

from typing import Tuple

from vif.data.synth.extras import LOOSE, add_bag, add_hair, add_hat, add_head
from vif.data.synth.parts import (
    ARMS,
    HOOD,
    LEGS,
    LOWER,
    PELVIS,
    SHOE,
    SKIN,
    SKIRT,
    SLEEVE,
    SOLE,
    TORSO,
    UPPER,
)
from vif.data.synth.people import Identity
from vif.data.synth.pose import Joints, Pose, step, unit
from vif.data.synth.shapes import NO_CUT, Shapes


def build_body(who: Identity, pose: Pose) -> Tuple[Shapes, Joints]:
    """The person's shapes and joints."""
    j = Joints(who, pose)
    out = Shapes()
    out.frames = [(j.torso.origin, j.torso.axes), (j.head.origin, j.head.axes)]
    _torso(out, who, j)
    _arms(out, who, j)
    _legs(out, who, j)
    add_head(out, who, j)
    add_hair(out, who, j)
    add_hat(out, who, j)
    add_bag(out, who, j)
    return out, j


def _torso(out: Shapes, who: Identity, j: Joints) -> None:
    h, g, t = who.height, who.girth, j.torso
    up = j.scale * h
    loose = LOOSE[who.upper]
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
    out.cone(
        tag,
        t.at(-y, -0.004 * h, j.shoulder_z - 0.016 * h),
        t.at(y, -0.004 * h, j.shoulder_z - 0.016 * h),
        0.032 * h * g**0.5 + loose * 0.4,
        0.032 * h * g**0.5 + loose * 0.4,
        t.axes[2],
        (1.0, 1.12),
    )
    for s in (-1.0, 1.0):
        out.cone(
            tag,
            t.at(s * 0.012 * h, -0.010 * h, j.neck_z + 0.010 * h),
            t.at(s * y * 0.82, -0.004 * h, j.shoulder_z),
            0.028 * h,
            0.026 * h + loose * 0.5,
            side,
        )
        out.ball(
            tag,
            t.at(s * 0.042 * h, chest * deep * 0.42, 0.222 * up),
            (0.052 * h * g, 0.040 * h * g, 0.046 * h),
            t.axes[2],
            side,
        )
    if who.belly > 0.05:
        out.ball(
            tag,
            t.at(0, waist * deep * 0.25, 0.115 * up),
            (waist * 0.92, waist * deep * (0.72 + 0.45 * who.belly), 0.085 * h),
            t.axes[2],
            side,
        )
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
        out.cone(
            (SKIRT, UPPER, 0),
            t.at(0, 0, 0.10 * up),
            t.at(0, middle, hem - 0.06),
            waist,
            bottom + 0.01,
            side,
            (1.0, deep),
            (0, 0, 1, 1 - 0.06 / (0.10 * up - hem + 0.06)),
        )
    else:
        out.cone(
            tag,
            t.at(0, 0.002, 0.11 * up),
            t.at(0, -0.004, hem - 0.06),
            waist * 0.99,
            bottom,
            side,
            (1.0, 0.76),
            (0, 0, 1, 1 - 0.06 / (0.11 * up - hem + 0.06)),
        )
    if who.upper in ("jacket", "coat", "shirt", "hoodie"):  # collar
        wide = 0.040 * h if who.upper != "hoodie" else 0.052 * h
        out.ball(
            tag, t.at(0, -0.008 * h, j.neck_z + 0.004 * h), (wide, wide * 1.02, 0.026 * h), t.axes[2], side
        )
    if who.upper == "hoodie" and who.hat != "hood":
        out.ball(
            (TORSO, HOOD, 0),
            t.at(0, -0.056 * h, j.neck_z - 0.012 * h),
            (0.068 * h, 0.036 * h, 0.040 * h),
            t.turn(0, -0.4, 1),
            side,
        )
    # pelvis and buttocks, in the lower's cloth
    p = j.pelvis
    low = (PELVIS, LOWER, 0)
    out.cone(
        low,
        p.at(0, 0, 0.005 * h),
        p.at(0, 0, 0.055 * up),
        hip,
        min(waist, hip) * 0.85,
        p.axes[0],
        (1.0, 0.70),
        (0, 0, 1, 1.0),
    )
    for s in (-1.0, 1.0) if who.upper != "coat" else ():
        out.ball(
            low,
            p.at(s * 0.040 * h, -0.026 * h * g, -0.020 * h),
            (0.047 * h * g, 0.046 * h * g, 0.050 * h),
            p.axes[2],
            p.axes[0],
        )


def _arms(out: Shapes, who: Identity, j: Joints) -> None:
    h = who.height
    g = 0.5 + 0.5 * who.girth
    loose = LOOSE[who.upper]
    side = j.torso.axes[0]
    for k, (upper, fore, hand) in enumerate(ARMS):
        shoulder, elbow, wrist, along = j.arms[k]
        bare = who.sleeves != "long"
        r = (0.0265 * h * g, 0.0225 * h * g, 0.0150 * h * g)
        if bare:
            out.cone((upper, SKIN, 0), shoulder, elbow, r[0], r[1], side)
            out.cone((fore, SKIN, 0), elbow, wrist, r[1], r[2], side)
            if who.sleeves == "short":
                out.cone(
                    (upper, SLEEVE, 0),
                    shoulder,
                    elbow,
                    r[0] * 1.12 + loose,
                    r[0] * 1.12 + loose * 1.3,
                    side,
                    cut=(0, 0, 1, 0.60),
                )
            else:
                out.ball((upper, UPPER, 0), shoulder, (r[0] * 1.1, r[0] * 1.15, r[0] * 0.9), (0, 0, 1), side)
        else:
            wide = loose * 0.75 + 0.002
            out.cone((upper, SLEEVE, 0), shoulder, elbow, r[0] + wide * 1.2, r[1] + wide, side)
            out.cone((fore, SLEEVE, 0), elbow, wrist, r[1] + wide, r[2] + wide * 0.8 + 0.003, side)
        palm = step(wrist, along, 0.030 * h)
        out.cone((hand, SKIN, 0), wrist, palm, 0.0150 * h, 0.0195 * h, side, (0.62, 1.0))
        out.cone((hand, SKIN, 0), palm, step(palm, along, 0.030 * h), 0.018 * h, 0.011 * h, side, (0.55, 1.0))


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
            out.cone(
                (thigh, SKIN, 0), hip, knee, r[0], r[1], side, cut=(0, 0, -1, -shown) if shown else NO_CUT
            )
            if who.lower == "shorts":
                out.cone(
                    top,
                    hip,
                    step(hip, unit(hip, knee), 0.24 * h),
                    r[0] + loose * 0.6,
                    r[0] * 0.93 + loose,
                    side,
                    cut=(0, 0, 1, 0.80 if who.pattern_phase < 0.6 else 0.95),
                )
            out.cone(
                (shin, SKIN, 0), knee, ankle, r[1], r[2], side, cut=(0, 0, -1, -0.35) if shown > 1 else NO_CUT
            )
            calf = tuple(0.70 * a + 0.30 * b for a, b in zip(knee, ankle))
            down = unit(ankle, knee)
            if shown <= 1:
                out.ball(
                    (shin, SKIN, 0),
                    (calf[0], calf[1] - 0.010 * h, calf[2]),
                    (0.030 * h * g, 0.031 * h * g, 0.066 * h),
                    down,
                    side,
                )
        else:
            out.cone((thigh, LOWER, 0), hip, knee, r[0] + loose, r[1] + loose, side)
            end = max(shin_end, r[2] + 0.004)
            out.cone(
                (shin, LOWER, 0),
                knee,
                step(ankle, unit(knee, ankle), 0.012 * h),
                r[1] + loose,
                end,
                side,
                (1.0, 1.1),
                (0, 0, 1, 1.0),
            )
        # shoe: heel to toe, flattened, on a thin sole
        out.cone((foot, SHOE, 0), heel, toe, 0.0240 * h, 0.0185 * h, side, (1.0, 1.0))
        out.cone((foot, SHOE, 0), ankle, step(heel, unit(heel, toe), 0.016 * h), 0.023 * h, 0.026 * h, side)
        drop = 0.0125 * h
        out.cone(
            (foot, SOLE, 0),
            (heel[0], heel[1], heel[2] - drop),
            (toe[0], toe[1], toe[2] - drop * 0.5),
            0.0262 * h,
            0.0215 * h,
            side,
            (1.0, 0.45),
        )
    if who.lower in ("skirt", "longskirt", "dress"):
        p = j.pelvis
        hipr = max(0.083 * h * (0.35 + 0.65 * who.girth) * who.hips, 0.050 * h * who.hips + 0.040 * h * g)
        drop = {"skirt": 0.23, "longskirt": 0.40, "dress": 0.28}[who.lower] * h
        flare = {"skirt": 0.045, "longskirt": 0.055, "dress": 0.06}[who.lower]
        middle, deep = _room(j, hipr + flare)
        out.cone(
            (SKIRT, LOWER, 0),
            p.at(0, 0, 0.05 * h),
            p.at(0, middle, -drop - 0.10),
            hipr * 0.99,
            hipr + flare,
            side,
            (1.0, deep),
            (0, 0, 1, 1 - 0.10 / (drop + 0.10 + 0.05 * h)),
        )


def _room(j: Joints, radius: float) -> Tuple[float, float]:
    """Middle of a hem, m to the front, and its depth over its width: the knees stay inside."""
    knees = [leg[1][1] for leg in j.legs]
    middle = 0.6 * (knees[0] + knees[1])
    reach = max(abs(y - middle) for y in knees) + 0.075
    return middle, max(0.78, min(1.30, reach / radius))
