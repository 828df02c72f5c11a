"""`vif report`: numbers against a second source, one file that needs nothing, what is missing is said."""

import html.parser
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from vif.cli import main
from vif.errors import EvaluationError
from vif.evaluation import PROTOCOLS, evaluate_table, format_table
from vif.evaluation.left_out import LeftOut, to_meta
from vif.features import FeatureTable

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("jinja2")

from vif.report import page as page_module
from vif.report.crops import Crops

from tests.report.fake_run import make_run

VOID = {"meta", "link", "br", "img", "use", "path", "image", "rect"}
EVIL = "<script>alert(1)</script>"


class Page(html.parser.HTMLParser):
    """Text of the page by table, its attributes, and whether every tag that opens is closed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.text, self.open, self.tags, self.attributes, self.tables, self.ids = text, [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def rows(self, header):
        return next(table for table in self.tables if table[0][0] == header)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("shared")
    return make_run(tmp)


@pytest.fixture
def run(shared, tmp_path):
    """A copy of the run that a test may change."""
    copy = tmp_path / "logs" / "run"
    shutil.copytree(shared, copy)
    return copy


def report(run, shared, *arguments):
    root = str(shared.parents[1] / "data")
    options = ["--root", root, "--map", "pca", "--queries", "1", "--protocols", "AG", "ALL"]
    assert main(["report", str(run), *options, *map(str, arguments)]) == 0
    return Page((run / "report.html").read_text(encoding="utf-8"))


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


@pytest.fixture
def noisy(run, shared, monkeypatch):
    """Arguments of `render_page` for a page whose crops are noise, which JPEG cannot make small."""
    kept = []
    with monkeypatch.context() as patch:
        patch.setattr(page_module, "render_page", lambda *given: kept.append(given) or "")
        report(run, shared, "--queries", 3)
    (given,) = kept
    noise = np.random.default_rng(0).integers(0, 256, (160, 80, 3), dtype=np.uint8)
    monkeypatch.setattr(Crops, "pixels", lambda self, path: noise)
    return given


def test_a_page_that_grows_too_large_shrinks_its_crops_then_its_lists_and_says_so(noisy):
    page = page_module.render_page(*noisy)
    assert "To keep within" not in page
    seen, size = [], len(page.encode())
    for budget in list(page_module.budgets(3))[1:]:
        page = page_module.render_page(*noisy, limit=size - 1)
        assert len(page.encode()) < size
        size = len(page.encode())
        seen.append(page[page.index("To keep within") :] if budget.height else page)
        if budget.height:
            assert f"at most {budget.height} pixels high at JPEG quality {budget.quality}" in page
            shown = min(budget.queries, 2)  # of the 8 queries
            assert page.count('class="list"') == shown * len(("Best", "Typical", "Worst")) * len(
                ("AG", "ALL")
            )
    assert "1 of 3 lists of a kind are shown" in seen[-2]
    assert "crops are left out" in seen[-1]
    assert "<img" not in seen[-1]


def test_a_page_that_cannot_fit_is_refused(noisy):
    with pytest.raises(EvaluationError, match="bytes without any crop, above 10,000"):
        page_module.render_page(*noisy, limit=10_000)


def test_names_from_files_do_not_become_markup(run, shared):
    table = FeatureTable.load(str(run / "features-SynthAG.npz"))
    table.views = np.char.replace(table.views, "aerial", EVIL)
    table.views = np.char.replace(table.views, "ground", "$x_{$")
    table.meta = {"fingerprint": EVIL}
    table.save(str(run / "evil.npz"))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub("SEED: 1", f"SEED: '{EVIL}'", config))
    rows = json.dumps({"iteration": 0, f"loss_{EVIL}": 1.0, "total_loss": 2.0})
    (run / "metrics.json").write_text(rows + "\n")
    root = str(shared.parents[1] / "data")
    assert (
        main(["report", str(run), "--features", str(run / "evil.npz"), "--root", root, "--map", "pca"]) == 0
    )
    text = (run / "report.html").read_text(encoding="utf-8")
    assert EVIL not in text
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    Page(text)


def test_images_outside_the_root_are_not_read(tmp_path):
    (tmp_path / "root").mkdir()
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 16), (255, 0, 0)).save(secret)
    Image.new("RGB", (8, 16)).save(tmp_path / "root" / "in.png")
    (tmp_path / "root" / "link.png").symlink_to(secret)
    (tmp_path / "root2").mkdir()
    shutil.copy(secret, tmp_path / "root2" / "near.png")
    crops = Crops([str(tmp_path / "root")])
    outside = [
        str(secret),
        "../secret.png",
        "link.png",
        "../root2/near.png",
        str(tmp_path / "root2/near.png"),
        "",
    ]
    assert [path for path in outside if crops.pixels(path) is not None] == []
    assert crops.pixels("in.png").shape == (16, 8, 3)
    assert crops.pixels(str(tmp_path / "root" / "in.png")) is not None
    assert crops.name(str(secret)) == "secret.png"
    assert Crops([]).pixels(str(secret)) is None


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
