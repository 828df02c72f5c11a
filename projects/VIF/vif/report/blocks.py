"""What a page is made of: sections of blocks, plain values that the template lays out."""

from dataclasses import dataclass, field
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from ..evaluation.evaluate import Sides
from ..evaluation.protocols import Protocol
from ..evaluation.ranking import Ranking
from ..features import FeatureTable
from .canvas import Drawing
from .lists import RankedList


class Lacking(Exception):
    """A section lacks its input; the text says which."""


class Contest(NamedTuple):
    """One protocol, scored."""

    protocol: Protocol
    sides: Sides
    ranking: Ranking


class Text(NamedTuple):
    """A paragraph; `warning` sets it apart."""

    text: str
    warning: bool = False
    kind: str = "text"


class Facts(NamedTuple):
    """Names and values, side by side."""

    rows: List[Tuple[str, str]]
    kind: str = "facts"


class Table(NamedTuple):
    """A table; `numeric` sets all but the first column to the right, `folded` is a title it hides behind."""

    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: bool = False
    folded: str = ""
    kind: str = "table"


class Picture(NamedTuple):
    """A figure with its caption."""

    drawing: Drawing
    kind: str = "picture"


class Lists(NamedTuple):
    """The ranked lists of one protocol, by the title of their group."""

    protocol: Protocol
    groups: Dict[str, List[RankedList]]
    kind: str = "lists"


Block = Union[Text, Facts, Table, Picture, Lists]


class Section(NamedTuple):
    """A heading with its blocks."""

    anchor: str
    title: str
    blocks: List[Block]


@dataclass(frozen=True)
class Report:
    """All that a page shows.

    Attributes:
        title: of the page.
        sections: in order.
        left_out: (section, reason).
        shown: table that lists name their images by; None without lists.
    """

    title: str
    sections: List[Section] = field(default_factory=list)
    left_out: List[Tuple[str, str]] = field(default_factory=list)
    shown: Optional[FeatureTable] = None

    def drawings(self) -> List[Drawing]:
        """Every figure of the page."""
        return [b.drawing for section in self.sections for b in section.blocks if isinstance(b, Picture)]
