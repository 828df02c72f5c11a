"""`vif report`: numbers against a second source, in one file that needs nothing."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from vif.cli import main
from vif.evaluation import PROTOCOLS, evaluate_table, format_table
from vif.features import FeatureTable

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("jinja2")

from vif.report import page as page_module

from tests.report.parsing import Page, report


@pytest.fixture(scope="module")
def whole(shared):
    """The page with everything on it: all protocols, two queries of a kind, pictures beside it."""
    root = str(shared.parents[1] / "data")
    assert (
        main(
            ["report", str(shared), "--root", root, "--queries", "2", "--pictures", str(shared / "pictures")]
        )
        == 0
    )
    return Page((shared / "report.html").read_text(encoding="utf-8"))


def test_the_table_is_that_of_evaluate_and_of_results_json(whole, shared):
    table = FeatureTable.load(str(shared / "features-SynthAG.npz"))
    protocols = PROTOCOLS["SynthAG"]
    lines = format_table({p.name: evaluate_table(table, p) for p in protocols}, protocols, 0.95).splitlines()
    expected = [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]
    assert whole.rows("Protocol") == expected
    stored = json.loads((shared / "results.json").read_text())["SynthAG"]
    for row in expected[1:]:
        name = re.search(r"(\w+)\)?$", row[0]).group(1)
        assert float(row[1].split()[0]) == pytest.approx(stored[name]["Rank-1"], abs=0.005)
        assert float(row[4].split()[0]) == pytest.approx(stored[name]["mAP"], abs=0.005)
    assert "holds the same numbers" in whole.text


def test_it_is_one_file_without_script_or_address(whole):
    assert not re.search(r"https?:|//[a-z]", re.sub(r'"data:image/[^"]*"', "", whole.text))
    for name, value in whole.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("data:", "#")), (name, value[:60])
    names = {tag for tag, _ in whole.tags}
    assert not names & {"script", "iframe", "object", "embed", "form"}
    policy = next(a["content"] for tag, a in whole.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert len(whole.text.encode()) <= page_module.LIMIT


def test_headings_contents_and_words_for_every_picture(whole):
    headings = [tag for tag, _ in whole.tags if re.fullmatch(r"h\d", tag)]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1
    levels = [int(tag[1]) for tag in headings]
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:]))
    links = [a["href"][1:] for tag, a in whole.tags if tag == "a"]
    sections = [
        "summary",
        "protocols",
        "cmc",
        "distances",
        "queries",
        "map",
        "training",
        "config",
        "environment",
    ]
    assert links == sections
    assert len(set(whole.ids)) == len(whole.ids)
    assert set(links) <= set(whole.ids)
    pictures = [a for tag, a in whole.tags if tag == "img" or a.get("role") == "img"]
    assert len(pictures) > 50
    assert all(a.get("alt") or a.get("aria-label") for a in pictures)


def test_lists_name_mark_rank_and_distance_beside_each_crop(whole, shared):
    table = FeatureTable.load(str(shared / "features-SynthAG.npz"))
    protocol = PROTOCOLS["SynthAG"][0]
    ranking = evaluate_table(table, protocol)
    best = int(table.rows("query")[ranking.valid[np.argsort(-ranking.ap, kind="stable")[0]]])
    start = whole.text.index('<ol class="list">')
    first = whole.text[start : whole.text.index("</ol>", start)]
    words = f"id {table.pids[best]}, cam {table.camids[best]}, {table.views[best]}"
    assert f'alt="query, {words}"' in first
    assert f"AP {100 * ranking.ap.max():.1f} %" in whole.text[:start]
    entries = re.findall(r'<li class="(match|impostor|ignored)[^"]*">(.*?)</li>', first, flags=re.DOTALL)
    signs = {"match": "\u2713 ", "impostor": "\u2717 ", "ignored": "\u2013<"}
    for kind, entry in entries:
        assert f'<span class="mark">{signs[kind]}' in entry
        assert re.search(r"<br>d -?\d\.\d{3}<br>", entry)
    ranks = [int(r) for r in re.findall(r'class="mark">[\u2713\u2717] (\d+)<', first)]
    assert ranks[:10] == list(range(1, 11))


def test_crops_are_the_images_of_the_table(whole, shared):
    import base64
    import io

    table = FeatureTable.load(str(shared / "features-SynthAG.npz"))
    pictures = [a for tag, a in whole.tags if tag == "img"]
    by_name = {a["title"]: a["src"] for a in pictures}
    for path in table.paths:
        name = str(path).split("/data/")[1]
        if name in by_name:
            data = base64.b64decode(by_name[name].split(",")[1])
            shown = np.asarray(Image.open(io.BytesIO(data)), dtype=float)
            assert np.abs(shown - np.asarray(Image.open(str(path)), dtype=float)).mean() < 8
    assert len(by_name) > 10


def test_the_pictures_alone_are_written_too(whole, shared):
    names = {path.name for path in (shared / "pictures").iterdir()}
    lists = {f"queries-{p.name}.png" for p in PROTOCOLS["SynthAG"]}
    assert names == {"cmc.png", "distances.png", "map.png", "training.png"} | lists
    for name in names:
        assert Image.open(shared / "pictures" / name).size[0] > 300


def test_config_shows_what_differs_and_no_folder_of_the_machine(whole, shared):
    rows = {row[0]: row[1:] for row in whole.rows("key")[1:]}
    assert rows["MODEL.META_ARCHITECTURE"] == ["VIF", "Baseline"]
    assert rows["SOLVER.IMS_PER_BATCH"][0] == "8"
    assert "MODEL.PIXEL_MEAN" not in rows or rows["MODEL.PIXEL_MEAN"][0] != rows["MODEL.PIXEL_MEAN"][1]
    assert "INPUT.FLIP.PROB" not in rows  # at its default
    assert "INPUT.FLIP.PROB" in whole.text  # of the whole config
    assert rows["MODEL.WEIGHTS"][0] == ".../start.pth"
    assert str(shared.parents[1]) not in whole.text
    assert "/home/someone" not in whole.text
    assert "secrets" not in whole.text
    assert "1.3" in whole.text.split('id="environment"')[1]
    assert "0:02:00" in whole.text


def test_equal_inputs_give_equal_bytes(run, shared):
    first = report(run, shared).text
    assert report(run, shared).text == first
