"""How objects show themselves in a notebook: a title, facts, perhaps a table; all text escaped."""

from html import escape
from typing import Any, Iterable, Sequence


def card(title: str, facts: Iterable[Sequence[Any]], *parts: str) -> str:
    """HTML of an object.

    Args:
        title: its class, mostly.
        facts: (name, value) pairs; those with an empty value are left out.
        parts: HTML to put below, as `grid` makes it.
    """
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(str(name))}</th>"
        f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
        for name, value in facts
        if str(value)
    )
    return f"<div><strong>{escape(title)}</strong><table>{rows}</table>{''.join(parts)}</div>"


def grid(headers: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """HTML of a table."""
    head = _cells("th", headers)
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(tag: str, values: Iterable[Any]) -> str:
    return "".join(f"<{tag}>{escape(str(value))}</{tag}>" for value in values)


def thumbnail(uri: str, words: str, below: str) -> str:
    """HTML of a small picture with words for those who do not see it, and text below it."""
    return (
        f"<figure style='display:inline-block;margin:2px;text-align:center;font-size:80%'>"
        f"<img src='{escape(uri)}' alt='{escape(words)}' style='height:96px'>"
        f"<figcaption>{escape(below)}</figcaption></figure>"
    )
