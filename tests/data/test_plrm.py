"""PLRM against vectors computed by plain loops elsewhere, against naive loops here, and by its statistics."""

import math
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from vif.data.transforms import PatchLevelRotateMix, patch_probability, rotate_mix
from vif.errors import ConfigError, DataError

VECTORS = Path(__file__).parents[1] / "vectors"
# uint8: half a grey level for the rotation, weighed by alpha, and half for the mix; OpenCV 4 interpolates at
# 1/32 pixel, off by at most 1/64 in x and in y: 255 / 32 levels more, and a little for its 15-bit weights.
EXACT_REMAP = int(cv2.__version__.split(".")[0]) >= 5
ROTATION_BOUND = 0.5 if EXACT_REMAP else 9.5


def cases():
    with np.load(VECTORS / "rotate_mix.npz") as data:
        names = ("image", "angles", "mask", "patch_size", "alpha", "fill", "expected")
        return [{name: data[f"{k}_{name}"] for name in names} for k in range(int(data["count"]))]


def arguments(case):
    return (
        case["angles"],
        case["mask"],
        int(case["patch_size"]),
        float(case["alpha"]),
        str(case["fill"]),
    )


def random_case(rng, height, width, n, channels=3):
    grid = (height // n, width // n)
    image = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return image, rng.uniform(-180, 180, grid), rng.random(grid) < 0.6


def naive(image, angles, mask, n, alpha, fill):
    """Pixel by pixel, tap by tap."""
    out = image.astype(np.float64).copy()

    def tap(patch, y, x):
        if fill == "border":
            y, x = min(max(y, 0), n - 1), min(max(x, 0), n - 1)
        elif fill == "reflect":
            y = -y if y < 0 else 2 * (n - 1) - y if y >= n else y
            x = -x if x < 0 else 2 * (n - 1) - x if x >= n else x
        return patch[y, x] if 0 <= y < n and 0 <= x < n else np.zeros(image.shape[2])

    for i, j in zip(*np.nonzero(mask)):
        patch = image[i * n : i * n + n, j * n : j * n + n].astype(np.float64)
        cos, sin, c = math.cos(math.radians(angles[i, j])), math.sin(math.radians(angles[i, j])), (n - 1) / 2
        for y in range(n):
            for x in range(n):
                sx, sy = c + cos * (x - c) - sin * (y - c), c + sin * (x - c) + cos * (y - c)
                x0, y0 = math.floor(sx), math.floor(sy)
                value = sum(
                    (1 - abs(sy - yy)) * (1 - abs(sx - xx)) * tap(patch, yy, xx)
                    for yy in (y0, y0 + 1)
                    for xx in (x0, x0 + 1)
                )
                out[i * n + y, j * n + x] = alpha * value + (1 - alpha) * patch[y, x]
    return out


@pytest.mark.parametrize("k", range(9))
def test_rotate_mix_equals_the_reference_vectors(k):
    case = cases()[k]
    double = rotate_mix(case["image"], *arguments(case))
    np.testing.assert_allclose(double, case["expected"], rtol=0, atol=1e-11)
    single = rotate_mix(case["image"].astype(np.float32), *arguments(case))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, case["expected"], rtol=2e-7, atol=1e-4)


@pytest.mark.parametrize("k", range(9))
def test_uint8_is_within_rounding_of_the_exact_value(k):
    case = cases()[k]
    image = np.rint(case["image"]).astype(np.uint8)
    exact = rotate_mix(image.astype(np.float64), *arguments(case))
    error = np.abs(rotate_mix(image, *arguments(case)) - exact)
    n, alpha = int(case["patch_size"]), float(case["alpha"])
    selected = np.kron(case["mask"], np.ones((n, n))).astype(bool)
    assert error[~selected].max(initial=0) == 0
    assert error.max() <= 0.5 + alpha * ROTATION_BOUND + 1e-3
    assert error[selected].mean() <= (0.37 if EXACT_REMAP else 0.9)


@pytest.mark.parametrize("fill", ["zeros", "border", "reflect"])
@pytest.mark.parametrize(("height", "width", "n"), [(6, 9, 3), (10, 4, 2), (8, 16, 8), (14, 7, 7), (3, 2, 1)])
def test_equals_a_loop_on_odd_sizes(height, width, n, fill):
    rng = np.random.default_rng([height, width, n])
    image, angles, mask = random_case(rng, height, width, n)
    expected = naive(image, angles, mask, n, 0.7, fill)
    result = rotate_mix(image.astype(np.float64), angles, mask, n, 0.7, fill)
    np.testing.assert_allclose(result, expected, atol=1e-9)
    assert (
        np.abs(rotate_mix(image, angles, mask, n, 0.7, fill) - expected).max() <= 0.51 + 0.7 * ROTATION_BOUND
    )


