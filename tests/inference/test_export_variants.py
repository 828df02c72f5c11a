"""vif export --fp16, --int8: smaller files, and what they lose."""

import json
import shutil

import vif
import numpy as np
import pytest
from vif.data.build import build_test_set
from vif.errors import DataError, ExportError
from vif.evaluation.protocols import PROTOCOLS
from vif.features import FeatureTable
from vif.inference import export as export_module
from vif.inference import formats
from vif.inference.export import export
from vif.inference.verify import retrieval_loss

from tests import fake_trees
from tests.inference.exporting import (
    images,
    needs_onnx,
    run_onnx,
)

pytestmark = needs_onnx


def test_variants_are_smaller_and_of_their_types(exported):
    import onnx

    out, report = exported
    half = onnx.load(str(out / "model.fp16.onnx"))
    big = [
        t for t in half.graph.initializer if np.prod(t.dims) >= 64 and t.data_type != onnx.TensorProto.INT64
    ]
    assert {t.data_type for t in big} == {onnx.TensorProto.FLOAT16}
    assert "MatMulInteger" in {node.op_type for node in onnx.load(str(out / "model.int8.onnx")).graph.node}
    sizes = {name: row["bytes"] for name, row in report["files"].items()}
    assert sizes["model.fp16.onnx"] < sizes["model.onnx"]


def test_fp16_normalises_in_float32(vit, exported):
    found = run_onnx(exported[0] / "model.fp16.onnx", images(vit[0], 5))
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)  # half precision is 5e-4 off


@pytest.mark.parametrize("name", ["fp16", "int8"])
def test_the_variants_loss_is_that_of_their_features(vit, exported, name, monkeypatch):
    out, report = exported
    monkeypatch.setenv("FASTREID_DATASETS", f"{vit[0].OUTPUT_DIR}/data")
    cfg = vit[0].clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = vit[1]
    loss = report["files"][f"model.{name}.onnx"]["retrieval"]
    paths = sorted({r.path for rows in build_test_set(cfg, "SynthAG").splits.values() for r in rows})
    full = vif.Predictor(cfg, vit[1], device="cpu")
    test = [path for path in paths if "/train/" not in path]
    pair = [p(test) for p in (full, vif.Predictor.from_onnx(str(out / f"model.{name}.onnx"), device="cpu"))]
    cosines = [float(a.astype(float) @ b) for a, b in zip(*pair)]
    assert loss["images"] == len(test)
    assert loss["cosine_min"] == pytest.approx(min(cosines), abs=1e-5)
    assert loss["cosine_mean"] == pytest.approx(np.mean(cosines), abs=1e-5)
    assert min(cosines) < 1 - 1e-9
    scores = vif.VIFTrainer.evaluate_weights(cfg)["SynthAG"]
    assert list(loss["protocols"]) == list(scores)
    for protocol, row in loss["protocols"].items():
        assert row["full_precision"] == pytest.approx(scores[protocol])
        for key, points in row["difference"].items():
            assert points == pytest.approx(row["variant"][key] - row["full_precision"][key])


@pytest.mark.parametrize("name", ["fp16", "int8"])
def test_loss_on_a_folder_without_labels(resnet, name):
    loss = resnet[3]["files"][f"model.{name}.onnx"]["retrieval"]
    assert (loss["data"], loss["images"], loss["protocols"]) == ("images", 3, {})
    assert 0.9 < loss["cosine_min"] <= loss["cosine_mean"]


def test_loss_of_another_ranking():
    def table(features):
        labels = {"pids": np.array([0, 1, 0, 1]), "camids": np.array([0, 0, 1, 1])}
        splits = np.array(["query", "query", "gallery", "gallery"])
        words = {"views": np.array([""] * 4), "paths": np.array(list("abcd")), "splits": splits}
        return FeatureTable(features=np.array(features, dtype=np.float32), **labels, **words)

    right, wrong = [[1, 0], [0, 1], [1, 0], [0, 1]], [[1, 0], [0, 1], [0, 1], [1, 0]]
    loss = retrieval_loss(table(right), table(wrong), PROTOCOLS["DEFAULT"])
    assert loss["protocols"]["ALL"]["difference"] == {"Rank-1": -100.0, "mAP": -50.0, "mINP": -50.0}
    assert (loss["cosine_min"], loss["cosine_mean"]) == (0.0, 0.5)


@pytest.fixture
def quick(exported, monkeypatch):
    """`write_onnx` copies the file that is there."""
    source = str(exported[0] / "model.onnx")
    monkeypatch.setattr(formats, "write_onnx", lambda *args: shutil.copy(source, args[2]))


def test_a_variant_that_overflows_fails(vit, quick, tmp_path, monkeypatch):
    import onnx

    def overflow(source, signature, path):
        model = onnx.load(source)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                values = np.full(list(tensor.dims), np.inf, dtype=np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save(model, path)

    folder = tmp_path / "images"
    fake_trees.write_image(folder / "a.jpg", 0)
    monkeypatch.setitem(export_module.VARIANTS, "fp16", ("model.fp16.onnx", overflow))
    with pytest.raises(ExportError, match=r"^model\.fp16\.onnx does not give"):
        export(*vit, str(tmp_path), uint8=True, variant_names=["fp16"], images=str(folder))
    row = json.loads((tmp_path / "failed" / "export.json").read_text())["files"]["model.fp16.onnx"]
    assert row["batches"]["1"]["cosine_min"] == "nan"
    assert "retrieval" not in row


def test_a_variant_that_fails_on_the_images_fails(vit, quick, tmp_path, monkeypatch):
    def fail(*_):
        raise DataError("the network gives NaN or infinity")

    folder = tmp_path / "images"
    fake_trees.write_image(folder / "a.jpg", 0)
    monkeypatch.setattr(export_module, "retrieval_loss", fail)
    with pytest.raises(ExportError, match=r"^model\.int8\.onnx does not give"):
        export(*vit, str(tmp_path), uint8=True, variant_names=["int8"], images=str(folder))
    row = json.loads((tmp_path / "failed" / "export.json").read_text())["files"]["model.int8.onnx"]
    assert row["retrieval"] == {"data": "images", "error": "the network gives NaN or infinity"}
