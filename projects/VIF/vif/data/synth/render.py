"""One picture of one person: pose, camera, light, ray casting, shading, and what a sensor does to it."""

from typing import Dict, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, ImageFilter

from vif.data.synth.backdrop import Backdrop, render_backdrop
from vif.data.synth.body import build_body
from vif.data.synth.camera import AERIAL_CAMERAS, CAMERAS, MOUNTS, Camera, look, sample_view
from vif.data.synth.cast import cast
from vif.data.synth.parts import RELATED
from vif.data.synth.people import Identity, sample_identity
from vif.data.synth.pose import Joints, Pose, sample_pose
from vif.data.synth.scene import Light, Scene, sample_light, sample_scene
from vif.data.synth.shade import surface
from vif.data.synth.shadow import ShadowMap
from vif.data.synth.shapes import Array, Hits, Rays, bounds, world_points
from vif.data.synth.texture import grain
from vif.errors import DataError

SAMPLES = 1.5  # per pixel and direction; the sensor averages over them


class Picture(NamedTuple):
    """Everything that one picture is made from; ``shot`` samples it, ``draw`` renders it."""

    who: Identity
    pose: Pose
    joints: Joints
    shapes: Dict[str, Array]
    camera: Camera
    light: Light
    scene: Scene
    blur: float
    smear: float
    loss: float
    rng: np.random.Generator


def is_night(seed: int, pid: int, camid: int, index: int) -> bool:
    """Whether this picture is taken at night; decided by its own seed."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 2, pid, camid, index]))
    return bool(rng.random() < MOUNTS[camid].night)


def shot(seed: int, pid: int, camid: int, index: int = 0, size: Tuple[int, int] = (128, 64)) -> Picture:
    """Samples pose, camera, light and surroundings of a picture; ``size`` is (height, width) in pixels."""
    if camid not in MOUNTS:
        raise DataError(f"SynthAG has no camera {camid!r}; choose one of {CAMERAS[0]} to {CAMERAS[-1]}")
    if len(size) != 2 or min(size) < 16:
        raise DataError(f"size is (height, width), each 16 pixels or more, not {size!r}")
    rng = np.random.default_rng(np.random.SeedSequence([seed, 2, pid, camid, index]))
    night = bool(rng.random() < MOUNTS[camid].night)
    who = sample_identity(seed, pid)
    pose = sample_pose(rng)
    body, joints = build_body(who, pose)
    shapes = body.pack()
    view = sample_view(rng, camid)
    camera = _frame(rng, shapes, view, size, camid in AERIAL_CAMERAS)
    light = sample_light(rng, night)
    scene = sample_scene(rng, camid, view[1], night)
    u = [float(v) for v in rng.random(4)]
    scale = size[0] / 128.0
    blur = (0.25 + 1.1 * u[0] ** 2.2) * scale if camid in AERIAL_CAMERAS else 0.9 * u[0] ** 3 * scale
    smear = 3.0 * scale * u[2] if u[1] < (0.18 if night else 0.05) else 0.0
    loss = 1.0 + (1.3 if camid in AERIAL_CAMERAS else 0.9) * max(0.0, u[3] - 0.55) / 0.45
    return Picture(who, pose, joints, shapes, camera, light, scene, blur, smear, loss, rng)


def _frame(
    rng: np.random.Generator,
    shapes: Dict[str, Array],
    view: Tuple[float, ...],
    size: Tuple[int, int],
    aerial: bool,
) -> Camera:
    """Aims the camera as a person detector crops: the body's box with a jittered margin, sometimes cut."""
    depression, azimuth, distance, roll = view
    height, width = size
    position, right, down, forward = look(depression, azimuth, distance, roll, np.array([0.0, 0.0, 0.9]))
    wide = Camera(position, right, down, forward, 1.0, 1.0, 0.0, 0.0, 1, 1)
    boxes = bounds(shapes, wide.rays())
    x0, y0 = boxes[:, :2].min(0)
    x1, y1 = boxes[:, 2:].max(0)
    u = [float(v) for v in rng.random(8)]
    margin = 0.04 + 0.10 * u[0]
    w, h = (x1 - x0) * (1 + 2 * margin), (y1 - y0) * (1 + margin)
    cx, cy = (x0 + x1) / 2 + (x1 - x0) * 0.10 * (u[1] - 0.5), (y0 + y1) / 2 + (y1 - y0) * 0.07 * (u[2] - 0.5)
    if u[3] < 0.07:  # the legs are outside
        gone = (0.15 + 0.30 * u[4]) * h
        h, cy = h - gone, cy - gone / 2
    elif u[3] < 0.12:  # a side is outside
        gone = (0.15 + 0.20 * u[4]) * w
        w, cx = w - gone, cx + gone / 2 * (1 if u[5] < 0.5 else -1)
    # a detector's box is squeezed into the picture's shape: up to a limit here, the rest is surroundings
    squeeze = (width / w) / (height / h)
    limit = 1.12 + (0.33 if aerial else 0.13) * u[6]
    stretch = min(max(squeeze, 1 / limit), limit)
    fy = min(height / h, width / w / stretch)
    fx = fy * stretch
    return Camera(
        position, right, down, forward, fx, fy, width / 2 - cx * fx, height / 2 - cy * fy, width, height
    )


