"""Numbers of the paper's tables, ours beside the published: an entry per arm, data set, protocol, metric."""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..errors import EvaluationError
from ..evaluation.evaluate import SCORES
from .published import LATER, SYSTEMS, TITLES, Published, table_rows, valid_queries
from .results import VALID, Cell, Results
from .summary import Arm, Estimate, arms, find_baseline

METRICS = ("Rank-1", "mAP", "mINP")  # the paper's columns


class Entry(NamedTuple):
    """What is known of one number of a table.

    Attributes:
        cell: (data set, protocol) that it stands under: of our runs, or of the paper where there are none.
        metric: name of the score.
        arm: the table's first column.
        state: how many of our runs are done; empty if none was planned.
        grid: name of the sweep's grid that the arm is a point of, if it is.
        collapsed: how many of the done runs ended with all embeddings alike.
        valid: valid queries behind our score, or behind the printed one where there is none of ours; None:
            not known.
        ours: mean over seeds.
        effect: ours minus the baseline arm, paired by seed.
        published: the printed row of the same method, protocol and metric, on whatever data set it is.
        published_effect: its value minus the printed value of the baseline arm.
        difference: mean of ours minus the printed value, only where both are of one data set and its queries.
    """

    cell: Cell
    metric: str
    arm: str
    state: str = ""
    grid: str = ""
    collapsed: int = 0
    valid: Optional[int] = None
    ours: Optional[Estimate] = None
    effect: Optional[Estimate] = None
    published: Optional[Published] = None
    published_effect: Optional[float] = None
    difference: Optional[float] = None


class Section(NamedTuple):
    """One table: its entries, cell by cell in the paper's order, and what to know beside them.

    `results` is the file that it was made of; None for published numbers alone.
    """

    title: str
    table: str
    entries: List[Entry]
    notes: List[str]
    results: Optional[Results] = None

    @property
    def baseline(self) -> str:
        """The arm that effects are taken to, or ""."""
        return self.results.baseline if self.results else ""


def sections(
    results: Sequence[Results],
    tables: Sequence[str] = (),
    protocols: Sequence[str] = (),
    metrics: Sequence[str] = METRICS,
    later: bool = False,
) -> List[Section]:
    """The tables of results files, or of the paper alone.

    Args:
        results: one section each.
        tables: of "1" to "5": only these, as published where no file has them. Empty: every file, or all five
            tables as published where there is no file.
        protocols: names; empty: those with published numbers, or all where none has.
        metrics: of `SCORES`, in the order of the columns.
        later: append later systems to Tables 1 and 2; without files and `tables`, also those on AG-ReIDv2.

    Raises:
        EvaluationError: a metric is unknown, or a protocol is in no section; lists what there is.
    """
    unknown = [name for name in metrics if name not in SCORES]
    if unknown:
        raise EvaluationError(
            f"unknown metric {', '.join(map(repr, unknown))}; there are {', '.join(SCORES)}."
        )
    chosen = [r for r in results if not tables or r.table in tables]
    alone = [t for t in tables or ([] if results else TITLES) if t not in {r.table for r in chosen}]
    found = [_compared(r, metrics, later) for r in chosen] + [_printed(t, metrics, later) for t in alone]
    if later and not results and not tables:
        found.append(_printed(LATER, metrics, later))
    known = list(dict.fromkeys(e.cell[1] for section in found for e in section.entries))
    missing = [name for name in protocols if name not in known]
    if missing:
        raise EvaluationError(
            f"no scores of protocol {', '.join(map(repr, missing))}; there are {', '.join(known) or 'none'}."
        )
    kept = [s._replace(entries=_of_protocols(s.entries, protocols)) for s in found]
    return [s for s in kept if s.entries or s.notes]


def _of_protocols(entries: List[Entry], protocols: Sequence[str]) -> List[Entry]:
    wanted = set(protocols) or {e.cell[1] for e in entries if e.published is not None}
    return [e for e in entries if not wanted or e.cell[1] in wanted]


