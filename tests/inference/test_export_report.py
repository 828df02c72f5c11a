"""vif export: the check of every file, the report, and what is refused."""

import json
import logging
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from vif.cli import main
from vif.errors import ConfigError, DataError, ExportError
from vif.inference import Signature, formats
from vif.inference import export as export_module
from vif.inference.export import export
from vif.inference.export_report import make_report
from vif.inference.network import Network
from vif.inference.verify import agreement, probes, verify

from tests.inference.exporting import needs_onnx


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


def test_a_second_export_keeps_the_rows_of_the_files_that_are_still_what_they_were(vit, tmp_path, caplog):
    def written(*names, **options):
        """The report of one more export; the tables of this one, of the file, and of the hashes are one."""
        report = export(*vit, str(tmp_path), names, uint8=True, **options)
        assert json.loads((tmp_path / "export.json").read_text()) == json.loads(json.dumps(report))
        for name, row in report["files"].items():
            assert row["sha256"] == sha256((tmp_path / name).read_bytes()).hexdigest()
        return set(report["files"])

    both = {"model.torchscript.pt", "model.safetensors"}
    assert written("torchscript") == {"model.torchscript.pt"}
    assert written("safetensors") == both
    assert written("torchscript") == both
    with open(tmp_path / "model.safetensors", "ab") as file:
        file.write(b"x")
    assert written("torchscript") == {"model.torchscript.pt"}  # what lies there is not what was compared
    assert written("safetensors") == both
    with caplog.at_level("WARNING", logger="vif.inference.export_report"):
        assert written("torchscript", normalize=False) == {"model.torchscript.pt"}
    assert "model.safetensors in" in caplog.text
    assert "other weights, options or versions, no longer in export.json" in caplog.text
    for content in ("torn {", "[]", '{"files": 3}', '{"files": {"a": {}}}'):
        (tmp_path / "export.json").write_text(content)
        assert written("safetensors") == {"model.safetensors"}


def test_weights_by_timms_name_have_no_hash():
    signature = Signature(1, 1, (0, 0, 0), (1, 1, 1), False, False, 1, "0" * 8)
    report = make_report("timm://vit_tiny_patch16_224.augreg_in21k", signature, {})
    assert report["weights"] == {"file": "vit_tiny_patch16_224.augreg_in21k", "sha256": ""}


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
        pytest.param(
            ["onnx"],
            {"opset": 9},
            rf"--opset 9: torch .* write {formats.MIN_OPSET} to \d+; leave it out",
            marks=needs_onnx,
        ),
        pytest.param(["onnx"], {"opset": 999}, "--opset 999: torch", marks=needs_onnx),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(vit, tmp_path, names, options, message):
    with pytest.raises(ConfigError, match=message):
        export(vit[0], "no such checkpoint", str(tmp_path / "out"), names, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("package", "name"),
    [
        pytest.param("onnxruntime", "onnx", marks=needs_onnx),
        pytest.param("onnx", "onnx", marks=needs_onnx),
        ("safetensors", "safetensors"),
    ],
)
def test_a_missing_package_is_named_with_its_command(vit, tmp_path, package, name, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"export to {name} needs `pip install {package}`"):
        export(*vit, str(tmp_path), [name])


def test_a_torch_without_torch_export(vit, tmp_path, monkeypatch):
    monkeypatch.delattr(torch, "export", raising=False)
    with pytest.raises(ConfigError, match="torch_export needs torch >= 2.3"):
        export(*vit, str(tmp_path), ["torch_export"])


@needs_onnx
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


@needs_onnx
def test_the_printed_report(exported, resnet):
    from vif.inference.cli import format_report

    text = format_report(exported[1])
    assert "model.int8.onnx on SynthAG, 45 images: mean cosine" in text
    full = exported[1]["files"]["model.int8.onnx"]["retrieval"]["protocols"]["AG"]
    assert f"{full['full_precision']['mAP']:.2f} -> {full['variant']['mAP']:.2f}" in text
    assert "protocol" not in format_report(resnet[3])
