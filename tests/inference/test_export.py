"""vif export: every file opened by the library it is for, and compared with the trained network itself."""

import json
import logging
import shutil
import sys
from hashlib import sha256
from pathlib import Path

import vif
import numpy as np
import pytest
import torch
from vif.cli import main
from vif.data.build import build_test_set
from vif.errors import ConfigError, DataError, ExportError
from vif.evaluation.protocols import PROTOCOLS
from vif.features import FeatureTable
from vif.inference import Signature, formats
from vif.inference import export as export_module
from vif.inference.export import export
from vif.inference.network import Network
from vif.inference.verify import agreement, probes, retrieval_loss, verify

from tests import fake_trees
from tests.systems import small_cfg
from tests.tiny import tiny_cfg

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
FORMATS = [name for name in formats.FILES if name != "torch_export" or hasattr(torch, "export")]


def trained(cfg, path):
    """A checkpoint of a random network whose batch statistics matter."""
    torch.manual_seed(0)
    model = vif.VIFTrainer.build_model(cfg)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    torch.save({"model": model.state_dict()}, path)
    return str(path)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """(config, checkpoint) of a tiny ViT; its mean and std differ between channels."""
    root = tmp_path_factory.mktemp("vit")
    fake_trees.make_synthag(root / "data", ids=3)
    pixels = ("MODEL.PIXEL_MEAN", [123.7, 116.3, 103.5], "MODEL.PIXEL_STD", [58.4, 57.1, 57.4])
    cfg = tiny_cfg("SynthAG/vif.yml", root, "MODEL.HEADS.NUM_CLASSES", 3, *pixels)
    return cfg, trained(cfg, root / "model.pth")


@pytest.fixture(scope="module")
def exported(vit, tmp_path_factory):
    """Everything at once: uint8 input, length 1, all formats and variants, measured on a data set."""
    out = tmp_path_factory.mktemp("export") / "new" / "folder"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", f"{vit[0].OUTPUT_DIR}/data")
        report = export(*vit, str(out), FORMATS, uint8=True, variant_names=("fp16", "int8"))
    return out, report


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """(config, checkpoint, folder, report) of a Baseline: float32 in, features as they are."""
    root = tmp_path_factory.mktemp("resnet")
    cfg = small_cfg("SynthAG/bot.yml", root, "MODEL.HEADS.NUM_CLASSES", 3)
    weights = trained(cfg, root / "model.pth")
    images = root / "images"
    for index in range(3):
        fake_trees.write_image(images / f"{index}.jpg", index)
    report = export(
        cfg,
        weights,
        str(root / "out"),
        normalize=False,
        variant_names=("fp16", "int8"),
        opset=formats.MIN_OPSET,
        images=str(images),
    )
    return cfg, weights, root / "out", report


