"""docs/reliability.md names tests that are there."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_test_that_the_page_names_is_there():
    page = (TESTS.parent / "docs" / "reliability.md").read_text()
    sources = {path.name: path.read_text() for path in TESTS.rglob("test_*.py")}
    named = re.findall(r"`(?:tests/)?(test_\w+\.py)(?:::(\w+)\*?)?`", page)
    assert len(named) > 40
    for file, test in named:
        assert file in sources
        assert f"def {test}" in sources[file], f"{file}::{test}"
    alone = re.findall(r"`(test_\w+)`", page)
    assert alone
    for test in alone:
        assert any(f"def {test}(" in source for source in sources.values()), test
