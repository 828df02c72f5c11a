"""The commands of a page, as a reader would copy them."""

import re
from pathlib import Path
from typing import List

ROOT = Path(__file__).parents[1]


def commands(page: Path, start: str) -> List[str]:
    """Lines of a page that begin with a command; `start` is a regular expression."""
    text = page.read_text().replace("\\\n", " ")  # a command may go on in the next line
    return re.findall(rf"^(?:    )?({start}(?: .*)?)$", text, flags=re.MULTILINE)
