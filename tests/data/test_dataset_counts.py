"""Published sizes: a copy that differs is warned about and used."""

import logging

import pytest
import vif.data.datasets as datasets
from vif.data.datasets import counts
from vif.records import ImageRecord

from tests.fake_trees import make_agreidv1, make_agreidv2, make_cargo, make_synthag

READERS = {
    "CARGO": (make_cargo, datasets.read_cargo),
    "SynthAG": (make_synthag, datasets.read_synthag),
    "AGReIDv1": (make_agreidv1, datasets.read_agreidv1),
    "AGReIDv2": (make_agreidv2, datasets.read_agreidv2),
}


@pytest.fixture
def warnings():
    """Messages that the count check logs."""

    messages = []

    class Collect(logging.Handler):
        def emit(self, record):
            messages.append((record.levelname, record.getMessage()))

    handler = Collect()
    counts.logger.addHandler(handler)
    yield messages
    counts.logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("CARGO", "query images 8 (published 312)"),
        ("AGReIDv1", "gallery ground images 6 (published 3,225)"),
        ("AGReIDv2", "gallery@A2W wearable images 6 (published 12,912)"),
    ],
)
def test_count_that_differs_is_a_warning(tmp_path, warnings, name, part):
    make, read = READERS[name]
    home = make(tmp_path)
    assert read(str(tmp_path))["train"]
    ((level, message),) = warnings
    assert level == "WARNING"
    assert f"{name} at {home} differs from the published copy" in message
    assert part in message


def published_copy(name):
    """Records with exactly the published counts."""
    rows = counts.PUBLISHED[name]
    by_view = {count.splits[0] for count in rows if count.view}
    images = [c for c in rows if c.what == "images" and (c.view or c.splits[0] not in by_view)]
    ids = {split: c.number for c in rows if c.what == "ids" for split in c.splits}
    if not any("train" in c.splits for c in images):
        images.append(counts.Count(("train",), None, "images", ids["train"]))
    splits = {c.splits[0]: [] for c in images}
    for (split,), view, _, number in images:
        splits[split] += [
            ImageRecord("", i % ids.get(split, 808), 0, view or "aerial") for i in range(number)
        ]
    return splits


@pytest.mark.parametrize("name", sorted(counts.PUBLISHED))
def test_published_copy_passes_in_silence_and_one_image_less_does_not(warnings, name):
    splits = published_copy(name)
    counts.warn_counts(name, "x", splits)
    assert warnings == []
    splits["train"].pop()
    counts.warn_counts(name, "x", splits)
    assert len(warnings) == 1


def test_synthag_has_no_published_counts(tmp_path, warnings):
    make_synthag(tmp_path)
    datasets.read_synthag(str(tmp_path))
    assert warnings == []
