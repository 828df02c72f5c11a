"""Labels beside identities: each follows its image, comes where it is asked for, says what is missing."""

from pathlib import Path

import vif
import numpy as np
import pytest
import torch
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.bases import ImageDataset
from vif.data.build import build_train_loader
from vif.errors import ConfigError, DataError

from tests import fake_trees
from tests.tiny import tiny_cfg

NAMES = ("CARGO", "CARGO_AG", "SynthAG", "AGReIDv1", "AGReIDv2", "AGManifest")


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory):
    with fake_trees.installed(tmp_path_factory.mktemp("data")) as root:
        fake_trees.make_manifest(root, ids=4, views=("aerial", "ground", "boat"))
        yield root


def view_of(path):
    """0 aerial, 1 other, from the file's name alone: Cam1-Cam5 and C0 are drones, a manifest's says it."""
    name = Path(path).name
    if name.startswith("Cam"):
        return int(int(name.split("_")[0][3:]) > 5)
    if name.startswith("P"):
        return int(name.split("C")[1][0] != "0")
    return int(not name.startswith("aerial"))


def loader(root, tmp_path, *opts):
    manifest = str(root / "own" / "manifest.csv")
    return build_train_loader(tiny_cfg("CARGO/vdt.yml", tmp_path, "DATASETS.MANIFEST", manifest, *opts))


def dataset(root, name, **kwargs):
    return DATASET_REGISTRY.get(name)(root=str(root), manifest=str(root / "own" / "manifest.csv"), **kwargs)


@pytest.mark.parametrize("name", NAMES)
def test_views_of_every_data_set(root, name):
    data = dataset(root, name)
    views = data.train_labels("views")
    assert (views.dtype, views.shape) == (np.int64, (len(data.train),))
    assert views.tolist() == [view_of(path) for path, _, _ in data.train]
    assert set(views) == {0, 1}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sampler", ["NaiveIdentitySampler", "TrainingSampler"])
def test_a_view_follows_its_image(root, tmp_path, sampler, workers):
    opts = ["DATASETS.NAMES", ("AGReIDv2", "CARGO", "AGManifest"), "DATALOADER.SAMPLER_TRAIN", sampler]
    batches = iter(loader(root, tmp_path, *opts, "DATALOADER.NUM_WORKERS", workers))
    seen = []
    for _ in range(12):
        batch = next(batches)
        assert (batch["views"].dtype, batch["views"].shape) == (torch.int64, (8,))
        assert batch["views"].tolist() == [view_of(path) for path in batch["img_paths"]]
        seen += batch["img_paths"]
    assert seen != sorted(seen)
    assert {"CARGO", "AG-ReID.v2", "own"} <= {Path(path).relative_to(root).parts[0] for path in seen}


def test_held_out_identities_leave_with_their_views(root, tmp_path):
    train_set = loader(root, tmp_path, "DATASETS.HOLDOUT", 0.5, "SOLVER.IMS_PER_BATCH", 4).dataset
    assert 0 < len(train_set) < len(dataset(root, "CARGO").train)
    assert train_set.labels["views"].tolist() == [view_of(path) for path, _, _ in train_set.img_items]


def test_without_a_label_named_batches_have_none(root, tmp_path, caplog):
    with caplog.at_level("INFO"):
        batch = next(iter(loader(root, tmp_path, "DATALOADER.LABELS", ())))
    assert set(batch) == {"images", "targets", "camids", "img_paths", "index", "draws"}
    assert "labels" not in caplog.text


def test_what_is_read_is_logged(root, tmp_path, caplog):
    with caplog.at_level("INFO"):
        loader(root, tmp_path)
    assert "VDT reads, beside identities, these labels: views" in caplog.text


def test_an_unknown_label_lists_those_there_are(root):
    with pytest.raises(ConfigError, match=r"DATALOADER\.LABELS names 'colour'; there are .*views"):
        dataset(root, "CARGO").train_labels("colour")


def test_a_data_set_with_an_unlabelled_view_says_which(root):
    data = dataset(root, "CARGO")
    data.splits["train"][3] = data.splits["train"][3]._replace(view="")
    with pytest.raises(DataError, match="CARGO has training images without a view; label each"):
        data.train_labels("views")


def test_fastreids_own_data_sets_have_no_labels(root, tmp_path):
    class Unlabelled(ImageDataset):
        def __init__(self, root="", **kwargs):
            super().__init__([("a.jpg", "u_0", "u_0")], [], [], **kwargs)

    DATASET_REGISTRY.register(Unlabelled)
    try:
        with pytest.raises(
            DataError, match="asks for 'views', which data set Unlabelled of fastreid does not"
        ):
            loader(root, tmp_path, "DATASETS.NAMES", ("Unlabelled",))
    finally:
        del DATASET_REGISTRY._obj_map["Unlabelled"]


def test_test_images_in_training_have_no_labels(root, tmp_path):
    with pytest.raises(
        ConfigError, match=r"LABELS does not go with DATASETS\.COMBINEALL; turn one of them off"
    ):
        loader(root, tmp_path, "DATASETS.COMBINEALL", True)


def test_labels_of_any_shape_reach_the_batch_beside_their_image(tmp_path):
    from vif.data.loaders import CountedBatchSampler, ImageSet, make_loader

    items = [(str(fake_trees.write_image(tmp_path / f"{k}.jpg", k)), k, 0) for k in range(6)]
    rows = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    images = ImageSet(items, labels={"rows": rows})
    batch = next(iter(make_loader(images, CountedBatchSampler([4, 0, 5], batch_size=3))))
    assert batch["rows"].dtype == torch.float32
    np.testing.assert_array_equal(batch["rows"].numpy(), rows[[4, 0, 5]])
    assert images.labels.keys() == {"rows"}
    assert ImageSet(items).labels == {}


def test_the_label_log_and_errors_are_the_trainers_too(root, tmp_path):
    with pytest.raises(ConfigError, match=r"LABELS does not go with DATASETS\.COMBINEALL"):
        vif.VIFTrainer(tiny_cfg("CARGO/vdt.yml", tmp_path, "DATASETS.COMBINEALL", True))
