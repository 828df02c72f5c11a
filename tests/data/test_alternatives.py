"""RandomRotation against scipy, PatchShuffle against a loop over patches."""

import vif
import numpy as np
import pytest
from fastreid.config import get_cfg
from scipy.ndimage import affine_transform
from vif.data.transforms import PatchShuffle, RandomRotation
from vif.errors import ConfigError

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("angle", [-45.0, 10.0, 90.0, 180.0])
def test_rotation_equals_scipys_bilinear_one_about_the_centre(angle):
    t = np.deg2rad(angle)
    back = np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])  # rows, columns; counter-clockwise
    centre = (np.array(IMAGE.shape[:2]) - 1) / 2
    expected = np.stack(
        [
            affine_transform(IMAGE[..., c].astype(float), back, centre - back @ centre, order=1, cval=0.0)
            for c in range(3)
        ],
        axis=-1,
    )
    inside = (slice(11, 21), slice(5, 11))  # scipy mixes the border with its fill in another way
    got = RandomRotation().apply(IMAGE, {"angle": angle}).astype(float)
    # OpenCV < 5 keeps coordinates to 1/32 pixel: 255 / 32 grey levels along each axis
    assert np.abs(got - expected)[inside].max() <= 17
    assert np.abs(got - expected)[inside].mean() < 1.5


def test_a_quarter_turn_is_counter_clockwise():
    square = np.zeros((8, 8, 3), np.uint8)
    square[0, :4] = 200  # top left
    turned = RandomRotation().apply(square, {"angle": 90.0})
    assert np.array_equal(turned, np.rot90(square))


def test_rotation_leaves_its_share_of_images_and_spreads_its_angles():
    rng, op = np.random.default_rng(1), RandomRotation(prob=0.3, max_angle=20)
    angles = np.array([op.sample(rng, 32, 16)["angle"] for _ in range(4000)])
    turned = angles[angles != 0]
    assert abs(len(turned) / 4000 - 0.3) < 0.03
    assert turned.min() < -19
    assert turned.max() > 19
    assert abs(turned.mean()) < 1.5
    assert op.apply(IMAGE, {"angle": 0.0}) is IMAGE


@pytest.mark.parametrize("n", [2, 4, 8])
def test_shuffling_moves_pixels_within_their_patch_as_a_loop_does(n):
    op = PatchShuffle(prob=1.0, patch_size=n)
    params = op.sample(np.random.default_rng(2), 32, 16)
    got = op.apply(IMAGE, params)
    expected, k = np.empty_like(IMAGE), 0
    for top in range(0, 32, n):
        for left in range(0, 16, n):
            pixels = IMAGE[top : top + n, left : left + n].reshape(n * n, 3)
            expected[top : top + n, left : left + n] = pixels[params["order"][k]].reshape(n, n, 3)
            k += 1
    assert np.array_equal(got, expected)
    assert not np.array_equal(got, IMAGE)
    assert sorted(params["order"][0]) == list(range(n * n))
    assert len({tuple(order) for order in params["order"]}) > 1  # each patch has its own


def test_shuffling_leaves_its_share_of_images():
    rng, op = np.random.default_rng(3), PatchShuffle(prob=0.3)
    moved = [op.sample(rng, 4, 4)["order"] is not None for _ in range(3000)]
    assert abs(np.mean(moved) - 0.3) < 0.03
    assert op.apply(IMAGE, {"order": None}) is IMAGE


@pytest.mark.parametrize("op", [RandomRotation(prob=1.0), PatchShuffle(prob=1.0)])
def test_the_contract_of_transforms_holds(op):
    before = IMAGE.copy()
    np.random.seed(0)
    first = op(IMAGE, np.random.default_rng(4))
    np.random.seed(1)
    assert np.array_equal(first, op(IMAGE, np.random.default_rng(4)))
    assert not np.array_equal(first, op(IMAGE, np.random.default_rng(5)))
    assert np.array_equal(IMAGE, before)
    assert first.dtype == np.uint8
    assert first.shape == IMAGE.shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomRotation(prob=1.5), r"prob must be in \[0.0, 1.0\]"),
        (lambda: RandomRotation(max_angle=181), r"max_angle must be in \[0.0, 180.0\]"),
        (lambda: PatchShuffle(prob=-1), r"prob must be in \[0.0, 1.0\]"),
        (lambda: PatchShuffle(patch_size=1), "patch_size must be a whole number >= 2"),
        (lambda: PatchShuffle(1.0, 3)(IMAGE, np.random.default_rng(0)), "3 does not divide 32 x 16"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_config_builds_them_and_checks_the_patch_side():
    cfg = get_cfg()
    vif.add_vif_config(cfg)
    cfg.merge_from_list(["INPUT.ROTATION.PROB", 0.1, "INPUT.ROTATION.MAX_ANGLE", 7.0])
    cfg.merge_from_list(["INPUT.PATCH_SHUFFLE.PROB", 0.2, "INPUT.PATCH_SHUFFLE.PATCH_SIZE", 4])
    rotation, shuffle = (vif.TRANSFORM_REGISTRY.get(n)(cfg) for n in ("RandomRotation", "PatchShuffle"))
    assert (rotation.prob, rotation.max_angle, shuffle.prob, shuffle.patch_size) == (0.1, 7.0, 0.2, 4)
    cfg.merge_from_list(["INPUT.PATCH_SHUFFLE.PATCH_SIZE", 3, "INPUT.TRANSFORMS", ("PatchShuffle",)])
    with pytest.raises(ConfigError, match=r"INPUT.PATCH_SHUFFLE.PATCH_SIZE=3 does not divide"):
        vif.check_config(cfg)
