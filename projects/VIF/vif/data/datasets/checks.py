"""Checks that every data set goes through once its records are read; nothing here opens an image."""

from itertools import islice
from typing import Dict, List, Sequence, Set

from ...errors import DataError
from ...records import ImageRecord

Splits = Dict[str, List[ImageRecord]]
SHOWN = 5  # examples in a message


def check_splits(name: str, splits: Splits, required: Sequence[str]) -> None:
    """Raise DataError unless the records can be trained and scored on.

    Args:
        name: data set and place, for messages.
        splits: records by split; all but "train" are test splits.
        required: splits that must have an image.

    Raises:
        DataError: a required split is empty; a path is twice in a split or has two labels; an identity is in
            train and in a test split.
    """
    for split in required:
        if not splits[split]:
            raise DataError(
                f"{name}: split {split} has no image (.jpg, .jpeg or .png); the copy is incomplete."
            )
    for split, records in splits.items():
        _check_unique(name, split, records)
    _check_one_label(name, splits)
    _check_disjoint(name, splits)


def _check_unique(name: str, split: str, records: Sequence[ImageRecord]) -> None:
    seen: Set[str] = set()
    for record in records:
        if record.path in seen:
            raise DataError(f"{name}: {record.path} is twice in split {split}; keep one of the two.")
        seen.add(record.path)


def _check_one_label(name: str, splits: Splits) -> None:
    label: Dict[str, ImageRecord] = {}
    for records in splits.values():
        for record in records:
            first = label.setdefault(record.path, record)
            if first != record:
                raise DataError(
                    f"{name}: {record.path} has two labels: pid, camid, view {first[1:]} and {record[1:]}; "
                    "an image has one identity, camera and view in every split."
                )


def _check_disjoint(name: str, splits: Splits) -> None:
    train = {record.pid: record.path for record in splits["train"]}
    shared = {
        record.pid: record.path
        for split, records in splits.items()
        if split != "train"
        for record in records
        if record.pid in train
    }
    if shared:
        examples = "; ".join(
            f"{pid} ({train[pid]} and {path})" for pid, path in islice(sorted(shared.items()), SHOWN)
        )
        raise DataError(
            f"{name}: {len(shared)} identities are in train and in test: {examples}. Scores on people seen "
            "in training say nothing; move each identity to one side."
        )
