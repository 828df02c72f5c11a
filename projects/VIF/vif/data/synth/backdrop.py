"""Renders what surrounds a person: ground, wall, skyline and boxes, with their textures."""

import math
from typing import List, NamedTuple, Tuple

import numpy as np

from vif.data.synth.scene import Box, Finish, Scene
from vif.data.synth.shapes import Rays
from vif.data.synth.texture import noise

Array = np.ndarray


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


class Backdrop(NamedTuple):
    """Surroundings by pixel, N = H * W: albedo (3, N), normal, point 3 x (N,), depth (N,), lit (N,) bool."""

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


def _box(back: Backdrop, box: Box, eye: List[np.float32], turn: List[Array]) -> None:
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
