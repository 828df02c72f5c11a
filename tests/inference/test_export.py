"""vif export: every file opened by the library it is for, and compared with the trained network itself."""

import json

import vif
import numpy as np
import pytest
import torch
from vif.inference import Signature, formats
from vif.inference.network import Network

from tests.inference.exporting import (
    FORMATS,
    by_hand,
    expected,
    images,
    needs_onnx,
    run_onnx,
)
from tests.systems import small_cfg
from tests.tiny import tiny_cfg


@needs_onnx
@pytest.mark.parametrize("count", [1, 3, 9])
def test_onnx_gives_the_networks_features_for_any_batch(vit, exported, count):
    pixels = images(vit[0], count)
    found = run_onnx(exported[0] / "model.onnx", pixels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(*vit, pixels), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@needs_onnx
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


@needs_onnx
def test_every_file_carries_the_signature(exported):
    import onnx

    out, report = exported
    for name in ("model.onnx", "model.fp16.onnx", "model.int8.onnx"):
        metadata = {prop.key: prop.value for prop in onnx.load(str(out / name)).metadata_props}
        signature = Signature.from_dict(metadata)
        assert signature.uint8_input
        assert signature.l2_output
        assert (signature.height, signature.width, signature.dim) == (32, 16, 16)
        assert signature.fingerprint == report["signature"]["fingerprint"]


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
