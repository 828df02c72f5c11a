"""Samples depend on the seed and the draw number alone; batches, counting, labels and devices."""

import contextlib
import itertools
import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import BatchSampler
from vif.data import transforms as T
from vif.data.loaders import CountedBatchSampler, DeviceLoader, ImageSet, collate, make_loader
from vif.errors import ConfigError, DataError
from vif.records import ImageRecord

PIPELINE = T.Compose(
    [
        T.Resize((32, 16)),
        T.PadCrop((32, 16), padding=4),
        T.HorizontalFlip(),
        T.ColorJitter(),
        T.PatchLevelRotateMix(patch_size=8),
        T.RandomErasing(),
    ]
)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    result = []
    for k in range(10):
        path = folder / f"{k}.png"
        Image.fromarray(rng.integers(1, 256, (20 + k, 11, 3), dtype=np.uint8)).save(path)
        result.append(ImageRecord(str(path), pid=30 - 10 * (k % 3), camid=7 * (k % 2) + 2, view="aerial"))
    return result


def batches(records, workers, indices, seed=5, start=0, batch_size=4):
    image_set = ImageSet(records, PIPELINE, seed=seed, relabel=True)
    loader = make_loader(image_set, CountedBatchSampler(indices, batch_size, start=start), workers)
    return list(DeviceLoader(loader, "cpu"))


def equal(a, b):
    return all(
        x["img_paths"] == y["img_paths"]
        and all(torch.equal(x[name], y[name]) for name in ("images", "targets", "camids", "index"))
        for x, y in zip(a, b)
    ) and len(a) == len(b)


def test_results_do_not_depend_on_the_number_of_workers(records):
    indices = np.random.default_rng(1).integers(0, 10, 24).tolist()
    torch.manual_seed(98)
    before = torch.get_rng_state()
    alone = batches(records, 0, indices)
    assert torch.equal(torch.get_rng_state(), before)
    np.random.seed(99)
    torch.manual_seed(99)
    assert equal(alone, batches(records, 1, indices))
    assert equal(alone, batches(records, 2, indices))
    assert not equal(alone, batches(records, 0, indices, seed=6))


def test_a_run_goes_on_from_any_draw(records):
    indices = [3, 1, 4, 1, 5, 9, 2, 6]
    assert equal(batches(records, 0, indices)[1:], batches(records, 0, indices[4:], start=4))


def test_each_draw_of_an_image_is_another(records):
    image_set = ImageSet(records, PIPELINE, seed=1)
    draws = [image_set[draw, 0]["images"] for draw in range(4)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(draws, 2))
    assert torch.equal(image_set[2, 0]["images"], draws[2])


def test_training_statistics(records):
    # a white image on black padding: its first white row and column tell the crop, the colour tells erasing
    white = ImageSet(
        records,
        T.Compose(
            [T.PadCrop((32, 16), padding=3), T.RandomErasing(0.5, value=(9, 9, 9), scale=(0.02, 0.05))]
        ),
        seed=3,
        read=lambda path: np.full((32, 16, 3), 255, np.uint8),
    )
    draws, shifts, erased = 2500, [], 0
    for draw in range(draws):
        image = white[draw, 0]["images"][0].numpy()
        shifts.append(((image == 0).all(1).argmin(), (image == 0).all(0).argmin()))
        erased += (image == 9).any()
    assert abs(erased / draws - 0.5) < 4 * math.sqrt(0.25 / draws)
    for counts in (np.bincount(values, minlength=4) for values in zip(*shifts)):
        # offset 0..6: the padding shows before the image in 0, 1, 2, and 3..6 all start with white
        expected = draws * np.array([4, 1, 1, 1]) / 7
        assert ((counts - expected) ** 2 / expected).sum() < 21  # chi-square, 3 degrees of freedom, p = 1e-4


def test_samples_and_attributes(records):
    image_set = ImageSet(records, relabel=True)
    assert image_set.img_items == records
    assert (image_set.pids, image_set.cams) == ([10, 20, 30], [2, 9])
    assert (image_set.num_classes, image_set.num_cameras, len(image_set)) == (3, 2, 10)
    sample = image_set[1]
    assert (sample["targets"], sample["camids"], sample["index"]) == (1, 1, 1)
    assert sample["img_paths"] == records[1].path
    np.testing.assert_array_equal(sample["images"].permute(1, 2, 0), T.read_image(records[1].path))
    plain = ImageSet(records)[1]
    assert (plain["targets"], plain["camids"]) == (20, 9)


def test_attributes_equal_fastreids(records):
    pytest.importorskip("fastreid")
    import vif  # noqa: F401  installs the bridges that fastreid's import needs
    from fastreid.data.common import CommDataset

    items = [record[:3] for record in records]
    ours, theirs = ImageSet(items, relabel=True), CommDataset(items, lambda image: image)
    for name in ("img_items", "pids", "cams", "num_classes", "num_cameras"):
        assert getattr(ours, name) == getattr(theirs, name)
    for a, b in zip(ours, theirs):
        assert all(a[name] == b[name] for name in ("targets", "camids", "img_paths"))


