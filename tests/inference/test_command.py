"""`vif extract` on a folder of plain images."""

import vif
import numpy as np
import pytest
import torch
from PIL import Image
from vif.cli import main
from vif.features import FeatureTable

from tests.tiny import CONFIGS, TINY, tiny_cfg


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    root = tmp_path_factory.mktemp("command")
    torch.manual_seed(0)
    model = vif.VIFTrainer.build_model(tiny_cfg("SynthAG/vif.yml", root, "MODEL.HEADS.NUM_CLASSES", 4))
    torch.save({"model": model.state_dict()}, root / "model.pth")
    return root / "model.pth"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for index, name in enumerate(("b.png", "a.jpg", "sub/c.png")):
        rng = np.random.default_rng(index)
        Image.fromarray(rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(folder / name)
    return folder


def extract(weights, *arguments):
    config = ["--config-file", str(CONFIGS / "SynthAG/vif.yml"), "--weights", str(weights)]
    return main(["extract", *config, *map(str, arguments), *map(str, TINY)])


def test_a_folder_becomes_a_file_of_features(weights, photos, tmp_path, capsys):
    assert extract(weights, "--images", photos, "--out", tmp_path / "f.npz") == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'f.npz'}: 3 images, 16 dimensions\n"
    table = FeatureTable.load(str(tmp_path / "f.npz"))
    assert table.paths.tolist() == ["a.jpg", "b.png", "sub/c.png"]
    cfg = tiny_cfg("SynthAG/vif.yml", tmp_path)
    predictor = vif.Predictor(cfg, weights, device="cpu")
    np.testing.assert_allclose(table.features, predictor([photos / path for path in table.paths]), atol=1e-6)
    assert table.meta == {"fingerprint": predictor.fingerprint}


def test_config_keys_reach_the_predictor(weights, photos, tmp_path):
    assert extract(weights, "--images", photos, "--out", tmp_path / "plain.npz") == 0
    arguments = ["--images", photos, "--out", tmp_path / "flip.npz"]
    assert extract(weights, *arguments, "TEST.FLIP.ENABLED", True) == 0
    flip, plain = (FeatureTable.load(str(tmp_path / name)) for name in ("flip.npz", "plain.npz"))
    assert flip.meta == {**plain.meta, "flip": "flip test"}
    assert np.abs(flip.features - plain.features).max() > 1e-4


def test_failures_are_named_and_the_rest_goes_on(weights, photos, tmp_path, capsys):
    (photos / "broken.jpg").write_bytes(b"broken")
    (photos / "empty.png").write_bytes(b"")
    assert extract(weights, "--images", photos, "--out", tmp_path / "f.npz") == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("f.npz: 3 images, 16 dimensions; 2 left out, named above\n")
    lines = captured.err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["image broken.jpg", "image empty.png"]
    assert "an empty file" in lines[1]


def test_without_one_usable_image_nothing_is_written(weights, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "x.jpg").write_bytes(b"x")
    assert extract(weights, "--images", folder, "--out", tmp_path / "f.npz") == 1
    assert f"error: none of the 1 images below {folder} could be used" in capsys.readouterr().err
    assert not (tmp_path / "f.npz").exists()


def test_a_file_of_plain_images_is_in_no_protocol(weights, photos, tmp_path, capsys):
    assert extract(weights, "--images", photos, "--out", tmp_path / "f.npz") == 0
    assert main(["evaluate", str(tmp_path / "f.npz")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "f.npz"], "vif extract needs --config-file and --weights"),
        (["--config-file", "c.yml", "--out", "f.npz"], "vif extract needs --config-file and --weights"),
        (["--onnx", "m.onnx", "--out", "f.npz"], "give it with --images and --out alone"),
        (
            ["--onnx", "m.onnx", "--images", ".", "--weights", "w", "--out", "f.npz"],
            "--images and --out alone",
        ),
        (["--onnx", "m.onnx", "--images", ".", "--out", "f.npz", "A.B", "1"], "--images and --out alone"),
        (
            ["--onnx", "m.onnx", "--images", ".", "--out", "f.txt"],
            "feature files end in .npz or .safetensors",
        ),
        (
            ["--onnx", "m.onnx", "--images", ".", "--out", "none/f.npz"],
            "cannot save features to 'none/f.npz'",
        ),
        (
            ["--config-file", "c.yml", "--weights", "w", "--images", ".", "--out", "f.npz"],
            "no config file 'c.yml'",
        ),
    ],
)
def test_arguments_that_do_not_go_together(arguments, message, capsys):
    assert main(["extract", *arguments]) == 1
    captured = capsys.readouterr().err
    assert captured.startswith("error: ")
    assert message in captured


def test_a_data_set_and_a_folder_exclude_each_other(capsys):
    with pytest.raises(SystemExit):
        main(["extract", "--dataset", "CARGO", "--images", ".", "--out", "f.npz"])
    assert "not allowed with" in capsys.readouterr().err
