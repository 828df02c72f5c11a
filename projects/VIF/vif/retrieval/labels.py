"""Labels from a CSV file: what is known of images that come from no data set."""

import csv
import os
from datetime import datetime, timezone
from typing import Any, Dict, List, Tuple

import numpy as np

from ..errors import DataError
from ..features import FeatureTable
from .rows import check_name

_KNOWN = {"pid": "pids", "camid": "camids", "view": "views", "split": "splits"}


def parse_time(text: str) -> float:
    """Seconds since 1970 of a number or of ISO 8601, as "2026-03-01T12:30"; UTC unless it says otherwise.

    Raises:
        DataError: neither.
    """
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
        except ValueError:
            seconds = np.nan
        else:
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    if not np.isfinite(seconds):
        raise DataError(f"time {text!r} is neither seconds since 1970 nor ISO 8601, as 2026-03-01T12:30.")
    return seconds


def read_labels(path: str, table: FeatureTable) -> Tuple[FeatureTable, np.ndarray, Dict[str, List[str]]]:
    """A table with the labels of a CSV file.

    Args:
        path: UTF-8 CSV with a header: path, and any of pid, camid, view, split, time and columns of your own.
            An empty cell leaves the label as it is. It may list further images.
        table: N images, all of them listed.

    Returns:
        The table, times (N,) float64, NaN where unknown, and the columns of your own.

    Raises:
        DataError: no such file, a malformed line, or an image that is not listed; names it.
    """
    rows = read_cells(path)
    missing = [image for image in table.paths.tolist() if image not in rows]
    if missing:
        raise DataError(f"{path} lacks {len(missing)} of {len(table)} images, such as {missing[0]!r}.")
    names = next(iter(rows.values()), {}).keys()
    columns: Dict[str, Any] = {column: getattr(table, column).tolist() for column in _KNOWN.values()}
    extra: Dict[str, List[str]] = {name: [""] * len(table) for name in names if name not in (*_KNOWN, "time")}
    times = np.full(len(table), np.nan)
    for index, image in enumerate(table.paths.tolist()):
        for name, value in rows[image].items():
            if value is None:
                continue
            if name == "time":
                times[index] = value
            elif name in _KNOWN:
                columns[_KNOWN[name]][index] = value
            else:
                extra[name][index] = value
    for name in ("pids", "camids"):
        columns[name] = np.array(columns[name], dtype=np.int64)
    for name in ("views", "splits"):
        columns[name] = np.array(columns[name], dtype=np.str_)
    return FeatureTable(table.features, paths=table.paths, meta=dict(table.meta), **columns), times, extra


def read_cells(path: str) -> Dict[str, Dict[str, Any]]:
    """What a file for `read_labels` says of each image, by column; None where a cell is empty.

    Raises:
        DataError: no such file, a column that no gallery can have, or a malformed line; names it.
    """
    if not os.path.isfile(path):
        raise DataError(f"there is no file of labels {path!r}; check the path.")
    rows: Dict[str, Dict[str, Any]] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            if "path" not in header or len(set(header)) < len(header) or not all(header):
                raise DataError(f"{path}, line 1: expected a header with path, pid, camid, view, time, ...")
            for name in header:
                if name not in ("path", *_KNOWN, "time"):
                    check_name(name)
            for cells in reader:
                where = f"{path}, line {reader.line_num}"
                if not any(cells):
                    continue
                if len(cells) != len(header):
                    raise DataError(f"{where}: {len(cells)} cells, expected {len(header)}.")
                row = dict(zip(header, (cell.strip() for cell in cells)))
                image = row.pop("path")
                if image in rows:
                    raise DataError(f"{where}: {image!r} is listed a second time.")
                rows[image] = {name: _value(name, text, where) for name, text in row.items()}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a UTF-8 CSV file ({error}).") from error
    return rows


def _value(name: str, text: str, where: str) -> Any:
    try:
        if not text:
            return None
        if name == "time":
            return parse_time(text)
        return np.int64(int(text)) if name in ("pid", "camid") else text
    except (ValueError, OverflowError) as error:  # OverflowError: beyond int64
        raise DataError(f"{where}: {name} {text!r} cannot be read: {error}") from error
