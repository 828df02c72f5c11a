"""`vif report` of runs that lack something: what is missing is said, what cannot work is refused."""

import json

import pytest
from vif.cli import main
from vif.evaluation.left_out import LeftOut, to_meta
from vif.features import FeatureTable

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("jinja2")

from tests.report.parsing import Page, report


@pytest.mark.parametrize(
    ("missing", "title", "reason"),
    [
        ("metrics.json", "Training", "the run has no metrics.json"),
        ("config.yaml", "Config", "the run has no config.yaml"),
        ("log.txt", "Environment", "the run has no log.txt"),
    ],
)
def test_a_section_without_its_input_is_left_out_and_the_page_says_why(missing, title, reason, run, shared):
    (run / missing).unlink()
    found = report(run, shared)
    assert [title, reason] in found.rows("part")
    assert f">{title}</a>" not in found.text
    assert len(found.rows("Protocol")) == 3


def test_without_results_the_page_says_that_nothing_was_compared(run, shared):
    (run / "results.json").unlink()
    assert (
        "Not compared with the run&#39;s own scores: the run has no results.json" in report(run, shared).text
    )


def test_without_features_and_weights_there_are_the_scores_of_results_json(run, shared):
    (run / "features-SynthAG.npz").unlink()
    found = report(run, shared)
    left = dict(found.rows("part")[1:])
    reason = (
        "there are no features: the run has no model_final.pth, and no feature file is given (--features)."
    )
    assert left["CMC curves"] == left["Map of the features"] == reason
    stored = json.loads((run / "results.json").read_text())["SynthAG"]
    row = next(row for row in found.rows("Protocol") if row[0] == "AG")
    assert row[4] == f"{stored['AG']['mAP']:.2f}"
    assert "without features there are no intervals" in found.text


def test_without_images_the_lists_are_left_out(run, shared, tmp_path):
    (tmp_path / "empty").mkdir()
    found = report(run, shared, "--root", tmp_path / "empty")
    assert (
        "none of the images could be read below the data root"
        in dict(found.rows("part")[1:])["Best, typical and worst queries"]
    )
    assert "<img" not in found.text


def test_scores_that_results_json_does_not_confirm_are_said(run, shared):
    stored = json.loads((run / "results.json").read_text())
    stored["SynthAG"]["AG"]["mAP"] += 3
    (run / "results.json").write_text(json.dumps(stored))
    assert "results.json differs by up to 3.00" in report(run, shared).text


def test_images_that_the_features_lack_are_said(run, shared):
    table = FeatureTable.load(str(run / "features-SynthAG.npz"))
    bad = LeftOut(str(shared.parents[1] / "data/SynthAG/query/Cam1/bad.jpg"), "query", "aerial", "broken")
    table.meta.update(to_meta([bad]))
    table.save(str(run / "features-SynthAG.npz"))
    text = report(run, shared).text
    assert (
        "1 unreadable image left out (query 1): &#39;SynthAG/query/Cam1/bad.jpg&#39;. The scores are not"
        in text
    )


def test_a_config_of_another_version_is_a_reason(run, shared):
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "NO_SUCH_KEY: 1\n")
    left = dict(report(run, shared).rows("part")[1:])
    assert left["Config"].startswith("config.yaml cannot be read by this version (config.yaml: ")
    assert "NO_SUCH_KEY" in left["Config"]


def test_a_table_without_views_has_one_histogram_and_one_protocol(run, shared):
    table = FeatureTable.load(str(run / "features-SynthAG.npz"))
    table.views[:] = ""
    table.meta.pop("dataset")
    table.save(str(run / "plain.npz"))
    root = str(shared.parents[1] / "data")
    arguments = ["--features", str(run / "plain.npz"), "--root", root, "--map", "pca"]
    assert main(["report", str(run), *arguments]) == 0
    found = Page((run / "report.html").read_text(encoding="utf-8"))
    left = dict(found.rows("part")[1:])
    assert "is empty" in left["Protocol A<->A (AA)"]  # the run's data set has it, this table no views for it
    assert [row[0] for row in found.rows("views")] == ["views", "all images"]


def test_features_are_extracted_once_and_kept_beside_the_run(run, shared, monkeypatch, capsys):
    import torch
    from vif.inference.fingerprint import fingerprint
    from vif.trainer import VIFTrainer

    from tests.tiny import tiny_cfg

    monkeypatch.setenv("FASTREID_DATASETS", str(shared.parents[1] / "data"))
    torch.manual_seed(0)
    model = VIFTrainer.build_model(tiny_cfg("SynthAG/vif.yml", run, "MODEL.HEADS.NUM_CLASSES", 4))
    torch.save({"model": model.state_dict()}, run / "model_final.pth")
    arguments = ["report", str(run), "--map", "pca", "--queries", "1"]
    (run / "features-SynthAG.npz").unlink()
    assert main(arguments) == 0
    made = (run / "features-SynthAG.npz").stat().st_mtime_ns
    assert FeatureTable.load(str(run / "features-SynthAG.npz")).meta["fingerprint"] == fingerprint(
        model.state_dict()
    )
    assert main(arguments) == 0
    assert (run / "features-SynthAG.npz").stat().st_mtime_ns == made
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    torch.save({"model": model.state_dict()}, run / "model_final.pth")
    assert main([*arguments, "--features", str(run / "features-SynthAG.npz")]) == 0
    assert "other weights than model_final.pth" in (run / "report.html").read_text(encoding="utf-8")
    assert main(arguments) == 0  # its own file is of other weights: made again
    assert (run / "features-SynthAG.npz").stat().st_mtime_ns != made
    assert "other weights than" not in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--queries", "0"], "--queries 0: expected at least 1"),
        (["--confidence", "1"], "expected a level between 0 and 1"),
        (["--root", "/none"], "there is no such folder"),
        (["--features", "none.npz"], "there is no feature file"),
        (["--protocols", "XY"], "unknown protocol"),
    ],
)
def test_what_cannot_work_is_refused(arguments, message, shared, capsys):
    assert main(["report", str(shared), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 1
    assert "holds nothing of a run" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "none")]) == 1
    assert "there is no run" in capsys.readouterr().err


def test_where_a_library_is_missing_the_error_says_what_to_install(shared, monkeypatch, capsys):
    import importlib.util

    real = importlib.util.find_spec
    hidden = ("jinja2", "matplotlib")
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n in hidden else real(n, *a))
    assert main(["report", str(shared)]) == 1
    assert "pip install matplotlib jinja2" in capsys.readouterr().err
