"""Head, hair, hat and bag of a person."""

from vif.data.synth.parts import BAG, BAG_PART, HAIR, HAIR_PART, HAT, HAT_PART, HEAD, NECK, POCKET, SKIN
from vif.data.synth.people import Identity
from vif.data.synth.pose import Joints, step
from vif.data.synth.shapes import Shapes

# how far the upper's cloth stands off the body, m
LOOSE = {
    "tshirt": 0.010,
    "shirt": 0.012,
    "sweater": 0.016,
    "jacket": 0.024,
    "coat": 0.026,
    "hoodie": 0.022,
    "tank": 0.004,
}


def add_head(out: Shapes, who: Identity, j: Joints) -> None:
    """Neck, skull, jaw, nose and ears."""
    h, f = who.height, j.head
    k = 0.45 * 1.72 + 0.55 * h  # heads vary less than heights
    up, side = f.axes[2], f.axes[0]
    tag = (HEAD, SKIN, 1)
    out.cone(
        (NECK, SKIN, 0),
        j.torso.at(0, -0.006 * h, j.neck_z - 0.012 * h),
        f.at(0, -0.017 * k, -0.022 * k),
        0.034 * h * who.girth**0.5,
        0.0325 * h * who.girth**0.3,
        side,
    )
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


def add_hair(out: Shapes, who: Identity, j: Joints) -> None:
    """Hair by style."""
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
            f.at(0, -0.016 * k, 0.022 * k),
            (0.070 * k, 0.073 * k, 0.070 * k),
            up,
            side,
            (0, 0.8, -0.6, 0.30),
        )
        return
    thick = {"buzz": 1.02, "short": 1.06, "ponytail": 1.05, "bun": 1.05}.get(style, 1.10)
    out.ball(
        tag,
        f.at(0, -0.008 * k, 0.015 * k),
        (0.0440 * k * thick, 0.0545 * k * thick, 0.0535 * k * thick * 1.02),
        up,
        side,
        face,
    )
    if style in ("short", "buzz"):  # down to the nape
        out.ball(
            tag,
            f.at(0, -0.022 * k, -0.014 * k),
            (0.0385 * k * thick, 0.0370 * k * thick, 0.0400 * k),
            up,
            side,
            (0, 1, 0, 0.35),
        )
    if style in ("bob", "long"):
        low = -0.050 if style == "bob" else -0.135
        out.cone(
            tag,
            f.at(0, -0.030 * k, 0.005 * k),
            f.at(0, -0.050 * k, low * k),
            0.047 * k,
            0.044 * k if style == "bob" else 0.034 * k,
            side,
            (1.08, 0.72),
        )
        for s in (-1.0, 1.0):
            out.cone(
                tag,
                f.at(s * 0.036 * k, -0.006 * k, 0.012 * k),
                f.at(s * 0.043 * k, -0.010 * k, (low * 0.9 if style == "bob" else -0.085) * k),
                0.018 * k,
                0.014 * k,
                side,
            )
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


def add_hat(out: Shapes, who: Identity, j: Joints) -> None:
    """Cap, beanie, sun hat or hood."""
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


def add_bag(out: Shapes, who: Identity, j: Joints) -> None:
    """Backpack, messenger bag or handbag."""
    h, t = who.height, j.torso
    side = t.axes[0]
    tag = (BAG_PART, BAG, 0)
    back = -0.070 * h * (0.4 + 0.6 * who.girth) - LOOSE[who.upper]
    if who.bag == "backpack":
        top, bottom = j.shoulder_z - 0.045 * h, j.shoulder_z - 0.195 * h
        for s in (-1.0, 1.0):
            out.cone(
                tag,
                t.at(s * 0.026 * h, back - 0.034 * h, bottom),
                t.at(s * 0.024 * h, back - 0.026 * h, top),
                0.055 * h,
                0.050 * h,
                side,
                (1.0, 0.82),
            )
            out.cone(
                tag,
                t.at(s * 0.062 * h, 0.0, j.shoulder_z + 0.012 * h),
                t.at(s * 0.060 * h, back, j.shoulder_z - 0.02 * h),
                0.017 * h,
                0.017 * h,
                side,
                (1.0, 0.6),
            )
        out.cone(
            (BAG_PART, POCKET, 0),
            t.at(-0.026 * h, back - 0.068 * h, bottom + 0.010 * h),
            t.at(0.026 * h, back - 0.068 * h, bottom + 0.010 * h),
            0.040 * h,
            0.040 * h,
            t.axes[2],
            (1.0, 0.55),
        )
    elif who.bag == "messenger":
        x = who.bag_side * (0.098 * h * (0.5 + 0.5 * who.girth) + 0.025)
        z = -0.005 * h
        for dz in (-0.030, 0.0, 0.030):
            out.cone(
                tag,
                t.at(x, -0.080 * h, z + dz * h),
                t.at(x, 0.055 * h, z + dz * h),
                0.032 * h,
                0.032 * h,
                side,
                (0.75, 1.0),
            )
    elif who.bag == "handbag":
        k = 0 if who.bag_side < 0 else 1
        wrist, along = j.arms[k][2], j.arms[k][3]
        grip = step(wrist, along, 0.045 * h)
        z = max(grip[2] - 0.10 * h, 0.10)
        for dy in (-0.035, 0.035):
            out.cone(
                (BAG_PART, POCKET, 0), grip, (grip[0], grip[1] + dy * h, z + 0.03 * h), 0.006, 0.006, side
            )
        for dz, wide in ((-0.024, 0.062), (-0.002, 0.058), (0.018, 0.054)):
            out.cone(
                tag,
                (grip[0], grip[1] - wide * h, z + dz * h),
                (grip[0], grip[1] + wide * h, z + dz * h),
                0.028 * h,
                0.028 * h,
                side,
                (0.85, 1.0),
            )
