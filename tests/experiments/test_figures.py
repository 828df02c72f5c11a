"""Plots: what they show is read off the figure object; equal results give equal bytes; errors say why."""

import sys

import pytest
from vif.cli import main
from vif.errors import DataError, EvaluationError
from vif.experiments.figures import curves, draw, effects
from vif.experiments.results import read_results
from vif.experiments.summary import t_interval
from vif.experiments.tables import sections

from tests import fake_results as fake

ALL = ("SynthAG", "ALL")
LAMBDA = "MODEL.LOSSES.VIAL.LAMBDA"


def grids(seeds=3):
    points = [
        fake.run(f"LAMBDA={v}", seed, 30 + seed, grid="lambda", values={LAMBDA: v})
        for v in (0.1, 0.5)
        for seed in range(seeds)
    ]
    return [*fake.beta_grid(seeds), *points]


def one(tmp_path, runs, **keys):
    return read_results(fake.write(tmp_path, runs, **keys))


def containers(axes):
    """(x, y, lower ends, upper ends) of each error bar."""
    for container in axes.containers:
        line, _, (bars,) = container.lines
        segments = bars.get_segments()
        yield line.get_xdata(), line.get_ydata(), segments


def test_a_curve_has_a_panel_per_grid_and_metric_and_a_point_per_value(tmp_path):
    results = one(tmp_path, grids(), table="figure4", baseline="", sweep="figure4")
    figure = curves(results, ALL)
    panels = figure.axes
    assert len(panels) == 2 * 2
    assert [axes.get_ylabel() for axes in panels] == ["Rank-1 (%)", "", "mAP (%)", ""]
    assert [axes.get_xlabel() for axes in panels[2:]] == [r"$\beta$", r"$\lambda$"]
    ((x, y, segments),) = containers(panels[2])
    assert list(x) == [5, 10, 15]  # sorted, though the file is not
    assert list(y) == pytest.approx([21.5, 22, 22.5])
    expected = t_interval([20.5, 21.5, 22.5])
    assert segments[0][:, 1] == pytest.approx([expected.low, expected.high])
    assert list(next(containers(panels[0]))[1]) == pytest.approx([31.5, 32, 32.5])
    seeds = [line for line in panels[2].lines if line.get_label() == "one seed"]
    assert sorted(line.get_ydata()[0] for line in seeds) == pytest.approx(
        sorted(20 + s + b for s in range(3) for b in (0.5, 1, 1.5))
    )
    assert [line.get_xdata()[0] for line in panels[2].lines if line.get_linestyle() == ":"] == [
        5
    ]  # the paper's
    assert figure.get_suptitle() == "ALL on SynthAG, 312 valid queries"


def test_one_seed_has_no_interval_and_a_collapsed_one_a_cross(tmp_path):
    runs = fake.beta_grid(seeds=1)
    runs[0]["collapsed"] = True
    (panel,) = curves(one(tmp_path, runs, baseline=""), ALL, ["mAP"]).axes
    ((_, _, segments),) = containers(panel)
    assert all(low == high for low, high in (segment[:, 1] for segment in segments))
    crosses = [line.get_xdata()[0] for line in panel.lines if line.get_marker() == "x"]
    assert crosses == [15]


def test_grids_that_are_no_curve_are_left_out_and_the_baseline_is_a_line(tmp_path):
    runs = [
        fake.run("Baseline", 0, 33),
        *fake.beta_grid(),
        fake.run("two", 0, 30, grid="two", values={LAMBDA: 1, "X.Y": 2}),
        fake.run("MODE=a", 0, 30, grid="mode", values={"INPUT.PLRM.MODE": "a"}),
        fake.unfinished("LAMBDA=9", 0, grid="lambda", values={LAMBDA: 9}),
    ]
    (panel,) = curves(one(tmp_path, runs, table=""), ALL, ["mAP"]).axes
    assert panel.get_xlabel() == r"$\beta$"
    assert [line.get_ydata()[0] for line in panel.lines if line.get_linestyle() == "--"] == [33]
    assert curves(one(tmp_path, runs[:1]), ALL) is None


