"""Evaluation protocols as a table: one row says who searches whom, and what the same-camera filter compares.

Worked examples of every rule are in docs/protocols.md.
"""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..errors import EvaluationError
from ..records import AERIAL, CCTV, GROUND, WEARABLE


class Protocol(NamedTuple):
    """One row.

    Attributes:
        name: short and unique within a data set, as "AG".
        title: what it says, as "A<->G" (both ways) or "A->G" (aerial queries, ground gallery).
        query_view: only queries of this view; None: all.
        gallery_view: only gallery images of this view; None: all.
        cameras: what the same-camera filter compares: "camid", the data set's cameras, or "view", as if all
            cameras of a view were one.
        query_split: the split that queries come from.
        gallery_split: the split that the gallery comes from.
    """

    name: str
    title: str
    query_view: Optional[str] = None
    gallery_view: Optional[str] = None
    cameras: str = "camid"
    query_split: str = "query"
    gallery_split: str = "gallery"

    @property
    def label(self) -> str:
        """Title and name, as "A<->G (AG)"."""
        return self.name if self.title == self.name else f"{self.title} ({self.name})"


LETTERS = {AERIAL: "A", GROUND: "G", CCTV: "C", WEARABLE: "W"}


def _one_way(query: str, gallery: str) -> Protocol:
    q, g = view_code(query), view_code(gallery)
    return Protocol(f"{q}2{g}", f"{q}->{g}", query, gallery, "view")


def _same_view(view: str) -> Protocol:
    code = view_code(view)
    return Protocol(_join([code, code]), f"{code}<->{code}", view, view, "camid")


def _domains(views: Sequence[str]) -> Protocol:
    codes = [view_code(view) for view in views]
    return Protocol(_join(codes), "<->".join(codes), cameras="view")


def _join(codes: Sequence[str]) -> str:
    return ("" if all(code in LETTERS.values() for code in codes) else "-").join(codes)


def view_code(view: str) -> str:
    """The view's part of a protocol name: A, G, C or W for the four known views, else the word itself.

    A word that could be misread (one letter, or with anything but letters) comes in brackets.
    """
    if view in LETTERS:
        return LETTERS[view]
    return view if view.isalpha() and len(view) > 1 else f"[{view}]"


def view_protocols(views: Sequence[str]) -> Tuple[Protocol, ...]:
    """Protocols of a data set of one's own, from the names of its views.

    Args:
        views: names of the views, in any order, repeats allowed.

    Returns:
        The rule of domains over all views (the headline), ALL, then each view by itself, then every ordered
        pair of two views. With a single view there is nothing to cross, and only ALL.

    Raises:
        EvaluationError: no view is named.
    """
    names = sorted(set(views), key=lambda view: (view not in LETTERS, view_code(view)))
    if not names:
        raise EvaluationError("no views: the query and gallery images name none. Label each with its view.")
    if len(names) == 1:
        return (_ALL,)
    rows = [_domains(names), _ALL, *map(_same_view, names)]
    rows.extend(_one_way(query, gallery) for query in names for gallery in names if query != gallery)
    return tuple(rows)


def _listed(name: str) -> Protocol:
    return Protocol(
        name, name.replace("2", "->"), query_split=f"query@{name}", gallery_split=f"gallery@{name}"
    )


_ALL = Protocol("ALL", "ALL")
_AG = _domains([AERIAL, GROUND])
_GG = _same_view(GROUND)
_AA = _same_view(AERIAL)
_A2G = _one_way(AERIAL, GROUND)
_G2A = _one_way(GROUND, AERIAL)

PROTOCOLS: Dict[str, Tuple[Protocol, ...]] = {
    "CARGO": (_AG, _ALL, _GG, _AA, _A2G, _G2A),
    "CARGO_AA": (_AA,),
    "CARGO_GG": (_GG,),
    "CARGO_AG": (_AG,),
    "SynthAG": (_AG, _ALL, _GG, _AA, _A2G, _G2A),
    "AGReIDv1": (_A2G, _G2A),
    "AGReIDv2": (_listed("A2C"), _listed("A2W"), _listed("C2A"), _listed("W2A")),
    "DEFAULT": (_ALL,),
}
"""Rows by data set. The first is the headline, the one that chooses the best checkpoint.

DEFAULT, the plain Market-1501 rule, serves every data set without rows of its own.
"""


def known_protocols(dataset: str, views: Sequence[str]) -> Tuple[Protocol, ...]:
    """Rows of a data set; of its views where it has none of its own, DEFAULT where it has no views either."""
    if dataset in PROTOCOLS:
        return PROTOCOLS[dataset]
    named = sorted({str(view) for view in views if str(view)})
    return view_protocols(named) if named else PROTOCOLS["DEFAULT"]


def select(names: Sequence[str], available: Sequence[Protocol]) -> List[Protocol]:
    """The rows of ``available`` that are named, in their order there; all of them if no name is given.

    Raises:
        EvaluationError: a name is unknown; lists those there are.
    """
    unknown = [name for name in names if name not in {row.name for row in available}]
    if unknown:
        raise EvaluationError(
            f"unknown protocol {', '.join(map(repr, unknown))}; this data set has "
            f"{', '.join(row.name for row in available)}."
        )
    return [row for row in available if not names or row.name in names]
