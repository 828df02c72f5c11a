"""The `vif` command: synth, extract, evaluate, compare, and their errors."""

import json

import vif
import numpy as np
import pytest
import torch
from vif.cli import main
from vif.evaluation import extract_file as extraction
from vif.features import FeatureTable

from tests import fake_trees
from tests.tiny import CONFIGS, TINY, tiny_cfg

IMAGES = 4 * 13 + 2 * 4  # of the fake tree: gallery and query of four identities


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A saved model, its results.json, and the data it was scored on."""
    root = tmp_path_factory.mktemp("cli")
    fake_trees.make_synthag(root / "data", ids=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(root / "data"))
        trainer = vif.VIFTrainer(tiny_cfg("SynthAG/vif.yml", root / "run", "SOLVER.MAX_EPOCH", 1))
        trainer.resume_or_load(resume=False)
        trainer.train()
        yield root / "run" / "model_final.pth"


def extract(checkpoint, out, *opts):
    config = [
        "--config-file",
        str(CONFIGS / "SynthAG/vif.yml"),
        "--weights",
        str(checkpoint),
        "--out",
        str(out),
    ]
    return main(["extract", *config, *[str(o) for o in TINY], *opts])


def test_extract_and_evaluate_give_the_trainers_numbers(checkpoint, tmp_path, capsys):
    for name in ("f.npz", "f.safetensors"):
        assert extract(checkpoint, tmp_path / name) == 0
        assert main(["evaluate", str(tmp_path / name), "--json", str(tmp_path / "scores.json")]) == 0
        scores = json.loads((tmp_path / "scores.json").read_text())
        assert scores == json.loads((checkpoint.parent / "results.json").read_text())
    table = FeatureTable.load(str(tmp_path / "f.npz"))
    assert len(table) == IMAGES
    assert set(table.meta) == {"dataset", "weights", "config", "images", "fingerprint"}
    assert not list(tmp_path.glob("*.parts"))
    assert "A<->G (AG)" in capsys.readouterr().out


def test_an_interrupted_extraction_goes_on_where_it_was(checkpoint, tmp_path, monkeypatch):
    assert extract(checkpoint, tmp_path / "whole.npz") == 0
    monkeypatch.setattr(extraction, "PART_IMAGES", 16)
    real, seen = extraction.forward_batches, []

    def dying(model, loader, flip):
        for number, (index, features) in enumerate(real(model, loader, flip)):
            if len(seen) == 2 and number == 1:
                raise KeyboardInterrupt
            yield index, features
        seen.append(loader)

    monkeypatch.setattr(extraction, "forward_batches", dying)
    with pytest.raises(KeyboardInterrupt):
        extract(checkpoint, tmp_path / "f.npz", "TEST.IMS_PER_BATCH", "8")
    assert not (tmp_path / "f.npz").exists()
    counted = []

    def counting(model, loader, flip):
        for index, features in real(model, loader, flip):
            counted.extend(index)
            yield index, features

    monkeypatch.setattr(extraction, "forward_batches", counting)
    assert extract(checkpoint, tmp_path / "f.npz", "TEST.IMS_PER_BATCH", "8") == 0
    assert len(counted) == IMAGES - 2 * 16
    whole, resumed = (FeatureTable.load(str(tmp_path / name)) for name in ("whole.npz", "f.npz"))
    np.testing.assert_allclose(resumed.features, whole.features, atol=1e-5)


def test_parts_of_other_weights_are_not_used(checkpoint, tmp_path):
    parts = tmp_path / "f.npz.parts"
    parts.mkdir()
    (parts / "meta.json").write_text(json.dumps({"weights": "others"}))
    np.savez(parts / "000000000.npz", index=np.arange(IMAGES), features=np.zeros((IMAGES, 16), np.float32))
    assert extract(checkpoint, tmp_path / "f.npz") == 0
    assert np.abs(FeatureTable.load(str(tmp_path / "f.npz")).features).min(axis=1).max() > 0


def test_flip_test_is_the_mean_of_both_images(checkpoint, tmp_path, monkeypatch):
    cfg = tiny_cfg("SynthAG/vif.yml", tmp_path, "MODEL.WEIGHTS", str(checkpoint), "TEST.FLIP.ENABLED", True)
    assert extract(checkpoint, tmp_path / "flip.npz", "TEST.FLIP.ENABLED", "True") == 0
    table = FeatureTable.load(str(tmp_path / "flip.npz"))
    assert table.meta["flip"] == "flip test"
    from vif.data.build import build_test_loader, build_test_set

    model = vif.VIFTrainer.load_model(cfg).eval()
    batch = next(iter(build_test_loader(vif.trainer.prepare(cfg), build_test_set(cfg, "SynthAG").splits)))
    with torch.no_grad():
        both = [model({"images": image.clone()}) for image in (batch["images"], batch["images"].flip(3))]
    expected = (both[0] + both[1]) / 2
    np.testing.assert_allclose(table.features[batch["index"].numpy()], expected.numpy(), atol=1e-5)


def test_post_processing_keys_reach_the_trainers_evaluation(checkpoint, tmp_path):
    assert extract(checkpoint, tmp_path / "f.npz") == 0
    options = {
        ("TEST.RERANK.ENABLED", True, "TEST.RERANK.K1", 5, "TEST.RERANK.K2", 2): [
            "--rerank",
            "5",
            "2",
            "0.3",
        ],
        ("TEST.AQE.ENABLED", True, "TEST.AQE.QE_K", 3): ["--expand", "3", "3", "1"],
        ("TEST.METRIC", "euclidean"): ["--metric", "euclidean"],
    }
    plain = json.loads((checkpoint.parent / "results.json").read_text())
    for keys, arguments in options.items():
        cfg = tiny_cfg("SynthAG/vif.yml", tmp_path, "MODEL.WEIGHTS", str(checkpoint), *keys)
        results = vif.VIFTrainer.evaluate_weights(cfg)
        main(["evaluate", str(tmp_path / "f.npz"), "--json", str(tmp_path / "scores.json"), *arguments])
        assert json.loads((tmp_path / "scores.json").read_text()) == results
        assert results != plain


def test_compare_says_what_cannot_be_told_apart(checkpoint, tmp_path, capsys):
    assert extract(checkpoint, tmp_path / "a.npz") == 0
    table = FeatureTable.load(str(tmp_path / "a.npz"))
    hot = np.eye(table.pids.max() + 1, dtype=np.float32)[table.pids]
    FeatureTable(**{**vars(table), "features": hot}).save(str(tmp_path / "perfect.npz"))
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "a.npz"), str(tmp_path / "a.npz"), "--protocols", "AG"]) == 0
    assert capsys.readouterr().out.count("no: the interval holds 0") == 3
    assert main(["compare", str(tmp_path / "a.npz"), str(tmp_path / "perfect.npz"), "--protocols", "AG"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "| mAP" in line]
    assert "| yes " in lines[0]
    assert "100.00" in lines[0]


def test_a_table_of_another_code_base_gets_the_protocols_of_its_views(tmp_path, capsys):
    rng = np.random.default_rng(0)
    views = np.array(["aerial", "ground"] * 6)
    FeatureTable(
        features=rng.normal(size=(12, 4)).astype(np.float32),
        pids=np.arange(12) // 4,
        camids=np.arange(12) % 4,
        views=views,
        paths=np.array([f"{k}.jpg" for k in range(12)]),
        splits=np.array(["query,gallery"] * 12),
        meta={},
    ).save(str(tmp_path / "t.npz"))
    assert main(["evaluate", str(tmp_path / "t.npz"), "--confidence", "0"]) == 0
    out = capsys.readouterr().out
    assert "A->G (A2G)" in out
    assert "[" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "{}/none.npz"], "none.npz"),
        (["evaluate", "{}/t.npz", "--protocols", "XX"], "unknown protocol 'XX'"),
        (["evaluate", "{}/t.npz", "--dataset", "XX"], "--dataset XX: unknown; there are CARGO"),
        (["compare", "{}/t.npz", "{}/u.npz"], "are not of the same images"),
    ],
)
def test_errors_end_in_one_line(arguments, message, tmp_path, capsys):
    table = FeatureTable(
        features=np.eye(4, dtype=np.float32),
        pids=np.array([0, 0, 1, 1]),
        camids=np.array([0, 1, 0, 1]),
        views=np.array(["aerial", "ground"] * 2),
        paths=np.array(list("abcd")),
        splits=np.array(["query,gallery"] * 4),
        meta={},
    )
    table.save(str(tmp_path / "t.npz"))
    FeatureTable(**{**vars(table), "pids": np.array([0, 1, 0, 1])}).save(str(tmp_path / "u.npz"))
    assert main([a.format(tmp_path) for a in arguments]) == 1
    captured = capsys.readouterr().err
    assert captured.startswith("error: ")
    assert message in captured
    assert len(captured.splitlines()) == 1


def test_extract_refuses_another_ending(checkpoint, tmp_path, capsys):
    assert extract(checkpoint, tmp_path / "f.pkl") == 1
    assert "expected a name that ends in .npz or .safetensors" in capsys.readouterr().err


def test_synth_writes_a_data_set_and_refuses_a_foreign_folder(tmp_path, capsys):
    out = tmp_path / "SynthAG"
    assert main(["synth", "--out", str(out), "--ids", "4", "--seed", "3", "--workers", "1"]) == 0
    assert len(list(out.rglob("*.jpg"))) == 4 * 13
    assert main(["synth", "--out", str(out), "--ids", "8", "--seed", "3", "--workers", "1"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