def test_effects_have_a_panel_per_protocol_and_metric_and_a_row_per_arm(tmp_path):
    (section,) = sections([one(tmp_path, fake.table3())])
    panels = effects(section).axes
    assert len(panels) == 2 * 3
    labels = [text.get_text() for text in panels[0].get_yticklabels()]
    assert labels == ["+PLRM (1 collapsed)", "+VIAL", "+PLRM+VIAL"]
    assert [axes.get_xlabel() for axes in panels[3:]] == [
        f"{m}, points over Baseline" for m in ("Rank-1", "mAP", "mINP")
    ]
    assert panels[3].get_title(loc="left") == "A<->G (AG) on SynthAG, 160 valid queries"
    bars = list(containers(panels[4]))
    assert [x[0] for x, _, _ in bars] == pytest.approx([3.5 / 3, 1.5, 5])
    expected = t_interval([1, 1.5, 1])
    assert bars[0][2][0][:, 0] == pytest.approx([expected.low, expected.high])
    diamonds = [line.get_xdata()[0] for line in panels[4].lines if line.get_marker() == "D"]
    assert diamonds == [2.84, 3.61, 4.44]  # sections 4.3 and 5.1 of the paper
    assert panels[4].get_ylim()[0] > panels[4].get_ylim()[1]  # the first arm on top


def test_points_of_grids_and_sweeps_without_a_baseline_have_no_effects_plot(tmp_path):
    (section,) = sections([one(tmp_path, [fake.run("Baseline", 0, 30), *fake.beta_grid()], table="")])
    assert any(e.effect for e in section.entries)
    assert effects(section) is None
    (section,) = sections([one(tmp_path, fake.table3(), baseline="")])
    assert effects(section) is None


def test_the_command_writes_png_and_svg_the_same_each_time(tmp_path, capsys):
    table = fake.write(tmp_path, fake.table3(), table="")
    figure = fake.write(tmp_path, grids(), name="f.json", table="figure4", baseline="", sweep="figure4")
    names = [
        f"{n}.{kind}" for n in ("figure4-SynthAG-ALL", "table3-SynthAG-effects") for kind in ("png", "svg")
    ]
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        assert main(["results", table, figure, "--metrics", "mAP", "--plot", str(folder)]) == 0
        assert sorted(path.name for path in folder.iterdir()) == names
        written.append([(folder / name).read_bytes() for name in names])
    assert written[0] == written[1]
    assert written[0][0].startswith(b"\x89PNG")
    assert b"<dc:date>" not in written[0][1]
    assert b"Matplotlib v" not in written[0][0] + written[0][1]
    assert "## Components: SynthAG" in capsys.readouterr().out


def test_curves_are_drawn_of_the_protocols_named(tmp_path):
    found = sections([one(tmp_path, grids(), table="figure4", baseline="", sweep="f")])
    paths = draw(found, str(tmp_path / "p"), protocols=["AG", "ALL"], metrics=["mINP"])
    assert sorted({path.rsplit("/", 1)[1].split(".")[0] for path in paths}) == [
        "f-SynthAG-AG",
        "f-SynthAG-ALL",
    ]
    runs = [fake.run("BETA=1", 0, 30, grid="b", values={LAMBDA: 1.0}, valid={"AG": 160, "ALL": 312})]
    paths = draw(sections([one(tmp_path, runs, baseline="")]), str(tmp_path))
    assert [path.rsplit("/", 1)[1] for path in paths] == ["table3-SynthAG-ALL.png", "table3-SynthAG-ALL.svg"]
    valid = {"AG": 160}
    runs = [fake.run("BETA=1", 0, 30, grid="b", values={LAMBDA: 1.0}, valid=valid)]
    paths = draw(sections([one(tmp_path, runs, baseline="")]), str(tmp_path))
    assert paths[0].endswith("table3-SynthAG-AG.png")  # there is no ALL


def test_plots_say_why_they_cannot_be(tmp_path, monkeypatch):
    results = one(tmp_path, fake.table3())
    with pytest.raises(EvaluationError, match="nothing to draw: plots need results"):
        draw(sections([]), str(tmp_path))
    with pytest.raises(DataError, match="two results files would both be drawn as table3-SynthAG-effects"):
        draw(sections([results, results]), str(tmp_path))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DataError, match="plots need `pip install matplotlib`; tables do not"):
        draw(sections([results]), str(tmp_path))
