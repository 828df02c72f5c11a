"""Every transform keeps the contract; test-time pixels equal fastreid's; training statistics."""

import math
import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as tv
from vif.data import transforms as T
from vif.errors import ConfigError, DataError


def noise(height=37, width=23, seed=0):
    """Smooth colours with some noise, as photos have; odd sides catch swapped ones."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 4, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + rng.integers(-12, 13, smooth.shape), 0, 255).astype(np.uint8)


class Invert:
    """A transform of someone else's, picklable."""

    def __call__(self, image):
        return Image.fromarray(255 - np.asarray(image))


OPS = [
    (T.Resize((41, 19)), (41, 19)),
    (T.Resize((41, 19), exact=False), (41, 19)),
    (T.Resize([11]), (17, 11)),
    (T.PadCrop((37, 23), padding=5), (37, 23)),
    (T.PadCrop((30, 24), padding=3, mode="edge"), (30, 24)),
    (T.PadCrop((30, 20), padding=3, mode="reflect"), (30, 20)),
    (T.PadCrop(20, padding=0, mode="symmetric"), (20, 20)),
    (T.HorizontalFlip(0.5), (37, 23)),
    (T.RandomErasing(0.8), (37, 23)),
    (T.ColorJitter(prob=0.9), (37, 23)),
    (T.RandomAffine(), (37, 23)),
    (T.RandomResizedCrop((16, 12)), (16, 12)),
    (T.CenterCrop((31, 24)), (31, 24)),
    (T.PILTransform(Invert()), (37, 23)),
    (T.Compose([T.Resize((48, 32)), T.PatchLevelRotateMix(prob=0.9), T.HorizontalFlip()]), (48, 32)),
]


@pytest.mark.parametrize(
    ("op", "shape"), OPS, ids=[f"{k}-{type(op).__name__}" for k, (op, _) in enumerate(OPS)]
)
@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
def test_contract(op, shape):
    image = noise()
    before = image.copy()
    image.flags.writeable = False
    changed = 0
    for seed in range(12):
        result = op(image, np.random.default_rng(seed))
        assert result.dtype == np.uint8
        assert result.shape == (*shape, 3)
        np.random.seed(seed + 1)
        random.seed(seed + 2)
        torch.manual_seed(seed + 3)
        again = pickle.loads(pickle.dumps(op))(np.asfortranarray(image), np.random.default_rng(seed))
        np.testing.assert_array_equal(again, result)
        if isinstance(op, T.Transform):
            params = op.sample(np.random.default_rng(seed), *image.shape[:2])
            np.testing.assert_array_equal(op.apply(image, params), result)
        changed += result.shape != before.shape or (result != before).any()
    assert changed >= 2
    np.testing.assert_array_equal(image, before)
    assert repr(op).startswith(type(op).__name__ + "(")


def test_foreign_generators_are_left_as_they_were():
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    op = T.PILTransform(tv.ColorJitter(0.5, 0.5))
    expected = random.random(), np.random.random(), float(torch.rand(1))
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    op(noise(), np.random.default_rng(0))
    after = random.random(), np.random.random(), float(torch.rand(1))
    assert after == expected


def test_prob_of_a_foreign_transform():
    op, image = T.PILTransform(Invert(), prob=0.25), noise(4, 3)
    rng = np.random.default_rng(0)
    rate = np.mean([(op(image, rng) != image).all() for _ in range(3000)])
    assert abs(rate - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 3000)


# --- geometry against torchvision -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 32), (20, 41), (37, 23), 30, [50]])
@pytest.mark.parametrize("sides", [(37, 23), (23, 37), (150, 90)])
def test_resize_equals_torchvision_on_pil(size, sides):
    image = noise(*sides)
    wanted = size[0] if isinstance(size, list) else size
    resize = tv.Resize(wanted, interpolation=tv.InterpolationMode.BICUBIC)
    expected = np.asarray(resize(Image.fromarray(image)))
    np.testing.assert_array_equal(T.Resize(size)(image, None), expected)


