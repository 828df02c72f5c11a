"""AGManifest: anyone's own images, listed in a CSV file with the header split,path,pid,camid,view."""

import csv
import os
import re
from typing import Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from ...errors import DataError
from ...records import ImageRecord
from .checks import Splits, check_splits
from .tree import ListedFiles

HEADER = ("split", "path", "pid", "camid", "view")
SPLITS = ("train", "query", "gallery")
_NUMBER = re.compile(r"[0-9]{1,18}")
_VIEW = re.compile(r"\w[\w-]*")


class _Row(NamedTuple):
    line: int
    split: str
    path: str
    pid: str
    camid: str
    view: str


def read_manifest(manifest: Optional[str]) -> Splits:
    """Records of a CSV file.

    Args:
        manifest: the CSV file, UTF-8. Paths in it are relative to its folder and may not leave it. split is
            train, query or gallery; an image in query and in gallery has two rows. pid and camid are kept
            when all of them are numbers, and numbered in sorted order otherwise. view is any word.

    Returns:
        "train", "query" and "gallery", sorted by path. Either train, or query and gallery, may be empty.

    Raises:
        DataError: missing or malformed; names the file and line.
    """
    if not manifest:
        raise DataError(
            "Data set AGManifest reads a CSV file and none was named: set DATASETS.MANIFEST to it (header "
            f"{','.join(HEADER)})."
        )
    manifest = os.path.expanduser(manifest)
    rows = list(_read_rows(manifest))
    pids = _numbered(manifest, "pid", {row.pid for row in rows})
    camids = _numbered(manifest, "camid", {row.camid for row in rows})
    _check_cameras(manifest, rows)
    files = ListedFiles(os.path.dirname(manifest) or ".")
    splits: Splits = {split: [] for split in SPLITS}
    for row in rows:
        path = files.resolve(row.path, f"{manifest}, line {row.line}")
        splits[row.split].append(ImageRecord(path, pids[row.pid], camids[row.camid], row.view))
    splits = {split: sorted(records) for split, records in splits.items()}
    check_splits(f"Manifest {manifest}", splits, _required(splits))
    return splits


def _required(splits: Splits) -> Tuple[str, ...]:
    """Training alone and testing alone are whole; a query without a gallery is not."""
    testing = splits["query"] or splits["gallery"]
    return ("query", "gallery") if testing else ("train",)


def _read_rows(manifest: str) -> Iterator[_Row]:
    try:
        with open(manifest, encoding="utf-8-sig", newline="") as f:
            reader = csv.reader(f, strict=True)
            header = tuple(cell.strip() for cell in next(reader, []))
            if header != HEADER:
                raise DataError(
                    f"{manifest}, line 1: the header is {','.join(header)!r}, not {','.join(HEADER)!r}."
                )
            for cells in reader:
                cells = [cell.strip() for cell in cells]
                if any(cells):
                    yield _parse_row(f"{manifest}, line {reader.line_num}", reader.line_num, cells)
    except FileNotFoundError as e:
        raise DataError(
            f"Manifest {os.path.abspath(manifest)!r} does not exist; set DATASETS.MANIFEST to a CSV file "
            f"with the header {','.join(HEADER)}."
        ) from e
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise DataError(f"Manifest {manifest!r} cannot be read as a UTF-8 CSV file: {e}.") from e


def _parse_row(where: str, line: int, cells: List[str]) -> _Row:
    if len(cells) != len(HEADER):
        raise DataError(f"{where}: {len(cells)} cells, expected {len(HEADER)}: {','.join(HEADER)}.")
    empty = [name for name, cell in zip(HEADER, cells) if not cell]
    if empty:
        raise DataError(f"{where}: {', '.join(empty)} is empty.")
    row = _Row(line, *cells)
    if row.split not in SPLITS:
        raise DataError(f"{where}: split {row.split!r} is none of {', '.join(SPLITS)}.")
    if not _VIEW.fullmatch(row.view):
        raise DataError(f"{where}: view {row.view!r} is not one word, such as aerial or ground.")
    return row


def _numbered(manifest: str, column: str, words: Set[str]) -> Dict[str, int]:
    negative = sorted(word for word in words if re.fullmatch(r"-[0-9]+", word))
    if negative:
        raise DataError(
            f"{manifest}: {column} {negative[0]} is negative; remove junk images, number the others from 0."
        )
    if all(_NUMBER.fullmatch(word) for word in words):
        numbers: Dict[int, str] = {}
        for word in sorted(words):
            if numbers.setdefault(int(word), word) != word:
                raise DataError(
                    f"{manifest}: {column} {numbers[int(word)]!r} and {word!r} are one number; choose one."
                )
        return {word: number for number, word in numbers.items()}
    return {word: number for number, word in enumerate(sorted(words))}


def _check_cameras(manifest: str, rows: List[_Row]) -> None:
    views: Dict[str, str] = {}
    for row in rows:
        if views.setdefault(row.camid, row.view) != row.view:
            raise DataError(
                f"{manifest}, line {row.line}: camera {row.camid!r} has view {row.view!r} here and "
                f"{views[row.camid]!r} above; give each camera its own camid."
            )
