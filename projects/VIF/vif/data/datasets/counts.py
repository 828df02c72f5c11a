"""Published sizes of the data sets, as data; a copy that differs is warned about and used as it is."""

import logging
from typing import Dict, NamedTuple, Optional, Set, Tuple

from .checks import Splits

logger = logging.getLogger(__name__)


class Count(NamedTuple):
    """A published number of images or ids ("what"), of one view (None: all), in these splits together."""

    splits: Tuple[str, ...]
    view: Optional[str]
    what: str
    number: int


_TEST = ("query", "gallery")

# Sources: CARGO, README of VDT-AGPReID; AG-ReIDv1, README of AG-ReID for identities and its current download
# for images (the README's 1,701 and 3,331 are older); AG-ReIDv2, its README and lists.
PUBLISHED: Dict[str, Tuple[Count, ...]] = {
    "CARGO": (
        Count(("train",), None, "images", 51_451),
        Count(("train",), None, "ids", 2_500),
        Count(("query",), None, "images", 312),
        Count(("gallery",), None, "images", 50_712),
        Count(("gallery",), "aerial", "images", 32_268),
        Count(("gallery",), "ground", "images", 18_444),
        Count(_TEST, None, "ids", 2_500),
    ),
    "AGReIDv1": (
        Count(("train",), None, "ids", 199),
        Count(_TEST, None, "ids", 189),
        Count(("query",), "aerial", "images", 1_071),
        Count(("gallery",), "ground", "images", 3_225),
        Count(("query",), "ground", "images", 962),
        Count(("gallery",), "aerial", "images", 7_204),
    ),
    "AGReIDv2": (
        Count(("train",), None, "ids", 807),
        Count(("query@A2C",), "aerial", "images", 2_356),
        Count(("gallery@A2C",), "cctv", "images", 6_347),
        Count(("query@A2W",), "aerial", "images", 2_209),
        Count(("gallery@A2W",), "wearable", "images", 12_912),
        Count(("query@C2A",), "cctv", "images", 1_811),
        Count(("gallery@C2A",), "aerial", "images", 14_362),
        Count(("query@W2A",), "wearable", "images", 2_340),
        Count(("gallery@W2A",), "aerial", "images", 12_568),
    ),
}


_WARNED: Set[str] = set()


def warn_counts(name: str, root: str, splits: Splits) -> None:
    """Warn, once a process, of every published number which the records at `root` do not have."""
    differences = []
    for count in PUBLISHED[name]:
        records = [r for s in count.splits for r in splits[s] if count.view in (None, r.view)]
        found = len(records) if count.what == "images" else len({r.pid for r in records})
        if found != count.number:
            side = " ".join(filter(None, ("+".join(count.splits), count.view, count.what)))
            differences.append(f"{side} {found:,} (published {count.number:,})")
    message = (
        f"{name} at {root} differs from the published copy: {'; '.join(differences)}. "
        "Scores are not comparable with published ones."
    )
    if differences and message not in _WARNED:  # a run reads a data set several times
        _WARNED.add(message)
        logger.warning(message)