def _printed(table: str, metrics: Sequence[str], later: bool) -> Section:
    """A table as published."""
    rows = table_rows(table, [SYSTEMS[table]] if later and table in SYSTEMS else [])
    if table == LATER:  # Tables 1 and 2 have the others
        rows = [row for row in rows if row.dataset not in SYSTEMS.values()]
    cells = list(dict.fromkeys((row.dataset, row.protocol) for row in rows))
    entries = [
        Entry(cell, metric, row.method, valid=valid_queries(*cell), published=row)
        for cell in cells
        for row in rows
        for metric in metrics
        if (row.dataset, row.protocol, row.metric) == (*cell, metric)
    ]
    title = f"Table {table}: {TITLES[table]}" if table in TITLES else "Later systems"
    return Section(f"{title}, as published", table, entries, [])


def _compared(results: Results, metrics: Sequence[str], later: bool) -> Section:
    """The table of one results file; the paper's rows and columns first, in its order."""
    datasets = (SYSTEMS[results.table], results.data) if later and results.table in SYSTEMS else ()
    rows = table_rows(results.table, datasets) if results.table in TITLES else []
    printed = {(row.method, row.protocol, row.metric): row for row in rows}
    ours = {arm.name if not arm.grid else f"{arm.grid}: {arm.name}": arm for arm in arms(results)}
    first = [row.method for row in rows if row.table != LATER]
    last = [row.method for row in rows if row.table == LATER]
    names = list(dict.fromkeys([*first, *(name for name in ours if name not in last), *last]))
    order = list(dict.fromkeys(row.protocol for row in rows))
    scored = results.cells() or list(dict.fromkeys((row.dataset, row.protocol) for row in rows))
    cells = sorted(scored, key=lambda c: order.index(c[1]) if c[1] in order else len(order))
    entries = [
        _entry(results, cell, metric, name, ours.get(name), printed)
        for cell in cells
        for name in names
        if name in ours or any(key[:2] == (name, cell[1]) for key in printed)
        for metric in metrics
    ]
    return Section(
        title=f"{results.title}: {results.data}",
        table=results.table,
        entries=entries,
        notes=_notes(results),
        results=results,
    )


def _entry(
    results: Results,
    cell: Cell,
    metric: str,
    name: str,
    arm: Optional[Arm],
    printed: Dict[Tuple[str, str, str], Published],
) -> Entry:
    baseline = find_baseline(results)
    row = printed.get((name, cell[1], metric))
    base = printed.get((results.baseline, cell[1], metric))
    entry = Entry(cell, metric, name, valid=_valid(results, cell), published=row)
    if row and base and name != results.baseline and row.dataset == base.dataset:
        entry = entry._replace(published_effect=round(row.value - base.value, 2))  # printed with two digits
    if arm is None:
        return entry
    mean = arm.estimate(cell, metric)
    entry = entry._replace(state=arm.state(), grid=arm.grid, collapsed=len(arm.seeds("collapsed")), ours=mean)
    if baseline is not None and arm.name != baseline.name:
        entry = entry._replace(effect=arm.effect(baseline, cell, metric))
    if mean and row and row.dataset == cell[0] == results.data and _same_queries(results, cell):
        entry = entry._replace(difference=mean.mean - row.value)
    return entry


def _valid(results: Results, cell: Cell) -> Optional[int]:
    """Valid queries of our runs; of the published scores where none is done."""
    counts = (int(run.scores[cell][VALID]) for run in results.runs if cell in run.scores)
    return next(counts, valid_queries(*cell))


def _same_queries(results: Results, cell: Cell) -> bool:
    return valid_queries(*cell) in (None, _valid(results, cell))


def _notes(results: Results) -> List[str]:
    """What spoils or limits the comparison, in words."""
    notes = []
    if not results.cells():
        notes.append("No run is done yet.")
    for run in results.runs:
        if run.status == "failed":
            notes.append(f"{run.arm}, seed {run.seed}, failed: {run.error}")
    baseline = find_baseline(results)
    if results.baseline and (baseline is None or not baseline.seeds("done")):
        notes.append(f"No run of the baseline {results.baseline} is done: there are no effects.")
    if baseline is not None and baseline.seeds("collapsed"):
        notes.append(
            f"The baseline {baseline.name} collapsed in some runs: effects on it look better than they are."
        )
    for cell in results.cells():
        if not _same_queries(results, cell):
            notes.append(
                f"{' '.join(cell)}: {_valid(results, cell):,} valid queries here, "
                f"{valid_queries(*cell):,} behind the published scores, so the two are not subtracted."
            )
    return notes