def test_collate(records):
    image_set = ImageSet(records, T.Resize((16, 8)))
    batch = collate([image_set[k] for k in (2, 0)])
    assert batch["images"].dtype == torch.uint8
    assert batch["images"].shape == (2, 3, 16, 8)
    assert batch["images"].is_contiguous()
    assert torch.equal(batch["images"][1], image_set[0]["images"])
    for name, values in (("targets", [10, 30]), ("camids", [2, 2]), ("index", [2, 0])):
        assert batch[name].dtype == torch.int64
        assert batch[name].tolist() == values
    assert batch["img_paths"] == [records[2].path, records[0].path]


def test_images_of_different_sizes_are_named(records):
    image_set = ImageSet(records)
    with pytest.raises(DataError, match=r"0.png is \(20, 11\), .*1.png is \(21, 11\); resize"):
        collate([image_set[0], image_set[1]])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_file_is_named(records, workers):
    items = [*records[:3], ("/nowhere/lost.jpg", 1, 2)]
    loader = make_loader(ImageSet(items, T.Resize((8, 8))), BatchSampler(range(4), 4, False), workers)
    with pytest.raises(DataError, match=r"cannot read image /nowhere/lost\.jpg"):
        next(iter(loader))


def test_a_transform_that_returns_no_image(records):
    image_set = ImageSet(records, lambda image, rng: image.astype(float))
    with pytest.raises(DataError, match=r"0.png is no uint8 array \(H, W, 3\)"):
        image_set[0]


def test_sampler_counts_drops_the_rest_and_goes_on():
    sampler = CountedBatchSampler([5, 6, 7, 8, 9], 2, start=10)
    assert list(sampler) == [[(10, 5), (11, 6)], [(12, 7), (13, 8)]]
    assert list(sampler) == [[(14, 5), (15, 6)], [(16, 7), (17, 8)]]
    assert len(sampler) == 2
    endless = CountedBatchSampler(itertools.cycle([1, 2]), 3)
    assert list(itertools.islice(iter(endless), 2)) == [[(0, 1), (1, 2), (2, 1)], [(3, 2), (4, 1), (5, 2)]]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_see_the_batches_of_one(world):
    alone = list(CountedBatchSampler(range(100, 126), 12, start=12))
    parts = [
        list(CountedBatchSampler(range(100, 126), 12 // world, start=12, rank=rank, world_size=world))
        for rank in range(world)
    ]
    assert [[draw for part in batch for draw in part] for batch in zip(*parts)] == alone
    assert len(CountedBatchSampler(range(26), 12 // world, rank=0, world_size=world)) == len(alone) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CountedBatchSampler([], 0), "batch_size must be a whole number >= 1, got 0"),
        (lambda: CountedBatchSampler([], 1, start=-1), "start must be a whole number >= 0, got -1"),
        (lambda: CountedBatchSampler([], 1, world_size=0), "world_size must be a whole number >= 1, got 0"),
        (lambda: CountedBatchSampler([], 1, rank=2, world_size=2), "rank must be below world_size 2, got 2"),
        (lambda: ImageSet([], seed=-1), "seed must be a whole number >= 0, got -1"),
        (lambda: make_loader(None, [], workers=-1), "workers must be a whole number >= 0, got -1"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_device_loader_keeps_data_set_and_length(records):
    image_set = ImageSet(records, T.Resize((8, 8)))
    loader = DeviceLoader(make_loader(image_set, BatchSampler(range(10), 4, False)), torch.device("cpu"))
    assert loader.dataset is image_set
    assert len(loader) == 3
    for _ in range(2):
        assert [batch["index"].tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_device_loader_on_a_gpu(records):
    image_set = ImageSet(records, T.Resize((8, 8)))
    expected = list(make_loader(image_set, BatchSampler(range(10), 4, False)))
    loader = DeviceLoader(make_loader(image_set, BatchSampler(range(10), 4, False), pin_memory=True), "cuda")
    result = list(loader)
    assert all(batch["images"].is_cuda for batch in result)
    assert equal(expected, [{k: v.cpu() if torch.is_tensor(v) else v for k, v in b.items()} for b in result])


def test_workers_run_single_threaded(records):
    def shape_of_threads(path):
        return np.zeros((cv2.getNumThreads(), torch.get_num_threads(), 3), np.uint8)

    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        image_set = ImageSet(records, read=shape_of_threads)
        loader = make_loader(image_set, BatchSampler(range(2), 1, False), workers=1)
        assert [tuple(batch["images"].shape[2:]) for batch in loader] == [(1, 1), (1, 1)]
    finally:
        cv2.setNumThreads(before)


def test_device_loader_keeps_one_batch_ahead(monkeypatch):
    log = []

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            log.append(f"{self.name} waits for {other.name}")

    def source():
        for k in range(3):
            log.append(f"load {k}")
            yield {"index": k, "images": SimpleNamespace(float=lambda: None)}

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("main"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    for batch in DeviceLoader(source(), "cuda:0"):
        log.append(f"use {batch['index']}")
    wait = "main waits for side"
    assert log == ["load 0", wait, "load 1", "use 0", wait, "load 2", "use 1", wait, "use 2"]
