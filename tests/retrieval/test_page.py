"""The code of docs/retrieval.md runs."""

import re
from pathlib import Path

from tests.retrieval.people import people

PAGE = Path(__file__).parents[2] / "docs" / "retrieval.md"


def test_the_pages_code_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    table = people(40)
    table.save("features.npz")
    found = {}
    exec(code, found)
    assert "| rank   | id   |" in capsys.readouterr().out
    assert set(found["found"].columns["views"].ravel()) == {"aerial"}
    assert len(found["open_gallery"]("people")) == 40 - 1 + 40


def test_the_page_gives_the_thresholds_of_the_code():
    from vif.retrieval.kinds import FLAT_ROWS, HNSW_ROWS
    from vif.retrieval.state import EXACT_ROWS

    text = PAGE.read_text()
    for number in (FLAT_ROWS, HNSW_ROWS, EXACT_ROWS):
        assert f"{number:,}" in text
