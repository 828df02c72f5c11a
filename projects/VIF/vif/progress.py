"""Progress bars for what takes longer than two seconds."""

from typing import Any, Iterable, Optional

from tqdm import tqdm

SECONDS = 2  # before a bar shows


def bar(items: Iterable[Any], desc: str, unit: str, total: Optional[int] = None) -> Any:
    """`items` with a progress bar on stderr that shows after two seconds and goes away at the end.

    `total`: their number, where `items` has no length.
    """
    return tqdm(items, desc=desc, unit=unit, total=total, delay=SECONDS, leave=False)
