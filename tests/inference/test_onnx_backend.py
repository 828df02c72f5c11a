"""Predictor.from_onnx on files made here by hand, and the signature in a file's metadata."""

import sys

import vif
import numpy as np
import pytest
from PIL import Image
from vif.cli import main
from vif.errors import ConfigError, DataError
from vif.features import FeatureTable
from vif.inference.backends import _providers
from vif.inference.metadata import Signature

SIGNATURE = Signature(8, 4, (127.5, 100.0, 90.25), (127.5, 50.0, 60.0), True, False, 3, "0123456789abcdef")


def make_onnx(path, signature, metadata=None):
    """A network whose features are the mean colour of its (normalised) input."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, types = onnx.helper, onnx.TensorProto
    size = (signature.height, signature.width)
    shape = ("batch", *size, 3) if signature.uint8_input else ("batch", 3, *size)
    axes = [1, 2] if signature.uint8_input else [2, 3]
    kind = types.UINT8 if signature.uint8_input else types.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["numbers"], to=types.FLOAT),
            helper.make_node("ReduceMean", ["numbers"], ["features"], axes=axes, keepdims=0),
        ],
        "mean",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info("features", types.FLOAT, ("batch", 3))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for name, value in (signature.to_dict() if metadata is None else metadata).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value
    onnx.save(model, str(path))
    return path


def unit(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.mark.parametrize("uint8_input", [True, False])
def test_features_of_an_onnx_file(tmp_path, uint8_input):
    signature = Signature(**{**vars(SIGNATURE), "uint8_input": uint8_input})
    predictor = vif.Predictor.from_onnx(make_onnx(tmp_path / "x.onnx", signature), device="cpu", batch_size=2)
    images = [np.random.default_rng(seed).integers(0, 256, (19, 9, 3), dtype=np.uint8) for seed in range(5)]
    resized = [np.asarray(Image.fromarray(i).resize((4, 8), Image.Resampling.BICUBIC)) for i in images]
    means = np.stack([image.reshape(-1, 3).astype(float).mean(axis=0) for image in resized])
    if not uint8_input:
        means = (means - signature.mean) / signature.std
    features = predictor(images)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, unit(means), atol=1e-5)
    np.testing.assert_allclose(predictor(images[3]), unit(means[3]), atol=1e-5)
    assert predictor.signature == signature
    assert predictor.fingerprint == "0123456789abcdef"
    assert predictor.device == "cpu"
    Image.fromarray(images[0]).save(tmp_path / "x.png")
    table, failures = predictor(tmp_path)
    assert (len(table), failures, table.meta) == (1, [], {"fingerprint": "0123456789abcdef"})


def test_files_that_are_no_export(tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(DataError, match=r"there is no file '.*none.onnx'. Write it with `vif export`"):
        vif.Predictor.from_onnx(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_bytes(b"no such thing")
    with pytest.raises(DataError, match=r"text.onnx is no ONNX file that onnxruntime reads"):
        vif.Predictor.from_onnx(tmp_path / "text.onnx")
    foreign = make_onnx(tmp_path / "foreign.onnx", SIGNATURE, metadata={})
    with pytest.raises(DataError, match=r"foreign.onnx: the metadata lacks vif.height"):
        vif.Predictor.from_onnx(foreign)


def test_without_onnxruntime_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="pip install onnxruntime"):
        vif.Predictor.from_onnx(tmp_path / "x.onnx")


def test_the_device_of_onnxruntime():
    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
    assert _providers([cpu], "auto") == [cpu]
    assert _providers([cuda, cpu], "cpu") == [cpu]
    assert _providers([cuda, cpu], "auto") == [(cuda, {"device_id": 0}), cpu]
    assert _providers([cuda, cpu], "cuda:1") == [(cuda, {"device_id": 1}), cpu]
    with pytest.raises(ConfigError, match="device='cuda': this onnxruntime has no CUDA; `pip install"):
        _providers([cpu], "cuda")
    with pytest.raises(ConfigError, match="device='mps' is unknown; choose auto, cpu or cuda"):
        _providers([cpu], "mps")


def test_cuda_that_does_not_start_is_an_error(tmp_path, monkeypatch):
    path = make_onnx(tmp_path / "x.onnx", SIGNATURE)
    monkeypatch.setattr("vif.inference.backends._providers", lambda *_: ["CPUExecutionProvider"])
    with pytest.raises(ConfigError, match="device='cuda': onnxruntime could not start CUDA"):
        vif.Predictor.from_onnx(path, device="cuda")


def test_a_signature_survives_as_text():
    text = SIGNATURE.to_dict()
    assert all(isinstance(word, str) for item in text.items() for word in item)
    assert set(text) == {f"vif.{name}" for name in vars(SIGNATURE)}
    assert Signature.from_dict({**text, "other": "x"}) == SIGNATURE


@pytest.mark.parametrize("name", list(vars(SIGNATURE)))
def test_a_signature_that_lacks_a_value_is_refused(name):
    text = SIGNATURE.to_dict()
    del text[f"vif.{name}"]
    with pytest.raises(DataError, match=f"the metadata lacks vif.{name}; write the file with `vif export`"):
        Signature.from_dict(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("height", "0"),
        ("width", "wide"),
        ("width", "true"),
        ("mean", "[1, 2]"),
        ("std", '["a", 1, 2]'),
        ("uint8_input", "1"),
        ("l2_output", "yes"),
        ("dim", "1.5"),
        ("fingerprint", '"XYZ"'),
    ],
)
def test_a_signature_of_nonsense_is_refused(name, value):
    with pytest.raises(DataError, match=f"the metadata has vif.{name}=.*, which makes no sense"):
        Signature.from_dict({**SIGNATURE.to_dict(), f"vif.{name}": value})


def test_the_command_takes_an_onnx_file(tmp_path, capsys):
    path = make_onnx(tmp_path / "x.onnx", SIGNATURE)
    (tmp_path / "photos").mkdir()
    image = np.random.default_rng(0).integers(0, 256, (8, 4, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "photos" / "x.png")
    arguments = ["--onnx", str(path), "--images", str(tmp_path / "photos"), "--out", str(tmp_path / "f.npz")]
    assert main(["extract", *arguments]) == 0
    assert "1 images, 3 dimensions" in capsys.readouterr().out
    table = FeatureTable.load(str(tmp_path / "f.npz"))
    np.testing.assert_allclose(table.features[0], unit(image.reshape(-1, 3).mean(axis=0)), atol=1e-5)