def silhouette(picture: Picture) -> Array:
    """Which pixels the person covers, occluders ignored: bool (H, W)."""
    camera = picture.camera
    hits = cast(picture.shapes, camera.rays())
    out = np.zeros(camera.height * camera.width, dtype=bool)
    out[hits.pixel] = True
    return out.reshape(camera.height, camera.width)


def draw(picture: Picture) -> Array:
    """Renders a sampled picture: uint8 (H, W, 3) RGB."""
    camera, light, shapes = picture.camera, picture.light, picture.shapes
    rays = camera.rays(SAMPLES)
    back = render_backdrop(picture.scene, rays)
    hits = cast(shapes, rays, RELATED)
    shade = ShadowMap(shapes, light) if light.shadows else None
    frame = _light_backdrop(back, light, shade, picture.joints)
    visible = hits.depth < back.depth[hits.pixel]
    if not visible.all():
        hits = Hits(
            hits.pixel[visible],
            hits.primitive[visible],
            hits.depth[visible],
            [n[visible] for n in hits.normal],
        )
    if len(hits.pixel):
        frame[:, hits.pixel] = _light_body(picture, hits, rays, shade)
    return _develop(frame.reshape(3, rays.height, rays.width), picture)


def _light_backdrop(back: Backdrop, light: Light, shade: Optional[ShadowMap], joints: Joints) -> Array:
    f32 = np.float32
    sun = [f32(v) for v in light.towards]
    n = back.normal
    facing = np.maximum(n[0] * sun[0] + n[1] * sun[1] + n[2] * sun[2], 0)
    point = (back.point[0], back.point[1], back.point[2])
    if shade is not None:
        facing *= shade.on_ground(point)
    near = np.ones_like(facing)
    for leg in joints.legs:
        x, y = (leg[3][0] + leg[4][0]) / 2, (leg[3][1] + leg[4][1]) / 2
        away = np.square(point[0] - f32(x)) + np.square(point[1] - f32(y)) + np.square(point[2])
        near -= f32(0.42) / (1 + away * f32(60.0)) ** 2
    out = np.empty_like(back.albedo)
    for k in range(3):
        out[k] = back.albedo[k] * np.where(back.lit, facing * light.direct[k] + near * light.ambient[k],
                                           f32(1.0))  # fmt: skip
    return out


