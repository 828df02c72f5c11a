"""What a report keeps to: its size, no markup from files, no image outside its root."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from vif.cli import main
from vif.errors import EvaluationError
from vif.features import FeatureTable

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("jinja2")

from vif.report import page as page_module
from vif.report.crops import Crops

from tests.report.parsing import Page, report

EVIL = "<script>alert(1)</script>"


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
