"""Progress bars for what takes longer than two seconds."""

from typing import Any, Sequence

from tqdm import tqdm

SECONDS = 2  # before a bar shows


def bar(items: Sequence[Any], desc: str, unit: str) -> Any:
    """`items` with a progress bar on stderr that shows after two seconds and goes away at the end."""
    return tqdm(items, desc=desc, unit=unit, delay=SECONDS, leave=False)
