"""Features, weights, galleries, results and images of any bytes: read, or an error of our own."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from vif.cli import main
from vif.data.transforms import read_image, read_image_fast
from vif.data.transforms.base import is_image
from vif.errors import UnreadableImage
from vif.evaluation import left_out
from vif.experiments.results import read_results
from vif.features import FeatureTable
from vif.inference.images import ImageFailure, load_image
from vif.retrieval import store
from vif.weight_files import read_weights

from tests.faults.fuzz import fuzz, mutated, own_errors, some

ROOT = Path(__file__).parents[2]


def table():
    words = np.array(["a.jpg", "b.jpg", "c.jpg"])
    numbers = np.array([1, 2, 1])
    views, splits = np.array(["aerial", "ground", "aerial"]), np.array(["query", "gallery", "query,gallery"])
    meta = {"dataset": "own", **left_out.to_meta([left_out.LeftOut("d.jpg", "query", "aerial", "torn")])}
    return FeatureTable(np.eye(3, 4, dtype=np.float32), numbers, numbers, views, words, splits, meta)


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_fuzzed_feature_files(tmp_path, ending, capsys):
    file = tmp_path / f"x.{ending}"
    table().save(str(file))
    whole = file.read_bytes()

    @fuzz(200)
    @given(some(whole))
    def read(content):
        file.write_bytes(content)
        with own_errors():
            found = FeatureTable.load(str(file))
            assert found.features.dtype == np.float32
            assert len(found.paths) == len(found)
            left_out.describe(found)

    read()
    file.write_bytes(whole)
    assert left_out.from_meta(FeatureTable.load(str(file)).meta)[0].path == "d.jpg"


ARRAYS = {
    "text": np.array(["a", "b", "c"]),
    "objects": np.array([{}, None, 3], dtype=object),
    "floats": np.array([1.5, np.nan, np.inf]),
    "float16": np.ones((3, 2), np.float16),
    "complex": np.ones((3, 2), np.complex64),
    "times": np.array(["2026-01-01"] * 3, dtype="M8[D]"),
    "unsigned": np.array([2**64 - 1] * 3, dtype=np.uint64),
    "scalar": np.array(3),
    "none": np.zeros((0, 4), np.float32),
    "records": np.zeros(3, dtype=[("a", "i4")]),
    "bytes": np.array([b"a", b"b", b"c"]),
}


def test_feature_files_of_wrong_arrays(tmp_path, capsys):
    file = tmp_path / "x.npz"
    whole = {
        name: getattr(table(), name) for name in ("features", "pids", "camids", "views", "paths", "splits")
    }

    @fuzz(150)
    @given(
        st.dictionaries(
            st.sampled_from([*whole, "meta", "format"]), st.sampled_from(sorted(ARRAYS)), max_size=3
        ),
        st.one_of(
            st.none(),
            st.text(max_size=10),
            st.sampled_from(['{"unreadable": "[1]"}', "[]", "{}", "1", "[" * 999]),
        ),
    )
    def read(wrong, meta):
        arrays = {**whole, **{name: ARRAYS[kind] for name, kind in wrong.items()}}
        if meta is not None:
            arrays["meta"] = np.array(meta)
        with open(file, "wb") as f:
            np.savez(f, **arrays)
        with own_errors():
            found = FeatureTable.load(str(file))
            left_out.describe(found)
        assert main(["evaluate", str(file)]) in (0, 1)

    read()


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_fuzzed_weights(tmp_path, ending):
    from safetensors.torch import save_file

    file = tmp_path / f"x.{ending}"
    tensors = {"a.weight": torch.ones(2, 3), "b": torch.zeros(4)}
    if ending == "pth":
        torch.save({"model": tensors, "position_grids": {"a": (1, 2)}, "epoch": 3}, file)
    else:
        save_file(tensors, file, metadata={"position_grids": json.dumps({"a": [1, 2]})})
    whole = file.read_bytes()

    @fuzz(150)
    @given(some(whole))
    def read(content):
        file.write_bytes(content)
        with own_errors():
            assert read_weights(str(file)).tensors

    read()


def test_fuzzed_galleries(tmp_path):
    folder = tmp_path / "gallery"
    store.write(str(folder), {"features": np.ones((2, 3), np.float32)}, None, {"count": 2}, "")
    manifest = folder / store.MANIFEST
    array = next(folder.rglob("*.npy"))
    files = {path: path.read_bytes() for path in (manifest, array)}
    value = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=4), inner, max_size=2)
        ),
        max_leaves=4,
    )
    whole = json.loads(files[manifest])
    changed = st.dictionaries(st.sampled_from(sorted(whole)), value, max_size=2).map(
        lambda changes: json.dumps({**whole, **changes}).encode()
    )

    @fuzz(150)
    @given(
        st.one_of(changed, some(files[manifest])),
        st.one_of(st.just(files[array]), some(files[array])),
        st.booleans(),
    )
    def read(manifest_bytes, array_bytes, verify):
        manifest.write_bytes(manifest_bytes)
        array.write_bytes(array_bytes)
        with own_errors():
            store.read(str(folder), verify)

    read()


def test_fuzzed_results(tmp_path):
    file = tmp_path / "x.json"
    run = {"arm": "a", "grid": "", "values": {}, "seed": 1, "status": "done", "error": "", "collapsed": False}
    scores = {"Rank-1": 1.0, "Rank-5": 1.0, "Rank-10": 1.0, "mAP": 1.0, "mINP": 1.0, "valid_queries": 3}
    content = {
        "format": "vif-sweep/1",
        "sweep": "x",
        "title": "t",
        "table": "",
        "data": "d",
        "baseline": "",
        "runs": [{**run, "results": {"d": {"p": scores}}}],
    }
    file.write_text(json.dumps(content))
    read_results(str(file))

    @fuzz(200)
    @given(some(json.dumps(content).encode()))
    def read(changed):
        file.write_bytes(changed)
        with own_errors():
            read_results(str(file))

    read()


def encoded(kind, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6
IMAGES = {
    "jpeg": encoded("JPEG", quality=60),
    "progressive": encoded("JPEG", progressive=True, exif=EXIF),
    "png": encoded("PNG", exif=EXIF),
    "palette": encoded("GIF"),
    "bmp": encoded("BMP"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_fuzzed_images_are_read_or_refused_by_all_readers_alike(tmp_path, kind):
    file = tmp_path / "x.jpg"

    def taken(read):
        said = ""
        try:
            assert is_image(read(file))
        except UnreadableImage as error:
            said = str(error)
        assert not said or (str(file) in said and said.isprintable())
        return not said

    @fuzz(150)
    @given(mutated(IMAGES[kind]))
    def check(content):
        file.write_bytes(content)
        assert taken(read_image) == taken(read_image_fast)
        for source in (str(file), content):
            found = load_image(source)
            assert isinstance(found, ImageFailure) or is_image(found)

    check()
