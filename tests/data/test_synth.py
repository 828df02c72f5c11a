import json
import math
import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image
from vif.data.synth import (
    AERIAL_CAMERAS,
    CAMERAS,
    GROUND_CAMERAS,
    contact_sheet,
    plan_synthag,
    render_image,
    sample_identity,
    shot,
    silhouette,
    write_synthag,
)
from vif.data.synth.cast import cast
from vif.data.synth.shapes import Rays, Shapes, bounds, world_points
from vif.data.synth.writer import MANIFEST, UNFINISHED
from vif.errors import DataError

SMALL = (48, 24)


def files(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*.jpg"))}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("synth") / "SynthAG"
    manifest = write_synthag(root, ids=4, size=SMALL, workers=1, progress=False)
    return root, manifest


# ---- the ray caster, against a dense sampling of the same surfaces


def parallel(size=64, reach=1.0, forward=(0.0, 1.0, 0.0)):
    f = size / (2 * reach)
    forward = np.array(forward)
    right = np.array([1.0, 0.0, 0.0])
    return Rays(
        np.zeros(3), right, np.cross(forward, right), forward, 1.0, 0.0, f, f, size / 2, size / 2, size, size
    )


def perspective(size=64):
    position = np.array([0.4, -3.0, 0.5])
    forward = -position / np.linalg.norm(position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    far = float(np.linalg.norm(position))
    f = size / 2 * far
    return Rays(np.zeros(3), right, down, forward, far, 1.0, f, f, size / 2, size / 2, size, size)


def marched(distance, rays, steps=4000, depth=2.4):
    """Depth of the first point with distance <= 0 along each ray, in float64 by small steps; inf if none."""
    s = (np.arange(rays.width) + 0.5 - rays.cx) / rays.fx
    t = (np.arange(rays.height) + 0.5 - rays.cy) / rays.fy
    turn = s[None, :, None] * rays.right + t[:, None, None] * rays.down
    start = rays.base + rays.spread * turn
    ray = rays.forward + rays.diverge * turn
    out = np.full(turn.shape[:2], np.inf)
    for z in np.linspace(-depth / 2, depth / 2, steps):
        inside = distance(start + z * ray) <= 0
        out[inside & np.isinf(out)] = z + rays.spread * rays.diverge
    return out


def round_cone(points, a, b, ra, rb):
    """Distance to the hull of two balls as the least over balls between them, by brute force."""
    best = np.full(points.shape[:-1], np.inf)
    for h in np.linspace(0, 1, 65):
        best = np.minimum(best, np.linalg.norm(points - (a + h * (b - a)), axis=-1) - (ra + h * (rb - ra)))
    return best


@pytest.mark.parametrize("rays", [parallel(24), perspective(24)], ids=["parallel", "perspective"])
@pytest.mark.parametrize(
    ("a", "b", "ra", "rb"),
    [
        ((-0.4, 0.1, -0.3), (0.4, -0.1, 0.4), 0.30, 0.12),
        ((0.05, -0.5, 0.0), (0.0, 0.4, 0.1), 0.10, 0.35),  # seen along its axis, from the thin end
        ((0.05, -0.5, 0.0), (0.0, 0.4, 0.1), 0.35, 0.10),
    ],
)
def test_round_cone_matches_brute_force(rays, a, b, ra, rb):
    shapes = Shapes()
    shapes.cone((0, 0, 0), a, b, ra, rb, (0.3, 0.2, 0.9))
    hits = cast(shapes.pack(), rays, np.ones((1, 1), dtype=bool))
    truth = marched(lambda p: round_cone(p, np.array(a), np.array(b), ra, rb), rays, steps=160)
    found = np.full(truth.size, np.inf)
    found[hits.pixel] = hits.depth
    found = found.reshape(truth.shape)
    both = np.isfinite(found) & np.isfinite(truth)
    assert both.sum() > 30
    assert (np.isfinite(found) != np.isfinite(truth)).mean() < 0.01  # grazing rays only
    error = np.abs(found[both] - truth[both])
    assert error.max() < 0.04
    assert np.median(error) < 0.010  # half a step is 0.0075
    # the normal is the gradient of the distance
    point = np.stack(world_points(rays, hits.pixel, hits.depth), axis=-1).astype(np.float64)
    normal = np.stack(hits.normal, axis=-1)
    gradient = np.stack(
        [
            round_cone(point + e, np.array(a), np.array(b), ra, rb)
            - round_cone(point - e, np.array(a), np.array(b), ra, rb)
            for e in 1e-3 * np.eye(3)
        ],
        axis=-1,
    )
    gradient /= np.linalg.norm(gradient, axis=-1, keepdims=True)
    assert np.median((gradient * normal).sum(-1)) > 0.999
    x0, y0, x1, y1 = bounds(shapes.pack(), rays)[0]
    y, x = np.nonzero(np.isfinite(truth))
    assert x0 <= x.min() + 1
    assert y0 <= y.min() + 1
    assert x1 >= x.max()
    assert y1 >= y.max()


def test_ellipsoid_and_cut_match_their_formula():
    rays = parallel(48)
    shapes = Shapes()
    shapes.ball(
        (0, 0, 0), (0.1, 0.0, -0.1), (0.5, 0.3, 0.7), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0, 0, 1, 0.4)
    )
    hits = cast(shapes.pack(), rays)
    i = (np.arange(48) + 0.5) / 24 - 1
    x, z = np.meshgrid(i, -i)
    x, z = (x - 0.1) / 0.5, (z + 0.1) / 0.7
    inside = (x * x + z * z < 1) & (z <= 0.4)
    mask = np.zeros(48 * 48, dtype=bool)
    mask[hits.pixel] = True
    assert (mask.reshape(48, 48) == inside).all()
    depth = -0.3 * np.sqrt(1 - x * x - z * z, where=inside, out=np.zeros_like(x))
    np.testing.assert_allclose(hits.depth, depth[inside], atol=3e-4)


def test_nearest_primitive_wins_whatever_the_order():
    near = ((0, 0, 0), (0.0, -0.5, 0.0), (0.2, 0.2, 0.2), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
    far = ((0, 1, 0), (0.0, 0.5, 0.0), (0.4, 0.4, 0.4), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
    for order in ((near, far), (far, near)):
        shapes = Shapes()
        for ball in order:
            shapes.ball(*ball)
        packed = shapes.pack()
        hits = cast(packed, parallel(32))
        middle = hits.primitive[hits.pixel == 16 * 32 + 16]
        assert packed["material"][middle].tolist() == [0]
        assert set(packed["material"][hits.primitive].tolist()) == {0, 1}


# ---- perspective, against an independent projection


def pinhole(camera, points):
    """Homogeneous projection written with one 3 x 4 matrix."""
    rotation = np.stack([camera.right, camera.down, camera.forward])
    intrinsic = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
    matrix = intrinsic @ np.concatenate([rotation, -(rotation @ camera.position)[:, None]], axis=1)
    out = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ matrix.T
    return out[:, :2] / out[:, 2:]


@pytest.mark.parametrize("camid", CAMERAS)
def test_silhouette_agrees_with_projected_joints(camid):
    for pid in range(1, 7):
        picture = shot(5, pid, camid, size=(128, 64))
        camera = picture.camera
        np.testing.assert_allclose(
            np.stack([camera.right, camera.down, camera.forward])
            @ np.stack([camera.right, camera.down, camera.forward]).T,
            np.eye(3),
            atol=1e-12,
        )
        joints = picture.joints
        points = [joints.head.origin, joints.torso.at(0, 0, joints.shoulder_z * 0.7)]
        points += [p for leg in joints.legs for p in (leg[2], leg[4])] + [arm[1] for arm in joints.arms]
        pixels = pinhole(camera, np.array(points))
        np.testing.assert_allclose(camera.project(np.array(points)), pixels, atol=1e-9)
        mask = silhouette(picture)
        x, y = np.floor(pixels).astype(int).T
        inside = (x >= 0) & (x < 64) & (y >= 0) & (y < 128)
        assert mask[y[inside], x[inside]].all()
        # the highest pixel is that of the top of the head, where the camera is level and the crop whole
        if camid == 12 and abs(math.degrees(math.asin(-camera.forward[2]))) < 10 and mask[0].sum() == 0:
            crown = pinhole(camera, np.array([joints.head.at(0, 0, 0.07 * picture.who.height)]))[0]
            raised = max(arm[2][2] for arm in joints.arms) > joints.head.origin[2]
            if picture.who.hat == "none" and picture.who.hair in ("short", "buzz", "bald") and not raised:
                assert abs(np.nonzero(mask.any(1))[0][0] - crown[1]) < 5


def test_views_are_steep_from_the_air_and_level_from_the_ground():
    steep = {c: [] for c in CAMERAS}
    for camid in CAMERAS:
        for pid in range(12):
            steep[camid].append(math.degrees(math.asin(-shot(1, pid, camid).camera.forward[2])))
    for camid in AERIAL_CAMERAS:
        assert min(steep[camid]) >= 45 - 1e-6
        assert max(steep[camid]) <= 88 + 1e-6
    assert min(steep[1]) > 75
    for camid in GROUND_CAMERAS:
        assert min(steep[camid]) >= -1e-6
        assert max(steep[camid]) <= 22 + 1e-6


def test_people_look_shorter_from_the_air():
    """Height of the silhouette over the shoulders' true scale there: foreshortening, not framing."""
    ratio = {}
    for camid in (1, 3, 6, 12):
        values = []
        for pid in range(1, 13):
            picture = shot(2, pid, camid)
            camera, joints = picture.camera, picture.joints
            y0, y1 = bounds(picture.shapes, camera.rays())[:, [1, 3]].T
            scale = camera.fy / float((np.array(joints.torso.origin) - camera.position) @ camera.forward)
            values.append((y1.max() - y0.min()) / scale / picture.who.height)
        ratio[camid] = float(np.median(values))
    assert 0.95 < ratio[6] < 1.15
    assert 0.95 < ratio[12] < 1.15
    assert ratio[3] < 0.85 * ratio[6]
    assert ratio[1] < 0.75 * ratio[6]


# ---- pictures and people


def test_same_seed_same_pixels_and_every_number_matters():
    one = render_image(3, 4, 7, 0, SMALL)
    assert one.dtype == np.uint8
    assert one.shape == (48, 24, 3)
    state = np.random.get_state()[1].copy()
    assert (render_image(3, 4, 7, 0, SMALL) == one).all()
    assert (np.random.get_state()[1] == state).all()
    for other in ((4, 4, 7, 0), (3, 5, 7, 0), (3, 4, 8, 0), (3, 4, 7, 1)):
        assert (render_image(*other, SMALL) != one).mean() > 0.5


def test_odd_and_wide_sizes():
    assert render_image(0, 1, 2, 0, (67, 33)).shape == (67, 33, 3)
    assert render_image(0, 1, 9, 0, (32, 90)).shape == (32, 90, 3)


def test_people_differ_and_depend_on_seed_and_pid_only():
    people = [sample_identity(0, pid) for pid in range(400)]
    anonymous = {replace(p, pid=0) for p in people}
    assert len(anonymous) == 400
    assert replace(sample_identity(1, 7), pid=0) != replace(people[7], pid=0)
    assert shot(0, 7, 1).who == shot(0, 7, 13, 4).who == people[7]
    for name, values in (
        ("hair", {"bald", "buzz", "short", "bob", "long", "ponytail", "bun", "afro"}),
        ("hat", {"none", "cap", "beanie", "sunhat", "hood"}),
        ("bag", {"none", "backpack", "handbag", "messenger"}),
        ("sleeves", {"none", "short", "long"}),
        ("lower", {"trousers", "slim", "wide", "shorts", "skirt", "longskirt", "dress"}),
    ):
        assert {getattr(p, name) for p in people} == values
    heights = np.array([p.height for p in people])
    assert heights.min() >= 1.5
    assert heights.max() <= 1.98
    assert heights.std() > 0.06
    assert {f.name for f in fields(people[0])} >= {
        "upper_colour",
        "lower_colour",
        "skin",
        "glasses",
        "pattern",
    }


def test_night_is_dark():
    light, dark = [], []
    for item in plan_synthag(ids=6, seed=1):
        (dark if item.night else light).append(
            render_image(1, item.pid, item.camid, item.number, SMALL).mean()
        )
    assert len(dark) > 5
    assert np.median(dark) < 0.65 * np.median(light)


def test_contact_sheet_is_rows_of_people_and_columns_of_cameras():
    sheet = contact_sheet(0, [3, 5], SMALL, gap=2)
    assert sheet.shape == (2 * 48 + 2, 13 * 24 + 12 * 2, 3)
    assert (sheet[50:, 26 * 4 : 26 * 4 + 24] == render_image(0, 5, 5, 0, SMALL)).all()


# ---- on disk


def test_layout_and_counts(written):
    root, manifest = written
    assert manifest["written"] == 52
    assert manifest["counts"] == {
        "train": {"images": 26, "ids": 2},
        "query": {"images": 4, "ids": 2},
        "gallery": {"images": 22, "ids": 2},
    }
    names = set(files(root))
    assert names == {item.path for item in plan_synthag(ids=4)}
    assert any("_night_" in n for n in names)
    assert any("_day_" in n for n in names)
    for name in names:
        split, folder, file = name.split("/")
        camera, time, pid, index = file[:-4].split("_")
        assert folder == camera
        assert time in ("day", "night")
        assert index == "0"
        assert (split == "train") == (int(pid) <= 2)
    assert Image.open(root / sorted(names)[0]).size == (24, 48)
    assert {k: v for k, v in manifest.items() if k != "written"} == json.loads((root / MANIFEST).read_text())


@pytest.mark.parametrize("coverage", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("images_per_camera", [1, 3])
def test_every_query_has_matches_in_each_protocol(coverage, images_per_camera):
    plan = plan_synthag(ids=60, images_per_camera=images_per_camera, coverage=coverage, seed=9)
    assert len({item.path for item in plan}) == len(plan)
    queries = [item for item in plan if item.split == "query"]
    gallery = [item for item in plan if item.split == "gallery"]
    assert sorted({item.pid for item in plan if item.split == "train"}) == list(range(1, 31))
    assert len(queries) == 60
    assert sorted(q.pid for q in queries if q.camid in AERIAL_CAMERAS) == list(range(31, 61))
    for query in queries:
        aerial = query.camid in AERIAL_CAMERAS
        match = [g for g in gallery if g.pid == query.pid and g.camid != query.camid]
        assert any((g.camid in AERIAL_CAMERAS) == aerial for g in match)  # AA and GG
        assert any((g.camid in AERIAL_CAMERAS) != aerial for g in match)  # AG, A2G and G2A
    seen = [len({item.camid for item in plan if item.pid == pid}) for pid in range(1, 61)]
    assert (min(seen), max(seen)) == {0.0: (4, 4), 1.0: (13, 13)}.get(coverage, (min(seen), max(seen)))
    assert min(seen) >= 4
    assert coverage != 0.4 or len(set(seen)) > 2


def test_two_fresh_processes_write_the_same_bytes(written, tmp_path):
    root, _ = written
    write_synthag(tmp_path / "two", ids=4, size=SMALL, workers=2, progress=False)
    assert files(tmp_path / "two") == files(root)
    assert not list((tmp_path / "two").rglob("*.part"))
    assert not (tmp_path / "two" / UNFINISHED).exists()


def test_finished_set_is_left_alone_and_gaps_are_filled(written, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(written[0], root)
    before = files(root)
    times = {p: p.stat().st_mtime_ns for p in root.rglob("*.jpg")}
    again = write_synthag(root, ids=4, size=SMALL, workers=1, progress=False)
    assert again["written"] == 0
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*.jpg")} == times
    # a killed generation: no manifest, a file missing, another half written
    (root / MANIFEST).rename(root / UNFINISHED)
    (root / UNFINISHED).write_text(json.dumps({"parameters": again["parameters"]}))
    gone = sorted(root.rglob("*.jpg"))[5]
    gone.unlink()
    gone.with_name(gone.name + ".1.part").write_bytes(b"half")
    assert write_synthag(root, ids=4, size=SMALL, workers=1, progress=False)["written"] == 1
    assert files(root) == before
    assert (root / MANIFEST).exists()
    assert not list(root.rglob("*.part"))
    assert not (root / UNFINISHED).exists()


def test_progress_goes_to_stderr(tmp_path, capsys):
    write_synthag(tmp_path / "a", ids=4, coverage=0.0, size=(16, 16), workers=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert "SynthAG" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"ids": 5}, "even"),
        ({"ids": 2}, "even"),
        ({"images_per_camera": 0}, "images_per_camera"),
        ({"coverage": 1.5}, "coverage"),
        ({"seed": -1}, "seed"),
        ({"size": (128, 8)}, "16 pixels"),
        ({"workers": 0}, "workers"),
    ],
)
def test_bad_arguments(tmp_path, arguments, words):
    with pytest.raises(DataError, match=words):
        write_synthag(tmp_path / "x", **{"ids": 4, "workers": 1, "progress": False, **arguments})
    assert not (tmp_path / "x").exists()


def test_bad_pictures():
    with pytest.raises(DataError, match="no camera 14; choose one of 1 to 13"):
        render_image(0, 1, 14)
    with pytest.raises(DataError, match="16 pixels"):
        render_image(0, 1, 1, 0, (8, 64))


def test_other_content_is_refused(written, tmp_path):
    arguments = {"ids": 4, "size": SMALL, "workers": 1, "progress": False}
    with pytest.raises(DataError, match=r"holds a SynthAG with the parameters .* choose another folder"):
        write_synthag(written[0], **{**arguments, "seed": 1})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty and holds no SynthAG"):
        write_synthag(tmp_path / "full", **arguments)
    root = tmp_path / "copy"
    shutil.copytree(written[0], root)
    (root / "train" / "extra.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"files that are not SynthAG's, such as train/extra\.jpg"):
        write_synthag(root, **arguments)
    (root / "train" / "extra.jpg").unlink()
    (root / MANIFEST).write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        write_synthag(root, **arguments)
    with pytest.raises(DataError, match="is a file"):
        write_synthag(tmp_path / "full" / "notes.txt", **arguments)
