"""Sections as text: Markdown and LaTeX to read, CSV to compute with."""

import csv
import io
import re
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..evaluation.protocols import PROTOCOLS
from .published import valid_queries
from .results import Cell
from .summary import Estimate
from .tables import Entry, Section

OURS = "Mean over seeds [95 % t-interval]; no interval: a single seed."
EFFECT = "Effect: the arm minus {}, over the seeds that both have [95 % t-interval]; n.s.: it holds 0."
PUBLISHED = "Published: as printed (minus the printed baseline); the paper gives no spread."


class Block(NamedTuple):
    """The table of one data set and protocol."""

    title: str
    headers: List[str]
    rows: List[List[str]]


def blocks(section: Section) -> List[Block]:
    """One block per data set and protocol; columns without any number are left out."""
    found = []
    for cell in dict.fromkeys(e.cell for e in section.entries):
        entries = [e for e in section.entries if e.cell == cell]
        metrics = list(dict.fromkeys(e.metric for e in entries))
        arms: Dict[str, Dict[str, Entry]] = {}
        for entry in entries:
            arms.setdefault(entry.arm, {})[entry.metric] = entry
        headers = ["Method", "Runs"]
        for metric in metrics:
            headers += [metric, f"{metric} effect", f"{metric} published", f"{metric} ours - published"]
        rows = []
        for name, by_metric in arms.items():
            any_entry = next(iter(by_metric.values()))
            row = [name, any_entry.state]
            for metric in metrics:
                row += _cells(by_metric.get(metric))
            rows.append([*row, next((_source(e) for e in by_metric.values() if e.published), "")])
        kept = [k for k in range(len(headers) + 1) if any(row[k] for row in rows)]
        headers.append("Published in")
        rows = [[row[k] for k in kept] for row in rows]
        found.append(Block(_title(entries), [headers[k] for k in kept], rows))
    return found


def protocol_label(cell: Cell) -> str:
    """Title and name of a protocol, as "A<->G (AG)"."""
    rows = PROTOCOLS.get(cell[0].split(" ")[0], ())  # "CARGO held-out" has CARGO's
    title = next((row.title for row in rows if row.name == cell[1]), cell[1])
    return cell[1] if title == cell[1] else f"{title} ({cell[1]})"


def markdown(sections: Sequence[Section]) -> str:
    """GitHub tables under headings."""
    from tabulate import tabulate

    parts = []
    for section in sections:
        parts.append(f"## {section.title}")
        for block in blocks(section):
            escaped = [[text.replace("|", "\\|") for text in row] for row in (block.headers, *block.rows)]
            align = ["left", *["right"] * (len(block.headers) - 1)]
            table = tabulate(
                escaped[1:], headers=escaped[0], tablefmt="github", colalign=align, disable_numparse=True
            )
            parts += [f"### {block.title}", table]
        notes = [f"- {note}" for note in _notes(section)]
        if notes:
            parts.append("\n".join(notes))
    return "\n\n".join(parts) + "\n"


