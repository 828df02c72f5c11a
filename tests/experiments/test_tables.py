"""Tables of results beside the published: numbers by hand, in Markdown, CSV and LaTeX, and by command."""

import csv
import io
import json

import pytest
from vif.cli import main
from vif.errors import EvaluationError
from vif.experiments.formats import blocks, latex, long_csv, markdown
from vif.experiments.published import published
from vif.experiments.results import read_results
from vif.experiments.summary import t_interval
from vif.experiments.tables import sections

from tests import fake_results as fake


def one(tmp_path, runs, **keys):
    return read_results(fake.write(tmp_path, runs, **keys))


def entry(found, arm, protocol, metric="mAP"):
    (hit,) = (e for e in found.entries if (e.arm, e.cell[1], e.metric) == (arm, protocol, metric))
    return hit


def test_on_another_data_set_effects_stand_beside_effects_and_nothing_is_subtracted(tmp_path):
    (section,) = sections([one(tmp_path, fake.table3())])
    plrm = entry(section, "+PLRM", "AG", "mAP")
    assert plrm.ours == t_interval([36, 38.5, 37])
    assert plrm.effect == t_interval([1, 1.5, 1])
    assert (plrm.published.value, plrm.published.dataset) == (42.95, "CARGO")
    assert plrm.published_effect == 2.84  # 42.95 - 40.11, as section 5.1 prints it
    assert {e.difference for e in section.entries} == {None}
    assert (plrm.state, plrm.collapsed, plrm.valid) == ("3 of 3, collapsed: seed 1", 1, 160)
    baseline = entry(section, "Baseline", "AG")
    assert (baseline.effect, baseline.published_effect) == (None, None)
    assert [e.arm for e in section.entries][::3][:4] == ["Baseline", "+PLRM", "+VIAL", "+PLRM+VIAL"]
    assert list(dict.fromkeys(e.cell for e in section.entries)) == [("SynthAG", "ALL"), ("SynthAG", "AG")]
    assert section.notes == ["+VIAL, seed 2, failed: CUDA out of memory"]


def on(dataset, runs):
    for r in runs:
        if r["status"] == "done":
            r["results"] = {dataset: r["results"]["SynthAG"]}
    return runs


def test_on_the_papers_data_set_ours_minus_published_is_there(tmp_path):
    (section,) = sections([one(tmp_path, on("CARGO", fake.table3()), data="CARGO")])
    assert entry(section, "+PLRM", "AG").difference == pytest.approx((36 + 38.5 + 37) / 3 - 42.95)
    assert entry(section, "+PLRM", "ALL", "Rank-1").difference == pytest.approx(126.5 / 3 + 10 - 63.14)


@pytest.mark.parametrize(
    ("data", "dataset", "valid"),
    [
        ("AGReIDv1", "CARGO", fake.VALID),  # trained elsewhere
        ("CARGO", "CARGO held-out", fake.VALID),  # not the test set
        ("CARGO", "CARGO", {"ALL": 312, "AG": 159}),  # not the test set's queries
    ],
)
def test_ours_minus_published_needs_the_same_training_and_test_set(tmp_path, data, dataset, valid):
    runs = [fake.run("Baseline", 0, 40, dataset=dataset, valid=valid)]
    (section,) = sections([one(tmp_path, runs, data=data)])
    assert entry(section, "Baseline", "AG").published.value == 40.11
    assert entry(section, "Baseline", "AG").difference is None
    notes = [n for n in section.notes if "159 valid queries here, 160 behind" in n]
    assert len(notes) == (valid["AG"] == 159)