@pytest.mark.parametrize("sides", [(400, 180), (200, 90), (300, 70)])
def test_fast_resize_stays_close_to_the_exact_one(sides):
    image = noise(*sides)
    error = np.abs(
        T.Resize((256, 128), exact=False)(image, None).astype(int) - T.Resize((256, 128))(image, None)
    )
    assert error.max() <= 2
    assert error.mean() < 0.3


def test_fast_resize_without_its_kernel_is_the_exact_one(monkeypatch):
    image = noise(90, 40)
    monkeypatch.setitem(__import__("sys").modules, "torchvision.transforms.v2.functional", None)
    np.testing.assert_array_equal(
        T.Resize((64, 32), exact=False)(image, None), T.Resize((64, 32))(image, None)
    )


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_pad_crop_equals_torchvision(mode):
    image, op = noise(20, 13), T.PadCrop((21, 11), padding=4, mode=mode)
    padded = np.asarray(tv.Pad(4, padding_mode=mode)(Image.fromarray(image)))
    for top in range(8):
        for left in range(11):
            result = op.apply(image, {"top": top, "left": left})
            np.testing.assert_array_equal(result, padded[top : top + 21, left : left + 11])


def test_crop_places_are_uniform():
    op, rng, draws = T.PadCrop((12, 7), padding=2), np.random.default_rng(0), 9000
    counts = np.zeros((5, 6))
    for _ in range(draws):
        params = op.sample(rng, 12, 8)
        counts[params["top"], params["left"]] += 1
    expected = draws / counts.size
    assert ((counts - expected) ** 2 / expected).sum() < 62  # chi-square, 29 degrees of freedom, p = 4e-4


def test_flip_rate_and_pixels():
    image, rng, op = noise(5, 4), np.random.default_rng(0), T.HorizontalFlip(0.3)
    flipped = [not np.array_equal(op(image, rng), image) for _ in range(4000)]
    assert abs(np.mean(flipped) - 0.3) < 4 * math.sqrt(0.21 / 4000)
    np.testing.assert_array_equal(op.apply(image, {"flip": True}), image[:, ::-1])


# --- erasing ----------------------------------------------------------------------------------------------


def test_erasing_paints_one_rectangle_in_the_rounded_colour():
    op, image = T.RandomErasing(1.0, value=(123.675, 116.28, 103.53)), np.zeros((50, 30, 3), np.uint8)
    params = op.sample(np.random.default_rng(0), 50, 30)
    result = op.apply(image, params)
    rows, cols = np.nonzero(result.any(2))
    assert np.unique(result[rows, cols], axis=0).tolist() == [[124, 116, 104]]
    assert rows.size == params["height"] * params["width"]
    assert (rows.min(), cols.min()) == (params["top"], params["left"])
    assert (np.ptp(rows) + 1, np.ptp(cols) + 1) == (params["height"], params["width"])


def test_erasing_is_distributed_as_torchvisions():
    draws, (height, width) = 3000, (64, 32)
    op, rng = T.RandomErasing(0.6), np.random.default_rng(0)
    ours = [op.sample(rng, height, width) for _ in range(draws)]
    erased = [p for p in ours if p["height"]]
    assert abs(len(erased) / draws - 0.6) < 4 * math.sqrt(0.24 / draws)
    torch.manual_seed(0)
    blank = torch.zeros(3, height, width)
    theirs = [tv.RandomErasing.get_params(blank, (0.02, 0.33), (0.3, 3.3), [0.0])[:4] for _ in range(draws)]
    for k, name in enumerate(("top", "left", "height", "width")):
        a, b = np.sort([p[name] for p in erased]), np.sort([t[k] for t in theirs])
        grid = np.arange(height + 1)
        gap = np.abs(
            np.searchsorted(a, grid, "right") / a.size - np.searchsorted(b, grid, "right") / b.size
        ).max()
        assert gap < 1.95 * math.sqrt((a.size + b.size) / (a.size * b.size)), (
            name
        )  # Kolmogorov-Smirnov, 0.001


def test_erasing_gives_up_when_no_rectangle_fits():
    op, image = T.RandomErasing(1.0, scale=(1.0, 1.0), ratio=(1.0, 1.0)), noise(8, 8)
    assert op(image, np.random.default_rng(0)) is image


# --- the whole pipeline against fastreid's ----------------------------------------------------------------