def latex(sections: Sequence[Section]) -> str:
    """One `table*` per block; needs the package booktabs."""
    parts = ["% \\usepackage{booktabs}"]
    for section in sections:
        notes = " ".join(_notes(section))
        for block in blocks(section):
            lines = [
                "\\begin{table*}",
                f"\\caption{{{_escape(f'{section.title}. {block.title}. {notes}'.strip())}}}",
                f"\\begin{{tabular}}{{l{'r' * (len(block.headers) - 1)}}}",
                "\\toprule",
                _latex_row(block.headers),
                "\\midrule",
                *map(_latex_row, block.rows),
                "\\bottomrule",
                "\\end{tabular}",
                "\\end{table*}",
            ]
            parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def long_csv(sections: Sequence[Section]) -> str:
    """One row per arm, data set, protocol and metric, with every number in full; empty: not known."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(_COLUMNS), lineterminator="\n")
    writer.writeheader()
    for section in sections:
        for entry in section.entries:
            writer.writerow({name: value(section, entry) for name, value in _COLUMNS.items()})
    return out.getvalue()


FORMATS: Dict[str, Callable[[Sequence[Section]], str]] = {
    "markdown": markdown,
    "csv": long_csv,
    "latex": latex,
}


def _end(name: str, end: str) -> Callable[[Section, Entry], object]:
    return lambda s, e: getattr(getattr(e, name), end, None)


_COLUMNS: Dict[str, Callable[[Section, Entry], object]] = {
    "table": lambda s, e: s.table,
    "sweep": lambda s, e: s.results.sweep if s.results else "",
    "trained_on": lambda s, e: s.results.data if s.results else "",
    "dataset": lambda s, e: e.cell[0],
    "protocol": lambda s, e: e.cell[1],
    "valid_queries": lambda s, e: e.valid,
    "arm": lambda s, e: e.arm,
    "grid": lambda s, e: e.grid,
    "metric": lambda s, e: e.metric,
    "runs": lambda s, e: e.state,
    "collapsed": lambda s, e: e.collapsed if e.state else None,
    "seeds": _end("ours", "seeds"),
    "mean": _end("ours", "mean"),
    "low": _end("ours", "low"),
    "high": _end("ours", "high"),
    "baseline": lambda s, e: s.baseline,
    "effect_seeds": _end("effect", "seeds"),
    "effect": _end("effect", "mean"),
    "effect_low": _end("effect", "low"),
    "effect_high": _end("effect", "high"),
    "effect_distinguishable": _end("effect", "distinguishable"),
    "published_dataset": _end("published", "dataset"),
    "published": _end("published", "value"),
    "published_effect": lambda s, e: e.published_effect,
    "ours_minus_published": lambda s, e: e.difference,
    "source": _end("published", "source"),
}


def _title(entries: List[Entry]) -> str:
    """What the block's scores stand under: protocol, data set, valid queries."""
    (dataset, protocol), valid = entries[0].cell, entries[0].valid
    printed = dict.fromkeys(e.published.dataset for e in entries if e.published)
    parts = [f"{protocol_label(entries[0].cell)} on {_counted(dataset, valid)}"]
    parts += [f"published on {_counted(d, valid_queries(d, protocol))}" for d in printed if d != dataset]
    return "; ".join(parts)


def _counted(dataset: str, valid: Optional[int]) -> str:
    return f"{dataset}, " + ("valid queries not published" if valid is None else f"{valid:,} valid queries")


def _cells(entry: Optional[Entry]) -> Tuple[str, str, str, str]:
    """Ours, effect, published, ours - published; empty where not known."""
    if entry is None:
        return "", "", "", ""
    effect = _estimate(entry.effect, "+")
    if entry.effect and entry.effect.low is not None and not entry.effect.distinguishable:
        effect += " n.s."
    printed = f"{entry.published.value:.2f}" if entry.published else ""
    if entry.published_effect is not None:
        printed += f" ({entry.published_effect:+.2f})"
    difference = "" if entry.difference is None else f"{entry.difference:+.2f}"
    return _estimate(entry.ours, ""), effect, printed, difference


def _estimate(estimate: Optional[Estimate], sign: str) -> str:
    if estimate is None:
        return ""
    ends = "" if estimate.low is None else f" [{estimate.low:{sign}.2f}, {estimate.high:{sign}.2f}]"
    return f"{estimate.mean:{sign}.2f}{ends}"


def _source(entry: Entry) -> str:
    return f"{entry.published.source}, {entry.published.dataset}" if entry.published else ""


def _notes(section: Section) -> List[str]:
    """The legend of what the section shows, then its own notes."""
    legend = [
        (OURS, any(e.ours for e in section.entries)),
        (EFFECT.format(section.baseline), any(e.effect for e in section.entries)),
        (PUBLISHED, any(e.published_effect is not None for e in section.entries)),
    ]
    return [*(text for text, shown in legend if shown), *section.notes]


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<->": r"$\leftrightarrow$",
    "->": r"$\rightarrow$",
    "<": "$<$",
    ">": "$>$",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}
_SPECIAL = re.compile("|".join(map(re.escape, sorted(_LATEX, key=len, reverse=True))) + r"|(?<![\w)])-(?=\d)")


def _escape(text: str) -> str:
    """Text that LaTeX prints as it stands; the sign of a number becomes a minus."""
    return _SPECIAL.sub(lambda match: _LATEX.get(match.group(), "$-$"), text)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_escape, cells)) + r" \\"
