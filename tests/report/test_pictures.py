"""`vif picture` and the figures behind it: what they show is read off figures and files."""

import numpy as np
import pytest
import torch
from PIL import Image
from vif.cli import main
from vif.data.synth import contact_sheet, render_image
from vif.data.transforms import PatchLevelRotateMix, patch_probability, rotate_mix
from vif.trainer import VIFTrainer

pytest.importorskip("matplotlib")

from vif.report.attention_picture import Attended, attention_figure, choose_people, overlay
from vif.report.canvas import PAPER
from vif.report.plrm_picture import mix, plrm_figure

from tests.fake_trees import make_synthag
from tests.report.test_ranked_lists import random_table
from tests.tiny import CONFIGS, TINY, tiny_cfg


def panels_of(figure):
    return [axes for axes in figure.axes if axes.images and axes.get_title()]


def test_the_plrm_picture_shows_the_pixels_that_training_sees():
    images = [(f"camera {c}", render_image(0, 1, c, 0, (64, 32))) for c in (2, 9)]
    plrm = PatchLevelRotateMix(
        prob=1.0, base_prob=0.2, center_weight=0.6, patch_size=8, alpha=0.7, fill="reflect"
    )
    rows = mix(images, plrm, seed=4)
    rng = np.random.default_rng(4)
    panels = panels_of(plrm_figure(rows, plrm, PAPER))
    assert len(panels) == 8
    for index, (title, image) in enumerate(images):
        params = plrm.sample(rng, 64, 32)
        expected = rotate_mix(image, params["angles"], params["mask"], 8, 0.7, "reflect")
        before, grid, angles, after = panels[4 * index : 4 * index + 4]
        assert before.get_title() == title
        np.testing.assert_array_equal(before.images[0].get_array(), image)
        np.testing.assert_array_equal(after.images[0].get_array(), expected)
        assert (expected != image).any()
        np.testing.assert_allclose(grid.images[-1].get_array(), patch_probability(8, 4, 0.2, 0.6))
        assert len(angles.patches) == params["mask"].sum()
        shown = sorted(float(text.get_text()) for text in angles.texts)
        np.testing.assert_allclose(shown, sorted(params["angles"][params["mask"]]), atol=0.51)


def test_the_plrm_command_takes_images_config_and_seed(tmp_path, capsys):
    Image.fromarray(render_image(0, 1, 2)).save(tmp_path / "one.png")
    config = ["--config-file", str(CONFIGS / "SynthAG/vif.yml")]
    out = tmp_path / "plrm.png"
    arguments = ["picture", "plrm", *config, "--images", str(tmp_path / "one.png")]
    assert main([*arguments, "--out", str(out), "--set", "INPUT.PLRM.ALPHA", "0.9"]) == 0
    assert "alpha=0.9" in capsys.readouterr().out
    first = out.read_bytes()
    assert main([*arguments, "--out", str(out), "--set", "INPUT.PLRM.ALPHA", "0.9"]) == 0
    assert out.read_bytes() == first
    assert main([*arguments, "--out", str(out), "--seed", "5", "--set", "INPUT.PLRM.ALPHA", "0.9"]) == 0
    assert out.read_bytes() != first


def test_the_synthag_command_writes_the_contact_sheet(tmp_path):
    out = tmp_path / "sheet.png"
    assert (
        main(["picture", "synthag", "--ids", "3", "5", "--height", "32", "--world", "2", "--out", str(out)])
        == 0
    )
    np.testing.assert_array_equal(np.asarray(Image.open(out)), contact_sheet(2, [3, 5], (32, 16)))


def test_the_attention_command_draws_people_of_each_view(tmp_path, monkeypatch, capsys):
    make_synthag(tmp_path / "data", ids=4)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))
    torch.manual_seed(0)
    model = VIFTrainer.build_model(tiny_cfg("SynthAG/vif.yml", tmp_path, "MODEL.HEADS.NUM_CLASSES", 4))
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    arguments = ["--config-file", str(CONFIGS / "SynthAG/vif.yml"), "--weights", str(tmp_path / "model.pth")]
    out = tmp_path / "attention.png"
    command = [
        "picture",
        "attention",
        *arguments,
        "--people",
        "3",
        "--out",
        str(out),
        "--set",
        *map(str, TINY),
    ]
    assert main(command) == 0
    assert "6 images, grid of 4 x 2" in capsys.readouterr().out
    assert Image.open(out).size[0] > 200


def test_the_same_people_are_drawn_in_every_view():
    table = random_table(2, count=200, ids=12)
    chosen = choose_people(table, 5, seed=1)
    people = {view: table.pids[rows].tolist() for view, rows in chosen.items()}
    assert people["aerial"] == people["ground"]
    assert len(set(people["aerial"])) == 5
    assert choose_people(table, 5, seed=1) == chosen
    for view, rows in chosen.items():
        assert set(table.views[rows].tolist()) == {view}


def test_an_overlay_is_hot_where_the_weights_are():
    pixels = np.full((32, 16, 3), 100, dtype=np.uint8)
    weights = np.zeros((4, 2))
    weights[0, 0] = 1
    shown = overlay(pixels, weights).astype(int)
    assert shown.shape == pixels.shape
    assert shown[2, 2].sum() > shown[30, 14].sum() + 100
    assert np.ptp(overlay(pixels, np.ones((4, 2))).astype(int), axis=(0, 1)).max() == 0


def test_a_row_of_images_and_one_of_overlays_for_each_view():
    one = np.zeros((32, 16, 3), dtype=np.uint8)
    weights = np.arange(8.0).reshape(4, 2)
    found = [
        Attended(view, f"{view} {i}", one + i, weights) for view in ("aerial", "ground") for i in range(3)
    ]
    figure = attention_figure(found, PAPER)
    assert len(figure.axes) == 2 * 2 * 3
    np.testing.assert_array_equal(figure.axes[2].images[0].get_array(), one + 2)
    np.testing.assert_array_equal(figure.axes[5].images[0].get_array(), overlay(one + 2, weights))
    assert figure.axes[0].get_ylabel() == "aerial"
    assert figure.axes[6].get_ylabel() == "ground"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plrm", "--out", "x.svg"], "expected a name that ends in .png"),
        (["plrm", "--out", "x.png", "--images", "none.jpg"], "there is no such file"),
        (["plrm", "--out", "x.png", "--set", "A", "1"], "name it with --config-file"),
        (["synthag", "--out", "x.gif"], "expected a name that ends in"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["picture", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