@pytest.mark.parametrize("fill", ["zeros", "border", "reflect"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_never_samples_a_neighbour_patch(fill, dtype):
    # a checkerboard of black and white patches: a rotated patch may only hold its own colour, or the fill
    n, image = 8, np.kron(np.indices((6, 4)).sum(0) % 2, np.ones((8, 8)))[..., None].repeat(3, 2) * 255
    angles = np.random.default_rng(0).uniform(-180, 180, (6, 4))
    result = rotate_mix(image.astype(dtype), angles, np.ones((6, 4), bool), n, 1.0, fill)
    black = image == 0
    assert result[black].max() == 0
    if fill != "zeros":
        assert result[~black].min() >= 254.99


@pytest.mark.parametrize("kind", ["RGB", "L", "grey", "rgba"])
def test_types_and_channels(kind):
    rng = np.random.default_rng(3)
    channels = {"RGB": 3, "L": 1, "grey": 1, "rgba": 4}[kind]
    image, angles, mask = random_case(rng, 24, 16, 8, channels)
    if channels == 1:
        image = image[..., 0]
    given = Image.fromarray(image) if kind in ("RGB", "L") else image
    result = rotate_mix(given, angles, mask, 8, 0.5)
    assert type(result) is type(given)
    if kind in ("RGB", "L"):
        assert result.mode == kind
        assert result.size == given.size
    assert np.asarray(result).shape == image.shape
    stacked = image.reshape(24, 16, channels)
    for c in range(channels):
        plane = np.asarray(result).reshape(24, 16, channels)[..., c]
        expected = rotate_mix(stacked[..., c].astype(np.float64), angles, mask, 8, 0.5)
        assert np.abs(plane - expected).max() <= 0.51 + 0.5 * ROTATION_BOUND


@pytest.mark.parametrize(("height", "width", "n"), [(256, 160, 1), (400, 200, 200)])
def test_sizes_beyond_remap_take_the_exact_way(height, width, n):
    image, angles, mask = random_case(np.random.default_rng(1), height, width, n)
    mask[...] = True
    exact = rotate_mix(image.astype(np.float64), angles, mask, n, 0.5)
    assert np.abs(rotate_mix(image, angles, mask, n, 0.5) - exact).max() <= 0.5


def test_angle_is_counter_clockwise_and_views_are_taken():
    image = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)[:4]
    turned = rotate_mix(image[:, ::-1], np.full((1, 1), 90.0), np.ones((1, 1), bool), 4, 1.0)
    np.testing.assert_array_equal(turned, np.rot90(image[:, ::-1]))


@pytest.mark.parametrize("key", sorted(np.load(VECTORS / "patch_probability.npz").files))
def test_patch_probability_equals_the_reference_vectors(key):
    expected = np.load(VECTORS / "patch_probability.npz")[key]
    grid, base, weight = key.split("_")
    height, width = map(int, grid.split("x"))
    result = patch_probability(height, width, float(base[1:]), float(weight[1:]))
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)
    uniform = patch_probability(height, width, float(base[1:]), float(weight[1:]), "uniform")
    np.testing.assert_allclose(uniform, expected.mean(), rtol=0, atol=1e-12)


def test_literal_probability_is_equation_3_as_printed():
    height, width, result = 5, 3, patch_probability(5, 3, 0.1, 0.8, "literal")
    for i in range(1, height + 1):
        for j in range(1, width + 1):
            distance = math.sqrt((i - height) ** 2 + (j - width) ** 2) / math.sqrt(height**2 + width**2)
            assert result[i - 1, j - 1] == pytest.approx(min(max(0.1 + 0.8 * (1 - distance), 0), 1))
    assert result.argmax() == result.size - 1


