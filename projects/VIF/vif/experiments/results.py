"""Results files that `vif sweep` writes, read back and checked."""

import json
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Set, Tuple, Type

from ..errors import DataError
from ..evaluation.evaluate import SCORES
from .published import TITLES

FORMAT = "vif-sweep/1"
FIGURE = "figure4"
VALID = "valid_queries"

Cell = Tuple[str, str]
"""(data set, protocol): what scores stand under. Scores of two cells are never put together."""

_KINDS: Dict[Any, str] = {
    str: "text",
    int: "an integer",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}


@dataclass(frozen=True)
class Run:
    """One training with one seed.

    Attributes:
        arm: what it is called in tables.
        grid: name of the grid that it belongs to; empty for a listed arm.
        values: config keys that the grid varies, with this run's values.
        seed: SEED.
        status: "done", "failed" or "waiting".
        error: last words of a failed run.
        collapsed: whether its embeddings ended up all alike.
        scores: (data set, protocol) -> score name -> percent, and "valid_queries"; empty unless done.
    """

    arm: str
    grid: str
    values: Dict[str, Any]
    seed: int
    status: str
    error: str
    collapsed: bool
    scores: Dict[Cell, Dict[str, float]]


@dataclass(frozen=True)
class Results:
    """One file: a sweep and its runs, finished or not.

    Attributes:
        path: the file.
        sweep: the sweep's name.
        title: what it compares.
        table: "1" to "5", "figure4", or "" where the paper has neither.
        data: data set that its configs are for.
        baseline: arm that differences are taken to, or "".
        runs: in the sweep's order.
    """

    path: str
    sweep: str
    title: str
    table: str
    data: str
    baseline: str
    runs: Tuple[Run, ...]

    def cells(self) -> List[Cell]:
        """What was scored, in the order of the file."""
        return list(dict.fromkeys(cell for run in self.runs for cell in run.scores))


def read_results(path: str) -> Results:
    """Read a results file.

    Raises:
        DataError: the file is missing, no JSON, of another format, or a key is missing or wrong, a run stands
            there twice, or the runs disagree on a protocol's valid queries; names the file and the key.
    """
    try:
        with open(path, encoding="utf-8") as f:
            content = json.load(f)
    except (OSError, ValueError) as e:
        raise DataError(f"{path} cannot be read as results of `vif sweep`: {e}") from e
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise DataError(
            f"{path}: format must be {FORMAT!r}, got {found!r}. Name a file that `vif sweep` wrote."
        )
    table = _get(path, content, "table", str)
    if table not in ("", FIGURE, *TITLES):
        raise DataError(
            f"{path}: table must be one of {', '.join((*TITLES, FIGURE))} or empty, got {table!r}."
        )
    runs = []
    seen: Set[Tuple[str, str, int]] = set()
    for number, entry in enumerate(_get(path, content, "runs", list)):
        run = _run(path, entry, f"runs[{number}].")
        if (run.arm, run.grid, run.seed) in seen:
            raise DataError(
                f"{path}: runs[{number}] is {run.arm!r} with seed {run.seed} a second time; keep one."
            )
        seen.add((run.arm, run.grid, run.seed))
        runs.append(run)
    _check_valid_queries(path, runs)
    names = {name: _get(path, content, name, str) for name in ("sweep", "title", "data", "baseline")}
    return Results(path=path, table=table, runs=tuple(runs), **names)


def _run(path: str, entry: Any, where: str) -> Run:
    if not isinstance(entry, dict):
        raise DataError(f"{path}: {where[:-1]} must be a mapping, got {entry!r}.")
    status = _get(path, entry, "status", str, where)
    if status not in ("done", "failed", "waiting"):
        raise DataError(f"{path}: {where}status must be done, failed or waiting, got {status!r}.")
    done = status == "done"
    return Run(
        arm=_get(path, entry, "arm", str, where),
        grid=_get(path, entry, "grid", str, where),
        values=_get(path, entry, "values", dict, where),
        seed=_get(path, entry, "seed", int, where),
        status=status,
        error=_get(path, entry, "error", str, where),
        collapsed=done and _get(path, entry, "collapsed", bool, where),
        scores=_scores(path, entry, where) if done else {},
    )


def _scores(path: str, entry: Mapping[str, Any], where: str) -> Dict[Cell, Dict[str, float]]:
    found: Dict[Cell, Dict[str, float]] = {}
    results = _get(path, entry, "results", dict, where)
    for dataset in results:
        protocols = _get(path, results, dataset, dict, f"{where}results.")
        for protocol in protocols:
            key = f"{where}results.{dataset}.{protocol}"
            scores = _get(path, protocols, protocol, dict, f"{where}results.{dataset}.")
            for name in (*SCORES, VALID):
                low, high = (1.0, 1e9) if name == VALID else (0.0, 100.0)
                value = scores.get(name)
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                    raise DataError(
                        f"{path}: {key}.{name} must be a number from {low:g} to {high:g}, got {value!r}."
                    )
            found[dataset, protocol] = {name: scores[name] for name in (*SCORES, VALID)}
    if not found:
        raise DataError(
            f"{path}: {where}results of a finished run is empty; expected data set -> protocol -> scores."
        )
    return found


def _check_valid_queries(path: str, runs: List[Run]) -> None:
    """Runs of one data set and protocol were asked the same queries, or their scores do not compare."""
    first: Dict[Cell, Run] = {}
    for run in runs:
        for cell, scores in run.scores.items():
            other = first.setdefault(cell, run)
            if scores[VALID] != other.scores[cell][VALID]:
                raise DataError(
                    f"{path}: {' '.join(cell)} has {scores[VALID]:g} valid_queries in {run.arm!r} seed "
                    f"{run.seed} and {other.scores[cell][VALID]:g} in {other.arm!r} seed {other.seed}. The "
                    "images changed between the runs: run the sweep anew, into another folder."
                )


def _get(path: str, mapping: Mapping[str, Any], key: str, kind: Type[Any], where: str = "") -> Any:
    value = mapping.get(key)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise DataError(
            f"{path}: {where}{key} must be {_KINDS[kind]}, got {value!r}. Name a file that `vif sweep` wrote."
        )
    return value
