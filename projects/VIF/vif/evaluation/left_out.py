"""Unreadable images that a feature table lacks: kept in its meta, counted for each protocol, said aloud.

A test set is never made smaller in silence: whoever prints or writes scores of such a table says so.
"""

import json
from typing import Dict, List, NamedTuple, Sequence

from ..errors import DataError
from ..features import FeatureTable
from .protocols import Protocol

META = "unreadable"  # in a table's meta only where images were allowed to be left out, be it none
SHOWN = 5


class LeftOut(NamedTuple):
    """A test image without features.

    Attributes:
        path: its file.
        splits: comma-separated names of the splits that it belongs to.
        view: its view, "" where there are none.
        reason: why it could not be read.
    """

    path: str
    splits: str
    view: str
    reason: str


def to_meta(images: Sequence[LeftOut]) -> Dict[str, str]:
    """The entry of a table's meta."""
    return {META: json.dumps([image._asdict() for image in images])}


def from_meta(meta: Dict[str, str]) -> List[LeftOut]:
    """What `to_meta` has noted; empty where nothing is.

    Raises:
        DataError: the entry is of another form.
    """
    try:
        images = [LeftOut(**entry) for entry in json.loads(meta.get(META, "[]"))]
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"the features' note of unreadable images is broken ({error}).") from error
    if not all(isinstance(text, str) for image in images for text in image):
        raise DataError("the features' note of unreadable images must hold text only.")
    return images


def counts(table: FeatureTable, protocol: Protocol) -> Dict[str, float]:
    """Images that a protocol's sides lack, to stand beside its scores; empty where none could be left out."""
    if META not in table.meta:
        return {}
    sides = {
        "query": (protocol.query_split, protocol.query_view),
        "gallery": (protocol.gallery_split, protocol.gallery_view),
    }
    images = from_meta(table.meta)
    return {
        f"unreadable_{side}": float(
            sum(split in i.splits.split(",") and view in (None, i.view) for i in images)
        )
        for side, (split, view) in sides.items()
    }


def describe(table: FeatureTable) -> str:
    """One line for the heading of scores: how many images were left out, where, which; "" if none."""
    images = from_meta(table.meta)
    if not images:
        return ""
    splits: Dict[str, int] = {}
    for image in images:
        for split in image.splits.split(","):
            splits[split] = splits.get(split, 0) + 1
    parts = ", ".join(f"{split} {count}" for split, count in sorted(splits.items()))
    paths = ", ".join(repr(image.path) for image in images[:SHOWN])
    more = f" and {len(images) - SHOWN} more" if len(images) > SHOWN else ""
    return (
        f"{len(images)} unreadable image{'s' * (len(images) > 1)} left out ({parts}): {paths}{more}. The "
        "scores are not those of the whole test set"
    )
