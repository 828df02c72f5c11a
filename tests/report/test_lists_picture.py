"""The picture of ranked lists: frames, words and crops are read off the figure."""

import numpy as np
import pytest
from vif.evaluation import PROTOCOLS
from vif.evaluation.evaluate import protocol_sides
from vif.report.lists import IGNORED, IMPOSTOR, ranked_lists
from vif.report.lists import MATCH as SAME

pytest.importorskip("matplotlib")

from matplotlib.colors import to_hex
from vif.report import canvas
from vif.report.blocks import Lists
from vif.report.pictures import lists_figure

from tests.report.test_ranked_lists import random_table


class Shades:
    """Crops of one colour each, the number of the row; row 0 has none."""

    def pixels(self, path):
        row = int(path.split(".")[0])
        return np.full((4, 2, 3), row, dtype=np.uint8) if row else None


@pytest.fixture
def drawn():
    table = random_table(5)
    protocol = next(p for p in PROTOCOLS["CARGO"] if p.name == "ALL")
    sides = protocol_sides(table, protocol)
    ranking = sides.rank()
    lists = ranked_lists(sides, ranking, [0, 3], top=4)
    block = Lists(protocol, {"Best": lists[:1], "Worst": lists[1:]})
    figure = lists_figure(block, table, Shades(), canvas.PAPER)
    return table, lists, figure, figure.axes[0]


def test_a_frame_says_what_an_image_is(drawn):
    _, lists, _, axes = drawn
    looks = {
        SAME: (canvas.MATCH, "solid"),
        IMPOSTOR: (canvas.IMPOSTOR, "solid"),
        IGNORED: (canvas.PAPER.muted, "dashed"),
    }
    expected = []
    for found in lists:
        expected += [("#1f66b8", "solid"), *(looks[hit.kind] for hit in found.hits)]
    names = {"-": "solid", "--": "dashed"}
    shown = [
        (to_hex(p.get_edgecolor()), names.get(p.get_linestyle(), p.get_linestyle())) for p in axes.patches
    ]
    assert shown == expected
    assert {hit.kind for found in lists for hit in found.hits} == {SAME, IMPOSTOR, IGNORED}


def test_a_crop_fills_its_frame_and_no_frame_meets_another(drawn):
    _, lists, figure, axes = drawn
    rows = [row for found in lists for row in (found.row, *(hit.row for hit in found.hits))]
    kinds = [kind for found in lists for kind in ("", *(hit.kind for hit in found.hits))]
    boxes = [
        (p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height()) for p in axes.patches
    ]
    images = iter(axes.images)
    for row, kind, (left, top, right, bottom) in zip(rows, kinds, boxes):
        if row:
            image = next(images)
            assert (image.get_array() == row).all()
            np.testing.assert_allclose(image.get_extent(), (left, right, bottom, top))
            assert image.get_alpha() == (0.6 if kind == IGNORED else 1.0)
    width, height = figure.get_size_inches()
    for i, a in enumerate(boxes):
        assert min(a) >= 0
        assert a[2] <= width
        assert a[3] <= height
        for b in boxes[:i]:
            assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]
    assert axes.get_xlim() == (0, width)  # inches, from above
    assert axes.get_ylim() == (height, 0)


def test_words_stand_below_each_crop(drawn):
    table, lists, _, axes = drawn
    texts = [text.get_text() for text in axes.texts]
    assert texts[0].endswith("ALL")
    assert f"Best: AP {100 * lists[0].ap:.1f} %, first match at rank {lists[0].first}" in texts
    assert texts.count("query") == 2
    signs = {SAME: "\u2713", IMPOSTOR: "\u2717", IGNORED: "\u2013"}
    for hit in lists[1].hits:
        rank = "" if hit.rank is None else f" {hit.rank}"
        assert f"{signs[hit.kind]}{rank} d {hit.distance:.3f}" in texts
        label = f"id {table.pids[hit.row]}, cam {table.camids[hit.row]}\n{table.views[hit.row]}"
        assert label in texts