def test_protocols_are_never_merged_and_the_papers_come_first(tmp_path):
    valid = {"A2G": 94, "AG": 160, "G2A": 66, "ALL": 312}
    runs = [fake.run("Baseline", 0, 40, valid=valid)]
    results = one(tmp_path, runs)
    (section,) = sections([results])
    assert [b.title for b in blocks(section)] == [
        "ALL on SynthAG, 312 valid queries; published on CARGO, 312 valid queries",
        "A<->G (AG) on SynthAG, 160 valid queries; published on CARGO, 160 valid queries",
    ]
    (section,) = sections([results], protocols=["A2G", "AG"])
    assert [e.cell[1] for e in section.entries if e.arm == "Baseline"][::3] == ["AG", "A2G"]
    assert entry(section, "Baseline", "A2G").published is None
    assert entry(section, "Baseline", "AG").published.protocol == "AG"
    assert [b.title for b in blocks(section)][1] == "A->G (A2G) on SynthAG, 94 valid queries"
    (section,) = sections([one(tmp_path, runs, table="")])
    assert list(dict.fromkeys(e.cell[1] for e in section.entries)) == list(valid)  # no paper: all, as scored


def test_arms_that_the_paper_lacks_follow_its_own_and_later_systems_come_last(tmp_path):
    runs = [fake.run(arm, 0, 40, dataset="CARGO") for arm in ("APAN", "Mine", "VIF")]
    results = one(tmp_path, runs, table="1", data="CARGO", baseline="")
    papers = ["SBS", "PCB", "BoT", "MGN", "VV", "AGW", "ViT", "VDT", "VIF"]
    (section,) = sections([results], metrics=["mAP"], protocols=["AG"])
    assert [e.arm for e in section.entries] == [*papers, "APAN", "Mine"]
    assert entry(section, "APAN", "AG").published is None
    (section,) = sections([results], metrics=["mAP"], protocols=["AG"], later=True)
    assert [e.arm for e in section.entries] == [*papers, "Mine", "APAN", "DTST", "QVAM"]
    assert entry(section, "APAN", "AG").published.source == "APAN repository figure"
    assert "| APAN repository figure, CARGO |" in markdown([section])
    (section,) = sections([one(tmp_path, fake.table3())], later=True)  # an ablation is about one system
    assert "APAN" not in {e.arm for e in section.entries}


def test_without_files_the_tables_stand_as_published():
    found = sections([])
    assert [s.table for s in found] == ["1", "2", "3", "4", "5"]
    printed = [e.published for s in found for e in s.entries]
    assert sorted(printed) == sorted(r for r in published() if r.table != "later")
    assert not any(e.ours or e.effect or e.difference for s in found for e in s.entries)
    assert blocks(found[0])[0].headers == [
        "Method",
        "Rank-1 published",
        "mAP published",
        "mINP published",
        "Published in",
    ]
    assert [b.title for b in blocks(found[1])] == [
        "A->G (A2G) on AGReIDv1, valid queries not published",
        "G->A (G2A) on AGReIDv1, valid queries not published",
    ]
    with_later = sections([], later=True)
    assert sorted(e.published for s in with_later for e in s.entries) == sorted(published())


def test_tables_choose_sections_and_fill_in_the_published(tmp_path):
    results = one(tmp_path, fake.table3())
    grid = one(tmp_path, fake.beta_grid(), table="figure4", baseline="")
    assert [s.table for s in sections([grid, results])] == ["figure4", "3"]
    found = sections([grid, results], tables=["4", "3"])
    assert [(s.table, s.results is None) for s in found] == [("3", False), ("4", True)]
    names = [e.arm for e in sections([grid], metrics=["mAP"], protocols=["AG"])[0].entries]
    assert names == ["beta: BETA=15.0", "beta: BETA=5.0", "beta: BETA=10.0"]


def test_a_sweep_without_a_finished_run_shows_the_published_and_says_so(tmp_path):
    (section,) = sections([one(tmp_path, [fake.unfinished("Baseline", 0), fake.unfinished("+PLRM", 0)])])
    assert entry(section, "+PLRM", "AG").published.value == 42.95
    assert entry(section, "+PLRM", "AG").state == "0 of 1, waiting: seed 0"
    assert section.notes == [
        "No run is done yet.",
        "No run of the baseline Baseline is done: there are no effects.",
    ]
    text = markdown(sections([one(tmp_path, [fake.unfinished("a", 0)], table="")]))
    assert "No run is done yet." in text