def test_samples_follow_the_probabilities():
    transform = PatchLevelRotateMix(prob=0.7, base_prob=0.1, center_weight=0.6, max_angle=30.0, patch_size=8)
    rng, draws = np.random.default_rng(5), 6000
    masks, angles = [], []
    for _ in range(draws):
        params = transform.sample(rng, 40, 24)
        masks.append(params["mask"])
        angles.append(params["angles"][params["mask"]])
    rate = np.mean([mask.any() for mask in masks])
    grid = patch_probability(5, 3, 0.1, 0.6)
    none = np.prod(1 - grid)
    assert abs(rate - 0.7 * (1 - none)) < 4 * math.sqrt(0.25 / draws)
    assert np.abs(np.mean(masks, axis=0) - 0.7 * grid).max() < 4.5 * math.sqrt(0.25 / draws)
    angles = np.concatenate(angles)
    assert -30 <= angles.min() < -29.9
    assert 29.9 < angles.max() < 30
    assert abs(angles.mean()) < 4 * (30 / math.sqrt(3)) / math.sqrt(angles.size)
    assert angles.std() == pytest.approx(30 / math.sqrt(3), rel=0.02)


def test_call_is_sample_then_apply_and_replays():
    transform = PatchLevelRotateMix(prob=1.0)
    image = np.random.default_rng(0).integers(0, 256, (256, 128, 3), dtype=np.uint8)
    params = transform.sample(np.random.default_rng(9), 256, 128)
    expected = transform.apply(image, params)
    assert (expected != image).any()
    np.testing.assert_array_equal(transform(image, np.random.default_rng(9)), expected)
    np.testing.assert_array_equal(transform.apply(image, params), expected)
    pil = transform(Image.fromarray(image), np.random.default_rng(9))
    np.testing.assert_array_equal(np.asarray(pil), expected)


@pytest.mark.parametrize(
    "change", [{"prob": 0.0}, {"alpha": 0.0, "prob": 1.0}, {"max_angle": 0.0, "prob": 1.0}]
)
def test_settings_that_change_nothing(change):
    image = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(PatchLevelRotateMix(**change)(image, np.random.default_rng(1)), image)


def test_defaults_are_the_papers_values_and_repr_shows_them():
    assert repr(PatchLevelRotateMix()) == (
        "PatchLevelRotateMix(prob=0.5, base_prob=0.3, center_weight=0.8, patch_size=16, max_angle=45.0, "
        "alpha=0.5, fill='zeros', mode='center')"
    )


def test_pickles():
    image = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    transform = PatchLevelRotateMix(prob=1.0, mode="uniform", fill="reflect")
    copy = pickle.loads(pickle.dumps(transform))
    np.testing.assert_array_equal(
        copy(image, np.random.default_rng(2)), transform(image, np.random.default_rng(2))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prob": 1.5}, r"prob must be in \[0.0, 1.0\], got 1.5"),
        ({"prob": float("nan")}, "prob must be a finite number, got nan"),
        ({"base_prob": -0.1}, r"base_prob must be in \[0.0, 1.0\], got -0.1"),
        ({"center_weight": "0.8"}, "center_weight must be a finite number, got '0.8'"),
        ({"patch_size": 1}, "patch_size must be a whole number >= 2, got 1"),
        ({"patch_size": 16.0}, "patch_size must be a whole number >= 2, got 16.0"),
        ({"max_angle": 181}, r"max_angle must be in \[0.0, 180.0\], got 181"),
        ({"alpha": True}, "alpha must be a finite number, got True"),
        ({"fill": "wrap"}, "fill must be one of zeros, border, reflect; got 'wrap'"),
        ({"mode": "edge"}, "mode must be one of center, literal, uniform; got 'edge'"),
    ],
)
def test_arguments_out_of_range(change, message):
    with pytest.raises(ConfigError, match=message):
        PatchLevelRotateMix(**change)


def test_sides_must_be_whole_patches():
    with pytest.raises(ConfigError, match="patch_size must divide the sides: 16 does not divide 64 x 40"):
        PatchLevelRotateMix()(np.zeros((64, 40, 3), np.uint8), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("image", "grid", "message"),
    [
        (np.zeros((16, 16, 3), np.int32), (2, 2), r"uint8 or floating arrays.*got int32 \(16, 16, 3\)"),
        (Image.new("CMYK", (16, 16)), (2, 2), "mode RGB or L, got CMYK"),
        ([[1]], (2, 2), "mode RGB or L, got list"),
        (
            np.zeros((16, 16, 3), np.uint8),
            (2, 1),
            r"angles must have the grid's shape \(2, 2\), got \(2, 1\)",
        ),
    ],
)
def test_images_and_grids_that_do_not_fit(image, grid, message):
    with pytest.raises(DataError, match=message):
        rotate_mix(image, np.zeros(grid), np.ones(grid, bool), 8, 0.5)
