"""What training leaves in a folder, whole, broken or resumed; series, map and config."""

import json

import numpy as np
import pytest
from vif.errors import ConfigError
from vif.report.config import shorten, show
from vif.report.embedding import map_features
from vif.report.run import parse_metrics, read_run
from vif.report.training import Series, read_training, thin

from tests.report.fake_run import LOG, metrics
from tests.report.test_ranked_lists import random_table


def test_metrics_of_a_killed_and_resumed_run_are_joined_by_iteration():
    lines = [
        {"iteration": 0, "total_loss": 3.0},
        {"iteration": 1, "total_loss": 2.0, "SynthAG/AG/mAP": 9.0},
        {"iteration": 1, "total_loss": 2.5},
        {"iteration": 0, "lr": 0.1},
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n{"iteration": 2, "total_lo\n[1]\n{"a": 1}\n'
    assert parse_metrics(text) == [
        {"iteration": 0, "total_loss": 3.0, "lr": 0.1},
        {"iteration": 1, "total_loss": 2.5, "SynthAG/AG/mAP": 9.0},
    ]


def test_panels_of_the_curves():
    training = read_training(parse_metrics(metrics(20)), "SynthAG")
    assert list(training.losses) == ["total_loss", "loss_cls"]
    np.testing.assert_allclose(training.losses["loss_cls"].y, [2 / (1 + i) for i in range(20)])
    assert training.losses["loss_cls"].x.tolist() == list(range(1, 21))
    assert list(training.geometry) == ["pos_cos", "neg_cos", "hard_share"]
    assert training.scores["mAP"]["AG"].x.tolist() == [10, 20]
    assert training.scores["mAP"]["AG"].y.tolist() == [19, 29]
    assert read_training(parse_metrics(metrics(20)), "CARGO").scores == {}
    assert read_training(parse_metrics(metrics(19)), "SynthAG").scores == {}  # one evaluation


def test_values_that_are_not_finite_are_no_points():
    rows = parse_metrics('{"iteration": 0, "total_loss": NaN}\n{"iteration": 1, "total_loss": 2}\n')
    assert read_training(rows, "").losses["total_loss"].y.tolist() == [2]


def test_a_long_series_is_averaged():
    x = np.arange(1001, dtype=float)
    short = thin(Series(x, 2 * x))
    assert len(short.x) == 334
    np.testing.assert_allclose(short.y, 2 * short.x)
    assert short.x[0] == 1
    assert short.x[-1] == np.mean([999, 1000])


def test_only_what_matters_of_the_environment_is_read(tmp_path):
    (tmp_path / "log.txt").write_text(LOG)
    run = read_run(str(tmp_path))
    assert run.environment == {
        "sys.platform": "linux",
        "Python": "3.11.7 (main) [GCC 12.2.0]",
        "fastreid": "1.3",
        "PyTorch": "2.14.1",
        "GPU available": "False",
        "training time": "0:02:00",
    }


@pytest.mark.parametrize("content", ["{", "[1]", "", "\x00\xff"])
def test_broken_files_are_reasons(tmp_path, content):
    (tmp_path / "log.txt").write_text(LOG)
    for name in ("results.json", "metrics.json"):
        (tmp_path / name).write_text(content)
    run = read_run(str(tmp_path))
    assert run.results == {}
    assert run.metrics == []
    assert run.missing["results.json"].startswith("results.json ")
    assert run.missing["metrics.json"] == "metrics.json holds nothing that can be used"


def test_paths_lose_the_folders_of_the_machine():
    roots = ["/home/me/run", "/data"]
    assert shorten("/home/me/run/model.pth", roots) == "model.pth"
    assert shorten("/data/CARGO/query", roots) == "CARGO/query"
    assert shorten("/database/CARGO", roots) == ".../CARGO"
    assert shorten("/home/me/other/x.pth", roots) == ".../x.pth"
    assert shorten("logs/SynthAG", roots) == "logs/SynthAG"
    assert show("", roots) == '""'
    assert show((1, 2), roots) == "(1, 2)"
    assert show(["/home/me/a.yml"], roots) == "['.../a.yml']"


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_a_map_is_seeded_and_sampled(method):
    pytest.importorskip("sklearn")
    table = random_table(1, count=90, ids=20)
    arguments = (table.features, table.pids, table.views, method)
    first, again, other = (map_features(*arguments, seed=s, sample=60) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.points, again.points)
    np.testing.assert_array_equal(first.rows, again.rows)
    assert first.rows.tolist() != other.rows.tolist()
    assert first.points.shape == (60, 2)
    assert len(set(first.rows.tolist())) == 60
    assert len(first.identities) == 12
    assert np.isin(first.identities, table.pids[first.rows]).all()


def test_a_pca_map_is_the_projection_on_the_largest_singular_vectors():
    pytest.importorskip("sklearn")
    table = random_table(1, count=50)
    found = map_features(table.features, table.pids, table.views, "pca")
    unit = table.features / np.linalg.norm(table.features, axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    _, _, axes = np.linalg.svd(centred.astype(float), full_matrices=False)
    np.testing.assert_allclose(np.abs(found.points), np.abs(centred @ axes[:2].T), atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_few_or_equal_features_make_a_map_too(method, count):
    pytest.importorskip("sklearn")
    features = np.ones((count, 1), dtype=np.float32)
    found = map_features(features, np.zeros(count, dtype=int), np.full(count, ""), method)
    assert found.points.shape == (count, 2)
    assert np.isfinite(found.points).all()


def test_a_map_that_starts_at_random_is_seeded_too():
    pytest.importorskip("sklearn")
    features = np.random.default_rng(0).standard_normal((20, 1)).astype(np.float32)
    arguments = (features, np.zeros(20, dtype=int), np.full(20, ""))
    first, again = (map_features(*arguments).points for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_an_unknown_map_is_refused():
    table = random_table(1)
    with pytest.raises(ConfigError, match="choose tsne or pca"):
        map_features(table.features, table.pids, table.views, "umap")