def images(cfg, count, seed=1):
    height, width = cfg.INPUT.SIZE_TEST
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def expected(cfg, weights, pixels, unit=True):
    """Features by fastreid's own path: the loaded model on float images in 0..255."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = weights
    model = vif.VIFTrainer.load_model(cfg).eval()
    with torch.no_grad():
        rows = model({"images": torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32))}).numpy()
    return np.stack([row / np.sqrt(np.sum(row.astype(float) ** 2)) for row in rows]) if unit else rows


def run_onnx(path, values):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"images": values})[
        0
    ]


def by_hand(cfg, pixels):
    mean, std = np.array(cfg.MODEL.PIXEL_MEAN), np.array(cfg.MODEL.PIXEL_STD)
    return ((pixels - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)


@pytest.mark.parametrize("count", [1, 3, 9])
def test_onnx_gives_the_networks_features_for_any_batch(vit, exported, count):
    pixels = images(vit[0], count)
    found = run_onnx(exported[0] / "model.onnx", pixels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(*vit, pixels), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_float_input_and_features_as_they_are(resnet):
    cfg, weights, out, report = resnet
    pixels = images(cfg, 3)
    found = run_onnx(out / "model.onnx", by_hand(cfg, pixels))
    rows = expected(cfg, weights, pixels, unit=False)
    np.testing.assert_allclose(found, rows, atol=1e-4 * np.abs(rows).max())
    assert abs(np.linalg.norm(found[0]) - 1) > 0.1
    assert report["files"]["model.onnx"]["opset"] == formats.MIN_OPSET
    assert (report["signature"]["uint8_input"], report["signature"]["l2_output"]) == (False, False)


def test_torchscript_opens_again(vit, exported):
    pixels = images(vit[0], 4)
    extra = {"vif.dim": ""}
    module = torch.jit.load(str(exported[0] / "model.torchscript.pt"), _extra_files=extra)
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(pixels)), expected(*vit, pixels), atol=2e-6)
    assert int(extra["vif.dim"]) == 16


@pytest.mark.skipif("torch_export" not in FORMATS, reason="this torch has no torch.export")
def test_torch_export_opens_again(vit, exported):
    pixels = images(vit[0], 4)
    extra = {"vif.dim": ""}
    program = torch.export.load(str(exported[0] / "model.pt2"), extra_files=extra)
    with torch.no_grad():
        found = program.module()(torch.from_numpy(pixels))
    np.testing.assert_allclose(found, expected(*vit, pixels), atol=2e-6)
    assert int(extra["vif.dim"]) == 16


def test_safetensors_hold_the_state_dict_and_its_config(vit, exported):
    from fastreid.config import get_cfg
    from safetensors import safe_open
    from safetensors.torch import load_file

    path = str(exported[0] / "model.safetensors")
    state, found = torch.load(vit[1])["model"], load_file(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    cfg = get_cfg()
    vif.add_vif_config(cfg)
    cfg.merge_from_other_cfg(cfg.load_cfg(metadata["vif.config"]))
    assert cfg.MODEL.PIXEL_MEAN == vit[0].MODEL.PIXEL_MEAN
    assert json.loads(metadata["position_grids"]) == {"backbone.pos_embed": [4, 2]}
    pixels = images(vit[0], 2)
    np.testing.assert_array_equal(expected(vit[0], path, pixels), expected(*vit, pixels))


def test_every_file_carries_the_signature(exported):
    out, report = exported
    for name in ("model.onnx", "model.fp16.onnx", "model.int8.onnx"):
        metadata = {prop.key: prop.value for prop in onnx.load(str(out / name)).metadata_props}
        signature = Signature.from_dict(metadata)
        assert signature.uint8_input
        assert signature.l2_output
        assert (signature.height, signature.width, signature.dim) == (32, 16, 16)
        assert signature.fingerprint == report["signature"]["fingerprint"]


def test_the_report_says_what_lies_there(vit, exported):
    out, report = exported
    assert json.loads((out / "export.json").read_text()) == json.loads(json.dumps(report))
    assert sorted(report["files"]) == sorted(p.name for p in out.iterdir() if p.name != "export.json")
    for name, row in report["files"].items():
        content = (out / name).read_bytes()
        assert (row["bytes"], row["sha256"]) == (len(content), sha256(content).hexdigest())
        assert (out / name).stat().st_mode & 0o044 == (out / "export.json").stat().st_mode & 0o044
        assert list(row["batches"]) == ["1", "2", "7"]
        if row["threshold"]:
            assert all(batch["cosine_min"] >= 0.9999 for batch in row["batches"].values())
    assert report["passed"]
    assert report["weights"]["sha256"] == sha256(Path(vit[1]).read_bytes()).hexdigest()
    assert report["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_variants_are_smaller_and_of_their_types(exported):
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


@pytest.mark.parametrize(
    ("system", "uint8"),
    [("vdt", True), ("explain", False), ("pcb", True), ("vv", False), ("osnet", True), ("mgn", False)],
)
def test_the_wrapper_holds_every_architecture(system, uint8, tmp_path):
    make = tiny_cfg if system in ("vdt", "explain") else small_cfg
    cfg = make(f"SynthAG/{system}.yml", tmp_path, "MODEL.HEADS.NUM_CLASSES", 3)
    torch.manual_seed(0)
    model = vif.VIFTrainer.build_model(cfg).eval()
    pixels = images(cfg, 2)
    size, mean, std = cfg.INPUT.SIZE_TEST, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    network = Network(model, Signature(*size, tuple(mean), tuple(std), uint8, False, 1, "0" * 8))
    given = torch.from_numpy(pixels if uint8 else by_hand(cfg, pixels))
    before = given.clone()
    with torch.no_grad():
        found = network(given)
        rows = model({"images": torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32))})
    torch.testing.assert_close(found, rows, rtol=1e-4, atol=1e-4 * float(rows.abs().max()))
    assert torch.equal(given, before)


def test_a_file_that_fails_is_kept_apart_with_its_report(vit, tmp_path, monkeypatch):
    class Mirrored(Network):
        def forward(self, values):
            return super().forward(values.flip(3))

    (tmp_path / "model.torchscript.pt").write_text("what was deployed")
    monkeypatch.setattr(export_module, "Network", Mirrored)
    with pytest.raises(ExportError, match=r"model\.torchscript\.pt does not give .*export\.json says"):
        export(*vit, str(tmp_path), ["safetensors", "torchscript"])
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["model.torchscript.pt"]
    assert (tmp_path / "model.torchscript.pt").read_text() == "what was deployed"
    report = json.loads((tmp_path / "failed" / "export.json").read_text())
    rows = report["files"]
    assert (report["passed"], rows["model.safetensors"]["passed"]) == (False, True)
    assert not rows["model.torchscript.pt"]["passed"]
    assert rows["model.torchscript.pt"]["batches"]["7"]["cosine_min"] < 0.9999
    assert sorted(p.name for p in (tmp_path / "failed").iterdir()) == ["export.json", *sorted(rows)]


@pytest.fixture
def quick(exported, monkeypatch):
    """`write_onnx` copies the file that is there."""
    source = str(exported[0] / "model.onnx")
    monkeypatch.setattr(formats, "write_onnx", lambda *args: shutil.copy(source, args[2]))


def test_a_variant_that_overflows_fails(vit, quick, tmp_path, monkeypatch):
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


def test_verify_finds_what_can_go_wrong():
    rng = np.random.default_rng(0)
    pixels, weights = probes(8, 4), rng.normal(size=(96, 5))
    rows = pixels.reshape(10, -1) @ weights

    def right(batch):
        return batch.reshape(len(batch), -1) @ weights

    def fixed(batch):
        if len(batch) != 2:
            raise RuntimeError("two images, please")
        return right(batch)

    assert verify(right, pixels, rows)["passed"]
    assert verify(right, pixels, rows)["batches"]["7"] == pytest.approx(
        {"cosine_min": 1, "cosine_mean": 1, "max_abs_difference": 0}, abs=1e-9
    )
    found = verify(fixed, pixels, rows)
    assert not found["passed"]
    assert "error" not in found["batches"]["2"]
    assert found["batches"]["7"] == {"error": "RuntimeError: two images, please"}
    assert not verify(lambda b: right(b)[:1], pixels, rows)["passed"]
    assert not verify(lambda b: right(b) * np.nan, pixels, rows, None)["passed"]
    assert not verify(lambda b: right(b[..., ::-1]), pixels, rows)["passed"]
    assert not verify(lambda b: right(b[:, ::-1]), pixels, rows)["passed"]
    assert verify(lambda b: right(b[..., ::-1]), pixels, rows, None)["passed"]
    turned = rows * 1.0
    turned[9, 0] += 0.03 * np.linalg.norm(rows[9])  # the last image alone, cosine about 0.9996
    assert not verify(right, pixels, turned)["passed"]


def test_agreement_by_hand():
    found = agreement(np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[4.0, 3.0], [2.0, 0.0]]))
    assert found == pytest.approx({"cosine_min": 0.96, "cosine_mean": 0.98, "max_abs_difference": 1.0})


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["onnx", "tflite"], {}, "unknown format 'tflite'; there are safetensors, onnx, torchscript"),
        ([], {}, "no format is named"),
        (["onnx"], {"variant_names": ["int4"]}, "unknown variant 'int4'; there are fp16, int8"),
        (["torchscript"], {"variant_names": ["fp16"]}, "are for ONNX; add onnx to --formats"),
        (["torchscript"], {"opset": 18}, "are for ONNX; add onnx to --formats"),
        (["onnx"], {"variant_names": ["fp16"], "dataset": "CARGO", "images": "x"}, "give one"),
        (["onnx"], {"dataset": "CARGO"}, "add one of these"),
        (["onnx"], {"opset": 9}, rf"--opset 9: torch .* write {formats.MIN_OPSET} to \d+; leave it out"),
        (["onnx"], {"opset": 999}, "--opset 999: torch"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(vit, tmp_path, names, options, message):
    with pytest.raises(ConfigError, match=message):
        export(vit[0], "no such checkpoint", str(tmp_path / "out"), names, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("package", "name"), [("onnxruntime", "onnx"), ("onnx", "onnx"), ("safetensors", "safetensors")]
)
def test_a_missing_package_is_named_with_its_command(vit, tmp_path, package, name, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"export to {name} needs `pip install {package}`"):
        export(*vit, str(tmp_path), [name])


def test_a_torch_without_torch_export(vit, tmp_path, monkeypatch):
    monkeypatch.delattr(torch, "export", raising=False)
    with pytest.raises(ConfigError, match="torch_export needs torch >= 2.3"):
        export(*vit, str(tmp_path), ["torch_export"])


def test_an_opset_that_torch_did_not_write(vit, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: None)
    monkeypatch.setattr(formats, "opset_of", lambda path: formats.MIN_OPSET)
    with pytest.raises(ExportError, match=rf"wrote opset {formats.MIN_OPSET} where --opset"):
        export(*vit, str(tmp_path), ["onnx"], opset=formats.MIN_OPSET + 1)


def test_an_exporter_that_fails_is_named(vit, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("unsupported operator\nlong trace")

    monkeypatch.setattr(formats, "write_torchscript", fail)
    with pytest.raises(
        ExportError, match=r"export to torchscript failed: RuntimeError: unsupported operator Take"
    ):
        export(*vit, str(tmp_path), ["torchscript"])
    monkeypatch.setattr(formats, "write_torchscript", lambda n, s, path: Path(path).write_bytes(b"torn"))
    with pytest.raises(ExportError, match="the torchscript file does not open again"):
        export(*vit, str(tmp_path), ["torchscript"])


def test_a_broken_network_is_not_exported(vit, tmp_path):
    state = torch.load(vit[1])["model"]
    state["backbone.norm.bias"][0] = float("nan")
    torch.save({"model": state}, tmp_path / "nan.pth")
    with pytest.raises(DataError, match="NaN or infinity; there is nothing to export"):
        export(vit[0], str(tmp_path / "nan.pth"), str(tmp_path / "out"), ["torchscript"])


def test_a_flip_test_is_left_out_and_said(vit, tmp_path, caplog):
    cfg = vit[0].clone()
    cfg.defrost()
    cfg.TEST.FLIP.ENABLED = True
    with caplog.at_level("WARNING", logger="vif.inference.export"):
        logging.getLogger("vif.inference.export").addHandler(caplog.handler)
        export(cfg, vit[1], str(tmp_path), ["torchscript"])
        logging.getLogger("vif.inference.export").removeHandler(caplog.handler)
    assert "gives the features of the image alone" in caplog.text
    assert cfg.TEST.FLIP.ENABLED


def test_the_command(vit, tmp_path, capsys):
    (tmp_path / "config.yml").write_text(vit[0].dump())
    command = ["export", "--config-file", str(tmp_path / "config.yml"), "--weights", vit[1]]
    out = tmp_path / "out"
    extra = ["--raw", "--uint8", "--set", "MODEL.PIXEL_MEAN", "[1.0,2.0,3.0]"]
    assert main([*command, "--out", str(out), "--formats", "torchscript", *extra]) == 0
    printed = capsys.readouterr().out
    assert "| model.torchscript.pt | 0.1" in printed or "| model.torchscript.pt | 0.0" in printed
    signature = json.loads((out / "export.json").read_text())["signature"]
    assert (signature["mean"], signature["uint8_input"], signature["l2_output"]) == ([1, 2, 3], True, False)
    assert main([*command, "--out", str(out), "--formats", "tflite"]) == 1
    assert capsys.readouterr().err.startswith("error: export: unknown format 'tflite'")


def test_the_printed_report(exported, resnet):
    from vif.inference.cli import format_report

    text = format_report(exported[1])
    assert "model.int8.onnx on SynthAG, 45 images: mean cosine" in text
    full = exported[1]["files"]["model.int8.onnx"]["retrieval"]["protocols"]["AG"]
    assert f"{full['full_precision']['mAP']:.2f} -> {full['variant']['mAP']:.2f}" in text
    assert "protocol" not in format_report(resnet[3])