def test_a_collapsed_baseline_is_warned_about(tmp_path):
    runs = [fake.run("Baseline", 0, 40, collapsed=True), fake.run("+PLRM", 0, 41)]
    (section,) = sections([one(tmp_path, runs)])
    assert "The baseline Baseline collapsed in some runs" in section.notes[0]


def test_an_unknown_protocol_or_metric_lists_what_there_is(tmp_path):
    results = one(tmp_path, fake.table3())
    with pytest.raises(EvaluationError, match=r"no scores of protocol 'A2C'; there are ALL, AG\."):
        sections([results], protocols=["AG", "A2C"])
    with pytest.raises(
        EvaluationError, match="unknown metric 'map'; there are Rank-1, Rank-5, Rank-10, mAP, mINP"
    ):
        sections([results], metrics=["map"])


def test_markdown_as_it_should_look(tmp_path):
    runs = [
        fake.run("Baseline", 0, 40),
        fake.run("Baseline", 1, 42),
        fake.run("a|b", 0, 41),
        fake.run("a|b", 1, 44),
    ]
    runs += [fake.unfinished("a|b", 2, "failed", "out of memory"), fake.run("once", 0, 42.5)]
    results = one(tmp_path, runs, table="", title="Parts")
    assert markdown(sections([results], protocols=["AG"], metrics=["mAP"])) == (
        "## Parts: SynthAG\n\n"
        "### A<->G (AG) on SynthAG, 160 valid queries\n\n"
        "| Method   |                   Runs |                  mAP |                mAP effect |\n"
        "|----------|------------------------|----------------------|---------------------------|\n"
        "| Baseline |                 2 of 2 | 36.00 [23.29, 48.71] |                           |\n"
        "| a\\|b     | 2 of 3, failed: seed 2 | 37.50 [18.44, 56.56] | +1.50 [-4.85, +7.85] n.s. |\n"
        "| once     |                 1 of 1 |                37.50 |                     +2.50 |\n\n"
        "- Mean over seeds [95 % t-interval]; no interval: a single seed.\n"
        "- Effect: the arm minus Baseline, over the seeds that both have [95 % t-interval]; "
        "n.s.: it holds 0.\n"
        "- a|b, seed 2, failed: out of memory\n"
    )


def test_markdown_shows_published_values_effects_and_differences(tmp_path):
    (section,) = sections([one(tmp_path, on("CARGO", fake.table3()), data="CARGO")], metrics=["mAP"])
    block = blocks(section)[1]
    assert block.headers == [
        "Method",
        "Runs",
        "mAP",
        "mAP effect",
        "mAP published",
        "mAP ours - published",
        "Published in",
    ]
    assert block.rows[0] == [
        "Baseline",
        "3 of 3",
        "36.00 [33.52, 38.48]",
        "",
        "40.11",
        "-4.11",
        "VIF paper, CARGO",
    ]
    assert block.rows[1][3:6] == ["+1.17 [+0.45, +1.88]", "42.95 (+2.84)", "-5.78"]