def _light_body(picture: Picture, hits: Hits, rays: Rays, shade: Optional[ShadowMap]) -> Array:
    f32 = np.float32
    light = picture.light
    point = tuple(world_points(rays, hits.pixel, hits.depth))
    eye = rays.base - rays.spread * rays.forward
    look_at = [point[k] - f32(eye[k]) for k in range(3)]
    colour, gloss, n = surface(picture.who, picture.joints, shapes=picture.shapes, hits=hits, point=point)
    sun = [f32(v) for v in light.towards]
    facing = n[0] * sun[0] + n[1] * sun[1] + n[2] * sun[2]
    lit = f32(1.0) if shade is None else shade.on_body(point)
    direct = np.clip(facing * f32(0.92) + f32(0.08), 0, 1) * lit
    sky = f32(0.58) + f32(0.42) * n[2]
    size = 1 / np.sqrt(look_at[0] ** 2 + look_at[1] ** 2 + look_at[2] ** 2)
    away = (n[0] * look_at[0] + n[1] * look_at[1] + n[2] * look_at[2]) * size  # -1 where the surface faces us
    mirror = sum((look_at[k] * size - 2 * away * n[k]) * sun[k] for k in range(3))
    shine = gloss * np.maximum(mirror, 0) ** 12 * lit
    rim = f32(1.0) - f32(0.28) * np.clip(1 + away, 0, 1) ** 2  # less sky reaches what we see edge-on
    low = np.clip(f32(0.55) - point[2], 0, 1)  # the ground's light from below
    out = np.empty_like(colour)
    for k in range(3):
        bounce = light.bounce[k] * (f32(0.5) - f32(0.5) * n[2] + low * f32(0.3))
        out[k] = colour[k] * (direct * light.direct[k] + sky * rim * light.ambient[k] + bounce)
        out[k] += shine * light.direct[k]
    return out


def _develop(small: Array, picture: Picture) -> Array:
    """Exposure, blur, lost resolution, noise: linear (3, H, W) -> uint8 (H, W, 3)."""
    f32 = np.float32
    light, rng = picture.light, picture.rng
    value = small * light.exposure.astype(f32)[:, None, None]
    value = np.sqrt(value / (f32(0.86) + f32(0.30) * value)) * f32(235.0)
    frame = np.ascontiguousarray(np.clip(value, 0, 255).transpose(1, 2, 0)).astype(np.uint8)
    height, width = picture.camera.height, picture.camera.width
    image: Image.Image = Image.fromarray(frame)
    image = image.resize(
        (max(8, round(width / picture.loss)), max(8, round(height / picture.loss))), Image.Resampling.BILINEAR
    )
    if picture.blur > 0.3:
        image = image.filter(ImageFilter.GaussianBlur(picture.blur / picture.loss))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    out: Array = np.asarray(image).astype(f32)
    if picture.smear >= 1.0:  # motion blur, sideways
        steps = int(picture.smear) + 1
        pad = np.pad(out, ((0, 0), (steps, 0), (0, 0)), mode="edge")
        out = sum((pad[:, i : i + width] for i in range(1, steps + 1)), pad[:, :width]) / f32(steps + 1)
    strength = f32(255.0 * light.noise)
    out = out + strength * f32(0.5) * grain(rng, height * width * 3).reshape(height, width, 3)
    out += strength * f32(0.8) * grain(rng, height * width).reshape(height, width, 1)
    return np.clip(out + f32(0.5), 0, 255).astype(np.uint8)


def render_image(seed: int, pid: int, camid: int, index: int = 0, size: Tuple[int, int] = (128, 64)) -> Array:
    """Renders person ``pid`` of world ``seed`` as camera ``camid`` (1-13) sees it for the ``index``-th time.

    Args:
        seed, pid, index: >= 0. The same four numbers and size give the same pixels.
        camid: 1-5 aerial, 6-13 ground.
        size: (height, width) in pixels.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        DataError: unknown camera, or a size that is too small.
    """
    return draw(shot(seed, pid, camid, index, size))


def contact_sheet(
    seed: int,
    pids: Sequence[int],
    size: Tuple[int, int] = (128, 64),
    gap: int = 4,
    index: int = 0,
) -> Array:
    """Identities as rows, cameras 1-13 as columns, on black: uint8 RGB."""
    height, width = size
    sheet = np.zeros(
        (len(pids) * (height + gap) - gap, len(CAMERAS) * (width + gap) - gap, 3), dtype=np.uint8
    )
    for row, pid in enumerate(pids):
        for column, camid in enumerate(CAMERAS):
            y, x = row * (height + gap), column * (width + gap)
            sheet[y : y + height, x : x + width] = render_image(seed, pid, camid, index, size)
    return sheet
