"""Images that cannot be read: what takes their place in training, how they are named and counted.

Whether an image is bad is found when it is read, in a worker process; the loader's own process counts. What
takes an image's place depends on the seed and the draw alone, as everything else of a sample does.
"""

import logging
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Sequence

import numpy as np

logger = logging.getLogger(__name__)

KEY = "unreadable"  # under which a batch carries the bad images that were met on its way
NAMED = 20  # bad images that the log names one by one
IDENTITIES = 10  # whose images are tried in place of a bad one before the data set counts as lost


class BadImage(NamedTuple):
    """An image that could not be read.

    Attributes:
        row: its place in the data set.
        path: its file.
        reason: why, with the file's name.
    """

    row: int
    path: str
    reason: str


class Unreadable:
    """The bad images that a loader of this process has met.

    Attributes:
        found: each bad image once, by its place in the data set.
        draws: samples that met one.
    """

    def __init__(self) -> None:
        self.found: Dict[int, BadImage] = {}
        self.draws = 0

    def add(self, bad: Iterable[BadImage]) -> None:
        """Count what one batch met; say each image once, up to `NAMED` of them."""
        for image in bad:
            self.draws += 1
            if image.row in self.found:
                continue
            self.found[image.row] = image
            if len(self.found) <= NAMED:
                logger.warning("Unreadable: %s", image.reason)
            if len(self.found) == NAMED:
                logger.warning("Further unreadable images are counted and not named")

    def state_dict(self) -> Dict[str, Any]:
        """The count, as plain values."""
        return {"found": [tuple(image) for image in self.found.values()], "draws": self.draws}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Go on with it."""
        self.found = {image[0]: BadImage(*image) for image in state["found"]}
        self.draws = state["draws"]


_training = Unreadable()


def start_training(count: Unreadable) -> None:
    """Make `count` what `training_count` reads from then on; a trainer has loaders of other use as well."""
    global _training
    _training = count


def training_count() -> Unreadable:
    """The count of the last trainer of this process; empty where there was none."""
    return _training


class Substitutes:
    """What is drawn in place of a bad image: another of its identity, so that a batch keeps its P x K.

    Where an identity has no other image that can be read, the next identity in sorted order stands in for
    it, the same one for all its draws.

    Args:
        pids: (N,) identity of each image.
    """

    def __init__(self, pids: Sequence[Any]) -> None:
        self._rows: Dict[Any, List[int]] = {}
        for index, pid in enumerate(pids):
            self._rows.setdefault(pid, []).append(index)
        self._pids = sorted(self._rows)
        self._place = {pid: place for place, pid in enumerate(self._pids)}

    def of(self, index: int, pid: Any, seed: int, draw: int) -> Iterator[int]:
        """Indices to try, best first; of `IDENTITIES` identities at most."""
        for step in range(min(IDENTITIES, len(self._pids))):
            rows = self._rows[self._pids[(self._place[pid] + step) % len(self._pids)]]
            order = np.random.default_rng((seed, draw, 1 + step)).permutation(len(rows))
            yield from (rows[place] for place in order if rows[place] != index)