def test_csv_reads_back_as_the_numbers_that_went_in(tmp_path):
    found = sections([one(tmp_path, on("CARGO", fake.table3()), data="CARGO")], metrics=["Rank-5", "mAP"])
    rows = list(csv.DictReader(io.StringIO(long_csv(found))))
    assert len(rows) == len(found[0].entries) == 2 * 4 * 2
    for row, e in zip(rows, found[0].entries):
        assert (row["dataset"], row["protocol"]) == e.cell
        assert (row["arm"], row["metric"], row["runs"]) == (e.arm, e.metric, e.state)
        assert int(row["valid_queries"]) == e.valid
        for name, estimate in (("mean", e.ours), ("effect", e.effect)):
            if estimate is None:
                assert row[name] == ""
            else:
                assert float(row[name]) == estimate.mean
        if e.ours:
            assert (float(row["low"]), float(row["high"])) == (e.ours.low, e.ours.high)
            assert int(row["seeds"]) == e.ours.seeds
        if e.effect:
            assert (float(row["effect_low"]), float(row["effect_high"])) == (e.effect.low, e.effect.high)
            assert row["effect_distinguishable"] == str(e.effect.distinguishable)
            assert int(row["effect_seeds"]) == e.effect.seeds
        assert row["published"] == ("" if e.published is None else str(e.published.value))
        assert row["published_effect"] == ("" if e.published_effect is None else str(e.published_effect))
        assert row["ours_minus_published"] == ("" if e.difference is None else str(e.difference))
        assert (row["table"], row["sweep"], row["trained_on"]) == ("3", "table3", "CARGO")
        assert (row["baseline"], int(row["collapsed"])) == ("Baseline", e.collapsed)
    assert {row["source"] for row in rows if row["metric"] == "mAP"} == {"VIF paper"}
    assert {row["published"] for row in rows if row["metric"] == "Rank-5"} == {""}  # the paper has none
    alone = list(csv.DictReader(io.StringIO(long_csv(sections([])))))
    assert {row["seeds"] + row["collapsed"] + row["trained_on"] for row in alone} == {""}


def test_latex_escapes_what_it_must(tmp_path):
    runs = [fake.run("Baseline", 0, 40), fake.run("a_b & 50% #1 {x} $y ~z^ \\w <|>", 0, 39)]
    text = latex(sections([one(tmp_path, runs, table="", title="A -> B")], protocols=["AG"], metrics=["mAP"]))
    assert r"a\_b \& 50\% \#1 \{x\} \$y \textasciitilde{}z\textasciicircum{} " in text
    assert r"\textbackslash{}w $<$\textbar{}$>$ & 1 of 1 & 34.00 & $-$1.00 \\" in text
    assert (
        r"\caption{A $\rightarrow$ B: SynthAG. A$\leftrightarrow$G (AG) on SynthAG, 160 valid queries. "
        in text
    )
    assert "\\begin{tabular}{lrrr}\n\\toprule\nMethod & Runs & mAP & mAP effect \\\\\n\\midrule\n" in text
    assert "t-interval" in text  # a hyphen stays one
    assert text.count("\\begin{") == text.count("\\end{") == 2
    assert text.startswith("% \\usepackage{booktabs}\n")


def test_the_command_prints_or_writes(tmp_path, capsys):
    path = fake.write(tmp_path, fake.table3())
    assert main(["results"]) == 0
    assert capsys.readouterr().out == markdown(sections([]))
    out = tmp_path / "new" / "t.csv"
    options = [
        "--format",
        "csv",
        "--table",
        "3",
        "--table",
        "5",
        "--protocols",
        "AG",
        "--metrics",
        "mAP",
        "Rank-5",
    ]
    assert main(["results", path, *options, "--out", str(out)]) == 0
    assert capsys.readouterr().out == ""
    expected = sections([read_results(path)], ["3", "5"], ["AG"], ["mAP", "Rank-5"])
    assert out.read_text() == long_csv(expected)
    assert main(["results", "--table", "1", "--later", "--format", "latex"]) == 0
    assert capsys.readouterr().out == latex(sections([], ["1"], later=True))


def test_the_commands_errors_end_in_one_line(tmp_path, capsys):
    (tmp_path / "bad.json").write_text(json.dumps({"format": "x"}))
    for arguments in ([str(tmp_path / "bad.json")], ["--protocols", "XX"], ["--plot", str(tmp_path)]):
        assert main(["results", *arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert len(error.splitlines()) == 1
