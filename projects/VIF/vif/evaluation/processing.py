"""What may happen to features before they are ranked: off by default, named in the output, per protocol."""

from typing import List, NamedTuple, Optional


class Expansion(NamedTuple):
    """Average query expansion: neighbours, exponent of their weights, repetitions."""

    k: int = 5
    alpha: float = 3.0
    times: int = 1


class Rerank(NamedTuple):
    """k-reciprocal re-ranking: neighbours of the test, of the average, share of the original distance."""

    k1: int = 20
    k2: int = 6
    weight: float = 0.3


class Processing(NamedTuple):
    """A metric, "cosine" or "euclidean", and the post-processing before it."""

    metric: str = "cosine"
    expansion: Optional[Expansion] = None
    rerank: Optional[Rerank] = None

    def describe(self) -> str:
        """What a printed table is headed with, e.g. ``cosine, re-ranking k1=20 k2=6 weight=0.3``."""
        parts: List[str] = [self.metric]
        if self.expansion is not None:
            parts.append("query expansion k={} alpha={:g} times={}".format(*self.expansion))
        if self.rerank is not None:
            parts.append("re-ranking k1={} k2={} weight={:g}".format(*self.rerank))
        return ", ".join(parts)
