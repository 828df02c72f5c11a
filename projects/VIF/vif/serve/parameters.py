"""Query parameters of the API; an unknown one is an error, so that a misspelt filter does not pass unseen."""

from typing import Annotated, List, Optional

from pydantic import BaseModel, Field

from ..retrieval import Filter
from ..retrieval.labels import parse_time

MAX_K = 500
MAX_PAGE = 200
Number = Annotated[int, Field(ge=0, lt=2**63)]  # of an id or a camera


class Conditions(BaseModel, extra="forbid"):
    """Which rows pass."""

    views: Optional[List[str]] = Field(None, description="only these views, as views=aerial&views=ground")
    camids: Optional[List[Number]] = Field(None, description="only these cameras, as camids=1&camids=2")
    since: Optional[str] = Field(None, description="at this time or later: ISO 8601 (UTC) or seconds")
    until: Optional[str] = Field(None, description="before this time")

    def filter(self, other_cameras: bool = False) -> Filter:
        """The same as a `Filter`.

        Raises:
            DataError: a time that is none.
            ConfigError: a range that holds no time.
        """
        since, until = (parse_time(text) if text else None for text in (self.since, self.until))
        return Filter(self.camids, self.views, since, until, other_cameras=other_cameras)


class Browse(Conditions):
    """Of GET /api/rows."""

    find: str = Field("", max_length=500, description="only rows with this in their path, or with this id")
    offset: Number = Field(0, description="rows to skip")
    limit: int = Field(60, ge=1, le=MAX_PAGE, description="rows of the answer")


class Similar(Conditions):
    """Of GET /api/similar/{id}."""

    k: int = Field(20, ge=1, le=MAX_K, description="neighbours")
    other_cameras: bool = Field(False, description="not the query's own camera")


class Search(Similar):
    """Of POST /api/search."""

    query_camid: Optional[Number] = Field(None, description="the image's own camera, for other_cameras")
