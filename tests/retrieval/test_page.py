"""The code of docs/retrieval.md runs, and its commands on Milvus (others: tests/test_page_commands.py)."""

import re
import shlex

from vif.cli import main

from tests.pages import ROOT, commands
from tests.retrieval.people import people
from tests.retrieval.places import needs_milvus

PAGE = ROOT / "docs" / "retrieval.md"


def test_the_pages_code_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    table = people(40)
    table.save("features.npz")
    found = {}
    exec(code, found)
    assert "| rank   | id   |" in capsys.readouterr().out
    assert set(found["found"].columns["views"].ravel()) == {"aerial"}
    assert len(found["open_gallery"]("everyone")) == 40 - 1 + 40


@needs_milvus
def test_the_pages_commands_on_milvus_run(tmp_path, monkeypatch, capsys):
    """On Milvus Lite, in place of the server, too."""
    monkeypatch.chdir(tmp_path)
    people(40).save("features.npz")
    lines = [line for line in commands(PAGE, "vif") if "people.db" in line or "19530" in line]
    assert len(lines) == 3
    for line in lines:
        own = line.replace("http://localhost:19530", "people.db").replace("1342", "4")
        assert main(shlex.split(own)[1:]) == 0
    assert capsys.readouterr().out.count("| 1      |") == 2


def test_the_page_gives_the_thresholds_of_the_code():
    from vif.retrieval.kinds import FLAT_ROWS, HNSW_ROWS
    from vif.retrieval.state import EXACT_ROWS

    text = PAGE.read_text()
    for number in (FLAT_ROWS, HNSW_ROWS, EXACT_ROWS):
        assert f"{number:,}" in text
