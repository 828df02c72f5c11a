"""Objects in a notebook: HTML that parses, with their numbers, and no text of a file that becomes markup."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from vif.evaluation import PROTOCOLS, evaluate_table
from vif.features import FeatureTable
from vif.retrieval import Gallery, open_images

from tests.report.test_ranked_lists import random_table

PAGE = Path(__file__).parents[2] / "docs" / "report.md"
EVIL = "<script>alert(1)</script>'\""


class Cells(HTMLParser):
    """Rows of all tables, and the images."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.images, self.tags, self.inside = [], [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def shown(thing):
    html = thing._repr_html_()
    cells = Cells(html)
    assert "script" not in cells.tags
    assert "<script" not in html
    return cells


def test_a_feature_table_counts_its_splits_and_views():
    table = random_table(1)
    table.splits = np.where(np.arange(len(table)) == 1, "query,gallery", table.splits)
    table.meta = {"fingerprint": EVIL}
    rows = shown(table).rows
    assert ["images", "120"] in rows
    assert ["dimensions", "3"] in rows
    assert ["fingerprint", EVIL] in rows
    for split in ("query", "gallery"):
        for view in ("aerial", "ground"):
            assert [split, view, str(len(table.rows(split, view)))] in rows


def test_the_names_of_views_and_splits_do_not_become_markup(tmp_path):
    table = pictures(tmp_path / "root")
    table.splits[:] = "s"
    assert ["s", EVIL, "4"] in shown(table).rows
    assert [EVIL, "4"] in shown(Gallery.build(table)).rows


def test_a_ranking_shows_its_scores():
    ranking = evaluate_table(random_table(1), PROTOCOLS["CARGO"][0])
    rows = shown(ranking).rows
    scores = ranking.scores()
    assert [f"{scores[name]:.2f}" for name in ("Rank-1", "Rank-5", "Rank-10", "mAP", "mINP")] in rows
    assert ["valid queries", str(len(ranking.valid))] in rows


def test_a_gallery_shows_rows_index_and_views():
    table = random_table(1)
    table.meta = {"fingerprint": "f", "root": EVIL}
    rows = shown(Gallery.build(table)).rows
    assert ["rows", "120"] in rows
    assert ["aerial", str((table.views == "aerial").sum())] in rows
    assert ["root", EVIL] in rows
    assert any(row[0] == "index" and "Flat" in row[1] for row in rows)


def pictures(root):
    """Three images below a root and one outside."""
    root.mkdir()
    for index, name in enumerate(("a.png", "b.png", "c.png")):
        Image.new("RGB", (300, 600), (80 * index, 0, 0)).save(root / name)
    Image.new("RGB", (8, 16)).save(root.parent / "secret.png")
    return FeatureTable(
        features=np.eye(4, 2, dtype=np.float32) + 0.1,
        pids=np.arange(4),
        camids=np.arange(4),
        views=np.full(4, EVIL),
        paths=np.array(["a.png", "b.png", "c.png", "../secret.png"]),
        splits=np.full(4, ""),
        meta={"fingerprint": "f"},
    )


def test_neighbours_show_thumbnails_of_images_below_the_root_only(tmp_path):
    table = pictures(tmp_path / "root")
    query = np.array([[1.0, 0.0]], dtype=np.float32)
    assert not shown(Gallery.build(table).search(query, 4)).images  # no root, no images
    table.meta["root"] = str(tmp_path / "root")
    found = Gallery.build(table).search(query, 4)
    images = shown(found).images
    assert len(images) == 3
    places = {row["path"]: row["rank"] for row in found.of(0)}
    places.pop("../secret.png")
    assert sorted(int(re.search(r"\d+", image["alt"]).group()) for image in images) == sorted(places.values())
    for image in images:
        kind, data = image["src"].split(",")
        assert kind == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (48, 96)


def test_at_most_ten_thumbnails_a_query(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    table = random_table(1, count=30)
    for path in table.paths:
        Image.new("RGB", (8, 16)).save(root / str(path))
    table.meta = {"fingerprint": "f", "root": str(root)}
    assert len(shown(Gallery.build(table).search(table.features[:2], 20)).images) == 20


class Colours:
    """Stands in for a Predictor: the mean colour of an image."""

    def folder(self, folder):
        from vif.inference.folder import find_images
        from vif.inference.images import ImageFailure, load_image

        names, failures = find_images(folder)
        images = {name: load_image(f"{folder}/{name}") for name in names}
        failures += [i for i in images.values() if isinstance(i, ImageFailure)]
        good = {n: i for n, i in images.items() if not isinstance(i, ImageFailure)}
        table = FeatureTable(
            features=np.array([i.mean(axis=(0, 1)) + 1 for i in good.values()]).reshape(-1, 3),
            pids=np.full(len(good), -1),
            camids=np.full(len(good), -1),
            views=np.full(len(good), ""),
            paths=np.array(list(good), dtype=np.str_),
            splits=np.full(len(good), ""),
            meta={"fingerprint": "colours"},
        )
        return table, failures


def test_a_gallery_of_a_folder_knows_where_its_images_are(tmp_path, caplog):
    pictures(tmp_path / "root")
    (tmp_path / "root" / "broken.png").write_bytes(b"broken")
    with caplog.at_level("WARNING"):
        gallery = open_images(Colours(), str(tmp_path / "root"))
    assert len(gallery) == 3
    assert gallery.meta["root"] == str(tmp_path / "root")
    assert "broken.png" in caplog.text
    found = gallery.similar([0], 2)
    assert len(shown(found).images) == 2


def test_a_folder_without_a_usable_image_is_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(b"x")
    from vif.errors import DataError

    with pytest.raises(DataError, match="none of the 1 images below"):
        open_images(Colours(), str(tmp_path))


def test_the_five_lines_of_the_page_run(tmp_path, monkeypatch):
    import vif
    import torch

    from tests.tiny import tiny_cfg

    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 5
    monkeypatch.chdir(tmp_path)
    cfg = tiny_cfg("SynthAG/vif.yml", tmp_path, "MODEL.HEADS.NUM_CLASSES", 4)
    for folder in ("configs/SynthAG", "logs/SynthAG/vif"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "configs/SynthAG/vif.yml").write_text(cfg.dump())
    torch.save(
        {"model": vif.VIFTrainer.build_model(cfg).state_dict()}, tmp_path / "logs/SynthAG/vif/model_final.pth"
    )
    pictures(tmp_path / "photos")
    Image.new("RGB", (30, 60), (80, 0, 0)).save("photo.jpg")
    found = {}
    exec(code.replace("gallery.search", "found = gallery.search"), found)
    assert len(shown(found["found"]).images) == 3


def test_a_predictor_shows_size_dimensions_and_weights(tmp_path):
    import vif
    import torch

    from tests.tiny import tiny_cfg

    cfg = tiny_cfg("SynthAG/vif.yml", tmp_path, "MODEL.HEADS.NUM_CLASSES", 4)
    torch.save({"model": vif.VIFTrainer.build_model(cfg).state_dict()}, tmp_path / "model.pth")
    predictor = vif.Predictor(cfg, tmp_path / "model.pth", device="cpu")
    rows = shown(predictor).rows
    assert ["images", "32 x 16"] in rows
    assert ["dimensions", "16"] in rows
    assert ["weights", predictor.fingerprint] in rows