@pytest.mark.parametrize("size", [[256, 128], [64, 48], [96]])
def test_test_time_pixels_equal_fastreids(tmp_path, size):
    pytest.importorskip("fastreid")
    import vif  # noqa: F401  installs the bridges that fastreid's import needs
    from fastreid.config import get_cfg
    from fastreid.data.common import CommDataset
    from fastreid.data.transforms import build_transforms
    from vif.data.loaders import ImageSet

    cfg = get_cfg()
    cfg.INPUT.SIZE_TEST = size
    sides = [(256, 128), (300, 111), (90, 45), (64, 48), (33, 70)]
    items = []
    for k, side in enumerate(sides):
        items.append((str(tmp_path / f"{k}.jpg"), 10 + k % 2, 5 - k % 3))
        Image.fromarray(noise(*side, seed=k)).save(items[-1][0], quality=90)
    theirs = CommDataset(items, build_transforms(cfg, is_train=False), relabel=False)
    ours = ImageSet(items, T.Resize(size))
    for a, b in zip(ours, theirs):
        assert a["images"].dtype == torch.uint8
        torch.testing.assert_close(a["images"].float(), b["images"], rtol=0, atol=0)
        assert {k: a[k] for k in ("targets", "camids", "img_paths")} == {
            k: b[k] for k in ("targets", "camids", "img_paths")
        }


def test_compose_names_the_transform_that_broke_the_contract():
    with pytest.raises(
        DataError, match=r"transform .*astype.* must return a uint8 array \(H, W, 3\), got float64"
    ):
        T.Compose([_astype_float])(noise(), np.random.default_rng(0))
    with pytest.raises(DataError, match="got Image"):
        T.Compose([lambda image, rng: Image.fromarray(image)])(noise(), np.random.default_rng(0))


def _astype_float(image, rng):
    return image.astype(float)


# --- arguments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: T.Resize((0, 5)), "size height must be a whole number >= 1, got 0"),
        (lambda: T.Resize((5, 5, 5)), r"size must be one number or \(height, width\), got \(5, 5, 5\)"),
        (lambda: T.PadCrop((5, 5), padding=-1), "padding must be a whole number >= 0, got -1"),
        (
            lambda: T.PadCrop((5, 5), mode="wrap"),
            "mode must be one of constant, edge, reflect, symmetric; got 'wrap'",
        ),
        (lambda: T.HorizontalFlip(-0.1), r"prob must be in \[0.0, 1.0\], got -0.1"),
        (lambda: T.RandomErasing(2), r"prob must be in \[0.0, 1.0\], got 2"),
        (lambda: T.RandomErasing(value=(0, 0)), r"value must hold three numbers .*, got \(0, 0\)"),
        (lambda: T.RandomErasing(value=(0, 0, 256)), r"value must be in \[0.0, 255.0\], got 256"),
        (
            lambda: T.RandomErasing(scale=(0.5, 0.2)),
            r"scale must have scale\[0\] <= scale\[1\], got \(0.5, 0.2\)",
        ),
        (lambda: T.RandomErasing(ratio=(0, 1)), r"ratio\[0\] must be >= 1e-06, got 0"),
        (lambda: T.RandomErasing(scale="ab"), r"scale must be a pair \(from, to\), got 'ab'"),
        (lambda: T.ColorJitter(hue=0.6), r"hue must be in \[0.0, 0.5\], got 0.6"),
        (lambda: T.RandomAffine(degrees=-1), "degrees must be >= 0.0, got -1"),
        (lambda: T.RandomResizedCrop(8, scale=(0.1, 2)), r"scale\[1\] must be in \[1e-06, 1.0\], got 2"),
        (lambda: T.CenterCrop(0), "size height must be a whole number >= 1, got 0"),
        (lambda: T.PILTransform(Invert(), prob=2), r"prob must be in \[0.0, 1.0\], got 2"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_window_larger_than_the_padded_image():
    with pytest.raises(
        ConfigError, match=r"size \(40, 20\) must not exceed the padded image, 37 x 23 with padding 1"
    ):
        T.PadCrop((40, 20), padding=1)(noise(), np.random.default_rng(0))
